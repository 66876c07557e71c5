/** A sidecar that leaves: nothing that it has taken is lost, and who calls goes elsewhere. */
import assert from 'node:assert/strict'
import {
  APP_PROTOCOLS,
  type AppCall,
  beginCall,
  beginStream,
  connectH2c,
  makeCall,
} from './support/app-client.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { call, once } from './support/call.ts'
import { carriage } from './support/carriage.ts'
import { closeListeners, RawClient } from './support/listener.ts'
import { type Pair, type Sidecar, startPair } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('calls: drain')

let app: AppServer

test.before(async () => {
  app = await startAppServer()
})

test.after(async () => {
  closeListeners()
  await app.close()
})

/** Calls that are in the middle of something: without an answer, in the middle of it, and in that of the request. */
async function openCalls(port: number): Promise<{ calls: AppCall[]; finish(): Promise<void> }> {
  const calls: AppCall[] = []
  const answers: (() => void)[] = []
  for (const protocol of APP_PROTOCOLS) {
    for (const state of ['waiting', 'answering', 'asking']) {
      const reached = app.next()
      const call = beginCall(protocol, port, { method: 'POST', fields: ['content-length', '2'] })
      call.request.write('h')
      if (state !== 'asking') call.end('i')
      const [request, response] = await reached
      request.resume()
      if (state === 'answering') {
        response.write('first ')
        assert.equal((await call.head).status, 200)
      }
      calls.push(call)
      answers.push(() => {
        if (request.complete) response.end('done')
        else request.once('end', () => response.end('done'))
      })
    }
  }
  /** Ends the requests, then the answers, all of which must come whole. */
  const finish = async () => {
    const wholes = calls.map((call) => call.whole())
    for (const call of calls) if (!call.request.writableEnded) call.end('i')
    for (const answer of answers) answer()
    for (const { text } of await Promise.all(wholes)) assert.match(text, /^(first )?done$/)
  }
  return { calls, finish }
}

async function startDraining(which: (pair: Pair) => Sidecar) {
  const pair = await startPair(app.port)
  const open = await openCalls(pair.orders.port('outbound'))
  let drained = false
  const draining = which(pair)
    .app.drain()
    .then(() => {
      drained = true
    })
  return { pair, open, draining, isDrained: () => drained }
}

for (const which of ['orders', 'billing'] as const) {
  test(`while ${which} drains, calls that are open finish and new ones are answered, and then it is done`, async () => {
    const { pair, open, draining, isDrained } = await startDraining((pair) => pair[which])
    const port = pair.orders.port('outbound')
    app.handler = (_request, response) => response.end('done')
    for (const protocol of APP_PROTOCOLS) {
      const { text, code } = await makeCall(protocol, port)
      if (carriage === 'tunnel' && which === 'billing') assert.equal(code, 'peer-unreachable')
      else assert.equal(text, 'done')
    }
    assert.equal(isDrained(), false)
    await open.finish()
    await draining
    if (which === 'orders') await assert.rejects(makeCall('HTTP/1.1', port), /ECONNREFUSED/)
    else assert.equal((await makeCall('HTTP/1.1', port)).code, 'peer-unreachable')
    await pair.close()
  })
}

test('callers are told to leave their connections, and those without a call are closed', async () => {
  const pair = await startPair(app.port)
  const port = pair.orders.port('outbound')
  app.handler = (_request, response) => response.end('done')
  const idle = new RawClient(port).write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n')
  await idle.until(/done/)
  const idleSession = connectH2c(port)
  assert.equal((await beginStream(idleSession).end().whole()).text, 'done')
  const reached = app.next()
  const busy = new RawClient(port).write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n')
  const [, response] = await reached
  const draining = pair.orders.app.drain()
  if (!idleSession.closed) await once(idleSession, 'close')
  await idle.toEnd()
  response.end('done')
  assert.match(await busy.toEnd(), /\r\nconnection: close\r\n.*done$/s)
  await draining
  await pair.close()
})

test('POST /drain is about the inbound port: the app goes on calling, on the connection that it has', async () => {
  // A tunnel would take no more calls.
  const pair = await startPair(app.port, { orders: { CARRIAGE: 'message' } })
  const port = pair.orders.port('outbound')
  let executed = 0
  app.handler = (_request, response) => {
    executed++
    response.end('done')
  }
  const client = new RawClient(port)
  const charge = async () => {
    client.received = ''
    client.write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n')
    await client.until(/done$/)
    assert.doesNotMatch(client.received, /connection: close/)
  }
  await charge()
  for (const sidecar of [pair.orders, pair.billing]) {
    const admin = sidecar.port('admin')
    const { text } = await call(admin, { method: 'POST', path: '/drain', headers: { host: 'localhost' } })
    const { openCalls } = JSON.parse(text)
    assert.equal(openCalls, 0)
    // Over the connection that billing had, and then over new ones.
    for (let i = 0; i < 3; i++) await charge()
  }
  // As many as come at once, while connections are left, each once.
  const calls = Array.from({ length: 100 }, () => makeCall('HTTP/1.1', port, { method: 'POST', body: 'x' }))
  for (const { text } of await Promise.all(calls)) assert.equal(text, 'done')
  assert.equal(executed, 107)
  const metrics = await call(pair.orders.port('admin'), { path: '/metrics' })
  assert.doesNotMatch(metrics.text, /^mte_resends_total.* [1-9]/m)
  const inbound = new RawClient(pair.billing.port('inbound'))
  inbound.write('GET /api/mte-echo HTTP/1.1\r\nHost: billing\r\n\r\n')
  assert.match(await inbound.toEnd(), /^HTTP\/1\.1 200 .*\r\nconnection: close\r\n.*pong/s)
  client.socket.destroy()
  await pair.close()
})

for (const which of ['orders', 'billing'] as const) {
  test(`a ${which} sidecar that stops without waiting resets what is open, on both sides`, async () => {
    const pair = await startPair(app.port)
    const { calls } = await openCalls(pair.orders.port('outbound'))
    await pair[which].app.close()
    for (const call of calls) {
      call.request.on('error', () => {})
      const answer = await call.whole().catch(() => undefined)
      if (answer) assert.equal(answer.status, 502)
    }
    await pair.close()
  })
}

test.run()
