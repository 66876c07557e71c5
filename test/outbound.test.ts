/** How an outbound call names its peer, and what it gets where it names none. Guards of the port: outbound-access.test.ts. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { APP_PROTOCOLS, makeCall } from './support/app-client.ts'
import { call } from './support/call.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { rawServer } from './support/sending.ts'
import { type Sidecar, startSidecar, startTap, type Tap } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('outbound')

const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-outbound-'))
const peersFile = path.join(folder, 'peers')

let billing: Recorder
let shop: Recorder
let billingSidecar: Sidecar
let shopSidecar: Sidecar
/** in front of shop's sidecar: the only way to it that PEERS knows */
let tap: Tap
let orders: Sidecar
let port: number

test.before(async () => {
  billing = await startRecorder('billing')
  shop = await startRecorder('shop')
  billingSidecar = await startSidecar({
    NAME: 'billing',
    UPSTREAM: urlOf(billing.port),
    OUTBOUND_PORT: 'off',
  })
  shopSidecar = await startSidecar({ NAME: 'shop', UPSTREAM: urlOf(shop.port), OUTBOUND_PORT: 'off' })
  tap = await startTap(shopSidecar.port('inbound'))
  writeFileSync(peersFile, 'from-file=http://127.0.0.1:1\n')
  orders = await startSidecar({
    NAME: 'orders',
    PEERS: [
      `billing=${billingSidecar.url}`,
      `shop=${urlOf(tap.port)}`,
      `*.shop=${urlOf(tap.port)}`,
      `old.shop=${billingSidecar.url}`,
      'sidecar-of.*=http://127.0.0.1:{port}',
      `127.0.0.*:7=http://{host}:${billingSidecar.port('inbound')}`,
    ].join(),
    PEERS_FILE: peersFile,
    PASS_THROUGH_HOSTS: `127.0.0.1:${billing.port}`,
  })
  port = orders.port('outbound')
})

test.after(async () => {
  for (const part of [orders, tap, billingSidecar, shopSidecar, billing, shop]) await part.close()
  rmSync(folder, { recursive: true })
})

function urlOf(port: number): string {
  return `http://127.0.0.1:${port}`
}

test('Host names a peer of PEERS', async () => {
  assert.equal((await call(port, { headers: { host: 'billing' } })).text, 'billing')
  assert.equal((await call(port, { headers: { host: 'shop' } })).text, 'shop')
  assert.equal(shop.last().headers.host, 'shop')
})

test('an absolute target goes before Host, and its authority is what the app sees', async () => {
  const answer = await call(port, { path: 'http://shop/v1/a?b=c', headers: { host: 'billing' } })
  assert.equal(answer.text, 'shop')
  assert.equal(shop.last().url, '/v1/a?b=c')
  assert.equal(shop.last().headers.host, 'shop')
})

test('an absolute target without a path is the root', async () => {
  assert.equal((await call(port, { path: 'http://shop?b=c' })).text, 'shop')
  assert.equal(shop.last().url, '/?b=c')
})

test('x-mte-upstream goes before both, and the app sees the authority that was called', async () => {
  const headers = { host: 'shop', 'x-mte-upstream': billingSidecar.url }
  assert.equal((await call(port, { path: 'http://shop/v1/a', headers })).text, 'billing')
  assert.equal(billing.last().headers.host, 'shop')
  assert.equal(billing.last().url, '/v1/a')
  assert.equal((await call(port, { headers: { ...headers, host: 'any.example:81' } })).text, 'billing')
  assert.equal(billing.last().headers.host, 'any.example:81')
})

test("with x-mte-upstream and a Host that is the sidecar's own, the app sees the host of its UPSTREAM", async () => {
  for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`, 'localhost']) {
    const answer = await call(port, { headers: { host, 'x-mte-upstream': billingSidecar.url } })
    assert.equal(answer.text, 'billing')
    assert.equal(billing.last().headers.host, `127.0.0.1:${billing.port}`, host)
  }
})

test('x-mte-upstream may have a path, below which something leads to the sidecar', async () => {
  const headers = { 'x-mte-upstream': `${billingSidecar.url}/` }
  assert.equal((await call(port, { headers })).text, 'billing')
})

test('an x-mte-upstream that is no base URL is a bad request, and is not shown', async () => {
  for (const wrong of [
    'planted',
    'ftp://planted',
    'http://planted:hush@host',
    'http://planted:99999',
    '',
    'http://a/?planted',
  ]) {
    const answer = await call(port, { headers: { 'x-mte-upstream': wrong } })
    assert.equal(answer.status, 400, wrong)
    assert.equal(answer.code, 'bad-request')
    assert.match(JSON.parse(answer.text).detail, /^x-mte-upstream must /)
    assert.ok(!answer.text.includes('planted'))
  }
})

test('patterns of PEERS stand for many, and the longest match wins', async () => {
  assert.equal((await call(port, { headers: { host: 'eu.shop' } })).text, 'shop')
  assert.equal(shop.last().headers.host, 'eu.shop')
  assert.equal((await call(port, { headers: { host: 'old.shop' } })).text, 'billing')
  assert.equal((await call(port, { headers: { host: 'very.old.shop' } })).text, 'shop')
})

test('{host} and {port} of a peer are those that were called', async () => {
  const byPort = `sidecar-of.any:${billingSidecar.port('inbound')}`
  assert.equal((await call(port, { headers: { host: byPort } })).text, 'billing')
  assert.equal((await call(port, { headers: { host: '127.0.0.1:7' } })).text, 'billing')
})

test('PEERS_FILE is read again when it changes, while calls go on', async () => {
  const headers = { host: 'from-file' }
  assert.equal((await call(port, { headers })).code, 'peer-unreachable')
  writeFileSync(peersFile, `from-file=${billingSidecar.url}\n`)
  let answer = await call(port, { headers })
  while (answer.status !== 200) answer = await call(port, { headers })
  assert.equal(answer.text, 'billing')
  writeFileSync(peersFile, `other=${billingSidecar.url}\n`)
  while (answer.status === 200) answer = await call(port, { headers })
  assert.equal(answer.code, 'no-peer')
  assert.equal((await call(port, { headers: { host: 'other' } })).text, 'billing')
  assert.equal((await call(port, { headers: { host: 'shop' } })).text, 'shop')
})

test('what PEERS does not name is refused, and nothing of it is sent anywhere', async () => {
  let connections = 0
  shop.server.on('connection', () => connections++)
  const before = tap.recorded().length
  for (const authority of [
    `127.0.0.1:${shop.port}`,
    `localhost:${shop.port}`,
    `127.0.0.1:${shopSidecar.port('inbound')}`,
    'unknown.example',
    'shop.unknown',
    'xshop',
  ]) {
    for (const options of [
      { headers: { host: authority } },
      { path: `http://${authority}/`, headers: { host: 'shop' } },
    ]) {
      const answer = await call(port, { ...options, method: 'POST', body: 'planted' })
      assert.equal(answer.status, 502)
      assert.equal(answer.code, 'no-peer')
      assert.equal(answer.headers['proxy-status'], 'mte-sidecar; error=destination_not_found')
      assert.equal(answer.headers['content-type'], 'application/problem+json')
      const { status, code, detail } = JSON.parse(answer.text)
      assert.deepEqual([status, code], [502, 'no-peer'])
      assert.match(detail, /PEERS/)
    }
  }
  assert.equal(connections, 0)
  assert.equal(tap.recorded().length, before)
})

test('a Host that is no authority is refused, whatever the patterns', async () => {
  for (const host of ['', 'a b', 'user@shop', 'shop/x', 'shop,billing', '.shop', 'shop:x']) {
    const answer = await call(port, { headers: { host } })
    assert.ok(
      answer.code === 'no-peer' || answer.code === 'bad-request',
      `${host}: ${answer.status} ${answer.text}`,
    )
  }
})

test('PASS_THROUGH_HOSTS are called in plain, without what is for the sidecar', async () => {
  const answer = await call(port, {
    method: 'PUT',
    path: '/plain?a=b',
    headers: {
      host: `127.0.0.1:${billing.port}`,
      'x-a': 'b',
      'x-mte-encode-url': 'true',
      'proxy-authorization': 'Basic eA==',
    },
    body: 'in plain',
  })
  assert.equal(answer.text, 'billing')
  const { method, url, headers, body } = billing.last()
  assert.deepEqual([method, url, body, headers['x-a']], ['PUT', '/plain?a=b', 'in plain', 'b'])
  assert.equal(headers['x-mte-encode-url'], undefined)
  assert.equal(headers['proxy-authorization'], undefined)
})

test('a host that is passed through and does not answer is told as what it is', async () => {
  const gone = await startRecorder('gone')
  const plain = await startSidecar({ PASS_THROUGH_HOSTS: `127.0.0.1:${gone.port}` })
  const options = { headers: { host: `127.0.0.1:${gone.port}` } }
  assert.equal((await call(plain.port('outbound'), options)).text, 'gone')
  await gone.close()
  const answer = await call(plain.port('outbound'), options)
  assert.equal(answer.status, 502)
  assert.equal(answer.code, 'upstream-unreachable')
  await plain.close()
})

test('what a host that is passed through answers is passed on if it is valid, and never as the word of a sidecar', async () => {
  const answers: Record<string, string> = {
    '/good': 'HTTP/1.1 200 OK\r\nmte-error: planted\r\ncontent-length: 2\r\n\r\nok',
    '/switching': 'HTTP/1.1 101 Switching Protocols\r\n\r\n',
    '/no-status': 'HTTP/1.1 999 Hm\r\ncontent-length: 2\r\n\r\nok',
    '/body-of-none': 'HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok',
  }
  const host = await rawServer((socket) => {
    socket.on('data', (bytes: Buffer) => socket.write(answers[String(bytes).split(' ')[1]!]!))
  })
  const plain = await startSidecar({ PASS_THROUGH_HOSTS: `127.0.0.1:${host.port}` })
  const authority = `127.0.0.1:${host.port}`
  for (const protocol of APP_PROTOCOLS) {
    const get = (path: string) => makeCall(protocol, plain.port('outbound'), { authority, path })
    const good = await get('/good')
    assert.deepEqual([good.status, good.text, good.code], [200, 'ok', undefined])
    for (const path of Object.keys(answers).slice(1)) {
      const { status, code, text } = await get(path)
      assert.deepEqual([status, code], [502, 'upstream-unreachable'], path)
      assert.match(text, /cannot be passed on|no valid HTTP/)
    }
  }
  // Nothing is left of what was not passed on.
  while (host.sockets.size > 1) await new Promise(setImmediate)
  await plain.close()
  await host.close()
  assert.deepEqual(
    plain.lines.filter(({ level }) => level === 'error'),
    [],
  )
})

test('OUTBOUND_PORT=off takes no calls', async () => {
  assert.equal(billingSidecar.app.ports.has('outbound'), false)
})

test.run()
