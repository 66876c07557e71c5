/** One call as it is traced: which spans there are, what each of them says, and how they nest. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { SpanKind, SpanStatusCode } from '@opentelemetry/api'
import { hrTimeToMicroseconds } from '@opentelemetry/core'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { fieldsFromRaw } from '../sidecar/http/fields.ts'
import { readVarint, varintLength } from '../sidecar/varint.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { bytes } from './support/binary-http.ts'
import { call } from './support/call.ts'
import { by, carriage } from './support/carriage.ts'
import { type MeshProxy, startMeshProxy } from './support/mesh-proxy.ts'
import { type Pair, startPair, startSidecar, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { begin, keepSpans, labelOf, newContext, spanOf, traceparent, treeOf } from './support/tracing.ts'

const test = suite('traces: the tree')

const REQUEST_HEADER_BYTES = 44
const RESPONSE_HEADER_BYTES = 14
const TAG_BYTES = 16
/** of each piece of a call in a tunnel */
const FRAME_HEADER_BYTES = 8

const spans = keepSpans()
let app: AppServer
let pair: Pair
let mesh: MeshProxy
/** where the calling sidecar calls the other */
let peerPort: number
let port: number

test.before(async () => {
  app = await startAppServer()
  const tracing = { orders: spans.tracing('orders-mte'), billing: spans.tracing('billing-mte') }
  const billingPort = await unusedPort()
  mesh = await startMeshProxy(billingPort)
  // It speaks HTTP/1.1, over which there are no tunnels.
  peerPort = by({ message: mesh.port, tunnel: billingPort })
  const PEERS = `billing=http://127.0.0.1:${peerPort}`
  const env = { orders: { PEERS }, billing: { PORT: billingPort } }
  pair = await startPair(app.port, env, tracing)
  port = pair.orders.port('outbound')
  assert.equal((await call(port)).status, 200)
})

test.after(async () => {
  await pair.close()
  await mesh.close()
  await app.close()
  assert.deepEqual(spans.open().map(labelOf), [], 'spans that never ended')
})

/** The tree below the span of the calling app, or the one that has no span above. */
const TREE = (name: string) => [
  `orders-mte ${name} SERVER`,
  ' orders-mte mte.encode request INTERNAL',
  ` orders-mte ${name} CLIENT`,
  `  billing-mte ${name} SERVER`,
  '   billing-mte mte.decode request INTERNAL',
  `   billing-mte ${name} CLIENT`,
  '   billing-mte mte.encode response INTERNAL',
  ' orders-mte mte.decode response INTERNAL',
]

test('a call is one tree of both apps and both sidecars', async () => {
  const orders = spans.tracing('orders')
  const billing = spans.tracing('billing')
  app.handler = (request, response) => {
    const [above] = billing.extract(fieldsFromRaw(request.rawHeaders))
    begin(billing, 'POST /v1/charges', SpanKind.SERVER, above!.context).end(performance.now(), false)
    response.end('charged')
  }
  const client = begin(orders, 'POST', SpanKind.CLIENT)
  const headers = Object.fromEntries(pairsOf(orders.inject(client.context, [])))
  const answer = await call(port, { method: 'POST', path: '/v1/charges', headers, body: 'a charge' })
  client.end(performance.now(), false)
  assert.equal(answer.text, 'charged')
  const { traceId } = client.context
  assert.deepEqual(treeOf(await spans.trace(traceId, 3)), [
    'orders POST CLIENT',
    ' orders-mte POST SERVER',
    '  orders-mte mte.encode request INTERNAL',
    '  orders-mte POST CLIENT',
    '   billing-mte POST SERVER',
    '    billing-mte mte.decode request INTERNAL',
    '    billing-mte POST CLIENT',
    '     billing POST /v1/charges SERVER',
    '    billing-mte mte.encode response INTERNAL',
    '  orders-mte mte.decode response INTERNAL',
  ])
})

test('a call that has to wait for a pairing shows it, on both sides', async () => {
  app.handler = (_request, response) => response.end()
  const orders = await startSidecar(
    { NAME: 'orders', PEERS: `billing=${pair.billing.url}`, CARRIAGE: 'message' },
    spans.tracing('orders-mte'),
  )
  try {
    const context = newContext()
    await call(orders.port('outbound'), { headers: { traceparent: traceparent(context) } })
    const all = await spans.trace(context.traceId, 3)
    const [root, ...rest] = TREE('GET')
    assert.deepEqual(treeOf(all), [
      root,
      ' orders-mte mte.handshake INTERNAL',
      '  orders-mte POST CLIENT',
      '   billing-mte POST SERVER',
      '    billing-mte mte.handshake INTERNAL',
      ...rest,
    ])
    const initiating = spanOf(all, 'orders-mte mte.handshake INTERNAL')
    assert.deepEqual(initiating.attributes, {
      'mte.role': 'initiator',
      'service.peer.name': 'billing-mte',
    })
    assert.deepEqual(spanOf(all, 'billing-mte mte.handshake INTERNAL').attributes, {
      'mte.role': 'responder',
      'service.peer.name': 'orders-mte',
    })
    const { 'server.port': serverPort, ...carrying } = spanOf(all, 'orders-mte POST CLIENT').attributes
    assert.equal(serverPort, pair.billing.port('inbound'))
    assert.deepEqual(carrying, {
      'http.request.method': 'POST',
      'server.address': '127.0.0.1',
      'http.response.status_code': 200,
    })
    assert.deepEqual(spanOf(all, 'billing-mte POST SERVER').attributes, {
      'http.request.method': 'POST',
      'url.scheme': 'http',
      'mte.direction': 'inbound',
      'http.response.status_code': 200,
    })
    nests(all)
  } finally {
    await orders.close()
  }
})

test('every span of a whole GET says what it did, and nothing of what the call was about', async () => {
  app.handler = (_request, response) => response.writeHead(203, { 'x-a': 'b' }).end('seven..')
  const context = newContext()
  await call(port, { path: '/v1/charges?x=y', headers: { traceparent: traceparent(context) } })
  const all = await spans.trace(context.traceId, 2)
  assert.deepEqual(treeOf(all), TREE('GET'))
  assert.equal(spanOf(all, 'orders-mte GET SERVER').parentSpanContext?.spanId, context.spanId)
  nests(all)

  const sealed = sealedFor(all)
  const inner = traceparent(spanOf(all, 'orders-mte GET CLIENT').spanContext())
  const parts = ['GET', 'http', 'billing', '/v1/charges?x=y']
  const fields = ['traceparent', inner]
  const message = bytes(0, ...parts, fields).length
  const frame = [...parts, ...fields].reduce((length, { length: more }) => length + 2 + more, 0)
  assert.equal(sealed.request.plaintextBytes, by({ message, tunnel: frame }))
  assert.equal(
    sealed.request.messageBytes,
    by({ message: REQUEST_HEADER_BYTES + 1 + message + TAG_BYTES, tunnel: FRAME_HEADER_BYTES + frame }),
  )
  const http = { 'http.request.method': 'GET', 'http.response.status_code': 203 }
  const [ordersPeer, billingPeer] = [peerPort, app.port].map((serverPort) => ({
    'server.address': '127.0.0.1',
    'server.port': serverPort,
    'network.peer.address': '127.0.0.1',
    'network.peer.port': serverPort,
  }))
  assert.deepEqual(attributesOf(all), {
    'orders-mte GET SERVER': { ...http, 'url.scheme': 'http', 'mte.direction': 'outbound' },
    'orders-mte mte.encode request INTERNAL': coding('request', sealed.request, 'encode'),
    'orders-mte GET CLIENT': { ...http, ...ordersPeer, 'service.peer.name': 'billing-mte' },
    'billing-mte GET SERVER': {
      ...http,
      'url.scheme': 'http',
      'mte.direction': 'inbound',
      'service.peer.name': 'orders-mte',
    },
    'billing-mte mte.decode request INTERNAL': coding('request', sealed.request, 'decode'),
    'billing-mte GET CLIENT': { ...http, ...billingPeer },
    'billing-mte mte.encode response INTERNAL': coding('response', sealed.response, 'encode'),
    'orders-mte mte.decode response INTERNAL': coding('response', sealed.response, 'decode'),
  })
  for (const span of all) assert.equal(span.status.code, SpanStatusCode.UNSET, labelOf(span))
  for (const span of all) assert.deepEqual([span.events, span.links], [[], []])
})

test('a megabyte that is streamed is one span a message, with the sizes and chunks that went by', async () => {
  const body = randomBytes(1_000_000)
  app.handler = (request, response) => {
    response.writeHead(200, { trailer: 'x-late' })
    request.on('end', () => {
      response.addTrailers({ 'x-late': 'z' })
      response.end()
    })
    request.pipe(response, { end: false })
  }
  const context = newContext()
  const headers = { traceparent: traceparent(context), 'transfer-encoding': 'chunked' }
  const answer = await call(port, { method: 'POST', headers, body })
  assert.deepEqual(answer.body, body)
  const all = await spans.trace(context.traceId, 2)
  assert.deepEqual(treeOf(all).toSorted(), TREE('POST').toSorted())
  nests(all)
  const sealed = sealedFor(all)
  for (const [what, one] of Object.entries(sealed)) {
    assert.ok(one.chunks > 15, `${what} in ${one.chunks} chunks of at most 64 KiB`)
    assert.ok(one.plaintextBytes > body.length && one.plaintextBytes < 1.01 * body.length)
    const perChunk = by({ message: TAG_BYTES, tunnel: FRAME_HEADER_BYTES })
    assert.ok(one.messageBytes >= one.plaintextBytes + one.chunks * perChunk)
  }
  const { request, response } = sealed
  const attributes = attributesOf(all)
  const expected = {
    'orders-mte mte.encode request INTERNAL': coding('request', request, 'encode'),
    'billing-mte mte.decode request INTERNAL': coding('request', request, 'decode'),
    'billing-mte mte.encode response INTERNAL': coding('response', response, 'encode'),
    'orders-mte mte.decode response INTERNAL': coding('response', response, 'decode'),
  }
  for (const [label, one] of Object.entries(expected)) assert.deepEqual(attributes[label], one, label)
  for (const span of all) assert.equal(span.status.code, SpanStatusCode.UNSET, labelOf(span))
})

test('a call without a context begins a trace, which its called app gets', async () => {
  let got: string | undefined
  app.handler = ({ headers }, response) => {
    got = headers.traceparent as string
    response.end()
  }
  await call(port)
  const [, traceId, spanId, flags] = got!.split('-')
  const all = await spans.trace(traceId!, 2)
  assert.deepEqual(treeOf(all), TREE('GET'))
  assert.equal(spanOf(all, 'orders-mte GET SERVER').parentSpanContext, undefined)
  assert.equal(spanOf(all, 'billing-mte GET CLIENT').spanContext().spanId, spanId)
  assert.equal(flags, '01')
})

test('an answer of the app with interim responses before it is the same tree', async () => {
  app.handler = (_request, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' })
    response.end('late')
  }
  const context = newContext()
  const answer = await call(port, { headers: { traceparent: traceparent(context) } })
  assert.equal(answer.interim.length, 1)
  const all = await spans.trace(context.traceId, 2)
  // The encoding of the answer begins while the app is still at it.
  assert.deepEqual(treeOf(all).toSorted(), TREE('GET').toSorted())
  assert.equal(spanOf(all, 'billing-mte GET CLIENT').attributes['http.response.status_code'], 200)
  assert.deepEqual(
    attributesOf(all)['orders-mte mte.decode response INTERNAL'],
    coding('response', sealedFor(all).response, 'decode'),
  )
})

test('a method that is not known is told as no name, and still reaches the app', async () => {
  let method: string | undefined
  app.handler = (request, response) => {
    method = request.method
    response.end()
  }
  const context = newContext()
  await call(port, { method: 'PROPPATCH', headers: { traceparent: traceparent(context) } })
  assert.equal(method, 'PROPPATCH')
  const all = await spans.trace(context.traceId, 2)
  assert.deepEqual(treeOf(all), TREE('HTTP'))
  assert.equal(spanOf(all, 'orders-mte HTTP SERVER').attributes['http.request.method'], '_OTHER')
})

test('a call that is passed through in plain has a span for it, and is traced on', async () => {
  const orders = await startSidecar(
    { NAME: 'orders', PASS_THROUGH_HOSTS: `127.0.0.1:${app.port}` },
    spans.tracing('orders-mte'),
  )
  try {
    let got: string | undefined
    app.handler = ({ headers }, response) => {
      got = headers.traceparent as string
      response.writeHead(404).end()
    }
    const context = newContext()
    const headers = { host: `127.0.0.1:${app.port}`, traceparent: traceparent(context) }
    await call(orders.port('outbound'), { headers })
    const all = await spans.trace(context.traceId, 1)
    assert.deepEqual(treeOf(all), ['orders-mte GET SERVER', ' orders-mte GET CLIENT'])
    const client = spanOf(all, 'orders-mte GET CLIENT')
    assert.equal(got, traceparent(client.spanContext()))
    assert.deepEqual(client.attributes['http.response.status_code'], 404)
  } finally {
    await orders.close()
  }
})

/** Asserts that spans begin after those above them; and that they end before those, within one service. */
function nests(all: readonly ReadableSpan[]): void {
  for (const span of all) {
    const above = all.find((one) => one.spanContext().spanId === span.parentSpanContext?.spanId)
    const [beganUs, endedUs] = [span.startTime, span.endTime].map(hrTimeToMicroseconds)
    assert.ok(beganUs! <= endedUs!, labelOf(span))
    if (!above) continue
    assert.ok(hrTimeToMicroseconds(above.startTime) <= beganUs!, `${labelOf(span)} begins too early`)
    if (above.resource.attributes['service.name'] !== span.resource.attributes['service.name']) continue
    assert.ok(endedUs! <= hrTimeToMicroseconds(above.endTime), `${labelOf(span)} ends too late`)
  }
}

interface Sealed {
  messageBytes: number
  plaintextBytes: number
  chunks: number
}

/**
 * What a call was when it was sealed: the newest message that went by, and what answered it. By tunnel nobody can tell
 * what of the bytes is whose, and it is what those say who sealed it.
 */
function sealedFor(all: readonly ReadableSpan[]): { request: Sealed; response: Sealed } {
  if (carriage === 'tunnel')
    return {
      request: encodedBy(spanOf(all, 'orders-mte mte.encode request INTERNAL')),
      response: encodedBy(spanOf(all, 'billing-mte mte.encode response INTERNAL')),
    }
  const { request, response } = mesh.message()
  return {
    request: sealedIn(Buffer.concat(request), REQUEST_HEADER_BYTES),
    response: sealedIn(Buffer.concat(response), RESPONSE_HEADER_BYTES),
  }
}

function encodedBy({ attributes }: ReadableSpan): Sealed {
  return {
    plaintextBytes: Number(attributes['mte.input.size']),
    messageBytes: Number(attributes['mte.output.size']),
    chunks: Number(attributes['mte.chunk.count']),
  }
}

/** What is in a message, as far as whoever has no key can tell: chunks after their lengths, the last after a zero. */
function sealedIn(message: Buffer, headerBytes: number): Sealed {
  let at = headerBytes
  let plaintextBytes = 0
  for (let chunks = 1; ; chunks++) {
    const length = readVarint(message, at)
    at += varintLength(message[at]!)
    const end = length === 0 ? message.length : at + length
    plaintextBytes += end - at - TAG_BYTES
    at = end
    if (length === 0) return { messageBytes: message.length, plaintextBytes, chunks }
  }
}

function coding(what: string, sealed: Sealed, operation: 'encode' | 'decode'): object {
  const sizes = [sealed.plaintextBytes, sealed.messageBytes]
  const [input, output] = operation === 'encode' ? sizes : sizes.reverse()
  return {
    'mte.carriage': carriage,
    'mte.message.type': what,
    'mte.input.size': input,
    'mte.output.size': output,
    'mte.chunk.count': sealed.chunks,
  }
}

function attributesOf(all: readonly ReadableSpan[]): Record<string, object> {
  return Object.fromEntries(all.map((span) => [labelOf(span), span.attributes]))
}

function pairsOf(fields: string[]): [string, string][] {
  return fields.flatMap((name, i) => (i % 2 === 0 ? [[name, fields[i + 1]!] as [string, string]] : []))
}

test.run()
