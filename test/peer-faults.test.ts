/** A peer with which no pair can be made: what the app is told, how soon, and that it is forgotten when it is over. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { initiate } from '../sidecar/pair/handshake.ts'
import { echoOf, parseReject, REJECTS, type RejectName, rejectRecord } from '../sidecar/pair/reject.ts'
import { type MeshSecret, meshSecret } from '../sidecar/pair/secrets.ts'
import { type CallAnswer, call, once } from './support/call.ts'
import { type HttpVersion, type Meddle, startMiddle } from './support/middle.ts'
import { post } from './support/peer.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { listen, SECRET, type Sidecar, startSidecar, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('peer faults')

const TIMEOUTS = { CONNECT_TIMEOUT_SECONDS: 0.3, RESPONSE_TIMEOUT_SECONDS: 0.3 }
/** Far more than the time-outs, far less than their defaults. */
const IN_TIME_MS = 4000

let app: Recorder
let orders: Sidecar
/** one that sends no call by a tunnel */
let byMessage: Sidecar
let secret: MeshSecret

test.before(async () => {
  app = await startRecorder('done')
  orders = await startSidecar({ NAME: 'orders', ...TIMEOUTS })
  byMessage = await startSidecar({ NAME: 'orders', ...TIMEOUTS, CARRIAGE: 'message' })
  secret = await meshSecret(SECRET, 'billing')
})

test.after(async () => {
  await orders.close()
  await byMessage.close()
  await app.close()
})

/** @param port 0: one that nobody had before, and so `orders` has no pair with */
async function startBilling(port: number, env: Record<string, string> = {}): Promise<Sidecar> {
  const PORT = port === 0 ? await unusedPort() : port
  return startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}`, PORT, ...env })
}

function callTo(port: number, method = 'POST', from = orders): Promise<CallAnswer> {
  return call(from.port('outbound'), {
    method,
    headers: { 'x-mte-upstream': `http://127.0.0.1:${port}` },
    body: 'x',
  })
}

interface Told {
  status: number
  code: string
  proxyStatus: string
  detail: RegExp
}

const UNREACHABLE: Omit<Told, 'detail'> = {
  status: 502,
  code: 'peer-unreachable',
  proxyStatus: 'destination_unavailable',
}
const NO_RELAY: Omit<Told, 'detail'> = {
  status: 502,
  code: 'not-a-relay',
  proxyStatus: 'http_protocol_error',
}
const REFUSED: Omit<Told, 'detail'> = {
  status: 502,
  code: 'pairing-refused',
  proxyStatus: 'http_request_denied',
}

/** Asserts that a call gets this, in time, and nothing runs. */
async function tells(port: number, told: Told, from = orders): Promise<void> {
  const before = app.seen.length
  const beganMs = performance.now()
  const answer = await callTo(port, 'POST', from)
  assert.ok(performance.now() - beganMs < IN_TIME_MS, 'in time')
  assert.deepEqual([answer.status, answer.code], [told.status, told.code], answer.text)
  assert.equal(answer.headers['proxy-status'], `mte-sidecar; error=${told.proxyStatus}`)
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  assert.match(JSON.parse(answer.text).detail, told.detail)
  assert.equal(app.seen.length, before)
}

/** Asserts that the very next call works once a sidecar is there. */
async function worksAgain(port: number): Promise<void> {
  const billing = await startBilling(port)
  try {
    assert.equal((await callTo(port)).text, 'done')
  } finally {
    await billing.close()
  }
}

test('a peer that is down is unreachable, and the next call after it came up works', async () => {
  const port = await unusedPort()
  for (let i = 0; i < 3; i++)
    await tells(port, { ...UNREACHABLE, detail: /could not connect \(ECONNREFUSED\)/ })
  await worksAgain(port)
})

test('a peer that goes down after it worked is unreachable, and works again when it is back', async () => {
  const port = await unusedPort()
  await worksAgain(port)
  const { status, code } = await callTo(port)
  assert.deepEqual([status, code], [502, 'peer-unreachable'])
  await worksAgain(port)
})

test('a host that has no address is unreachable', async () => {
  const headers = { 'x-mte-upstream': 'http://nowhere.invalid:8080' }
  const answer = await call(orders.port('outbound'), { headers })
  assert.deepEqual([answer.status, answer.code], [502, 'peer-unreachable'])
})

test('a peer that accepts connections and says nothing is given up in time', async () => {
  const sockets: net.Socket[] = []
  const server = net.createServer((socket) => sockets.push(socket))
  const port = await listen(server)
  await tells(port, { ...UNREACHABLE, status: 504, detail: /no connection within CONNECT_TIMEOUT_SECONDS/ })
  for (const socket of sockets) socket.destroy()
  await new Promise((resolve) => server.close(resolve))
  await worksAgain(port)
})

for (const version of ['HTTP/1.1', 'HTTP/2'] as HttpVersion[]) {
  const caller = () => (version === 'HTTP/1.1' ? byMessage : orders)

  test(`a peer that never answers a pairing over ${version} is given up in time`, async () => {
    const port = await unusedPort()
    const billing = await startBilling(0)
    const middle = await startMiddle(billing.port('inbound'), version)
    middle.onPairing = async () => 'silence'
    await tells(
      middle.port,
      {
        ...UNREACHABLE,
        status: 504,
        detail: /no answer within RESPONSE_TIMEOUT_SECONDS/,
      },
      caller(),
    )
    middle.onPairing = (passing) => passing.forward()
    assert.equal((await callTo(middle.port, 'POST', caller())).text, 'done')
    await middle.close()
    await billing.close()
    await worksAgain(port)
  })

  test(`a peer that never answers a message over ${version} is given up in time: unknown for a POST alone`, async () => {
    const billing = await startBilling(0)
    const middle = await startMiddle(billing.port('inbound'), version)
    middle.onMessage = async () => 'silence'
    await tells(
      middle.port,
      {
        status: 502,
        code: 'outcome-unknown',
        proxyStatus: 'connection_terminated',
        detail: /may or may not have been executed/,
      },
      byMessage,
    )
    const get = await callTo(middle.port, 'GET', byMessage)
    assert.deepEqual([get.status, get.code], [504, 'peer-unreachable'])
    middle.onMessage = (passing) => passing.forward()
    assert.equal((await callTo(middle.port, 'POST', byMessage)).text, 'done')
    await middle.close()
    await billing.close()
  })

  test(`a connection that breaks during the pairing over ${version} is told, and the next call pairs`, async () => {
    const billing = await startBilling(0)
    const middle = await startMiddle(billing.port('inbound'), version)
    middle.onPairing = async () => 'cut'
    await tells(
      middle.port,
      { ...UNREACHABLE, detail: /the connection broke before an answer came/ },
      caller(),
    )
    middle.onPairing = (passing) => passing.forward()
    assert.equal((await callTo(middle.port, 'POST', caller())).text, 'done')
    await middle.close()
    await billing.close()
  })
}

const PAGE = '<html><body><h1>nginx</h1></body></html>'
const strangers: [string, Omit<Told, 'detail'>, http.RequestListener][] = [
  ['a web server with its 404', NO_RELAY, (_, response) => response.writeHead(404).end(PAGE)],
  ['a web server that answers everything with 200', NO_RELAY, (_, response) => response.end(PAGE)],
  [
    'a web server that redirects',
    NO_RELAY,
    (_, response) => response.writeHead(301, { location: '/login' }).end(),
  ],
  ['a server with an empty 200', NO_RELAY, (_, response) => response.end()],
  ['a 200 of the right length', NO_RELAY, (_, response) => response.end(randomBytes(1588))],
  ['a page without an end', NO_RELAY, (_, response) => fill(response)],
  ['a gateway that says 503', UNREACHABLE, (_, response) => response.writeHead(503).end(PAGE)],
  ['a gateway that says 502', UNREACHABLE, (_, response) => response.writeHead(502).end(PAGE)],
]
for (const [what, told, handler] of strangers) {
  test(`${what} is told as what it is, and forgotten when a sidecar is there`, async () => {
    const server = http.createServer((request, response) => {
      request.resume()
      handler(request, response)
    })
    const port = await listen(server)
    await tells(port, { ...told, detail: new RegExp(`127.0.0.1:${port}`) })
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await worksAgain(port)
  })
}

function fill(response: http.ServerResponse): void {
  while (response.write(PAGE));
  response.once('drain', () => fill(response))
}

test('something that speaks no HTTP is no relay', async () => {
  for (const banner of [
    'SSH-2.0-OpenSSH_9.2\r\n',
    '\x15\x03\x03\x00\x02\x02\x28',
    '-ERR unknown command\r\n',
  ]) {
    const server = net.createServer((socket) => {
      socket.on('error', () => {})
      socket.resume().end(banner, 'latin1')
    })
    const port = await listen(server)
    await tells(port, { ...NO_RELAY, detail: new RegExp(`127.0.0.1:${port}`) })
    await new Promise((resolve) => server.close(resolve))
    await worksAgain(port)
  }
})

test('a peer with another secret is told as that, and the next call after it got the right one works', async () => {
  const other = await startBilling(0, { CLIENT_ID_SECRET: 'another secret for tests, long enough' })
  const port = other.port('inbound')
  await tells(port, {
    status: 502,
    code: 'secret-mismatch',
    proxyStatus: 'proxy_configuration_error',
    detail: /CLIENT_ID_SECRET: it must be the same on both sides/,
  })
  await other.close()
  await worksAgain(port)
})

test('pairings beyond the rate are refused, and a moment later the next call pairs', async () => {
  const billing = await startBilling(0)
  const port = billing.port('inbound')
  const identity = { name: 'orders', secrets: [secret] }
  for (;;) {
    const { hello } = initiate(identity, { secret, responderName: '', random: randomBytes, now: Date.now() })
    const { status, body } = await post(port, '/api/mte-pair', hello)
    if (status === 200) continue
    const { name, authentic } = parseReject(body, [secret], echoOf(hello, 'pairing'))!
    assert.deepEqual([status, name, authentic], [429, 'rate_limited', true])
    break
  }
  let answer = await callTo(port)
  while (answer.code === 'pairing-refused') answer = await callTo(port)
  assert.equal(answer.text, 'done')
  await billing.close()
})

function refusing(name: RejectName, timeMs = Date.now()): Meddle {
  return async ({ body }) => ({
    status: REJECTS[name].status,
    body: rejectRecord({ name, secret, echo: echoOf(body, 'pairing'), timeMs, storeAgeMs: 0 }),
  })
}

test('a clock that differs is made up for', async () => {
  const billing = await startBilling(0)
  const middle = await startMiddle(billing.port('inbound'))
  const first = refusing('clock_skew')
  middle.onPairing = (passing) => (middle.pairings.length === 1 ? first(passing) : passing.forward())
  assert.equal((await callTo(middle.port)).text, 'done')
  assert.equal(middle.pairings.length, 2)
  await middle.close()
  await billing.close()
})

test('a clock that no adjustment brings near enough is told, and forgotten when it is set', async () => {
  const billing = await startBilling(0)
  const middle = await startMiddle(billing.port('inbound'))
  middle.onPairing = refusing('clock_skew', Date.now() + 365 * 24 * 3600 * 1000)
  await tells(middle.port, { ...REFUSED, detail: /clock_skew/ })
  assert.equal(middle.pairings.length, 2)
  middle.onPairing = (passing) => passing.forward()
  assert.equal((await callTo(middle.port)).text, 'done')
  await middle.close()
  await billing.close()
})

test('every other reject of a pairing is told by its name, and the next call pairs', async () => {
  const billing = await startBilling(0)
  const middle = await startMiddle(billing.port('inbound'))
  for (const name of ['rate_limited', 'auth_failed', 'malformed', 'unsupported', 'replayed'] as const) {
    middle.onPairing = refusing(name)
    await tells(middle.port, { ...REFUSED, detail: new RegExp(name) })
  }
  middle.onPairing = refusing('state_unavailable')
  await tells(middle.port, {
    status: 503,
    code: 'state-unavailable',
    proxyStatus: 'proxy_internal_error',
    detail: /its store is away/,
  })
  middle.onPairing = (passing) => passing.forward()
  assert.equal((await callTo(middle.port)).text, 'done')
  await middle.close()
  await billing.close()
})

test('hundreds of calls that wait for a pair cause one pairing, whether it fails or succeeds', async () => {
  const billing = await startBilling(0)
  const middle = await startMiddle(billing.port('inbound'))
  // Hundreds of calls may take longer than the time-outs of the others.
  const patient = await startSidecar({ NAME: 'orders' })
  const session = http2.connect(`http://127.0.0.1:${patient.port('outbound')}`)
  const answered = (headers: http2.OutgoingHttpHeaders): Promise<http2.IncomingHttpHeaders> => {
    const stream = session.request(headers)
    stream.resume()
    return once(stream, 'response')
  }
  /** Many calls, all of which wait before the pairing gets its answer. */
  const waiting = async (answer: Meddle) => {
    const begun = Promise.withResolvers<void>()
    middle.onPairing = async (passing) => {
      await begun.promise
      return answer(passing)
    }
    const calls = Array.from({ length: 400 }, () => answered({ 'x-mte-upstream': middle.url }))
    // A connection's calls are taken in their order: once this one has its answer, those before it wait.
    assert.equal((await answered({ ':authority': 'unknown' }))['mte-error'], 'no-peer')
    begun.resolve()
    return Promise.all(calls)
  }
  for (const headers of await waiting(refusing('auth_failed')))
    assert.equal(headers['mte-error'], 'pairing-refused')
  assert.equal(middle.pairings.length, 1)
  for (const headers of await waiting((passing) => passing.forward())) assert.equal(headers[':status'], 200)
  assert.equal(middle.pairings.length, 2)
  session.close()
  await patient.close()
  await middle.close()
  await billing.close()
})

test.run()
