/** What can be seen from outside of a call: on the wire between the sidecars, and in what they log. */
import assert from 'node:assert/strict'
import http from 'node:http'
import { type CallAnswer, call, once } from './support/call.ts'
import { type HttpVersion, type Middle, type Passing, startMiddle } from './support/middle.ts'
import { type Posted, post } from './support/peer.ts'
import { startProcess } from './support/process.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { SECRET, type Sidecar, startSidecar, startTap, type Tap } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('wire')

/** A word that nothing but the planted values has in it. */
const PLANTED = 'canary'
const TOKEN = `${PLANTED}-outbound-token`

/** What a call carries, each part with the word in it. */
const CALL = {
  method: 'PROPPATCH',
  path: '/canary-path/x?canary-query=canary-value',
  headers: {
    host: 'canary-host.example',
    'x-canary-name': 'canary-header',
    authorization: 'Bearer canary-credentials',
    cookie: 'canary-cookie=1',
    'x-mte-outbound-token': TOKEN,
    'transfer-encoding': 'chunked',
    trailer: 'x-canary-trailer',
  },
  body: 'canary-body '.repeat(1000),
  trailers: [['x-canary-trailer', 'canary-trailer-value']] as [string, string][],
}

/** Statuses that a proxy or a mesh on the way might act upon. */
const STATUSES = [200, 201, 204, 301, 304, 401, 404, 418, 429, 500, 502, 503, 504]

let status = 200
let app: Recorder

test.before(async () => {
  app = await startRecorder((_seen, response) => {
    response.writeEarlyHints({ link: '</canary-hint>; rel=preload' })
    const fields = {
      'x-canary-answer': 'canary-field',
      'set-cookie': ['canary-set=1'],
      trailer: 'x-canary-end',
    }
    response.writeHead(status, 'canary reason', status === 204 || status === 304 ? {} : fields)
    response.write('canary answer')
    if (status !== 204 && status !== 304) response.addTrailers({ 'x-canary-end': 'canary-late' })
    response.end()
  })
})

test.after(() => app.close())

/** Two sidecars with a tap and somebody who reads requests and answers between them. */
interface Between {
  orders: Sidecar
  billing: Sidecar
  tap: Tap
  middle: Middle
  requests: Passing[]
  answers: Posted[]
  call(): Promise<CallAnswer>
  close(): Promise<void>
}

async function startBetween(version: HttpVersion): Promise<Between> {
  const billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  const middle = await startMiddle(billing.port('inbound'), version)
  const tap = await startTap(middle.port)
  const orders = await startSidecar({
    NAME: 'orders',
    PEERS: `*.example=http://127.0.0.1:${tap.port}`,
    OUTBOUND_TOKEN: TOKEN,
    CARRIAGE: 'message',
  })
  const requests: Passing[] = []
  const answers: Posted[] = []
  middle.onMessage = async (passing) => {
    requests.push(passing)
    const answer = await passing.forward()
    answers.push(answer)
    return answer
  }
  return {
    orders,
    billing,
    tap,
    middle,
    requests,
    answers,
    call: () => call(orders.port('outbound'), CALL),
    async close() {
      for (const part of [orders, tap, middle, billing]) await part.close()
    },
  }
}

for (const version of ['HTTP/2', 'HTTP/1.1'] as HttpVersion[]) {
  test(`of method, host, path, query, headers, body, trailers and all of the answer nothing is on the wire (${version})`, async () => {
    const between = await startBetween(version)
    status = 418
    const answer = await between.call()
    assert.equal(answer.status, 418)
    assert.equal(answer.text, 'canary answer')
    assert.equal(answer.headers['x-canary-answer'], 'canary-field')
    assert.deepEqual(answer.rawTrailers, ['x-canary-end', 'canary-late'])
    assert.match(String(answer.interim[0]?.headers.link), /canary-hint/)
    const seen = app.last()
    assert.deepEqual([seen.method, seen.url, seen.body], [CALL.method, CALL.path, CALL.body])
    assert.equal(seen.headers.host, 'canary-host.example')
    assert.deepEqual(seen.trailers, { 'x-canary-trailer': 'canary-trailer-value' })

    // As bytes; and, as HTTP/2 compresses header fields, as what they mean.
    const recorded = between.tap.recorded()
    assert.ok(recorded.length > CALL.body.length)
    const meant = JSON.stringify([
      between.requests,
      between.answers.map(({ status, headers }) => [status, headers]),
    ])
    for (const word of [PLANTED, CALL.method, 'Bearer', SECRET]) {
      assert.ok(!recorded.includes(word), word)
      assert.ok(!recorded.toString('latin1').toLowerCase().includes(word.toLowerCase()), word)
      assert.ok(!meant.toLowerCase().includes(word.toLowerCase()), word)
    }
    await between.close()
  })

  test(`every call looks alike: a POST of octets to one path, answered with 200, whatever it is (${version})`, async () => {
    const between = await startBetween(version)
    for (status of STATUSES) {
      for (const method of ['GET', 'DELETE', 'POST']) {
        const headers = { host: 'canary.example', 'x-mte-outbound-token': TOKEN }
        const answer = await call(between.orders.port('outbound'), { method, path: '/canary', headers })
        assert.equal(answer.status, status)
      }
    }
    assert.equal(between.requests.length, 3 * STATUSES.length)
    for (const { method, path, headers } of between.requests) {
      assert.deepEqual([method, path], ['POST', '/api/mte-message'])
      assert.equal(headers['content-type'], 'application/octet-stream')
      assert.equal(headers['cache-control'], 'no-store, no-transform')
    }
    for (const { status, headers } of between.answers) {
      assert.equal(status, 200)
      assert.equal(headers['content-type'], 'application/octet-stream')
      assert.equal(headers['set-cookie'], undefined)
    }
    const names = between.requests.map(({ headers }) =>
      Object.keys(headers).filter((name) => name !== 'content-length'),
    )
    for (const each of names) assert.deepEqual(each, names[0])
    await between.close()
  })
}

test('the same call twice is not the same on the wire', async () => {
  const between = await startBetween('HTTP/2')
  status = 200
  const headers = { host: 'canary.example', 'x-mte-outbound-token': TOKEN }
  for (let i = 0; i < 2; i++) await call(between.orders.port('outbound'), { headers })
  const [one, two] = between.requests.map(({ body }) => body)
  assert.equal(one!.length, two!.length)
  for (let at = 44; at + 8 <= one!.length; at += 8) assert.ok(!two!.includes(one!.subarray(at, at + 8)))
  await between.close()
})

test("what the peer's sidecar answers itself travels inside too", async () => {
  const gone = await startRecorder('gone')
  await gone.close()
  const billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${gone.port}` })
  const middle = await startMiddle(billing.port('inbound'))
  const orders = await startSidecar({ NAME: 'orders', PEERS: `billing=${middle.url}`, CARRIAGE: 'message' })
  const answers: Posted[] = []
  middle.onMessage = async (passing) => {
    const answer = await passing.forward()
    answers.push(answer)
    return answer
  }
  const answer = await call(orders.port('outbound'))
  assert.deepEqual([answer.status, answer.code], [502, 'upstream-unreachable'])
  assert.equal(answers[0]!.status, 200)
  assert.equal(answers[0]!.headers['mte-error'], undefined)
  assert.ok(!answers[0]!.body.includes('upstream'))
  for (const part of [orders, middle, billing]) await part.close()
})

test('nothing secret and nothing of a call is in the logs at their most talkative, nor in what a sidecar answers itself', async () => {
  const silent = http.createServer((request) => request.socket.resetAndDestroy()).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port: silentPort } = silent.address() as { port: number }
  const billing = await startProcess({
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    LOG_LEVEL: 'trace',
  })
  const orders = await startProcess({
    NAME: 'orders',
    LOG_LEVEL: 'trace',
    OUTBOUND_TOKEN: TOKEN,
    MAX_BODY_BYTES: 20_000,
    PEERS: `*.example=http://127.0.0.1:${billing.ports.inbound},broken=http://127.0.0.1:${silentPort},self=http://127.0.0.1:1`,
    PASS_THROUGH_HOSTS: `127.0.0.1:${silentPort}`,
  })
  status = 200
  const outbound = orders.ports.outbound!
  assert.equal((await call(outbound, CALL)).status, 200)
  const { headers } = CALL
  const calls: [string, Partial<typeof CALL> & { headers: Record<string, string> }][] = [
    ['no-peer', { headers: { ...headers, host: 'canary-unknown' } }],
    ['token-wrong', { headers: { ...headers, 'x-mte-outbound-token': 'canary-wrong-token' } }],
    ['peer-unreachable', { headers: { ...headers, host: 'broken' } }],
    ['peer-unreachable', { headers: { ...headers, host: 'self' } }],
    ['upstream-unreachable', { headers: { ...headers, host: `127.0.0.1:${silentPort}` } }],
    ['bad-request', { headers: { ...headers, 'x-mte-upstream': 'canary' } }],
    ['no-peer', { headers: { ...headers, host: 'canary host.example' } }],
    ['headers-too-large', { headers: { ...headers, 'x-big': PLANTED.repeat(20_000) } }],
    ['body-too-large', { headers, body: PLANTED.repeat(10_000) }],
  ]
  const answers: string[] = []
  for (const [code, changes] of calls) {
    const answer = await call(outbound, { ...CALL, ...changes })
    assert.equal(answer.code, code, answer.text)
    answers.push(answer.text, JSON.stringify(answer.headers))
  }
  const inbound = billing.ports.inbound!
  for (const path of ['/api/mte-message', '/api/mte-pair', '/canary']) {
    const answer = await post(inbound, path, Buffer.from(PLANTED.repeat(1000)))
    answers.push(answer.body.toString('latin1'), JSON.stringify(answer.headers))
  }
  for (const sidecar of [orders, billing]) assert.equal(await sidecar.stop(), 0)
  silent.close()
  for (const { log } of [orders, billing]) assert.ok(log.length > 4)
  const all = [...answers, ...orders.log, ...billing.log].join('\n')
  // An authority without a peer is told back to who called it: else nobody would find the mistake.
  const told = all.replaceAll('canary-unknown', '')
  for (const word of [PLANTED, SECRET]) assert.ok(!told.toLowerCase().includes(word), excerpt(told, word))
})

function excerpt(text: string, word: string): string {
  const at = text.toLowerCase().indexOf(word)
  return text.slice(Math.max(0, at - 200), at + 200)
}

test.run()
