/** Gateways that carry no tunnel, or break it: calls are messages then, none runs twice, and none is lost. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import http from 'node:http'
import { type AppServer, startAppServer } from '../support/app-server.ts'
import { type CallAnswer, call, once } from '../support/call.ts'
import { type Gateway, startGateway } from '../support/gateway.ts'
import { startHttp1Proxy } from '../support/http1-proxy.ts'
import { type Sidecar, startSidecar } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('tunnel: gateways')

/** With so many at once a peer gets tunnels. */
const MANY = 150

let app: AppServer
let billing: Sidecar
/** how often each call reached the app */
const runs = new Map<string, number>()
const open: { close(): Promise<void> }[] = []

test.before(async () => {
  app = await startAppServer()
  app.server.on('request', ({ headers }) => {
    const id = headers['x-id'] as string
    runs.set(id, (runs.get(id) ?? 0) + 1)
  })
  billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
})

test.after(async () => {
  for (const part of open.reverse()) await part.close()
  await billing.close()
  await app.close()
})

const answering: http.RequestListener = (incoming, response) => {
  incoming.resume()
  incoming.on('end', () => response.end(String(incoming.headers['x-id'])))
}

async function behind(carriage: string): Promise<{ gateway: Gateway; orders: Sidecar }> {
  app.handler = answering
  const gateway = await startGateway(billing.port('inbound'))
  const orders = await startSidecar({ NAME: 'orders', PEERS: `billing=${gateway.url}`, CARRIAGE: carriage })
  open.push(gateway, orders)
  return { gateway, orders }
}

interface Made {
  id: string
  answer: Promise<CallAnswer>
}

function make({ port }: Sidecar, method = 'GET', path = '/'): Made {
  const id = randomUUID()
  const headers = { 'x-id': id }
  const answer = call(port('outbound'), { method, path, headers, ...(method === 'POST' && { body: 'x' }) })
  answer.catch(() => {})
  return { id, answer }
}

/** Makes calls, which all get their answers and run once. */
async function makeMany(orders: Sidecar, count = MANY): Promise<void> {
  const made = Array.from({ length: count }, (_, i) => make(orders, i % 2 ? 'GET' : 'POST'))
  for (const { id, answer } of made) {
    const { status, text } = await answer
    assert.equal(status, 200, text)
    assert.equal(text, id)
    assert.equal(runs.get(id), 1)
  }
}

/** Makes many calls until they go by tunnels: until one of them is the third part that goes up. */
async function untilTunnelled(gateway: Gateway, orders: Sidecar): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let seen = false
  gateway.onPart = ({ way, n, bytes }) => {
    if (way === 'up' && n >= 2) {
      seen = true
      resolve()
    }
    return bytes
  }
  while (!seen) await makeMany(orders)
  await promise
  gateway.onPart = ({ bytes }) => bytes
}

test('a gateway that answers 200 by itself, and anything: calls are messages', async () => {
  const { gateway, orders } = await behind('auto')
  gateway.answer = (stream) => {
    stream.respond({ ':status': 200 })
    stream.end(Buffer.alloc(5_000, 'hello '))
  }
  while (gateway.tunnels === 0) await makeMany(orders)
  await gateway.over(1)
  await makeMany(orders)
  assert.equal(gateway.tunnels, 1)
})

test('a gateway that buffers the opening: calls are messages meanwhile and after, and it is let go', async () => {
  const { gateway, orders } = await behind('auto')
  gateway.onPart = ({ way, bytes }) => (way === 'up' ? undefined : bytes)
  while (gateway.tunnels === 0) await makeMany(orders)
  await makeMany(orders)
  await gateway.over(1)
  await makeMany(orders)
  assert.equal(gateway.tunnels, 1)
})

test('where there must be tunnels and the gateway buffers, the app is told so', async () => {
  const { gateway, orders } = await behind('tunnel')
  gateway.onPart = ({ way, bytes }) => (way === 'up' ? undefined : bytes)
  const { id, answer } = make(orders, 'POST')
  const { status, code } = await answer
  assert.deepEqual([status, code], [502, 'peer-unreachable'])
  assert.equal(runs.get(id), undefined)
  gateway.onPart = ({ bytes }) => bytes
  await makeMany(orders, 1)
})

test('a proxy that speaks HTTP/1.1 alone: no tunnel; where there must be one, the app is told so', async () => {
  app.handler = answering
  const proxy = await startHttp1Proxy(billing.port('inbound'))
  const peers = `billing=http://127.0.0.1:${proxy.port}`
  const auto = await startSidecar({ NAME: 'orders', PEERS: peers, CARRIAGE: 'auto' })
  const must = await startSidecar({ NAME: 'orders', PEERS: peers, CARRIAGE: 'tunnel' })
  open.push(proxy, auto, must)
  for (let i = 0; i < 3; i++) await makeMany(auto)
  const { answer } = make(must)
  const { status, code, text } = await answer
  assert.deepEqual([status, code], [502, 'peer-unreachable'])
  assert.match(text, /does not speak HTTP\/2/)
})

test('a tunnel that breaks under a GET, then one under a POST: sent again, or told to be unknown; then calls are messages', async () => {
  const { gateway, orders } = await behind('auto')
  /** Makes a call, and breaks its tunnel while the app has it. */
  const broken = async (method: string) => {
    app.handler = answering
    await untilTunnelled(gateway, orders)
    const next = app.next()
    const made = make(orders, method)
    await next
    app.handler = answering
    const { tunnels } = gateway
    gateway.cut()
    await gateway.over(tunnels)
    return { ...made, answer: await made.answer }
  }
  const get = await broken('GET')
  assert.deepEqual([get.answer.text, runs.get(get.id)], [get.id, 2])
  const post = await broken('POST')
  assert.deepEqual([post.answer.code, runs.get(post.id)], ['outcome-unknown', 1])
  const { tunnels } = gateway
  for (let i = 0; i < 3; i++) await makeMany(orders)
  assert.equal(gateway.tunnels, tunnels)
})

test('an answer that was cut off in the middle is cut off for the app, and nothing is sent again', async () => {
  const { gateway, orders } = await behind('tunnel')
  app.handler = (_incoming, response) => {
    response.writeHead(200, { 'content-length': 100 })
    response.write('some of it')
  }
  const { id, answer } = make(orders)
  gateway.onPart = ({ way, n, bytes }) => {
    if (way === 'down' && n === 2) setImmediate(() => gateway.cut())
    return bytes
  }
  await assert.rejects(answer)
  assert.equal(runs.get(id), 1)
})

test('a slow reader does not slow the others on its tunnel', async () => {
  const { orders, gateway } = await behind('tunnel')
  app.handler = (incoming, response) =>
    incoming.url === '/large' ? response.end(Buffer.alloc(50_000_000)) : answering(incoming, response)
  const slow = http.get({
    host: '127.0.0.1',
    port: orders.port('outbound'),
    path: '/large',
    headers: { host: 'billing' },
    agent: false,
  })
  const response = await once<http.IncomingMessage>(slow, 'response')
  const made = Array.from({ length: 50 }, () => make(orders))
  for (const { id, answer } of made) assert.equal((await answer).text, id)
  assert.equal(gateway.tunnels <= 2, true)
  assert.equal(response.complete, false)
  let bytes = 0
  for await (const piece of response) bytes += piece.length
  assert.equal(bytes, 50_000_000)
})

test.run()
