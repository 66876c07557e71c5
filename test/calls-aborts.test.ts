/** Calls that end before their time: callers that go away, apps that break off, refuse, or are too slow. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { field } from '../sidecar/http/fields.ts'
import { APP_PROTOCOLS, beginCall, makeCall, type WholeAnswer } from './support/app-client.ts'
import { type AppServer, abandoned, startAppServer } from './support/app-server.ts'
import { once } from './support/call.ts'
import { closeListeners, RawClient } from './support/listener.ts'
import { type Pair, startPair, startSidecar, startTap, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('calls: aborts')

let app: AppServer
let pair: Pair
let port: number

test.before(async () => {
  app = await startAppServer()
  pair = await startPair(app.port)
  port = pair.orders.port('outbound')
})

test.after(async () => {
  closeListeners()
  await pair.close()
  await app.close()
})

/** Asserts that a body is cut off behind these bytes. */
async function cutAfter(text: string, read: () => Promise<Buffer | undefined>): Promise<void> {
  let got = ''
  const all = async () => {
    for (let piece = await read(); piece; piece = await read()) got += piece
  }
  await assert.rejects(all)
  assert.equal(got, text)
}

function problemOf({ status, code, fields, text }: WholeAnswer): [number, string | undefined, string] {
  assert.equal(field(fields, 'content-type'), 'application/problem+json')
  assert.equal(JSON.parse(text).code, code)
  return [status, code, JSON.parse(text).detail]
}

for (const protocol of APP_PROTOCOLS) {
  test(`a caller that goes away in the middle of its request over ${protocol} resets that of the app`, async () => {
    for (const fields of [
      ['content-length', '10'],
      protocol === 'h2c' ? [] : ['transfer-encoding', 'chunked'],
    ]) {
      const reached = app.next()
      const sent = beginCall(protocol, port, { method: 'POST', fields })
      sent.request.on('error', () => {})
      sent.request.write('hello')
      const [request, response] = await reached
      assert.equal(String(await once(request, 'data')), 'hello')
      sent.abort()
      await abandoned(response)
      assert.equal(request.complete, false)
    }
  })

  test(`a caller that goes away while it waits over ${protocol} ends the call to the app`, async () => {
    for (const method of ['GET', 'POST']) {
      const reached = app.next()
      const sent = beginCall(protocol, port, { method }).end()
      sent.request.on('error', () => {})
      const [, response] = await reached
      sent.abort()
      await abandoned(response)
    }
  })

  test(`a caller that goes away in the middle of the answer over ${protocol} ends that of the app`, async () => {
    const reached = app.next()
    const sent = beginCall(protocol, port).end()
    sent.request.on('error', () => {})
    const [, response] = await reached
    response.write('first')
    assert.equal(String(await sent.read()), 'first')
    sent.abort()
    await abandoned(response)
  })

  test(`a caller that goes away while the app sends more than anybody reads over ${protocol} ends that too`, async () => {
    const reached = app.next()
    const sent = beginCall(protocol, port).end()
    sent.request.on('error', () => {})
    const [, response] = await reached
    const piece = randomBytes(1_000_000)
    const fill = () => {
      while (!response.destroyed && response.write(piece));
    }
    response.on('drain', fill)
    fill()
    await sent.read()
    sent.abort()
    await abandoned(response)
  })

  const framings: [string, string, string][] = [
    ['a Content-Length', 'Content-Length: 10\r\n\r\n', 'hello'],
    ['chunks', 'Transfer-Encoding: chunked\r\n\r\n', '5\r\nhello\r\n'],
    ['the end of its connection', 'Connection: close\r\n\r\n', 'hello'],
  ]
  for (const [framing, head, body] of framings) {
    test(`an app that breaks off within a body with ${framing} resets the answer over ${protocol}`, async () => {
      const reached = app.next()
      const sent = beginCall(protocol, port).end()
      sent.request.on('error', () => {})
      const [{ socket }] = await reached
      socket.write(`HTTP/1.1 200 OK\r\n${head}${body}`)
      assert.equal((await sent.head).status, 200)
      assert.equal(String(await sent.read()), 'hello')
      socket.resetAndDestroy()
      await cutAfter('', () => sent.read())
    })
  }

  test(`an app that ends its connection within an announced body resets the answer over ${protocol}`, async () => {
    for (const [framing, head, body] of framings.slice(0, 2)) {
      const reached = app.next()
      const sent = beginCall(protocol, port).end()
      sent.request.on('error', () => {})
      const [{ socket }] = await reached
      socket.end(`HTTP/1.1 200 OK\r\n${head}${body}`)
      const { status } = await sent.head
      if (status === 200) await cutAfter('hello', () => sent.read())
      else assert.equal(status, 502, framing)
    }
  })

  test(`an app that breaks off in a large answer resets it over ${protocol}`, async () => {
    for (const size of [64 * 1024, 1_000_000]) {
      const reached = app.next()
      const sent = beginCall(protocol, port).end()
      sent.request.on('error', () => {})
      const [, response] = await reached
      response.writeHead(200, { 'content-length': size + 1 })
      response.write(randomBytes(size), () => response.socket!.destroy())
      assert.equal((await sent.head).status, 200)
      await assert.rejects(sent.whole())
    }
  })

  test(`an app that sends more than it announced spoils this call alone over ${protocol}`, async () => {
    const reached = app.next()
    const sent = beginCall(protocol, port).end()
    sent.request.on('error', () => {})
    const [{ socket }] = await reached
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello')
    await cutAfter('', () => sent.read())
    app.handler = (_request, response) => response.end('next')
    assert.equal((await makeCall(protocol, port)).text, 'next')
  })

  test(`an app that breaks before it answers: the outcome of a POST is unknown over ${protocol}, and it ran once`, async () => {
    let runs = 0
    app.handler = (request) => {
      runs++
      request.resume()
      request.on('end', () => request.socket.destroy())
    }
    const answer = await makeCall(protocol, port, {
      method: 'POST',
      fields: ['content-length', '5'],
      body: 'hello',
    })
    assert.deepEqual(problemOf(answer).slice(0, 2), [502, 'outcome-unknown'])
    assert.equal(runs, 1)
  })

  test(`an app that refuses the connection is told as unreachable over ${protocol}`, async () => {
    const down = await startSidecar({ NAME: 'down', UPSTREAM: `http://127.0.0.1:${await unusedPort()}` })
    const tap = await startTap(down.port('inbound'))
    for (const method of ['GET', 'POST']) {
      const fields = ['x-mte-upstream', `http://127.0.0.1:${tap.port}`]
      const answer = await makeCall(protocol, port, { method, fields, body: '' })
      const [status, code, detail] = problemOf(answer)
      assert.deepEqual([status, code], [502, 'upstream-unreachable'])
      assert.match(detail, /ECONNREFUSED/)
      assert.equal(field(answer.fields, 'proxy-status'), 'mte-sidecar; error=destination_unavailable')
    }
    // It came as an encoded response like any other.
    assert.ok(tap.received().length > 0)
    assert.ok(!tap.recorded().includes('unreachable'))
    await tap.close()
    await down.close()
  })

  test(`an app that is too slow is given up in time over ${protocol}, and sees that`, async () => {
    const slow = await startPair(app.port, {
      billing: { RESPONSE_TIMEOUT_SECONDS: 0.3 },
      orders: { RESPONSE_TIMEOUT_SECONDS: 0.3 },
    })
    for (const method of ['GET', 'POST']) {
      const reached = app.next()
      const sent = makeCall(protocol, slow.orders.port('outbound'), { method, body: '' })
      const [, response] = await reached
      assert.deepEqual(problemOf(await sent).slice(0, 2), [504, 'upstream-timeout'])
      await abandoned(response)
    }
    await slow.close()
  })

  test(`a call in which nothing moves is ended over ${protocol}, and one in which something does is not`, async () => {
    const idleMs = 300
    const idle = await startPair(app.port, { orders: { IDLE_TIMEOUT_SECONDS: idleMs / 1000 } })
    const outbound = idle.orders.port('outbound')
    const answering = app.next()
    const still = beginCall(protocol, outbound).end()
    still.request.on('error', () => {})
    const [, response] = await answering
    response.write('first')
    await cutAfter('first', () => still.read())
    await abandoned(response)

    const asking = app.next()
    const stopped = beginCall(protocol, outbound, { method: 'POST' })
    stopped.request.on('error', () => {})
    stopped.request.write('first')
    const [request, itsResponse] = await asking
    await abandoned(itsResponse)
    assert.equal(request.complete, false)
    await assert.rejects(stopped.whole())

    app.handler = (request, response) => {
      response.flushHeaders()
      request.pipe(response)
    }
    const moving = beginCall(protocol, outbound, { method: 'POST' })
    await moving.head
    for (const beganMs = performance.now(); performance.now() - beganMs < 3 * idleMs; ) {
      moving.request.write('tick')
      assert.equal(String(await moving.read()), 'tick')
    }
    assert.equal((await moving.end('last').whole()).text, 'last')
    await idle.close()
  })
}

test('a body that is cut off ends with a reset of the connection, and not with the end of its chunks', async () => {
  const reached = app.next()
  const client = new RawClient(port).write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n')
  const [, response] = await reached
  response.write('hello')
  await client.until(/hello/)
  response.socket!.resetAndDestroy()
  assert.equal(await client.ended, 'ECONNRESET')
  assert.match(client.received, /\r\n5\r\nhello\r\n$/)
})

test('a body without length or chunks, for HTTP/1.0, is reset where it is cut off: an end of the connection would be its end', async () => {
  const reached = app.next()
  const client = new RawClient(port).write('GET / HTTP/1.0\r\nHost: billing\r\n\r\n')
  const [, response] = await reached
  response.write('hello')
  await client.until(/hello/)
  response.socket!.resetAndDestroy()
  assert.equal(await client.ended, 'ECONNRESET')
})

test.run()
