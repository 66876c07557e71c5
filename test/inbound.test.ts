/** What PORT answers besides messages. Routes in plain: pass-through.test.ts. */
import assert from 'node:assert/strict'
import { ERRORS } from '../sidecar/errors.ts'
import { type CallAnswer, type CallOptions, call } from './support/call.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type Sidecar, startSidecar } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('inbound')

const ORIGIN = 'https://www.example.com'

let app: Recorder
let billing: Sidecar
/** calls billing; both add HEADERS and do CORS */
let orders: Sidecar

test.before(async () => {
  app = await startRecorder(({ url }, response) => {
    if (url === '/own-headers') response.setHeader('x-service-name', 'of the app')
    if (url === '/own-cors') response.setHeader('access-control-allow-origin', '*')
    response.setHeader('mte-error', 'planted').end('done')
  })
  billing = await startSidecar({
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    PASS_THROUGH_ROUTES: '/healthz',
    HEADERS: '{"x-service-name":"billing","x-team":"payments"}',
    CORS_ORIGINS: ORIGIN,
  })
  orders = await startSidecar({ NAME: 'orders', PEERS: `billing=${billing.url}`, CORS_ORIGINS: ORIGIN })
})

test.after(async () => {
  for (const part of [orders, billing, app]) await part.close()
})

function inbound(options: CallOptions): Promise<CallAnswer> {
  return call(billing.port('inbound'), options)
}

test('HEAD /api/mte-relay says that here is a relay', async () => {
  const { status, headers, body } = await inbound({ method: 'HEAD', path: '/api/mte-relay' })
  assert.deepEqual([status, headers['mte-relay'], body.length], [200, 'relay1', 0])
})

test('the echo answers in both forms, and pong without a message', async () => {
  const echoes: [string, string][] = [
    ['/api/mte-echo?msg=test', 'test'],
    ['/api/mte-echo?a=b&msg=a%20b+%C3%BC', 'a b ü'],
    ['/api/mte-echo/test', 'test'],
    ['/api/mte-echo/a%20%C3%BC%2Fb', 'a ü/b'],
    ['/api/mte-echo/%zz', '%zz'],
    ['/api/mte-echo', 'pong'],
    ['/api/mte-echo?msg=', 'pong'],
    ['/api/mte-echo/', 'pong'],
  ]
  for (const [path, message] of echoes) {
    const answer = await inbound({ path })
    assert.equal(answer.status, 200, path)
    assert.equal(answer.headers['content-type'], 'application/json')
    const { timestamp, ...rest } = JSON.parse(answer.text)
    assert.deepEqual(rest, { message })
    assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < 60_000)
  }
  assert.equal((await inbound({ method: 'HEAD', path: '/api/mte-echo' })).body.length, 0)
})

test('GET /api/mte-errors lists every code', async () => {
  const { status, text } = await inbound({ path: '/api/mte-errors' })
  assert.equal(status, 200)
  const rows: { code: string; status: number }[] = JSON.parse(text)
  assert.deepEqual(
    rows.map(({ code }) => code),
    Object.keys(ERRORS),
  )
  assert.equal(rows.find(({ code }) => code === 'no-peer')!.status, 502)
})

test('anything else is not found, in the form of problem+json, and never reaches the app', async () => {
  const before = app.seen.length
  const others: [string, string][] = [
    ['GET', '/'],
    ['POST', '/'],
    ['GET', '/api/mte-message'],
    ['GET', '/api/mte-pair'],
    ['PUT', '/api/mte-message'],
    ['POST', '/api/mte-relay'],
    ['POST', '/api/mte-echo'],
    ['GET', '/api/mte-echoes'],
    ['GET', '/API/MTE-ECHO'],
    ['GET', '/x/api/mte-echo'],
    ['GET', '/api/../api/mte-echo'],
    ['GET', '/livez'],
    ['GET', '/pairs'],
    ['DELETE', '/v1/charges'],
    ['OPTIONS', '/v1/charges'],
    ['OPTIONS', '*'],
    ['PROPFIND', '/'],
  ]
  for (const [method, path] of others) {
    const { status, code, headers, text } = await inbound({ method, path })
    assert.deepEqual([status, code], [404, 'not-found'], `${method} ${path}`)
    assert.equal(headers['content-type'], 'application/problem+json')
    assert.equal(headers['proxy-status'], 'mte-sidecar; error=http_request_error')
    const problem = JSON.parse(text)
    assert.deepEqual(Object.keys(problem), ['type', 'title', 'status', 'detail', 'code'])
    assert.deepEqual([problem.status, problem.code], [404, 'not-found'])
  }
  assert.equal(app.seen.length, before)
})

test('HEADERS are added to requests to the app and to its answers, in place of others of their names', async () => {
  const answer = await call(orders.port('outbound'), {
    path: '/own-headers',
    headers: { 'x-team': 'planted', 'x-a': 'b' },
  })
  assert.equal(answer.text, 'done')
  const { headers } = app.last()
  assert.deepEqual(
    [headers['x-service-name'], headers['x-team'], headers['x-a']],
    ['billing', 'payments', 'b'],
  )
  assert.equal(answer.headers['x-service-name'], 'billing')
  assert.equal(answer.headers['x-team'], 'payments')
  const plain = await inbound({ path: '/healthz' })
  assert.equal(plain.headers['x-team'], 'payments')
})

test("an app's own answer never carries mte-error, encoded or passed through", async () => {
  assert.equal((await call(orders.port('outbound'))).code, undefined)
  assert.equal((await inbound({ path: '/healthz' })).code, undefined)
})

const preflight = {
  method: 'OPTIONS',
  headers: {
    origin: ORIGIN,
    'access-control-request-method': 'PUT',
    'access-control-request-headers': 'x-a, x-b',
  },
}

test('preflights are answered here: on outbound calls, the echo and routes that are passed through', async () => {
  const before = app.seen.length
  const answers = [
    await call(orders.port('outbound'), { path: '/v1/charges', ...preflight }),
    await inbound({ path: '/api/mte-echo', ...preflight }),
    await inbound({ path: '/healthz', ...preflight }),
  ]
  for (const { status, headers } of answers) {
    assert.equal(status, 200)
    assert.equal(headers['access-control-allow-origin'], ORIGIN)
    assert.equal(headers['access-control-allow-methods'], 'GET, POST, PUT, DELETE')
    assert.equal(headers['access-control-allow-headers'], 'x-a, x-b')
  }
  assert.equal(app.seen.length, before)
})

test('a preflight of another origin is answered too, and allows nothing', async () => {
  const headers = { ...preflight.headers, origin: 'https://evil.example' }
  const answer = await call(orders.port('outbound'), { ...preflight, headers })
  assert.equal(answer.status, 200)
  assert.deepEqual(
    Object.keys(answer.headers).filter((name) => name.startsWith('access-control-')),
    [],
  )
})

test('answers to allowed origins may be read: of apps, of the echo, of routes in plain, and problems', async () => {
  const headers = { origin: ORIGIN }
  const answers = [
    await call(orders.port('outbound'), { path: '/own-cors', headers }),
    await call(orders.port('outbound'), { headers: { ...headers, host: 'unknown' } }),
    await inbound({ path: '/api/mte-echo', headers }),
    await inbound({ path: '/healthz', headers }),
  ]
  for (const answer of answers) {
    assert.equal(answer.headers['access-control-allow-origin'], ORIGIN)
    assert.match(answer.headers.vary!, /Origin/)
  }
  const other = await inbound({ path: '/api/mte-echo', headers: { origin: 'https://evil.example' } })
  assert.equal(other.headers['access-control-allow-origin'], undefined)
})

test('what sidecars say to each other is not for pages: no CORS on pairings and messages', async () => {
  for (const path of ['/api/mte-message', '/api/mte-pair']) {
    assert.equal((await inbound({ path, ...preflight })).code, 'not-found', path)
    const answer = await inbound({ method: 'POST', path, headers: { origin: ORIGIN }, body: 'x' })
    assert.equal(answer.status, 400)
    assert.equal(answer.headers['access-control-allow-origin'], undefined)
  }
})

test('CORS_METHODS limits CORS alone: PATCH is carried', async () => {
  const answer = await call(orders.port('outbound'), {
    method: 'PATCH',
    headers: { origin: ORIGIN },
    body: 'x',
  })
  assert.equal(answer.text, 'done')
  assert.equal(app.last().method, 'PATCH')
})

test('without CORS_ORIGINS a preflight goes to the app like any call', async () => {
  const plain = await startSidecar({ NAME: 'orders', PEERS: `billing=${billing.url}` })
  const answer = await call(plain.port('outbound'), preflight)
  assert.equal(answer.text, 'done')
  assert.equal(app.last().method, 'OPTIONS')
  assert.equal(answer.headers['access-control-allow-origin'], undefined)
  await plain.close()
})

test('a sidecar without UPSTREAM makes outbound calls, and tells those that it gets that it has no app', async () => {
  const outboundOnly = await startSidecar({ NAME: 'orders', PEERS: `billing=${billing.url}` })
  assert.equal((await call(outboundOnly.port('outbound'))).text, 'done')
  const back = await call(orders.port('outbound'), { headers: { 'x-mte-upstream': outboundOnly.url } })
  assert.deepEqual([back.status, back.code], [502, 'upstream-unreachable'])
  assert.match(JSON.parse(back.text).detail, /no UPSTREAM/)
  assert.equal((await call(outboundOnly.port('inbound'), { path: '/api/mte-echo' })).status, 200)
  await outboundOnly.close()
})

test.run()
