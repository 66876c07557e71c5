import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import type { Socket } from 'node:net'
import type { SidecarError } from '../../sidecar/errors.ts'
import { Http1Client } from '../../sidecar/http/http1-client.ts'
import { certificate } from '../support/certificates.ts'
import { get, httpApp, OK, testing } from '../support/clients.ts'
import {
  FedBody,
  failureOf,
  listening,
  rawServer,
  readAll,
  received,
  requestOf,
  TestCaller,
} from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-client time-outs and aborts')

const against = testing(Http1Client)

/** Listens at once: a promise that rejects before anybody does so ends the process. */
function failing(answer: Promise<unknown>, why: SidecarError): Promise<void> {
  return assert.rejects(answer, (error) => error === why)
}

test('an app that says nothing is a response-timeout, on a new connection and on a kept one', async () => {
  const server = rawServer((socket) => {
    socket.once('data', () => socket.write(OK))
  })
  const options = { responseTimeoutMs: 300 }
  await against(
    server,
    async (client) => {
      await get(client)
      for (let i = 0; i < 2; i++) {
        const silent = client.send(requestOf({ method: 'POST' }, 'body'), new TestCaller())
        if (i === 0) assert.deepEqual(await failureOf(silent), { failure: 'response-timeout', sent: true })
        else assert.equal((await silent).head.status, 200)
      }
    },
    options,
  )
})

test('the time for a response begins with the last byte of the request, and again with each interim response', async () => {
  const ended = Promise.withResolvers<Socket>()
  const server = rawServer((socket) => {
    socket.on('data', (bytes) => bytes.includes('0\r\n\r\n') && ended.resolve(socket))
  })
  await against(
    server,
    async (client) => {
      /** Takes as long as the time for a response: a call that is not answered. */
      const timeout = () => failureOf(get(client))
      const body = new FedBody().push('body')
      const caller = new TestCaller()
      let over = false
      const failure = failureOf(client.send(requestOf({ method: 'POST' }, body), caller)).finally(() => {
        over = true
      })
      // A request that is slow in coming is not the app's fault.
      for (let i = 0; i < 2; i++) await timeout()
      body.end()
      const socket = await ended.promise
      let passed = false
      const passing = timeout()
        .then(timeout)
        .then(() => {
          passed = true
        })
      while (!passed) {
        const informed = caller.nextInformed()
        socket.write('HTTP/1.1 102 Processing\r\n\r\n')
        await Promise.race([informed, failure])
        assert.equal(over, false)
      }
      await passing
      assert.deepEqual(await failure, { failure: 'response-timeout', sent: true })
    },
    { responseTimeoutMs: 300 },
  )
})

test('a request that the app does not take is given up after its answer is complete', async () => {
  const server = rawServer((socket) => {
    socket.once('data', () => {
      socket.pause()
      socket.write(OK)
    })
  })
  await against(
    server,
    async (client, { sockets }) => {
      const endless = { trailers: [], whole: () => undefined, read: async () => Buffer.alloc(64 * 1024) }
      const answer = await client.send(requestOf({ method: 'POST' }, endless), new TestCaller())
      const [socket] = sockets
      assert.equal(await readAll(answer.body), 'ok')
      // Who does not read learns of a reset by writing.
      const broken = new Promise((resolve) => socket!.once('error', resolve))
      const write = () => socket!.write('x', (error) => error || setImmediate(write))
      write()
      await broken
    },
    { responseTimeoutMs: 50 },
  )
})

test('an abort while connecting, while a body comes, and before an answer', async () => {
  const silent = rawServer(() => {})
  await against(silent, async (client, open) => {
    for (const request of [
      requestOf(),
      requestOf({}, new FedBody()),
      requestOf({ method: 'POST' }, new FedBody().push('x')),
    ]) {
      const caller = new TestCaller()
      const answer = client.send(request, caller)
      caller.go()
      await assert.rejects(answer, (error) => error === caller.gone)
    }
    const caller = new TestCaller()
    const gone = client.send(requestOf(), {
      ...caller,
      inform() {},
      onGone: (callback) => callback(caller.gone),
    })
    await assert.rejects(gone, (error) => error === caller.gone)
    assert.ok([...open.sockets].every((socket) => socket.bytesRead === 0))
  })
})

test('an abort resets a request that is under way, and closes the connection of one that is complete', async () => {
  const arrived = Promise.withResolvers<Socket>()
  const server = rawServer((socket) => {
    received(socket, '\r\n\r\n').then(() => arrived.resolve(socket))
  })
  await against(server, async (client) => {
    const caller = new TestCaller()
    const body = new FedBody().push('half')
    const answer = failing(client.send(requestOf({ method: 'POST' }, body), caller), caller.gone)
    const socket = await arrived.promise
    const error = new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve))
    caller.go()
    assert.equal((await error).code, 'ECONNRESET')
    await answer
  })
  const complete = Promise.withResolvers<Socket>()
  const taking = rawServer((socket) => {
    received(socket, '\r\n\r\n').then(() => complete.resolve(socket))
  })
  await against(taking, async (client) => {
    const caller = new TestCaller()
    const answer = failing(client.send(requestOf(), caller), caller.gone)
    const socket = await complete.promise
    const closed = once(socket, 'close')
    caller.go()
    await closed
    await answer
  })
})

test('an abort in the middle of an answer cuts its body off', async () => {
  const server = httpApp((_request, response) => response.write('begun'))
  await against(server, async (client) => {
    const caller = new TestCaller()
    const answer = await client.send(requestOf(), caller)
    assert.equal((await answer.body.read())?.toString(), 'begun')
    const rest = answer.body.read()
    caller.go()
    await assert.rejects(rest, (error) => error === caller.gone)
    await assert.rejects(answer.body.read(), (error) => error === caller.gone)
  })
})

test('a request over TLS that is aborted does not look complete', async () => {
  const own = certificate('IP:127.0.0.1')
  const outcome = Promise.withResolvers<string>()
  const begun = Promise.withResolvers<void>()
  const server = https.createServer(own, (request) => {
    request.once('data', () => begun.resolve())
    request.on('end', () => outcome.resolve('complete'))
    request.on('aborted', () => outcome.resolve('aborted'))
    request.on('error', () => {})
  })
  const caller = new TestCaller()
  await against(
    listening(server, 'https'),
    async (client) => {
      const request = requestOf({ method: 'POST' }, new FedBody().push('half'))
      const answer = failing(client.send(request, caller), caller.gone)
      await begun.promise
      caller.go()
      assert.equal(await outcome.promise, 'aborted')
      await answer
    },
    { ca: [own.cert] },
  )
})

test.run()
