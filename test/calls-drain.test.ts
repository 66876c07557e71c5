/** A sidecar that leaves: open calls finish, new ones are not taken. */
import assert from 'node:assert/strict'
import { field } from '../sidecar/http/fields.ts'
import {
  APP_PROTOCOLS,
  type AppCall,
  beginCall,
  beginStream,
  connectH2c,
  makeCall,
} from './support/app-client.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { once } from './support/call.ts'
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

test("calls that are open finish while the caller's sidecar drains, and then it is done", async () => {
  const { pair, open, draining, isDrained } = await startDraining(({ orders }) => orders)
  await assert.rejects(makeCall('HTTP/1.1', pair.orders.port('outbound')), /ECONNREFUSED/)
  assert.equal(isDrained(), false)
  await open.finish()
  await draining
  await pair.close()
})

test("calls that are open finish while the app's sidecar drains, and new ones are told that it is away", async () => {
  const { pair, open, draining, isDrained } = await startDraining(({ billing }) => billing)
  assert.equal((await makeCall('HTTP/1.1', pair.orders.port('outbound'))).code, 'peer-unreachable')
  assert.equal(isDrained(), false)
  await open.finish()
  await draining
  await pair.close()
})

test('connections without a call are closed at once, and others after their call, of which the caller is told', async () => {
  const pair = await startPair(app.port)
  const port = pair.orders.port('outbound')
  app.handler = (_request, response) => response.end('done')
  const idle = new RawClient(port).write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n')
  await idle.until(/done/)
  const idleSession = connectH2c(port)
  assert.equal((await beginStream(idleSession).end().whole()).text, 'done')
  const reached = app.next()
  const busy = beginCall('HTTP/1.1', port).end()
  const [, response] = await reached
  const draining = pair.orders.app.drain()
  assert.equal(await idle.ended, 'end')
  if (!idleSession.closed) await once(idleSession, 'close')
  response.end('done')
  assert.equal((await busy.whole()).text, 'done')
  assert.equal(field((await busy.head).fields, 'connection'), undefined)
  await draining
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
