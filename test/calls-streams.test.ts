/** Calls piece by piece: interim responses, Expect, trailers, and events that tick through. */
import assert from 'node:assert/strict'
import type http from 'node:http'
import type { Fields } from '../sidecar/call.ts'
import { field } from '../sidecar/http/fields.ts'
import { APP_PROTOCOLS, beginCall, makeCall } from './support/app-client.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { once } from './support/call.ts'
import { closeListeners, RawClient } from './support/listener.ts'
import { type Pair, startPair } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('calls: streams')

let app: AppServer
/** what the app does with Expect: 100-continue; node:http would answer it by itself */
let onExpect: http.RequestListener
let pair: Pair
let port: number

test.before(async () => {
  app = await startAppServer()
  app.server.on('checkContinue', (request, response) => onExpect(request, response))
  pair = await startPair(app.port)
  port = pair.orders.port('outbound')
})

test.after(async () => {
  closeListeners()
  await pair.close()
  await app.close()
})

/** Answers `ended` when the request is there, with its trailers as JSON. */
const tellTrailers: http.RequestListener = async (request, response) => {
  let body = ''
  for await (const piece of request) body += piece
  response.end(JSON.stringify({ body, trailers: request.rawTrailers }))
}

for (const protocol of APP_PROTOCOLS) {
  test(`trailers of the request reach the app over ${protocol}, announced or not`, async () => {
    app.handler = tellTrailers
    const trailers = ['x-checksum', 'abc', 'x-sum', '1 2']
    for (const body of ['', 'x', 'y'.repeat(300_000)]) {
      const fields =
        protocol === 'h2c'
          ? ['trailer', 'x-checksum']
          : ['trailer', 'x-checksum', 'transfer-encoding', 'chunked']
      const answer = await makeCall(protocol, port, { method: 'POST', fields, body, trailers })
      assert.deepEqual(JSON.parse(answer.text), { body, trailers })
    }
    // What is not announced can be passed on where the whole call is at hand when it leaves.
    const fields = protocol === 'h2c' ? [] : ['transfer-encoding', 'chunked']
    assert.equal(
      (await makeCall(protocol, port, { method: 'POST', fields, body: 'x', trailers })).status,
      200,
    )
  })

  test(`trailers of the answer reach the caller over ${protocol}, announced or not`, async () => {
    for (const announced of [true, false]) {
      for (const streamed of [true, false]) {
        const trailers: Fields = ['x-sum', 'abc', 'grpc-status', '0']
        app.handler = (_request, response) => {
          if (announced) response.setHeader('trailer', 'x-sum, grpc-status')
          response.setHeader('transfer-encoding', 'chunked')
          if (streamed) response.flushHeaders()
          response.write('body')
          response.addTrailers([
            ['x-sum', 'abc'],
            ['grpc-status', '0'],
          ] as never)
          response.end()
        }
        const answer = await makeCall(protocol, port)
        assert.equal(answer.text, 'body')
        assert.deepEqual(answer.trailers, trailers)
        if (announced) assert.equal(field(answer.fields, 'trailer'), 'x-sum, grpc-status')
      }
    }
  })

  test(`trailers that belong into a head are refused over ${protocol}, and those for sidecars go no further`, async () => {
    app.handler = tellTrailers
    const base = protocol === 'h2c' ? [] : ['transfer-encoding', 'chunked']
    const trailers = ['x-mte-upstream', 'planted', 'x-a', '1']
    const stripped = await makeCall(protocol, port, {
      method: 'POST',
      fields: [...base, 'trailer', 'x-a'],
      body: 'x',
      trailers,
    })
    assert.deepEqual(JSON.parse(stripped.text), { body: 'x', trailers: ['x-a', '1'] })
    let reached = false
    app.handler = (request, response) => {
      request.on('end', () => {
        reached = true
        response.end()
      })
      request.resume()
    }
    const refused = await makeCall(protocol, port, {
      method: 'POST',
      fields: [...base, 'trailer', 'x-a'],
      body: 'x',
      trailers: ['authorization', 'Bearer planted'],
    })
    assert.deepEqual([refused.status, refused.code, reached], [400, 'bad-request', false])
  })

  test(`the body of a call that expects 100 comes after the app has asked for it, over ${protocol}`, async () => {
    const asked = Promise.withResolvers<{ response: http.ServerResponse; bytes: () => number }>()
    onExpect = async (request, response) => {
      let bytes = 0
      request.on('data', (piece: Buffer) => {
        bytes += piece.length
      })
      request.on('end', () => response.end(`${request.headers.expect} ${bytes}`))
      asked.resolve({ response, bytes: () => bytes })
    }
    const sent = beginCall(protocol, port, {
      method: 'POST',
      fields: ['expect', '100-continue', 'content-length', '5'],
    })
    const { response, bytes } = await asked.promise
    assert.deepEqual([bytes(), sent.interim.length], [0, 0])
    response.writeContinue()
    const [interim] = await sent.informed(1)
    assert.equal(interim!.status, 100)
    assert.equal((await sent.end('hello').whole()).text, '100-continue 5')
    assert.equal(sent.interim.length, 1)
  })

  test(`an app that refuses what expects 100 is heard at once over ${protocol}, and gets no body`, async () => {
    let bytes = 0
    onExpect = (request, response) => {
      request.on('data', (piece: Buffer) => {
        bytes += piece.length
      })
      response.writeHead(417, { 'content-length': 2 }).end('no')
    }
    const sent = beginCall(protocol, port, {
      method: 'PUT',
      fields: ['expect', '100-continue', 'content-length', '5'],
    })
    sent.request.on('error', () => {})
    const answer = await sent.whole()
    assert.deepEqual([answer.status, answer.text, answer.interim.length, bytes], [417, 'no', 0, 0])
    sent.abort()
  })

  test(`early hints come before the answer over ${protocol}, each as soon as the app has sent it`, async () => {
    const reached = app.next()
    const sent = beginCall(protocol, port).end()
    const [, response] = await reached
    const links = ['</a.css>; rel=preload; as=style', '</b.js>; rel=preload; as=script']
    for (const [i, link] of links.entries()) {
      response.writeEarlyHints({ link, 'x-nth': String(i) })
      const { status, fields } = (await sent.informed(i + 1))[i]!
      assert.deepEqual([status, field(fields, 'link'), field(fields, 'x-nth')], [103, link, String(i)])
    }
    response.writeProcessing()
    assert.equal((await sent.informed(3))[2]!.status, 102)
    response.writeHead(200, { 'x-a': '1' }).end('done')
    const answer = await sent.whole()
    assert.deepEqual([answer.text, field(answer.fields, 'x-a'), answer.interim.length], ['done', '1', 3])
  })

  test(`events tick through one by one over ${protocol}`, async () => {
    const reached = app.next()
    const stream = beginCall(protocol, port, { fields: ['accept', 'text/event-stream'] }).end()
    const [, response] = await reached
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.flushHeaders()
    // The head is there before the first event.
    assert.equal((await stream.head).status, 200)
    for (let i = 0; i < 50; i++) {
      response.write(`data: ${i}\n\n`)
      assert.equal(String(await stream.read()), `data: ${i}\n\n`)
    }
    response.end()
    assert.equal(await stream.read(), undefined)
  })

  test(`what an app writes long before it has its request goes through over ${protocol}, both ways at their own pace`, async () => {
    const reached = app.next()
    const sent = beginCall(protocol, port, { method: 'POST' })
    const [request, response] = await reached
    sent.request.write('one')
    assert.equal(String(await once(request, 'data')), 'one')
    response.write('first')
    assert.equal(String(await sent.read()), 'first')
    sent.request.write('two')
    assert.equal(String(await once(request, 'data')), 'two')
    response.end()
    request.resume()
    assert.equal(await sent.read(), undefined)
    sent.abort()
  })
}

test('interim responses are not for HTTP/1.0', async () => {
  app.handler = (_request, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' })
    response.end('done')
  }
  const client = new RawClient(port).write('GET / HTTP/1.0\r\nHost: billing\r\n\r\n')
  assert.match(await client.toEnd(), /^HTTP\/1\.1 200 OK\r\n.*\r\n\r\ndone$/s)
})

test('an app that sends interim responses without end is passed on up to a limit, and then its answer', async () => {
  app.handler = (_request, response) => {
    for (let i = 0; i < 200; i++) response.writeEarlyHints({ link: '</style.css>; rel=preload' })
    response.end('done')
  }
  for (const protocol of APP_PROTOCOLS) {
    const answer = await makeCall(protocol, port)
    assert.deepEqual([answer.text, answer.interim.length], ['done', 16])
  }
})

test('an interim response that is not valid is left out, and an mte-error in a valid one', async () => {
  app.handler = (request, response) => {
    request.socket.write('HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\n')
    request.socket.write('HTTP/1.1 103 Early Hints\r\nmte-error: planted\r\nx-a: 1\r\n\r\n')
    response.end('done')
  }
  for (const protocol of APP_PROTOCOLS) {
    const answer = await makeCall(protocol, port)
    assert.deepEqual([answer.text, answer.interim], ['done', [{ status: 103, fields: ['x-a', '1'] }]])
  }
})

test.run()
