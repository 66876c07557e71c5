/** A peer that pairs and then behaves badly in its tunnels: too many of them, nothing read, breaches in the middle. */
import assert from 'node:assert/strict'
import http from 'node:http'
import { type AppServer, abandoned, startAppServer } from '../support/app-server.ts'
import { once } from '../support/call.ts'
import { type HandMade, openTunnel } from '../support/hand-made.ts'
import { post, TestPeer } from '../support/peer.ts'
import { type Sidecar, startSidecar } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import { data, request } from '../support/tunnel-end.ts'

const test = suite('tunnel: bad peers')

let app: AppServer
let billing: Sidecar
let peer: TestPeer
let runs = 0
let index = 0
const open: HandMade[] = []

test.before(async () => {
  app = await startAppServer()
  app.server.on('request', () => {
    runs++
  })
  billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  peer = await TestPeer.pair(billing.port('inbound'))
})

test.after(async () => {
  for (const one of open) one.close()
  await billing.close()
  await app.close()
})

async function tunnel(): Promise<HandMade> {
  const one = await openTunnel(billing.port('inbound'), peer, index++)
  open.push(one)
  return one
}

async function statusOf({ end }: HandMade, number: number): Promise<number> {
  end.send(request(number))
  for (;;) {
    const frame = await end.next()
    if (frame.type === 'response' && frame.call === number) return frame.head.status
  }
}

const answering: http.RequestListener = (_request, response) => response.end('done')

test('a breach in the middle of a request: the app gets to see no end of it, and other tunnels go on', async () => {
  const bad = await tunnel()
  const good = await tunnel()
  const next = app.next()
  bad.end.send(request(1, { method: 'POST', end: false, fields: ['content-length', '5'] }), data(1, 'abcde'))
  const [incoming, response] = await next
  incoming.resume()
  bad.end.send(Buffer.from('00', 'hex'))
  await bad.end.end()
  await abandoned(response)
  assert.equal(incoming.complete, false)
  app.handler = answering
  assert.equal(await statusOf(good, 1), 200)
})

test('a call that begins in the record of a breach does not reach the app', async () => {
  app.handler = answering
  const bad = await tunnel()
  const before = runs
  bad.end.send(request(1), request(2), Buffer.from('ff00000000000000', 'hex'))
  await bad.end.end()
  assert.equal(await statusOf(await tunnel(), 1), 200)
  assert.equal(runs, before + 1)
})

test('records that come a byte at a time are taken', async () => {
  app.handler = answering
  const { end, stream } = await tunnel()
  for (const byte of end.sealed(request(1))) stream.write(Buffer.of(byte))
  const response = (await end.until('response')).pop()
  assert.ok(response?.type === 'response' && response.head.status === 200)
})

test('a call whose answer nobody reads does not stop another one', async () => {
  const { end } = await tunnel()
  app.handler = ({ url }, response) => response.end(url === '/' ? Buffer.alloc(10_000_000) : '')
  end.send(request(1))
  let bytes = 0
  while (bytes < 65_536) bytes += ((await end.until('data')).pop() as { piece: string }).piece.length
  app.handler = answering
  for (let number = 2; number < 30; number++) {
    end.send(request(number))
    const frames = await end.until('data')
    assert.ok(frames.every((frame) => !('call' in frame) || frame.call === number))
  }
  end.send({ type: 'reset', call: 1, code: 0 })
  assert.equal(bytes, 65_536)
})

test('a peer that stops reading stops neither others nor what it sends', async () => {
  const bad = await tunnel()
  const good = await tunnel()
  app.handler = (incoming, response) => {
    incoming.resume()
    response.end(Buffer.alloc(1_000_000))
  }
  bad.stream.pause()
  for (let number = 1; number <= 200; number++) {
    bad.end.send(request(number), { type: 'credit', call: number, more: 2 ** 20 })
  }
  for (let number = 1; number <= 5; number++) assert.equal(await statusOf(good, number), 200)
  const next = app.next()
  bad.end.send(request(201))
  const [, response] = await next
  response.end()
  bad.close()
})

test('more than 64 tunnels of one peer are refused; when one has gone, another is taken', async () => {
  for (const one of open.splice(0)) one.close()
  app.handler = answering
  const full: HandMade[] = []
  for (;;) {
    const one = await tunnel().catch((error) => error as Error)
    if (one instanceof Error) {
      assert.equal(one.message, '429')
      // Those that were closed just now may have been there still.
      if (full.length === 64) break
    } else full.push(one)
    assert.ok(full.length <= 64)
  }
  assert.equal(await statusOf(full[0]!, 1), 200)
  full[0]!.close()
  for (;;) {
    const one = await tunnel().catch(() => undefined)
    if (!one) continue
    assert.equal(await statusOf(one, 1), 200)
    break
  }
})

test('over HTTP/1.1 there is no tunnel, and no byte of a body is waited for', async () => {
  const { port } = billing
  const { status, body } = await post(port('inbound'), '/api/mte-tunnel', peer.opening(index++))
  assert.deepEqual([status, body[2]], [400, 0x07])
  const unsent = http.request({
    host: '127.0.0.1',
    port: port('inbound'),
    path: '/api/mte-tunnel',
    method: 'POST',
    headers: { 'content-length': 60 },
  })
  unsent.on('error', () => {})
  unsent.flushHeaders()
  const response = await once<http.IncomingMessage>(unsent, 'response')
  assert.equal(response.statusCode, 400)
  unsent.destroy()
})

test.run()
