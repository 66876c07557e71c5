/** Nothing secret, and nothing of a call, is in what sidecars tell of themselves: spans, log lines, metrics, status. */
import assert from 'node:assert/strict'
import { inspect } from 'node:util'
import { OTLPTraceExporter as JsonExporter } from '@opentelemetry/exporter-trace-otlp-http'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { protobufTraceExporter } from '../otel/exporters.ts'
import { startCollector } from './otel/collector.ts'
import { beginCall } from './support/app-client.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { type CallOptions, call as callPort } from './support/call.ts'
import { carriage } from './support/carriage.ts'
import { type MeshProxy, startMeshProxy } from './support/mesh-proxy.ts'
import { pass, startMiddle } from './support/middle.ts'
import { HEAD, post, TestPeer } from './support/peer.ts'
import { type Sidecar, startSidecar, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { type KeptSpans, keepSpans, labelOf, newContext, traceparent } from './support/tracing.ts'

const test = suite('canaries')

/** A word that nothing but the planted values has in it. */
const PLANTED = 'canary'
const SECRET = `${PLANTED}-client-id-secret-of-32-characters-or-more`
const TOKEN = `${PLANTED}-outbound-token-of-32-characters-or-more`
const HEADERS = JSON.stringify({ 'x-canary-added': 'canary-added-value' })

const PAIR_ID_AT = 2
const PAIR_ID_BYTES = 24

/** A call with the word in every part of it. */
const CALL = {
  method: 'POST',
  path: '/canary-path/x?canary-query=canary-value',
  headers: {
    'x-mte-outbound-token': TOKEN,
    'x-canary-name': 'canary-header',
    authorization: 'Bearer canary-credentials',
    cookie: 'canary-cookie=1',
    'user-agent': 'canary-agent',
    'content-type': 'text/canary',
    'idempotency-key': 'canary-key',
    baggage: 'canary=canary-baggage',
    'transfer-encoding': 'chunked',
    trailer: 'x-canary-trailer',
  } as Record<string, string>,
  body: 'canary-body '.repeat(1000),
  trailers: [['x-canary-trailer', 'canary-trailer-value']] as [string, string][],
}

/** For what can be seen, or put, in messages alone. */
const BY_MESSAGE = { CARRIAGE: 'message' } as const

/** What a field of a trace context may hold instead. */
const HOSTILE: Record<string, string>[] = [
  { traceparent: 'canary' },
  { traceparent: `cc-${'a'.repeat(32)}-${'b'.repeat(16)}-01-canary` },
  { traceparent: traceparent(newContext()), tracestate: 'canary' },
  { traceparent: traceparent(newContext()), tracestate: `a=1,canary=${'canary'.repeat(100)}` },
  { tracestate: 'canary=1' },
  { b3: 'canary-canary-1' },
  { 'x-b3-traceid': 'canary', 'x-b3-spanid': 'canary', 'x-b3-sampled': 'canary', 'x-b3-flags': 'canary' },
  { 'uber-trace-id': 'canary:canary:0:1' },
  { baggage: 'canary' },
]

interface World {
  spans: KeptSpans
  app: AppServer
  orders: Sidecar
  billing: Sidecar
  mesh: MeshProxy
  call(changes?: CallOptions): ReturnType<typeof callPort>
  /** Makes a call of which no whole answer is expected. */
  fails(changes?: CallOptions): Promise<void>
}

/**
 * Runs a body with two sidecars that tell all they can; everything that they told, as text and as bytes.
 * @param env of the calling one
 */
async function told(
  body: (world: World) => Promise<void>,
  env: { CARRIAGE?: 'message' } = {},
): Promise<Buffer> {
  const spans = keepSpans()
  const app = await startAppServer()
  const billingPort = await unusedPort()
  const mesh = await startMeshProxy(billingPort)
  const common = { CLIENT_ID_SECRET: SECRET, ACCESS_LOG: 'true', LOG_LEVEL: 'debug' }
  const billing = await startSidecar(
    { ...common, NAME: 'billing', PORT: billingPort, HEADERS, UPSTREAM: `http://127.0.0.1:${app.port}` },
    spans.tracing('billing-mte'),
  )
  // It speaks HTTP/1.1, over which there are no tunnels.
  const { CARRIAGE = carriage } = env
  const url = CARRIAGE === 'message' ? mesh.url : `http://127.0.0.1:${billingPort}`
  const PEERS = `billing=${url},down=http://127.0.0.1:${await unusedPort()}`
  const orders = await startSidecar(
    {
      ...common,
      NAME: 'orders',
      OUTBOUND_TOKEN: TOKEN,
      PEERS,
      MAX_BODY_BYTES: 100_000,
      JAEGER_UI_URL: 'http://jaeger.example',
      ...env,
    },
    spans.tracing('orders-mte'),
  )
  const make = (changes: CallOptions = {}) => {
    const headers = { ...CALL.headers, ...(changes.headers as Record<string, string>) }
    return callPort(orders.port('outbound'), { ...CALL, ...changes, headers })
  }
  const fails = (changes?: CallOptions) =>
    make(changes).then(
      () => {},
      () => {},
    )
  await body({ spans, app, orders, billing, mesh, call: make, fails })
  const pages = [await pagesOf(orders), await pagesOf(billing)]
  for (const part of [orders, mesh, billing, app]) await part.close()
  assert.deepEqual(spans.open().map(labelOf), [])
  const lines = [...orders.lines, ...billing.lines].map((line) => inspect(line, { depth: null }))
  return Buffer.concat([await exported(spans.ended()), Buffer.from([...pages.flat(), ...lines].join('\n'))])
}

/** All that a sidecar shows at its admin port. */
async function pagesOf(sidecar: Sidecar): Promise<string[]> {
  const pages: string[] = []
  for (const path of [
    '/',
    '/status',
    '/pairs',
    '/readyz',
    '/livez',
    '/metrics',
    '/nowhere-canary'.slice(0, 8),
  ]) {
    for (const accept of ['*/*', 'application/openmetrics-text;version=1.0.0']) {
      const { text, headers } = await callPort(sidecar.port('admin'), {
        path,
        headers: { host: 'localhost', accept },
      })
      pages.push(JSON.stringify(headers), text)
    }
  }
  return pages
}

/** Spans as they leave for a collector, in both encodings. */
async function exported(spans: ReadableSpan[]): Promise<Buffer> {
  assert.ok(spans.length > 0)
  const collector = await startCollector()
  const config = { url: `${collector.url}/v1/traces` }
  for (const exporter of [new JsonExporter(config), protobufTraceExporter(config)]) {
    const failure = await new Promise((resolve) => exporter.export(spans, ({ error }) => resolve(error)))
    assert.equal(failure, undefined)
    await exporter.shutdown()
  }
  collector.close()
  assert.equal(collector.exports.length, 2)
  return Buffer.concat(collector.exports.map(({ body }) => body))
}

/** Asserts that a word is nowhere, in whatever case. */
function hasNone(all: Buffer, word: string): void {
  const text = all.toString('latin1')
  const at = text.toLowerCase().indexOf(word.toLowerCase())
  assert.ok(at < 0, `${word} in: ${JSON.stringify(text.slice(Math.max(0, at - 200), at + 100))}`)
}

test('of a call that goes well nothing is told, nor a secret', async () => {
  const all = await told(async ({ app, call }) => {
    app.handler = (request, response) => {
      assert.equal(request.headers['x-canary-added'], 'canary-added-value')
      request.resume().on('end', () => {
        response.writeEarlyHints({ link: '</canary-hint>; rel=preload' })
        const fields = {
          'x-canary-answer': 'canary-field',
          'set-cookie': 'canary-set=1',
          trailer: 'x-canary-end',
        }
        response.writeHead(203, 'canary reason', fields)
        response.write('canary-answer '.repeat(1000))
        response.addTrailers({ 'x-canary-end': 'canary-late' })
        response.end()
      })
    }
    for (const method of ['POST', 'GET', 'CANARY', 'PROPFIND', 'DELETE']) {
      const answer = await call(method === 'CANARY' ? { method: 'REPORT' } : { method })
      assert.deepEqual([answer.status, answer.rawTrailers], [203, ['x-canary-end', 'canary-late']], method)
    }
  })
  // It is the whole that is searched.
  for (const word of ['mte.encode request', 'mte_pairs', '<!doctype html>', 'requestBytes', '_OTHER'])
    assert.ok(all.toString('latin1').toLowerCase().includes(word.toLowerCase()), word)
  for (const word of [PLANTED, SECRET, TOKEN, 'REPORT', 'PROPFIND', 'Bearer']) hasNone(all, word)
})

test('no method that an app makes up is told', async () => {
  const all = await told(async ({ app, orders, billing }) => {
    app.handler = (_request, response) => response.end('done')
    const fields = ['x-mte-outbound-token', TOKEN]
    await beginCall('h2c', orders.port('outbound'), { method: 'CANARY', fields }).end().whole()
    const peer = await TestPeer.pair(billing.port('inbound'), SECRET)
    await peer.send(peer.whole(0, 'canary', { ...HEAD, method: 'CANARY-METHOD', path: '/canary' }))
  })
  hasNone(all, PLANTED)
})

test('of calls that fail nothing is told, whatever fails', async () => {
  const all = await told(async ({ app, orders, billing, call, fails }) => {
    const answers: [number, (typeof app)['handler']][] = [
      [500, (_request, response) => response.writeHead(500, 'canary').end('{"error":"canary-error"}')],
      [404, (_request, response) => response.writeHead(404).end('canary-missing')],
      [502, ({ socket }) => socket.resetAndDestroy()],
      [502, ({ socket }) => socket.end('canary speaks no HTTP\r\n\r\n')],
      [
        502,
        ({ socket }) => socket.end('HTTP/1.1 200 canary\r\nx-canary : 1\r\nx canary: \x01\r\n\r\ncanary'),
      ],
      [502, ({ socket }) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: canary\r\n\r\ncanary')],
      [502, ({ socket }) => socket.end(`HTTP/1.1 200 OK\r\nx-canary: ${PLANTED.repeat(20_000)}\r\n\r\n`)],
    ]
    for (const [status, handler] of answers) {
      app.handler = handler
      const { status: got, text } = await call({ method: 'POST', headers: { 'idempotency-key': '' } })
      assert.equal(got, status, `${handler}: ${text}`)
    }
    app.handler = ({ socket }) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\ncanary')
    await fails()
    app.handler = (_request, response) => response.end('done')
    const refused: [string | undefined, Record<string, string>][] = [
      ['no-peer', { host: 'canary-host.example' }],
      ['peer-unreachable', { host: 'down' }],
      ['token-wrong', { 'x-mte-outbound-token': 'canary-wrong-token' }],
      ['bad-request', { 'x-mte-upstream': 'canary' }],
      ['bad-request', { 'x-mte-upstream': `http://canary-user:canary-password@127.0.0.1:1` }],
      ['headers-too-large', { 'x-big': PLANTED.repeat(20_000) }],
      ['token-wrong', { 'x-mte-outbound-token': '', 'proxy-authorization': 'Basic Y2FuYXJ5OmNhbmFyeQ==' }],
    ]
    for (const [code, headers] of refused)
      assert.equal((await call({ headers })).code, code, JSON.stringify(headers))
    assert.equal((await call({ body: PLANTED.repeat(20_000) })).code, 'body-too-large')
    for (const path of ['/api/mte-message', '/api/mte-pair', '/canary', '/api/mte-echo/canary'])
      await post(billing.port('inbound'), path, Buffer.from(PLANTED.repeat(1000)))
    const wrong = await startSidecar({
      NAME: 'wrong',
      CLIENT_ID_SECRET: `${SECRET}-another`,
      PEERS: `billing=${billing.url}`,
    })
    assert.equal((await callPort(wrong.port('outbound'), { path: '/canary' })).code, 'secret-mismatch')
    await wrong.close()
    assert.ok(orders.lines.some(({ msg }) => msg === 'call'))
  })
  for (const word of [PLANTED, 'Y2FuYXJ5OmNhbmFyeQ']) hasNone(all, word)
})

test('of what is no trace context nothing is told, and baggage never', async () => {
  const all = await told(async ({ app, call }) => {
    app.handler = (_request, response) => response.end('done')
    for (const headers of HOSTILE) assert.equal((await call({ headers })).text, 'done')
  })
  hasNone(all, PLANTED)
})

test('of what somebody on the path puts in the place of contexts nothing is told', async () => {
  const all = await told(async ({ app, orders, billing, fails }) => {
    app.handler = (_request, response) => response.end('done')
    for (const hostile of HOSTILE) {
      const added = [...Object.entries(hostile).flat(), 'x-canary-mesh', 'canary-mesh']
      const mesh = await startMeshProxy(billing.port('inbound'), (fields) => [
        ...fields.filter((_, i) => fields[i - (i % 2)] !== 'traceparent'),
        ...added,
      ])
      await fails({ headers: { 'x-mte-upstream': mesh.url } })
      assert.equal(mesh.passed.length, 2)
      await mesh.close()
    }
    assert.equal(orders.lines.filter(({ msg }) => msg === 'paired').length, HOSTILE.length)
  }, BY_MESSAGE)
  hasNone(all, PLANTED)
})

test('of what somebody on the path answers in the place of a peer nothing is told', async () => {
  const all = await told(async ({ billing, call }) => {
    for (const status of [200, 401, 503]) {
      const middle = await startMiddle(billing.port('inbound'), 'HTTP/1.1')
      for (const kind of ['onPairing', 'onMessage'] as const) {
        middle[kind] = async () => ({ status, body: Buffer.from('canary '.repeat(100)) })
        const { code } = await call({ headers: { 'x-mte-upstream': middle.url } })
        assert.notEqual(code, undefined, `${kind} ${status}`)
        middle[kind] = pass
      }
      assert.ok(middle.messages.length > 0 && middle.pairings.length > 0)
      await middle.close()
    }
  }, BY_MESSAGE)
  hasNone(all, PLANTED)
})

test('a tracestate goes where traces go, and nowhere else', async () => {
  const tracestate = 'vendor=canary-state'
  let spans: ReadableSpan[] = []
  const all = await told(async ({ app, call, ...world }) => {
    app.handler = ({ headers }, response) => response.end(headers.tracestate)
    const headers = { traceparent: traceparent(newContext()), tracestate }
    assert.equal((await call({ headers })).text, tracestate)
    spans = world.spans.ended()
  })
  const text = all.toString('latin1')
  assert.ok(text.includes(`"traceState":"${tracestate}"`))
  // Every span of a trace has it, by the specification of OTLP: in JSON, and once more in protobuf.
  const pieces = text.split(tracestate)
  assert.equal(pieces.length - 1, 2 * spans.filter((span) => span.spanContext().traceState).length)
  hasNone(Buffer.from(pieces.join(''), 'latin1'), PLANTED)
})

test('no id of a pair is told in whole', async () => {
  let pairIds: Buffer[] = []
  const all = await told(async ({ app, call, mesh }) => {
    app.handler = (_request, response) => response.end('done')
    for (let i = 0; i < 3; i++) await call()
    const messages = mesh.passed.filter(({ path }) => path === '/api/mte-message')
    pairIds = messages.map(({ request }) =>
      Buffer.concat(request).subarray(PAIR_ID_AT, PAIR_ID_AT + PAIR_ID_BYTES),
    )
  }, BY_MESSAGE)
  assert.equal(pairIds.length, 3)
  for (const id of pairIds) {
    assert.ok(!all.includes(id))
    for (const encoding of ['hex', 'base64', 'base64url'] as const) {
      // Of no half of it, either.
      hasNone(all, id.subarray(0, 12).toString(encoding))
      hasNone(all, id.subarray(12).toString(encoding))
    }
  }
})

test('the password of a store that is away is not told', async () => {
  const spans = keepSpans()
  const port = await unusedPort()
  const orders = await startSidecar(
    {
      NAME: 'orders',
      REDIS_URL: `redis://canary-user:canary-password@127.0.0.1:${port}/0`,
      PEERS: `billing=http://127.0.0.1:${port}`,
      LOG_LEVEL: 'debug',
      ACCESS_LOG: 'true',
    },
    spans.tracing('orders-mte'),
  )
  assert.equal((await callPort(orders.port('outbound'), { path: '/canary' })).code, 'state-unavailable')
  const pages = await pagesOf(orders)
  await orders.close()
  assert.ok(pages.join().includes('127.0.0.1'))
  const lines = inspect(orders.lines, { depth: null })
  hasNone(Buffer.concat([await exported(spans.ended()), Buffer.from(pages.join('\n') + lines)]), PLANTED)
})

test.run()
