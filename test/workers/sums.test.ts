import assert from 'node:assert/strict'
import { Metrics } from '../../sidecar/telemetry/metrics.ts'
import { prometheusText } from '../../sidecar/telemetry/prometheus.ts'
import { addCounts, addFamilies } from '../../sidecar/workers/sums.ts'
import { suite } from '../support/suite.ts'

const test = suite('workers/sums')
const CALL = { direction: 'inbound', peer: 'orders', method: 'GET', status: 200, error: '' } as const

function processes(...pairs: number[]): Metrics[] {
  return pairs.map((count) => {
    const metrics = new Metrics()
    metrics.watch({
      openCalls: () => ({ inbound: 3, outbound: 0 }),
      tunnels: () => ({ initiator: 1, responder: 0 }),
      pairs: async () => ({ initiator: count, responder: 0 }),
    })
    return metrics
  })
}

async function textOf(all: Metrics[], accept = ''): Promise<string[]> {
  // They are cloned on their way from process to process.
  const families = structuredClone(await Promise.all(all.map((metrics) => metrics.families())))
  return (await prometheusText(addFamilies(families), accept, [])).body.split('\n')
}

test('counts and times are added up by their labels', async () => {
  const [one, another] = processes(1, 1) as [Metrics, Metrics]
  one.served(CALL, 0.002)
  one.served(CALL, 20)
  another.served(CALL, 0.03)
  another.served({ ...CALL, peer: 'web' }, 1)
  one.rejected('sent', 'replayed')
  another.rejected('sent', 'replayed')
  one.carried('inbound', 'tunnel')
  another.carried('inbound', 'tunnel')
  another.carried('inbound', 'message')
  one.record('received', 0.001)
  another.record('received', 0.002)
  const lines = await textOf([one, another])
  const labels =
    'http_request_method="GET",http_response_status_code="200",mte_direction="inbound",mte_peer="orders"'
  for (const line of [
    `http_server_request_duration_seconds_bucket{le="0.005",${labels}} 1`,
    `http_server_request_duration_seconds_bucket{le="0.05",${labels}} 2`,
    `http_server_request_duration_seconds_bucket{le="+Inf",${labels}} 3`,
    `http_server_request_duration_seconds_sum{${labels}} 20.032`,
    `http_server_request_duration_seconds_count{${labels}} 3`,
    `http_server_request_duration_seconds_count{${labels.replace('orders', 'web')}} 1`,
    'mte_rejects_total{direction="sent",code="replayed"} 2',
    'mte_replays_refused_total 2',
    'mte_calls_total{mte_direction="inbound",mte_carriage="tunnel"} 2',
    'mte_calls_total{mte_direction="inbound",mte_carriage="message"} 1',
    'mte_tunnel_records_total{direction="received"} 2',
  ])
    assert.ok(lines.includes(line), `${line}\nin\n${lines.join('\n')}`)
})

test('what is open is added up, and the pairs, which all of them share, are not', async () => {
  const lines = await textOf(processes(2, 2, 2))
  for (const line of [
    'mte_calls_open{direction="inbound"} 9',
    'mte_tunnels{role="initiator"} 3',
    'mte_pairs{role="initiator"} 2',
  ])
    assert.ok(lines.includes(line), lines.join('\n'))
})

test('counts by name are added up, of whichever process they are', () => {
  const counts = [{ web: 2, billing: 1 }, {}, { billing: 3, audit: 1 }].map(
    (one) => new Map(Object.entries(one)),
  )
  assert.deepEqual(addCounts(counts), new Map(Object.entries({ web: 2, billing: 4, audit: 1 })))
})

test('the newest exemplar of a bucket stays', async () => {
  const [one, another] = processes(1, 1) as [Metrics, Metrics]
  one.served(CALL, 0.002, 'a'.repeat(32))
  another.served(CALL, 0.003)
  one.served(CALL, 20)
  another.served(CALL, 20, 'b'.repeat(32))
  const exemplars = (await textOf([one, another], 'application/openmetrics-text')).filter((line) =>
    line.includes('trace_id'),
  )
  assert.deepEqual(
    exemplars.map((line) => /le="([^"]+)".*trace_id="(.)/.exec(line)?.slice(1)),
    [
      ['0.005', 'a'],
      ['+Inf', 'b'],
    ],
  )
})

test.run()
