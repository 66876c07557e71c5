/** The line a call of ACCESS_LOG, and which trace the lines of the log belong to. */
import assert from 'node:assert/strict'
import type http from 'node:http'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { beginCall } from './support/app-client.ts'
import { type AppServer, abandoned, startAppServer } from './support/app-server.ts'
import { call } from './support/call.ts'
import { by } from './support/carriage.ts'
import {
  type LogLine,
  type Pair,
  type Sidecar,
  startPair,
  startSidecar,
  unusedPort,
} from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { type KeptSpans, keepSpans, newContext, spanOf, traceparent } from './support/tracing.ts'

const test = suite('access log')

const ON = { orders: { ACCESS_LOG: 'true' }, billing: { ACCESS_LOG: 'true' } }
const NUMBERS = ['requestBytes', 'responseBytes', 'encodeMs', 'forwardMs', 'decodeMs', 'totalMs'] as const
type Numbers = Record<(typeof NUMBERS)[number], number>

let app: AppServer

test.before(async () => {
  app = await startAppServer()
})

test.after(() => app.close())

type Env = Parameters<typeof startPair>[1]

/** Runs a body with two sidecars; what they logged when all is over. */
async function logged(
  env: Env,
  body: (pair: Pair) => Promise<void>,
  spans?: KeptSpans,
): Promise<{ orders: LogLine[]; billing: LogLine[] }> {
  app.handler = (_request, response) => response.end('done')
  const tracing = spans && { orders: spans.tracing('orders-mte'), billing: spans.tracing('billing-mte') }
  const pair = await startPair(app.port, env, tracing)
  try {
    await body(pair)
  } finally {
    await pair.close()
  }
  return { orders: pair.orders.lines, billing: pair.billing.lines }
}

function callsIn(lines: LogLine[]): Record<string, unknown>[] {
  const calls = lines.filter(({ msg }) => msg === 'call')
  for (const { level } of calls) assert.equal(level, 'info')
  return calls.map(({ fields }) => fields)
}

/** A line without its numbers, which must be there and make sense; and they. */
function split(line: Record<string, unknown>): { rest: object; numbers: Numbers } {
  const rest = { ...line }
  for (const name of NUMBERS) {
    assert.ok((line[name] as number) >= 0, `${name}: ${line[name]}`)
    delete rest[name]
  }
  const numbers = line as unknown as Numbers
  for (const name of ['requestBytes', 'responseBytes'] as const) assert.ok(Number.isInteger(numbers[name]))
  for (const name of ['encodeMs', 'forwardMs', 'decodeMs'] as const)
    assert.ok(numbers[name] <= numbers.totalMs, `${name}: ${numbers[name]} of ${numbers.totalMs}`)
  return { rest, numbers }
}

test('it is off unless it is asked for', async () => {
  const { orders, billing } = await logged({}, async (pair) => {
    await call(pair.orders.port('outbound'))
  })
  assert.deepEqual([...callsIn(orders), ...callsIn(billing)], [])
})

test('a call is one line on each side, with its sizes and times, and nothing of its content', async () => {
  let url = ''
  const beganMs = performance.now()
  const { orders, billing } = await logged(ON, async (pair) => {
    url = pair.billing.url
    app.handler = (request, response) =>
      request.resume().on('end', () => response.writeHead(201).end('y'.repeat(70_000)))
    await call(pair.orders.port('outbound'), { method: 'POST', path: '/a?b', body: 'x'.repeat(50_000) })
  })
  const elapsedMs = performance.now() - beganMs
  const [outbound, ...moreOut] = callsIn(orders)
  const [inbound, ...moreIn] = callsIn(billing)
  assert.deepEqual([moreOut, moreIn], [[], []])
  const common = { method: 'POST', status: 201 }
  const [out, within] = [split(outbound!), split(inbound!)]
  assert.deepEqual(out.rest, { direction: 'outbound', peer: url, ...common })
  assert.deepEqual(within.rest, { direction: 'inbound', peer: 'orders', ...common })
  for (const { requestBytes, responseBytes, encodeMs, forwardMs, decodeMs, totalMs } of [
    out.numbers,
    within.numbers,
  ]) {
    assert.ok(requestBytes > 50_000 && requestBytes < 51_000, String(requestBytes))
    assert.ok(responseBytes > 70_000 && responseBytes < 71_000, String(responseBytes))
    assert.ok(forwardMs > 0 && forwardMs < elapsedMs)
    // Records are of many calls: what it took to seal them is of none.
    for (const ms of [encodeMs, decodeMs])
      assert.ok(by({ message: ms > 0 && ms < elapsedMs, tunnel: ms === 0 }), String(ms))
    assert.ok(encodeMs + decodeMs < totalMs && totalMs < elapsedMs)
  }
  assert.deepEqual(
    [out.numbers.requestBytes, out.numbers.responseBytes],
    [within.numbers.requestBytes, within.numbers.responseBytes],
  )
  assert.ok(out.numbers.forwardMs > within.numbers.forwardMs)
})

test('an answer of the app is no error, whatever it is; one of a sidecar is told by its code', async () => {
  const orders = { ...ON.orders, OUTBOUND_TOKEN: 'a-token-for-tests-of-32-characters-or-more' }
  const token = { 'x-mte-outbound-token': orders.OUTBOUND_TOKEN }
  const lines = await logged({ ...ON, orders }, async (pair) => {
    const port = pair.orders.port('outbound')
    app.handler = (_request, response) => response.writeHead(404).end()
    await call(port, { method: 'PROPPATCH', headers: token })
    app.handler = (_request, response) => response.writeHead(503).end()
    await call(port, { headers: token })
    app.handler = ({ socket }) => socket.resetAndDestroy()
    await call(port, { method: 'POST', headers: token, body: 'x' })
    await call(port, { headers: { ...token, host: 'elsewhere' } })
    await call(port)
  })
  const told = (all: LogLine[]) =>
    callsIn(all).map(({ peer, method, status, error }) => [peer === '' ? '-' : 'peer', method, status, error])
  assert.deepEqual(told(lines.billing), [
    ['peer', '_OTHER', 404, undefined],
    ['peer', 'GET', 503, '503'],
    ['peer', 'POST', 502, 'outcome-unknown'],
  ])
  assert.deepEqual(told(lines.orders), [
    ...told(lines.billing),
    ['-', 'GET', 502, 'no-peer'],
    ['-', 'GET', 401, 'token-missing'],
  ])
})

test('a call that was cut off has the status that its caller saw, and says what cut it', async () => {
  const lines = await logged(ON, async (pair) => {
    for (const answering of [false, true]) {
      const reached = app.next()
      const sent = beginCall('HTTP/1.1', pair.orders.port('outbound'), { fields: [] }).end()
      sent.request.on('error', () => {})
      const [, response] = await reached
      if (answering) {
        response.write('first')
        await sent.read()
      }
      sent.abort()
      await abandoned(response)
    }
  })
  for (const all of [lines.orders, lines.billing])
    assert.deepEqual(
      callsIn(all).map(({ status, error }) => [status, error]),
      [
        [0, 'caller-gone'],
        [200, 'caller-gone'],
      ],
    )
})

test('a call that is sent twice is one line, with the work of both times', async () => {
  let again: Sidecar | undefined
  const { orders } = await logged(ON, async (pair) => {
    const port = pair.orders.port('outbound')
    const put = () => call(port, { method: 'PUT', body: 'x'.repeat(1000) })
    await put()
    const PORT = pair.billing.port('inbound')
    await pair.billing.close()
    again = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}`, PORT })
    assert.equal((await put()).text, 'done')
  })
  await again!.close()
  const [once, twice, ...more] = callsIn(orders).map((line) => split(line).numbers)
  assert.deepEqual(more, [])
  // By tunnel it is sent once: what has broken beneath it was seen before.
  assert.equal(twice!.requestBytes, by({ message: 2, tunnel: 1 }) * once!.requestBytes)
  assert.equal(twice!.responseBytes, once!.responseBytes)
})

test('pairings, probes and echoes have no line', async () => {
  const { orders, billing } = await logged(ON, async (pair) => {
    for (const path of ['/livez', '/readyz', '/metrics']) await call(pair.billing.port('admin'), { path })
    await call(pair.billing.port('inbound'), { path: '/api/mte-echo' })
    await call(pair.billing.port('inbound'), { path: '/nowhere' })
    await call(pair.orders.port('outbound'))
  })
  assert.deepEqual([callsIn(orders).length, callsIn(billing).length], [1, 1])
})

test('lines of calls and pairings name the trace, and the span of their sidecar in it', async () => {
  const spans = keepSpans()
  const context = newContext()
  const lines = await logged(
    { ...ON, orders: { ...ON.orders, CARRIAGE: 'message' } },
    async ({ orders }) => {
      await call(orders.port('outbound'), { headers: { traceparent: traceparent(context) } })
    },
    spans,
  )
  const all = await spans.trace(context.traceId, 3)
  const ids = (label: string) => idsOf(spanOf(all, label))
  for (const [sidecar, msg, label] of [
    ['orders', 'call', 'orders-mte GET SERVER'],
    ['billing', 'call', 'billing-mte GET SERVER'],
    ['orders', 'paired', 'orders-mte GET SERVER'],
    ['billing', 'paired', 'billing-mte POST SERVER'],
  ] as const) {
    const [line, ...more] = lines[sidecar].filter((line) => line.msg === msg)
    assert.deepEqual([idsIn(line!), more], [ids(label), []], `${sidecar}: ${msg}`)
  }
  assert.deepEqual(idsIn(lines.orders.find(({ msg }) => msg === 'listening')!), {
    trace_id: undefined,
    span_id: undefined,
  })
})

test('a line about a pairing that failed names the call that needed it', async () => {
  const spans = keepSpans()
  const context = newContext()
  const orders = { PEERS: `billing=http://127.0.0.1:${await unusedPort()}`, CARRIAGE: 'message' }
  const lines = await logged(
    { orders },
    async ({ orders }) => {
      await call(orders.port('outbound'), { headers: { traceparent: traceparent(context) } })
    },
    spans,
  )
  const line = lines.orders.find(({ msg }) => msg === 'could not pair')!
  assert.equal(line.level, 'warn')
  assert.deepEqual(idsIn(line), idsOf(spanOf(await spans.trace(context.traceId, 1), 'orders-mte GET SERVER')))
})

test('a line about a failure that was not foreseen names the call, and its spans tell it too', async () => {
  const spans = keepSpans()
  const context = newContext()
  app.handler = (_request, response) => response.end('done')
  const broken = {
    ...spans.tracing('orders-mte'),
    inject() {
      throw new Error('a planted fault')
    },
  }
  const orders = { ...ON.orders, PASS_THROUGH_HOSTS: `127.0.0.1:${app.port}` }
  const pair = await startPair(app.port, { orders }, { orders: broken })
  const headers: http.OutgoingHttpHeaders = {
    host: `127.0.0.1:${app.port}`,
    traceparent: traceparent(context),
  }
  const answer = await call(pair.orders.port('outbound'), { headers: headers as Record<string, string> })
  await pair.close()
  assert.deepEqual([answer.status, answer.code], [500, 'internal-error'])
  const server = spanOf(await spans.trace(context.traceId, 1), 'orders-mte GET SERVER')
  const faults = pair.orders.lines.filter(({ level }) => level === 'error')
  assert.deepEqual(
    faults.map(({ msg }) => msg),
    ['a call failed in a way that was not foreseen'],
  )
  assert.deepEqual(idsIn(faults[0]!), idsOf(server))
  assert.equal((faults[0]!.fields.err as Error).message, 'a planted fault')
  assert.equal(server.attributes['error.type'], 'internal-error')
  const [line] = callsIn(pair.orders.lines)
  assert.deepEqual([line!.status, line!.error], [500, 'internal-error'])
  assert.deepEqual(spans.open(), [])
})

function idsOf(span: ReadableSpan): object {
  const { traceId, spanId } = span.spanContext()
  return { trace_id: traceId, span_id: spanId }
}

function idsIn({ fields: { trace_id, span_id } }: LogLine): object {
  return { trace_id, span_id }
}

test.run()
