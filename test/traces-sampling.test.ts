/** What is not traced: calls that are not sampled, and all that is no call between apps. */
import assert from 'node:assert/strict'
import { TraceFlags } from '@opentelemetry/api'
import { TraceIdRatioBasedSampler } from '@opentelemetry/sdk-trace'
import type { Fields } from '../sidecar/call.ts'
import { field } from '../sidecar/http/fields.ts'
import type { Tracing } from '../sidecar/telemetry/tracing.ts'
import { call } from './support/call.ts'
import { startMeshProxy } from './support/mesh-proxy.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { startPair, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { withTracedPair } from './support/traced-pair.ts'
import { keepSpans, labelOf, newContext, traceparent } from './support/tracing.ts'

const test = suite('traces: sampling')

let app: Recorder

test.before(async () => {
  app = await startRecorder('done')
})

test.after(() => app.close())

test('of a call that is not sampled nothing is kept, nor of the pairing that it needs; and the next service is told', async () => {
  const spans = keepSpans()
  const billingPort = await unusedPort()
  const outer: Fields[] = []
  const mesh = await startMeshProxy(billingPort, (fields) => {
    outer.push(fields)
    return fields
  })
  const orders = { PEERS: `billing=${mesh.url}`, CARRIAGE: 'message' }
  const env = { orders, billing: { PORT: billingPort } }
  await withTracedPair(app.port, { spans, env }, async ({ port }) => {
    const context = newContext(TraceFlags.NONE)
    const { traceId, spanId } = context
    const unsampled: [Record<string, string>, string, RegExp][] = [
      [{ traceparent: traceparent(context) }, 'traceparent', /^00-(.+)-.{16}-00$/],
      [{ b3: `${traceId}-${spanId}-0` }, 'b3', /^(.+)-.{16}-0$/],
      [{ 'x-b3-traceid': traceId, 'x-b3-spanid': spanId, 'x-b3-sampled': '0' }, 'x-b3-sampled', /^0$/],
      [{ 'uber-trace-id': `${traceId}:${spanId}:0:0` }, 'uber-trace-id', /^(.+):.{16}:0:0$/],
    ]
    for (const [headers, name, expected] of unsampled) {
      assert.equal((await call(port, { method: 'POST', headers, body: 'x' })).status, 200)
      const [, id = traceId] = expected.exec(app.last().headers[name] as string) ?? assert.fail(name)
      assert.equal(id, traceId)
      assert.match(app.last().headers.traceparent as string, new RegExp(`^00-${traceId}-.{16}-00$`))
    }
    assert.equal(outer.length, 1 + unsampled.length)
    for (const fields of outer)
      assert.match(field(fields, 'traceparent')!, new RegExp(`${traceId}-.{16}-00$`))
  })
  assert.deepEqual(spans.ended().map(labelOf), [])
  await mesh.close()
})

test('no span is begun for a call that is not sampled', async () => {
  const spans = keepSpans()
  const begun: string[] = []
  const counted = (service: string): Tracing => {
    const tracing = spans.tracing(service)
    return {
      ...tracing,
      begin(span) {
        begun.push(`${service} ${span.name}`)
        return tracing.begin(span)
      },
    }
  }
  const pair = await startPair(app.port, {}, { orders: counted('orders'), billing: counted('billing') })
  const port = pair.orders.port('outbound')
  await call(port)
  assert.ok(begun.splice(0).length > 8)
  await call(port, { headers: { traceparent: traceparent(newContext(TraceFlags.NONE)) } })
  await pair.close()
  assert.deepEqual(begun, [])
})

test('a ratio samples traces as a whole, and only those that begin here', async () => {
  const spans = keepSpans({ parentBased: true, root: new TraceIdRatioBasedSampler(0.5) })
  const flags = new Map<string, string>()
  await withTracedPair(app.port, { spans }, async ({ port }) => {
    for (let i = 0; i < 64; i++) {
      await call(port)
      const [, traceId, , sampled] = (app.last().headers.traceparent as string).split('-')
      flags.set(traceId!, sampled!)
    }
    const told = newContext()
    await call(port, { headers: { traceparent: traceparent(told) } })
    flags.set(told.traceId, '01')
  })
  const count = (traceId: string) =>
    spans.ended().filter((span) => span.spanContext().traceId === traceId && !isOfPairing(labelOf(span)))
      .length
  for (const [traceId, sampled] of flags) assert.equal(count(traceId), sampled === '01' ? 8 : 0, traceId)
  assert.equal(flags.size, 65)
  assert.deepEqual(new Set(flags.values()), new Set(['00', '01']))
})

test('probes, what the sidecar says of itself, echoes, preflights and what is passed through are never traced', async () => {
  const spans = keepSpans()
  const cors = { CORS_ORIGINS: 'https://www.example.com' }
  const billing = { ...cors, PASS_THROUGH_ROUTES: '/healthz' }
  await withTracedPair(app.port, { spans, env: { orders: cors, billing } }, async ({ orders, billing }) => {
    const own = traceparent(newContext())
    const headers = { traceparent: own }
    const ask = async (port: number, path: string, expected: number, method = 'GET', more = {}) =>
      assert.equal(
        (await call(port, { path, method, headers: { ...headers, ...more } })).status,
        expected,
        path,
      )
    for (const path of ['/livez', '/readyz', '/metrics', '/', '/status', '/pairs'])
      await ask(billing.port('admin'), path, 200, 'GET', { host: 'localhost' })
    for (const path of ['/api/mte-echo?msg=x', '/api/mte-echo/x', '/api/mte-errors', '/api/mte-relay'])
      await ask(billing.port('inbound'), path, 200)
    await ask(billing.port('inbound'), '/elsewhere', 404)
    await ask(billing.port('inbound'), '/healthz', 200)
    assert.equal(app.last().headers.traceparent, own)
    const preflight = { origin: 'https://www.example.com', 'access-control-request-method': 'PUT' }
    await ask(billing.port('inbound'), '/', 200, 'OPTIONS', preflight)
    await ask(orders.port('outbound'), '/', 200, 'OPTIONS', preflight)
  })
  assert.deepEqual(spans.ended().map(labelOf), [])
})

/** There are two of one name in a trace with a pairing: that call is a GET. */
function isOfPairing(label: string): boolean {
  return label.includes('POST') || label.includes('handshake')
}

test.run()
