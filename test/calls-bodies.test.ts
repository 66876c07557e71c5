/** Bodies of calls: sizes, framings, limits, answers without one, and both directions at the same time. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import http from 'node:http'
import type { Fields } from '../sidecar/call.ts'
import { field } from '../sidecar/http/fields.ts'
import { APP_PROTOCOLS, beginCall, makeCall } from './support/app-client.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { call } from './support/call.ts'
import { closeListeners, RawClient } from './support/listener.ts'
import { type Pair, startPair } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('calls: bodies')

let app: AppServer
let pair: Pair
let port: number
/** both of its sidecars allow bodies of 1000 bytes */
let limited: Pair

test.before(async () => {
  app = await startAppServer()
  pair = await startPair(app.port)
  port = pair.orders.port('outbound')
  limited = await startPair(app.port, { orders: { MAX_BODY_BYTES: 1000 } })
})

test.after(async () => {
  closeListeners()
  await pair.close()
  await limited.close()
  await app.close()
})

async function bodyOf(request: http.IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of request) pieces.push(piece)
  return Buffer.concat(pieces)
}

/** Answers with the request's body, in the framing that it came in. */
const mirror: http.RequestListener = async (request, response) => {
  const body = await bodyOf(request)
  response.setHeader(
    'x-length',
    request.headers['content-length'] ?? request.headers['transfer-encoding'] ?? 'none',
  )
  if (request.headers['content-length']) response.setHeader('content-length', body.length)
  else response.flushHeaders()
  response.end(body)
}

/** Counts the calls that reach the app whole. */
function counted(): { whole: number } {
  const count = { whole: 0 }
  app.handler = async (request, response) => {
    await bodyOf(request).catch(() => {})
    if (!request.complete) return
    count.whole++
    response.end('done')
  }
  return count
}

for (const protocol of APP_PROTOCOLS) {
  test(`bodies of any size arrive whole over ${protocol}, in both directions and both framings`, async () => {
    app.handler = mirror
    for (const size of [0, 1, 1000, 16_383, 65_535, 65_536, 65_537, 262_145, 1_000_000, 10_000_000]) {
      const body = randomBytes(size)
      for (const fields of [
        ['content-length', String(size)],
        protocol === 'h2c' ? [] : ['transfer-encoding', 'chunked'],
      ]) {
        const announced = fields[0] === 'content-length'
        const answer = await makeCall(protocol, port, { method: 'POST', fields, body })
        assert.equal(answer.status, 200)
        assert.ok(answer.body.equals(body), `${size} ${fields}`)
        const seen = field(answer.fields, 'x-length')
        // A body that is at hand as a whole gets a length.
        if (announced || size > 65_536) assert.equal(seen, announced ? String(size) : 'chunked')
        if (announced) assert.equal(field(answer.fields, 'content-length'), String(size))
      }
    }
  })

  test(`a response that begins before the request has ended goes on with it over ${protocol}`, async () => {
    app.handler = (request, response) => {
      response.writeHead(200)
      response.flushHeaders()
      request.pipe(response)
    }
    const duplex = beginCall(protocol, port, { method: 'POST' })
    assert.equal((await duplex.head).status, 200)
    for (let i = 0; i < 20; i++) {
      const piece = randomBytes(i % 2 === 0 ? 10 : 100_000)
      duplex.request.write(piece)
      let echoed: Buffer = Buffer.alloc(0)
      while (echoed.length < piece.length) echoed = Buffer.concat([echoed, (await duplex.read())!])
      assert.ok(echoed.equals(piece))
    }
    assert.equal((await duplex.end('last').whole()).text, 'last')
  })

  test(`an early answer to a large upload reaches its caller over ${protocol}, who may stop then`, async () => {
    const apps: http.RequestListener[] = [
      (_request, response) => response.writeHead(401, { 'content-length': 4 }).end('stop'),
      // One that takes no more, and closes as it should: after the caller did.
      (request) => {
        request.resume()
        request.socket.end('HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 4\r\n\r\nstop')
      },
    ]
    for (const early of apps) {
      app.handler = early
      const upload = beginCall(protocol, port, { method: 'POST', fields: ['content-length', '100000000'] })
      upload.request.on('error', () => {})
      upload.request.write(randomBytes(300_000))
      assert.equal((await upload.head).status, 401)
      assert.equal((await upload.whole()).text, 'stop')
      upload.abort()
      await upload.closed
    }
  })

  test(`an early answer of an app that reads on leaves the upload whole over ${protocol}`, async () => {
    const received = Promise.withResolvers<number>()
    app.handler = async (request, response) => {
      response.writeHead(202).write('early')
      received.resolve((await bodyOf(request)).length)
      response.end()
    }
    const upload = beginCall(protocol, port, { method: 'POST', fields: ['content-length', '3000000'] })
    assert.equal(String(await upload.read()), 'early')
    upload.end(randomBytes(3_000_000))
    assert.equal(await received.promise, 3_000_000)
    assert.equal((await upload.whole()).status, 202)
  })

  test(`answers without a body keep their heads over ${protocol}: HEAD, 204, 205, 304, and an empty one`, async () => {
    const cases: [string, number, Fields, Fields][] = [
      ['HEAD', 200, ['content-length', '1234', 'etag', '"x"'], ['content-length', '1234']],
      ['HEAD', 200, ['content-length', '0'], ['content-length', '0']],
      ['HEAD', 404, ['x-a', '1'], []],
      ['GET', 204, ['x-a', '1'], []],
      ['DELETE', 204, [], []],
      ['GET', 304, ['etag', '"x"', 'content-length', '1234'], ['content-length', '1234']],
      ['GET', 304, ['etag', '"x"'], []],
      ['GET', 205, ['content-length', '0'], ['content-length', '0']],
      ['GET', 200, ['content-length', '0'], ['content-length', '0']],
      ['POST', 201, ['content-length', '0', 'location', '/x'], ['content-length', '0']],
    ]
    for (const [method, status, fields, expected] of cases) {
      app.handler = (request, response) => {
        request.resume()
        response.writeHead(status, [...fields] as string[]).end()
      }
      const answer = await makeCall(protocol, port, { method })
      assert.deepEqual([answer.status, answer.body.length], [status, 0], `${method} ${status}`)
      const length = field(answer.fields, 'content-length')
      if (expected.length > 0 || method === 'HEAD' || status === 304 || status === 204)
        assert.equal(length, expected[1])
      for (let i = 0; i < fields.length; i += 2) assert.equal(field(answer.fields, fields[i]!), fields[i + 1])
    }
  })

  test(`a chunked answer that is empty is an empty one over ${protocol}`, async () => {
    app.handler = (_request, response) => {
      response.flushHeaders()
      response.end()
    }
    const { status, body } = await makeCall(protocol, port)
    assert.deepEqual([status, body.length], [200, 0])
  })

  test(`a body longer than MAX_BODY_BYTES gets a 413 over ${protocol}, and never reaches the app whole`, async () => {
    const count = counted()
    const outbound = limited.orders.port('outbound')
    const tooLong = [
      { fields: ['content-length', '1001'], body: randomBytes(1001) },
      { fields: protocol === 'h2c' ? [] : ['transfer-encoding', 'chunked'], body: randomBytes(1001) },
    ]
    for (const options of tooLong) {
      const { status, code } = await makeCall(protocol, outbound, { method: 'POST', ...options })
      assert.deepEqual([status, code], [413, 'body-too-large'])
    }
    // Announced, it is refused before any of it came.
    const announced = beginCall(protocol, outbound, { method: 'POST', fields: ['content-length', '1001'] })
    assert.equal((await announced.head).status, 413)
    announced.abort()
    // Streamed, it is refused as soon as it is too long, without its end.
    const streamed = beginCall(protocol, outbound, { method: 'POST' })
    streamed.request.write(randomBytes(1000))
    streamed.request.write(randomBytes(1))
    assert.equal((await streamed.head).status, 413)
    streamed.abort()
    assert.equal(count.whole, 0)
    for (const options of tooLong) {
      const fields = options.fields[0] === 'content-length' ? ['content-length', '1000'] : options.fields
      const fits = await makeCall(protocol, outbound, { method: 'POST', fields, body: randomBytes(1000) })
      assert.equal(fits.text, 'done')
    }
    assert.equal(count.whole, 2)
  })
}

test("the app's sidecar has a limit of its own, whatever the caller's sidecar lets through", async () => {
  const count = counted()
  const other = await startPair(app.port, { billing: { MAX_BODY_BYTES: 1000 } })
  for (const protocol of APP_PROTOCOLS) {
    const outbound = other.orders.port('outbound')
    for (const fields of [
      ['content-length', '1001'],
      protocol === 'h2c' ? [] : ['transfer-encoding', 'chunked'],
    ]) {
      const answer = await makeCall(protocol, outbound, { method: 'POST', fields, body: randomBytes(1001) })
      assert.deepEqual([answer.status, answer.code], [413, 'body-too-large'])
    }
    const streamed = beginCall(protocol, outbound, { method: 'POST' })
    streamed.request.write(randomBytes(1000))
    streamed.request.write(randomBytes(1))
    assert.equal((await streamed.head).status, 413)
    streamed.abort()
  }
  assert.equal(count.whole, 0)
  await other.close()
})

test('a connection goes on after bodies that a caller sent and nobody read', async () => {
  app.handler = (_request, response) => response.writeHead(401, { 'content-length': 4 }).end('stop')
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  for (let i = 0; i < 3; i++) {
    const answer = await call(port, {
      method: 'POST',
      headers: { 'content-length': '100000' },
      body: randomBytes(100_000),
      agent,
    })
    assert.equal(answer.text, 'stop')
  }
  agent.destroy()
})

test('a body that lasts until its connection ends is whole', async () => {
  app.handler = (request, response) => {
    request.socket.end('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end')
    response.destroy()
  }
  for (const protocol of APP_PROTOCOLS) assert.equal((await makeCall(protocol, port)).text, 'until the end')
})

test('an HTTP/1.0 caller gets a body that lasts until its connection ends', async () => {
  app.handler = (_request, response) => {
    response.write('first ')
    response.end('last')
  }
  const client = new RawClient(port).write('GET / HTTP/1.0\r\nHost: billing\r\n\r\n')
  assert.match(await client.toEnd(), /^HTTP\/1\.1 200 OK\r\n(?!transfer-encoding).*\r\n\r\nfirst last$/is)
})

test.run()
