/** The known faults of the MTE API Relay that this sidecar stands in for, each named after what it does instead. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import diagnostics from 'node:diagnostics_channel'
import http from 'node:http'
import type { Socket } from 'node:net'
import { ConfigError, loadConfig } from '../sidecar/config.ts'
import { initiate } from '../sidecar/pair/handshake.ts'
import { echoOf, parseReject } from '../sidecar/pair/reject.ts'
import { meshSecret } from '../sidecar/pair/secrets.ts'
import { call, once } from './support/call.ts'
import { by } from './support/carriage.ts'
import { startMiddle } from './support/middle.ts'
import { post } from './support/peer.ts'
import { startRecorder } from './support/recorder.ts'
import { SECRET, startPair, startServer, startSidecar, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('faults of the original')

test('1: who does not know the secret can neither pair with a sidecar nor reach its app', async () => {
  const app = await startRecorder('done')
  const billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  const [mesh, guessed] = [
    await meshSecret(SECRET, 'x'),
    await meshSecret('a secret that an attacker guessed, wrongly', 'x'),
  ]
  const helloOf = (secret: typeof mesh) => {
    const identity = { name: 'attacker', secrets: [secret] }
    return initiate(identity, { secret, responderName: '', random: randomBytes, now: Date.now() }).hello
  }
  const flipped = helloOf(mesh)
  flipped[flipped.length - 1]! ^= 1
  const attempts: [string, Buffer, string][] = [
    ['another secret', helloOf(guessed), 'psk_unknown'],
    // What tells in public which secret is meant can be copied from the wire.
    [
      'another secret under the name of the right one',
      helloOf({ ...guessed, pskId: mesh.pskId }),
      'decrypt_failed',
    ],
    ['a changed message', flipped, 'decrypt_failed'],
  ]
  for (const [what, hello, name] of attempts) {
    const { status, body } = await post(billing.port('inbound'), '/api/mte-pair', hello)
    assert.ok(status >= 400 && status < 500, what)
    assert.equal(parseReject(body, [mesh], echoOf(hello, 'pairing'))?.name, name, what)
  }
  const message = Buffer.concat([Buffer.of(1, 0x11), randomBytes(200)])
  assert.equal((await post(billing.port('inbound'), '/api/mte-message', message)).status, 421)
  assert.equal(app.seen.length, 0)
  await billing.close()
  await app.close()
})

test('1: a sidecar does not take for its peer who does not know the secret', async () => {
  const orders = await startSidecar({ NAME: 'orders' })
  const stranger = await startSidecar({
    NAME: 'billing',
    CLIENT_ID_SECRET: 'another secret for tests, long enough',
  })
  const middle = await startMiddle(stranger.port('inbound'))
  const headers = { 'x-mte-upstream': middle.url }
  assert.equal((await call(orders.port('outbound'), { headers })).code, 'secret-mismatch')
  middle.onPairing = async () => ({ status: 200, body: randomBytes(1588) })
  assert.equal((await call(orders.port('outbound'), { headers })).code, 'not-a-relay')
  assert.equal(middle.messages.length, 0)
  await orders.close()
  await middle.close()
  await stranger.close()
})

test('2: method, status, path, cookies and every other header are inside', async () => {
  const app = await startRecorder((_seen, response) => {
    response.writeHead(404, { 'set-cookie': 'planted=1', 'x-planted': '1' }).end('planted')
  })
  const billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  const middle = await startMiddle(billing.port('inbound'))
  const orders = await startSidecar({
    NAME: 'orders',
    PEERS: `billing=${middle.url}`,
    CARRIAGE: 'message',
  })
  const outside: unknown[] = []
  middle.onMessage = async ({ forward, ...request }) => {
    const answer = await forward()
    outside.push(
      { ...request, body: request.body.toString('latin1') },
      { ...answer, body: answer.body.toString('latin1') },
    )
    assert.deepEqual([request.method, request.path, answer.status], ['POST', '/api/mte-message', 200])
    return answer
  }
  const answer = await call(orders.port('outbound'), {
    method: 'DELETE',
    path: '/planted',
    headers: { cookie: 'planted=2' },
  })
  assert.deepEqual(
    [answer.status, answer.headers['set-cookie'], app.last().method],
    [404, ['planted=1'], 'DELETE'],
  )
  assert.equal(outside.length, 2)
  assert.ok(!JSON.stringify(outside).includes('planted'))
  for (const part of [orders, middle, billing, app]) await part.close()
})

test('3: bodies stream in both directions, none is held back until it is whole', async () => {
  let arrived = Promise.withResolvers<string>()
  const pair = await startPair((request, response) => {
    request.on('data', (piece: Buffer) => {
      arrived.resolve(piece.toString())
      response.write(`got ${piece}`)
    })
    request.on('end', () => response.end())
  })
  const request = http.request({
    host: '127.0.0.1',
    port: pair.orders.port('outbound'),
    method: 'POST',
    headers: { host: 'billing' },
    agent: false,
  })
  const answered = once<http.IncomingMessage>(request, 'response')
  request.write('one')
  assert.equal(await arrived.promise, 'one')
  const response = await answered
  assert.equal(String(await once(response, 'data')), 'got one')
  arrived = Promise.withResolvers()
  request.write('two')
  assert.equal(await arrived.promise, 'two')
  assert.equal(String(await once(response, 'data')), 'got two')
  request.end()
  await once(response, 'end')
  await pair.close()
})

test('4: a receiver that restarted costs no call, and a POST arrives with all of its body', async () => {
  const app = await startRecorder('done')
  const env = { NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` }
  let billing = await startSidecar(env)
  const orders = await startSidecar({ NAME: 'orders', PEERS: `billing=${billing.url}` })
  assert.equal((await call(orders.port('outbound'))).text, 'done')
  for (const size of [10, 100_000]) {
    for (const headers of [{ 'content-length': String(size) }, { 'transfer-encoding': 'chunked' }]) {
      const port = billing.port('inbound')
      await billing.close()
      billing = await startSidecar({ ...env, PORT: port })
      const body = 'x'.repeat(size)
      const before = app.seen.length
      const answer = await call(orders.port('outbound'), { method: 'POST', headers, body })
      assert.deepEqual([answer.status, app.seen.length - before], [200, 1], answer.text)
      assert.equal(app.last().body, body)
    }
  }
  for (const part of [orders, billing, app]) await part.close()
})

test('5: a peer that is down at first contact is called again by the very next call', async () => {
  const app = await startRecorder('done')
  const port = await unusedPort()
  const orders = await startSidecar({ NAME: 'orders', PEERS: `billing=http://127.0.0.1:${port}` })
  assert.equal((await call(orders.port('outbound'))).code, 'peer-unreachable')
  const billing = await startSidecar({
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    PORT: port,
  })
  assert.equal((await call(orders.port('outbound'))).text, 'done')
  for (const part of [orders, billing, app]) await part.close()
})

test('6: there is no pair to be out of: as many calls at once as come are carried, each with keys of its own', async () => {
  let waiting: http.ServerResponse[] = []
  const all = Promise.withResolvers<void>()
  const pair = await startPair((_request, response) => {
    waiting.push(response)
    if (waiting.length === 300) all.resolve()
  })
  const answers = Array.from({ length: 300 }, () =>
    call(pair.orders.port('outbound'), { method: 'POST', body: 'x' }),
  )
  await all.promise
  for (const response of waiting.splice(0)) response.end('done')
  for (const answer of await Promise.all(answers)) assert.equal(answer.text, 'done')
  waiting = []
  await pair.close()
})

test('7: neither an app nor a peer is waited for without end', async () => {
  const env = { RESPONSE_TIMEOUT_SECONDS: 0.2, CONNECT_TIMEOUT_SECONDS: 0.2 }
  const silent = await startServer(() => {})
  const pair = await startPair(silent.port, { orders: env, billing: env })
  const port = pair.orders.port('outbound')
  const app = await call(port)
  assert.deepEqual([app.status, app.code], [504, 'upstream-timeout'])
  const peer = await call(port, { headers: { 'x-mte-upstream': `http://127.0.0.1:${silent.port}` } })
  assert.deepEqual([peer.status, peer.code], [504, 'peer-unreachable'])
  await pair.close()
  await silent.close()
})

// 8, no secrets and nothing of a call in logs: wire.test.ts.
test('8: no secret and no token comes with the product', async () => {
  assert.throws(
    () => loadConfig({}),
    (error: ConfigError) =>
      error instanceof ConfigError && /CLIENT_ID_SECRET: is required/.test(error.message),
  )
  assert.deepEqual(loadConfig({ CLIENT_ID_SECRET: SECRET }).config.outboundTokens, [])
  const orders = await startSidecar({ NAME: 'orders' })
  const headers = { 'x-mte-upstream': orders.url, 'x-mte-outbound-token': 'any' }
  assert.equal((await call(orders.port('inbound'), { headers })).code, 'not-found')
  await orders.close()
})

test('9: a sidecar for outbound calls alone needs no UPSTREAM', async () => {
  const app = await startRecorder('done')
  const billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  const orders = await startSidecar({ NAME: 'orders', UPSTREAM: '', PEERS: `billing=${billing.url}` })
  assert.equal((await call(orders.port('outbound'))).text, 'done')
  for (const part of [orders, billing, app]) await part.close()
})

test('10: a sidecar asks nobody for a licence and reports to nobody: it connects to peers and its app alone', async () => {
  const remotes: Promise<number | undefined>[] = []
  const onSocket = (message: unknown) => {
    const { socket } = message as { socket: Socket }
    remotes.push(once(socket, 'connect').then(() => socket.remotePort))
  }
  diagnostics.subscribe('net.client.socket', onSocket)
  const app = await startRecorder('done')
  const billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  const orders = await startSidecar({ NAME: 'orders', PEERS: `billing=${billing.url}` })
  assert.deepEqual(remotes, [])
  assert.equal((await call(orders.port('outbound'))).text, 'done')
  const toBilling = Array(by({ message: 1, tunnel: 2 })).fill(billing.port('inbound'))
  assert.deepEqual(await Promise.all(remotes), [orders.port('outbound'), ...toBilling, app.port])
  diagnostics.unsubscribe('net.client.socket', onSocket)
  for (const part of [orders, billing, app]) await part.close()
})

test.run()
