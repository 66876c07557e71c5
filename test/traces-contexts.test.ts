/** Which trace a call belongs to: what its app says, what goes on to the next service, and what a mesh in between adds. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type http from 'node:http'
import type { SpanContext } from '@opentelemetry/api'
import type { Fields } from '../sidecar/call.ts'
import { field } from '../sidecar/http/fields.ts'
import type { Tracing } from '../sidecar/telemetry/tracing.ts'
import { call } from './support/call.ts'
import { startMeshProxy } from './support/mesh-proxy.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type Pair, startPair, startTap, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { keepSpans, labelOf, newContext, spanOf, traceparent, treeOf } from './support/tracing.ts'

const test = suite('traces: contexts')

const TREE = [
  'orders-mte GET SERVER',
  ' orders-mte mte.encode request INTERNAL',
  ' orders-mte GET CLIENT',
  '  billing-mte GET SERVER',
  '   billing-mte mte.decode request INTERNAL',
  '   billing-mte GET CLIENT',
  '   billing-mte mte.encode response INTERNAL',
  ' orders-mte mte.decode response INTERNAL',
]

const spans = keepSpans()
const TRACING = { orders: spans.tracing('orders-mte'), billing: spans.tracing('billing-mte') }
let app: Recorder
/** two sidecars that have paired, with nothing between */
let pair: Pair

test.before(async () => {
  app = await startRecorder('done')
  pair = await startPair(app.port, {}, TRACING)
  await call(pair.orders.port('outbound'))
})

test.after(async () => {
  await pair.close()
  await app.close()
  assert.deepEqual(spans.open().map(labelOf), [], 'spans that never ended')
})

/** Calls through a pair; what the called app got. */
async function got(
  headers: Record<string, string> | string[],
  through = pair,
): Promise<http.IncomingHttpHeaders> {
  const answer = await call(through.orders.port('outbound'), { headers })
  assert.deepEqual([answer.status, answer.text], [200, 'done'])
  return app.last().headers
}

interface Format {
  /** what an app sends that has this context */
  of(context: SpanContext): Record<string, string>
  /** the names of its fields */
  fields: string[]
}

const W3C: Format = { of: (context) => ({ traceparent: traceparent(context) }), fields: ['traceparent'] }
const B3: Format = {
  of: ({ traceId, spanId, traceFlags }) => ({ b3: `${traceId}-${spanId}-${traceFlags}` }),
  fields: ['b3'],
}
const B3_MULTI: Format = {
  of: ({ traceId, spanId, traceFlags }) => ({
    'x-b3-traceid': traceId,
    'x-b3-spanid': spanId,
    'x-b3-sampled': String(traceFlags),
  }),
  fields: ['x-b3-traceid', 'x-b3-spanid', 'x-b3-sampled'],
}
const JAEGER: Format = {
  of: ({ traceId, spanId, traceFlags }) => ({ 'uber-trace-id': `${traceId}:${spanId}:0:${traceFlags}` }),
  fields: ['uber-trace-id'],
}
const FORMATS: Record<string, Format> = { W3C, B3, 'B3 in several fields': B3_MULTI, Jaeger: JAEGER }
const ALL_FIELDS = Object.values(FORMATS).flatMap(({ fields }) => fields)

for (const [name, format] of Object.entries(FORMATS)) {
  test(`an app that tells its trace as ${name} has one tree, and its peer is told in the same way and in W3C's`, async () => {
    const context = newContext()
    const headers = await got(format.of(context))
    const all = await spans.trace(context.traceId, 2)
    assert.deepEqual(treeOf(all), TREE)
    assert.equal(spanOf(all, 'orders-mte GET SERVER').parentSpanContext?.spanId, context.spanId)
    const last = spanOf(all, 'billing-mte GET CLIENT').spanContext()
    const expected = { ...W3C.of(last), ...format.of(last) }
    for (const name of ALL_FIELDS) assert.equal(headers[name], expected[name], name)
  })
}

test('an app that tells its trace in every way gets every one of them to its peer', async () => {
  const context = newContext()
  const sent = Object.assign({}, ...Object.values(FORMATS).map(({ of }) => of(context)))
  const headers = await got({ ...sent, 'x-b3-parentspanid': context.spanId, 'x-b3-flags': '1' })
  const last = spanOf(await spans.trace(context.traceId, 2), 'billing-mte GET CLIENT').spanContext()
  const expected = Object.assign({}, ...Object.values(FORMATS).map(({ of }) => of(last)))
  for (const name of [...ALL_FIELDS, 'x-b3-parentspanid', 'x-b3-flags'])
    assert.equal(headers[name], expected[name], name)
})

test('W3C counts where the ways contradict each other, and ids of 64 bits are filled up', async () => {
  const [counts, other] = [newContext(), newContext()]
  const headers = await got({ ...B3.of(other), ...W3C.of(counts) })
  assert.match(headers.b3 as string, new RegExp(`^${counts.traceId}-`))
  const short = randomBytes(8).toString('hex')
  await got({ b3: `${short}-${other.spanId}-1` })
  assert.deepEqual(treeOf(await spans.trace(short.padStart(32, '0'), 2)), TREE)
})

test('tracestate and baggage arrive as they were sent', async () => {
  const context = newContext()
  const more = { tracestate: 'vendor=a1,other@sys=b2', baggage: 'user=alice;p=1,key=%20value' }
  const headers = await got({ ...W3C.of(context), ...more })
  assert.deepEqual([headers.tracestate, headers.baggage], [more.tracestate, more.baggage])
})

test('a trace context can be seen outside: it is that of the sending', async () => {
  const { seen, all, context } = await tapped({})
  assert.deepEqual(treeOf(all), TREE)
  assert.ok(seen.includes(context.traceId))
  assert.ok(seen.includes(traceparent(spanOf(all, 'orders-mte GET CLIENT').spanContext())))
  assert.ok(seen.includes('\ntraceparent:'))
  assert.ok(seen.includes('vendor=a1'))
  assert.ok(!seen.includes('user=alice'))
})

test('TRACE_CONTEXT=inside makes the same tree, and nothing of it is to be seen', async () => {
  const { seen, all, context } = await tapped({ TRACE_CONTEXT: 'inside' })
  assert.deepEqual(treeOf(all), TREE)
  const ids = [context.traceId, context.spanId, ...all.map((span) => span.spanContext().spanId)]
  for (const id of ids) {
    assert.ok(!seen.includes(id), id)
    assert.ok(!seen.includes(Buffer.from(id, 'hex')), id)
  }
  // As lines: two letters alone are now and then among sealed bytes.
  for (const name of [...ALL_FIELDS, 'tracestate', 'baggage']) assert.ok(!seen.includes(`\n${name}:`), name)
  assert.ok(!seen.includes('vendor=a1'))
})

/** What is to be seen between two sidecars that pair and then carry a call, and the trace of that call. */
async function tapped(env: Record<string, string>) {
  const billingPort = await unusedPort()
  // HTTP/1.1 shows its fields as they are; those of HTTP/2 are compressed.
  const proxy = await startMeshProxy(billingPort)
  const tap = await startTap(proxy.port)
  const orders = { ...env, PEERS: `billing=http://127.0.0.1:${tap.port}`, CARRIAGE: 'message' }
  const through = await startPair(app.port, { orders, billing: { PORT: billingPort } }, TRACING)
  try {
    await got({}, through)
    const context = newContext()
    const more = { tracestate: 'vendor=a1', baggage: 'user=alice' }
    const sent = Object.assign({}, ...Object.values(FORMATS).map(({ of }) => of(context)))
    await got({ ...sent, ...more }, through)
    return { seen: tap.recorded(), all: await spans.trace(context.traceId, 2), context }
  } finally {
    await through.close()
    await tap.close()
    await proxy.close()
  }
}

interface Meshed {
  pair: Pair
  /** the fields of the newest message, as they left the sidecar */
  outer(): Fields
  /** ids of the spans that the mesh made, the newest last */
  added: { parent: string | undefined; context: SpanContext }[]
}

/** How a proxy of a mesh tells that it has a span of its own in a trace. */
const MESHES: Record<string, (fields: Fields, added: Meshed['added']) => Fields> = {
  'traceparent alone': (fields, added) => {
    const [, traceId, parent] = field(fields, 'traceparent')?.split('-') ?? []
    const context = { ...newContext(), ...(traceId && { traceId }) }
    added.push({ parent, context })
    return [...without(fields, 'traceparent'), 'traceparent', traceparent(context)]
  },
  'b3 alone': (fields, added) => {
    const [traceId, parent] = field(fields, 'b3')?.split('-') ?? []
    const context = { ...newContext(), ...(traceId && { traceId }) }
    added.push({ parent, context })
    return [...without(fields, 'b3'), 'b3', B3.of(context).b3!]
  },
  'a trace of its own': (fields, added) => {
    const context = newContext()
    added.push({ parent: undefined, context })
    return [...without(fields, 'traceparent'), 'traceparent', traceparent(context)]
  },
  'no word of traces': (fields) => without(fields, 'traceparent'),
}

/** Runs a body with two sidecars and a proxy between them. */
async function meshed(
  mesh: keyof typeof MESHES,
  tracing: { orders?: Tracing; billing?: Tracing },
  body: (meshed: Meshed) => Promise<void>,
  env: Record<string, string> = {},
): Promise<void> {
  const billingPort = await unusedPort()
  const added: Meshed['added'] = []
  const proxy = await startMeshProxy(billingPort, (fields) => MESHES[mesh]!(fields, added))
  const orders = { ...env, PEERS: `billing=${proxy.url}`, CARRIAGE: 'message' }
  const through = await startPair(app.port, { orders, billing: { PORT: billingPort } }, tracing)
  try {
    await got({}, through)
    await body({ pair: through, added, outer: () => proxy.message().fields })
  } finally {
    await through.close()
    await proxy.close()
  }
}

for (const [mesh, format] of [
  ['traceparent alone', W3C],
  ['traceparent alone', JAEGER],
  ['b3 alone', B3],
] as const) {
  test(`a mesh that goes on with ${mesh} has its span in the tree, where an app sent ${format.fields[0]}`, async () => {
    await meshed(mesh, TRACING, async ({ pair, added }) => {
      const context = newContext()
      await got(format.of(context), pair)
      const all = await spans.trace(context.traceId, 2)
      const own = added.at(-1)!
      assert.equal(own.parent, spanOf(all, 'orders-mte GET CLIENT').spanContext().spanId)
      assert.equal(spanOf(all, 'billing-mte GET SERVER').parentSpanContext?.spanId, own.context.spanId)
    })
  })
}

for (const [mesh, format] of [
  ['a trace of its own', W3C],
  ['a trace of its own', B3],
  ['b3 alone', W3C],
] as const) {
  test(`a mesh that begins another trace with ${mesh} leaves ours whole, where an app sent ${format.fields[0]}`, async () => {
    await meshed(mesh, TRACING, async ({ pair, added }) => {
      const context = newContext()
      const headers = await got(format.of(context), pair)
      const all = await spans.trace(context.traceId, 2)
      assert.deepEqual(treeOf(all), TREE)
      const own = added.at(-1)!.context
      assert.notEqual(own.traceId, context.traceId)
      assert.ok(!JSON.stringify(headers).includes(own.traceId))
      assert.ok(!spans.ended().some((span) => span.spanContext().traceId === own.traceId))
    })
  })
}

test('a mesh that strips what it does not know breaks no trace', async () => {
  await meshed('no word of traces', TRACING, async ({ pair }) => {
    const context = newContext()
    await got(W3C.of(context), pair)
    assert.deepEqual(treeOf(await spans.trace(context.traceId, 2)), TREE)
  })
})

test('sidecars that trace nothing pass a context on, with the span that a mesh has added', async () => {
  await meshed('traceparent alone', {}, async ({ pair, added, outer }) => {
    const context = newContext()
    const more = { tracestate: 'vendor=a1', baggage: 'user=alice', ...JAEGER.of(context) }
    const headers = await got({ ...W3C.of(context), ...more }, pair)
    assert.deepEqual(contextIn(outer()), { ...W3C.of(context), tracestate: 'vendor=a1' })
    assert.deepEqual(added.at(-1)!.parent, context.spanId)
    assert.equal(headers.traceparent, traceparent(added.at(-1)!.context))
    for (const [name, value] of Object.entries(more)) assert.equal(headers[name], value, name)
  })
})

test('sidecars that trace nothing leave a context as it is where a mesh begins another trace, or cannot see it', async () => {
  for (const [mesh, env] of [
    ['a trace of its own', {}],
    ['traceparent alone', { TRACE_CONTEXT: 'inside' }],
  ] as const) {
    await meshed(
      mesh,
      {},
      async ({ pair, outer }) => {
        const sent = { ...W3C.of(newContext()), tracestate: 'vendor=a1' }
        const headers = await got(sent, pair)
        assert.deepEqual([headers.traceparent, headers.tracestate], Object.values(sent))
        if ('TRACE_CONTEXT' in env) assert.deepEqual(contextIn(outer()), {})
      },
      env,
    )
  }
})

test('where the calling sidecar alone traces nothing, the other is below the app, or below the mesh', async () => {
  await meshed('traceparent alone', { billing: TRACING.billing }, async ({ pair, added }) => {
    const context = newContext()
    await got(W3C.of(context), pair)
    const all = await spans.trace(context.traceId, 1)
    assert.equal(added.at(-1)!.parent, context.spanId)
    const server = spanOf(all, 'billing-mte GET SERVER')
    assert.equal(server.parentSpanContext?.spanId, added.at(-1)!.context.spanId)
  })
  const context = newContext()
  const direct = await startPair(app.port, {}, { billing: TRACING.billing })
  try {
    await got(B3.of(context), direct)
    const server = spanOf(await spans.trace(context.traceId, 1), 'billing-mte GET SERVER')
    assert.equal(server.parentSpanContext?.spanId, context.spanId)
  } finally {
    await direct.close()
  }
})

test('where the called sidecar alone traces nothing, its app is below the other, or below the mesh', async () => {
  await meshed('traceparent alone', { orders: TRACING.orders }, async ({ pair, added }) => {
    const context = newContext()
    const headers = await got(W3C.of(context), pair)
    const client = spanOf(await spans.trace(context.traceId, 1), 'orders-mte GET CLIENT')
    assert.equal(added.at(-1)!.parent, client.spanContext().spanId)
    assert.equal(headers.traceparent, traceparent(added.at(-1)!.context))
  })
  const context = newContext()
  const direct = await startPair(app.port, {}, { orders: TRACING.orders })
  try {
    const headers = await got(JAEGER.of(context), direct)
    const client = spanOf(await spans.trace(context.traceId, 1), 'orders-mte GET CLIENT').spanContext()
    assert.equal(headers.traceparent, traceparent(client))
    assert.equal(headers['uber-trace-id'], JAEGER.of(client)['uber-trace-id'])
  } finally {
    await direct.close()
  }
})

function without(fields: Fields, name: string): Fields {
  return fields.filter((_, i) => fields[i - (i % 2)] !== name)
}

/** What the fields of a message's head say of a trace. */
function contextIn(fields: Fields): Record<string, string> {
  const names = [...ALL_FIELDS, 'tracestate', 'baggage']
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = field(fields, name)
      return value === undefined ? [] : [[name, value]]
    }),
  )
}

test.run()
