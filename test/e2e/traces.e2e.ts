/** Traces and metrics of calls between two apps, as real Jaeger and a real OpenTelemetry collector have them. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { formatTree, type TraceNode, walk } from '../../sidecar/trace-tree.ts'
import { type CallOptions, call } from '../support/call.ts'
import { type Collector, startCollector, validateConfig } from '../support/collector.ts'
import { type Jaeger, startJaeger } from '../support/jaeger.ts'
import { type MeshProxy, startMeshProxy } from '../support/mesh-proxy.ts'
import { type SidecarProcess, startProcess } from '../support/process.ts'
import { type Server, unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import { type CallingApp, callingApp, startCalledApp } from '../support/traced-apps.ts'

const BODY_BYTES = 1_000_000
/** How far the clocks of two processes may be apart, in us. */
const CLOCKS_US = 10_000
const POLL_MS = 100
const METRICS_DEADLINE_MS = 20_000

const test = suite('traces')

interface Sidecars {
  orders: SidecarProcess
  billing: SidecarProcess
  /** Starts billing's anew, at the port that it had. */
  startBilling(): Promise<SidecarProcess>
}

let jaeger: Jaeger
let collector: Collector
let ordersApp: CallingApp
let billingApp: Server
let sidecars: Sidecars
/** so many spans a trace */
const traces = new Map<string, number>()

test.before(async () => {
  jaeger = await startJaeger()
  collector = await startCollector(jaeger.otlpEndpoint)
  ordersApp = callingApp(collector.otlpUrl)
  billingApp = await startCalledApp(collector.otlpUrl)
  sidecars = await startSidecars()
})

test.after(async () => {
  await stopSidecars(sidecars)
  await ordersApp.close()
  await billingApp.close()
  await collector.stop()
  await jaeger.stop()
})

/**
 * Starts both, which tell the collector what they do.
 * @param between starts what is to stand between them, by the port of billing's, and gives its port
 */
async function startSidecars(
  env: Record<string, string> = {},
  between = async (port: number) => port,
): Promise<Sidecars> {
  const exporting = {
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.otlpUrl,
    OTEL_BSP_SCHEDULE_DELAY: 100,
    OTEL_METRIC_EXPORT_INTERVAL: 500,
    ...env,
  }
  const port = await unusedPort()
  const startBilling = () =>
    startProcess({
      ...exporting,
      NAME: 'billing',
      PORT: port,
      OUTBOUND_PORT: 'off',
      UPSTREAM: `http://127.0.0.1:${billingApp.port}`,
    })
  const billing = await startBilling()
  const orders = await startProcess({
    ...exporting,
    NAME: 'orders',
    PEERS: `billing=http://127.0.0.1:${await between(port)}`,
  })
  return { orders, billing, startBilling }
}

async function stopSidecars({ orders, billing }: Sidecars): Promise<void> {
  await orders.stop()
  await billing.stop()
}

/** Makes a call of the app, and gives its trace once that has so many spans. */
async function traced(options: CallOptions, status: number, spans: number): Promise<TraceNode> {
  const { traceId, answer } = await ordersApp.call(sidecars.orders.ports.outbound!, options)
  assert.equal(answer.status, status)
  traces.set(traceId, spans)
  const tree = await jaeger.waitForTree(traceId, spans)
  console.log(`\n${formatTree(tree)}`)
  checkTimes(tree)
  return tree
}

/** The tree as text, a line a span. */
function outline(tree: TraceNode): string[] {
  return [...walk(tree)].map(
    ({ node: { service, name, kind, status }, depth }) =>
      `${' '.repeat(depth)}${service}: ${name} ${kind}${status === 'ERROR' ? ' ERROR' : ''}`,
  )
}

/** Attributes of the only span of a service that has this name and kind; the nth, where there are more. */
function attributes(tree: TraceNode, service: string, name: string, kind = 'INTERNAL', nth = 0) {
  const found = [...walk(tree)].filter(
    ({ node }) => node.service === service && node.name === name && node.kind === kind,
  )
  return found[nth]!.node.attributes
}

/** A span begins while its parent lasts, and one of the same service ends before it. */
function checkTimes(parent: TraceNode): void {
  const endUs = parent.startUs + parent.durationUs
  for (const child of parent.children) {
    const what = `${child.service} ${child.name} below ${parent.service} ${parent.name}`
    const apartUs = child.service === parent.service ? 0 : CLOCKS_US
    assert.ok(child.startUs >= parent.startUs - apartUs, `${what} begins before it`)
    assert.ok(child.startUs <= endUs + apartUs, `${what} begins after its end`)
    // What serves a call learns later than who made it that the answer is complete.
    if (apartUs === 0) assert.ok(child.startUs + child.durationUs <= endUs, `${what} ends after it`)
    checkTimes(child)
  }
}

const PAIRING = [
  '  orders-mte: mte.handshake INTERNAL',
  '   orders-mte: POST CLIENT',
  '    billing-mte: POST SERVER',
  '     billing-mte: mte.handshake INTERNAL',
]
const CARRIED = [
  '  orders-mte: mte.encode request INTERNAL',
  '  orders-mte: POST CLIENT',
  '   billing-mte: POST SERVER',
  '    billing-mte: mte.decode request INTERNAL',
  '    billing-mte: POST CLIENT',
  '     billing: POST /v1/charges SERVER',
  '    billing-mte: mte.encode response INTERNAL',
  '  orders-mte: mte.decode response INTERNAL',
]

test('the first call of a peer shows the pairing that it waits for', async () => {
  const tree = await traced({ method: 'POST', body: 'x' }, 200, 14)
  assert.deepEqual(outline(tree), ['orders: POST CLIENT', ' orders-mte: POST SERVER', ...PAIRING, ...CARRIED])
  assert.equal(attributes(tree, 'orders-mte', 'mte.handshake')['mte.role'], 'initiator')
  assert.equal(attributes(tree, 'billing-mte', 'mte.handshake')['mte.role'], 'responder')
})

test('a call with a body of 1 MB is one tree over four services', async () => {
  const tree = await traced({ method: 'POST', body: Buffer.alloc(BODY_BYTES) }, 200, 10)
  assert.deepEqual(outline(tree), ['orders: POST CLIENT', ' orders-mte: POST SERVER', ...CARRIED])
  assert.equal(attributes(tree, 'orders-mte', 'POST', 'SERVER')['mte.direction'], 'outbound')
  assert.equal(attributes(tree, 'billing-mte', 'POST', 'SERVER')['mte.direction'], 'inbound')
  const carried = attributes(tree, 'orders-mte', 'POST', 'CLIENT')
  assert.equal(carried['service.peer.name'], 'billing-mte')
  assert.equal(carried['network.peer.address'], '127.0.0.1')
  assert.equal(carried['network.peer.port'], sidecars.billing.ports.inbound)
  assert.equal(attributes(tree, 'billing-mte', 'POST', 'CLIENT')['server.address'], '127.0.0.1')

  const encoded = attributes(tree, 'orders-mte', 'mte.encode request')
  const decoded = attributes(tree, 'billing-mte', 'mte.decode request')
  const bytes = Number(encoded['mte.input.size'])
  assert.ok(bytes > BODY_BYTES && bytes < BODY_BYTES + 1000, `${bytes} bytes were encoded`)
  assert.ok(Number(encoded['mte.output.size']) > bytes)
  assert.ok(Number(encoded['mte.chunk.count']) > 1)
  assert.equal(encoded['mte.message.type'], 'request')
  assert.equal(decoded['mte.input.size'], encoded['mte.output.size'])
  assert.equal(decoded['mte.output.size'], encoded['mte.input.size'])
  assert.equal(decoded['mte.chunk.count'], encoded['mte.chunk.count'])
})

test('a call that makes the sidecars pair again shows why, and that it was sent twice', async () => {
  await sidecars.billing.stop('SIGKILL')
  sidecars.billing = await sidecars.startBilling()
  const tree = await traced({ method: 'POST', body: 'x' }, 200, 18)
  assert.deepEqual(outline(tree), [
    'orders: POST CLIENT',
    ' orders-mte: POST SERVER',
    '  orders-mte: mte.encode request INTERNAL',
    '  orders-mte: POST CLIENT ERROR',
    '   billing-mte: POST SERVER',
    '    billing-mte: mte.decode request INTERNAL ERROR',
    ...PAIRING,
    ...CARRIED,
  ])
  const refused = attributes(tree, 'orders-mte', 'POST', 'CLIENT')
  assert.equal(refused['http.response.status_code'], 421)
  assert.equal(refused['error.type'], 'message-refused')
  assert.equal(refused['mte.reject.code'], 'state_lost')
  assert.equal(attributes(tree, 'billing-mte', 'POST', 'SERVER')['mte.reject.code'], 'state_lost')
  assert.equal(attributes(tree, 'orders-mte', 'POST', 'CLIENT', 2)['http.request.resend_count'], 1)
})

test('what nobody asked to be traced is not', async () => {
  const { orders, billing } = sidecars
  for (const port of [orders.ports.admin!, billing.ports.admin!])
    for (const path of ['/livez', '/readyz', '/metrics', '/pairs', '/'])
      assert.equal((await call(port, { path, headers: { host: `127.0.0.1:${port}` } })).status, 200, path)
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00'
  assert.equal((await call(orders.ports.outbound!, { headers: { traceparent } })).status, 200)
  // It is exported after what came before it.
  await traced({ method: 'POST', body: 'x' }, 200, 10)
  assert.deepEqual(new Set(await jaeger.traceIds('orders-mte')), new Set(traces.keys()))
  assert.deepEqual(new Set(await jaeger.traceIds('billing-mte')), new Set(traces.keys()))
})

test('with TRACE_CONTEXT=inside the tree is whole, and the network sees nothing of it', async () => {
  let network!: MeshProxy
  await stopSidecars(sidecars)
  sidecars = await startSidecars({ TRACE_CONTEXT: 'inside' }, async (port) => {
    network = await startMeshProxy(port)
    return network.port
  })
  try {
    // Pairs them; what that is to billing's sidecar is in no trace of orders.
    await call(sidecars.orders.ports.outbound!)
    const tree = await traced({ method: 'POST', body: 'x' }, 200, 10)
    assert.deepEqual(outline(tree), ['orders: POST CLIENT', ' orders-mte: POST SERVER', ...CARRIED])
    const { fields, request, response } = network.message()
    const [traceId] = [...traces.keys()].slice(-1)
    assert.ok(fields.length > 0 && !fields.some((text) => text.includes(traceId!)))
    assert.ok(!fields.some((name, i) => i % 2 === 0 && /^(traceparent|b3|x-b3-|uber-)/.test(name)))
    assert.ok(!Buffer.concat([...request, ...response]).includes(traceId!))
  } finally {
    await stopSidecars(sidecars)
    await network.close()
    sidecars = await startSidecars()
  }
})

test('a call by a tunnel is the same tree, and says that it was one', async () => {
  await stopSidecars(sidecars)
  sidecars = await startSidecars({ CARRIAGE: 'tunnel' })
  // Opens it.
  await call(sidecars.orders.ports.outbound!)
  const tree = await traced({ method: 'POST', body: 'x' }, 200, 10)
  assert.deepEqual(outline(tree), ['orders: POST CLIENT', ' orders-mte: POST SERVER', ...CARRIED])
  for (const [service, name] of [
    ['orders-mte', 'mte.encode request'],
    ['billing-mte', 'mte.decode request'],
    ['billing-mte', 'mte.encode response'],
    ['orders-mte', 'mte.decode response'],
  ] as const)
    assert.equal(attributes(tree, service, name)['mte.carriage'], 'tunnel')
  await stopSidecars(sidecars)
  sidecars = await startSidecars()
})

test('a call whose app is down shows where it failed', async () => {
  await call(sidecars.orders.ports.outbound!) // pairs them
  await billingApp.close()
  const tree = await traced({ method: 'POST', body: 'x' }, 502, 9)
  assert.deepEqual(outline(tree), [
    'orders: POST CLIENT ERROR',
    ' orders-mte: POST SERVER ERROR',
    '  orders-mte: mte.encode request INTERNAL',
    '  orders-mte: POST CLIENT ERROR',
    '   billing-mte: POST SERVER ERROR',
    '    billing-mte: mte.decode request INTERNAL',
    '    billing-mte: POST CLIENT ERROR',
    '    billing-mte: mte.encode response INTERNAL',
    '  orders-mte: mte.decode response INTERNAL',
  ])
  for (const service of ['orders-mte', 'billing-mte'])
    for (const kind of ['SERVER', 'CLIENT'])
      assert.equal(attributes(tree, service, 'POST', kind)['error.type'], 'upstream-unreachable')
  assert.equal(attributes(tree, 'orders-mte', 'POST', 'SERVER')['http.response.status_code'], 502)
})

test('no trace has got more spans since', async () => {
  for (const [traceId, spans] of traces) await jaeger.waitForTree(traceId, spans)
})

test('Prometheus finds the metrics of both sidecars at the collector', async () => {
  const expected = [
    /^http_server_request_duration_seconds_count\{.*job="orders-mte".*mte_direction="outbound".*\} [1-9]/m,
    /^http_server_request_duration_seconds_count\{.*job="billing-mte".*mte_direction="inbound".*\} [1-9]/m,
    /^mte_operation_duration_seconds_count\{.*job="orders-mte".*operation="encode".*\} [1-9]/m,
  ]
  const endMs = performance.now() + METRICS_DEADLINE_MS
  for (;;) {
    const text = await collector.metrics()
    const missing = expected.filter((line) => !line.test(text))
    if (missing.length === 0) return
    if (performance.now() > endMs) throw new Error(`not there: ${missing.join(', ')}`)
    await sleep(POLL_MS)
  }
})

test("the collector's configuration is valid, and one with a mistake is not", async () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-collector-'))
  try {
    await validateConfig()
    const config = readFileSync(path.join(import.meta.dirname, '../../otel/collector.yaml'), 'utf8')
    const mistaken = path.join(folder, 'mistaken.yaml')
    writeFileSync(mistaken, config.replace('send_batch_size', 'send_batch_sise'))
    await assert.rejects(validateConfig(mistaken), /send_batch_sise/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test.run()
