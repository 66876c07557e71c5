import assert from 'node:assert/strict'
import { once } from 'node:events'
import { WholeBody } from '../../sidecar/call.ts'
import { SidecarError } from '../../sidecar/errors.ts'
import { Http1Client } from '../../sidecar/http/http1-client.ts'
import { httpApp, testing } from '../support/clients.ts'
import { FedBody, rawServer, readAll, received, requestOf, TestCaller } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-client requests')

const against = testing(Http1Client)

/** The request as it went over the wire, up to a text. */
async function sentBytes(
  send: (client: Http1Client) => Promise<unknown>,
  until = '\r\n\r\n',
): Promise<string> {
  let bytes = Promise.resolve('')
  const server = rawServer((socket) => {
    bytes = received(socket, until)
    bytes.then(() => socket.write('HTTP/1.1 204 No Content\r\n\r\n')).catch(() => {})
  })
  await against(server, async (client) => {
    await send(client)
  })
  return bytes
}

test('sends a request line, Host and fields as they are, and gives the answer', async () => {
  const server = httpApp((request, response) => {
    response.writeHead(201, 'Made', ['X-Two', 'a', 'x-two', 'b', 'set-cookie', 'c=1', 'Set-Cookie', 'd=2'])
    response.end(JSON.stringify([request.method, request.url, request.rawHeaders]))
  })
  await against(server, async (client) => {
    const fields = ['x-one', '1', 'cookie', 'a=1', 'x-one', '2', 'te', 'trailers']
    const answer = await client.send(requestOf({ path: '/a?b=%20', fields }), new TestCaller())
    assert.equal(answer.head.status, 201)
    const { fields: got } = answer.head
    assert.deepEqual(got.slice(0, 8), ['x-two', 'a', 'x-two', 'b', 'set-cookie', 'c=1', 'set-cookie', 'd=2'])
    const [method, path, raw] = JSON.parse(await readAll(answer.body))
    assert.deepEqual([method, path], ['GET', '/a?b=%20'])
    assert.deepEqual(raw, ['host', 'app.example', ...fields, 'Connection', 'keep-alive'])
  })
})

test("takes the origin's own host for Host where the call names none", async () => {
  await against(
    httpApp((request, response) => response.end(request.headers.host)),
    async (client, { url }) => {
      const answer = await client.send(requestOf({ authority: '' }), new TestCaller())
      assert.equal(await readAll(answer.body), url.host)
    },
  )
})

for (const method of [
  'GET',
  'HEAD',
  'OPTIONS',
  'DELETE',
  'TRACE',
  'POST',
  'PUT',
  'PATCH',
  'PROPFIND',
  'X-OWN',
]) {
  test(`sends ${method} without a body, in a way that cannot be misread`, async () => {
    const text = await sentBytes((client) => client.send(requestOf({ method }), new TestCaller()))
    assert.ok(text.startsWith(`${method} / HTTP/1.1\r\n`))
    const bare = ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE'].includes(method)
    assert.equal(/content-length: 0\r\n/.test(text), !bare)
    assert.ok(!/transfer-encoding/i.test(text))
  })

  test(`sends ${method} with a body of known length`, async () => {
    const send = (client: Http1Client) => client.send(requestOf({ method }, 'hello'), new TestCaller())
    const text = await sentBytes(send, 'hello')
    assert.match(text, /\r\ncontent-length: 5\r\n/)
    assert.ok(!/transfer-encoding/i.test(text))
  })

  test(`sends ${method} with a body that comes piece by piece, and its trailers`, async () => {
    const body = new FedBody().push('he', 'llo').end(['x-sum', '5', 'x-sum', 'five'])
    const send = (client: Http1Client) => client.send(requestOf({ method }, body), new TestCaller())
    const text = await sentBytes(send, 'five\r\n\r\n')
    assert.match(text, /\r\ntransfer-encoding: chunked\r\n/)
    assert.ok(!/content-length/i.test(text))
    assert.ok(text.endsWith('\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nx-sum: 5\r\nx-sum: five\r\n\r\n'), text)
  })
}

test('keeps a length that is announced, without chunks', async () => {
  const body = new FedBody().push('he', 'l', 'lo').end()
  const head = { method: 'POST', fields: ['content-length', '5'] }
  const text = await sentBytes((client) => client.send(requestOf(head, body), new TestCaller()), 'hello')
  assert.ok(text.endsWith('\r\n\r\nhello'))
  assert.ok(!/transfer-encoding/i.test(text))
})

test('a length gives way to chunks where trailers follow', async () => {
  const whole = new WholeBody(Buffer.from('hello'), ['x-sum', '5'])
  const fed = new FedBody().push('hello').end(['x-sum', '5'])
  for (const body of [whole, fed]) {
    const head = { method: 'POST', fields: ['content-length', '5', 'trailer', 'x-sum'] }
    const text = await sentBytes(
      (client) => client.send(requestOf(head, body), new TestCaller()),
      'x-sum: 5\r\n\r\n',
    )
    assert.ok(!/content-length/i.test(text))
    assert.ok(text.endsWith('\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n'), text)
  }
})

test('holds back what would complete a request until its body came to a clean end', async () => {
  for (const fields of [[], ['content-length', '0']]) {
    const body = new FedBody()
    await against(
      httpApp((_request, response) => response.end()),
      async (client, server) => {
        const answer = client.send(requestOf({ fields }, body), new TestCaller())
        await body.awaited
        assert.equal(server.connections, 0)
        body.end()
        assert.equal((await answer).head.status, 200)
      },
    )
  }
})

test('holds back the piece that would reach the announced length', async () => {
  const bytes = Promise.withResolvers<string>()
  const server = rawServer((socket) => {
    received(socket, 'hel').then(bytes.resolve, bytes.reject)
  })
  await against(server, async (client, { sockets }) => {
    const body = new FedBody().push('hel', 'lo')
    const head = { method: 'POST', fields: ['content-length', '5'] }
    const answer = assert.rejects(client.send(requestOf(head, body), new TestCaller()), SidecarError)
    await Promise.all([bytes.promise, body.awaited])
    const [socket] = sockets
    const rest = once(socket!, 'error')
    socket!.on('data', (more) => assert.fail(`more came: ${more}`))
    body.fail()
    await rest
    await answer
    assert.ok((await bytes.promise).endsWith('\r\n\r\nhel'))
  })
})

test('a body that is cut off never makes a complete request', async () => {
  const cases: [string[], string][] = [
    [[], ''],
    [['content-length', '0'], ''],
    [['content-length', '5'], 'hello'],
    [['content-length', '5'], 'hel'],
    [['expect', '100-continue'], ''],
    [[], 'hello'],
  ]
  for (const method of ['GET', 'POST']) {
    for (const [fields, piece] of cases) {
      let complete = 0
      const server = httpApp((request, response) => {
        request.resume()
        request.on('end', () => complete++)
        request.on('close', () => response.end())
      })
      await against(server, async (client) => {
        const body = new FedBody()
        if (piece) body.push(piece)
        const answer = client.send(requestOf({ method, fields }, body.fail()), new TestCaller())
        await assert.rejects(
          answer,
          (error) => error instanceof SidecarError && error.code === 'message-truncated',
        )
      })
      assert.equal(complete, 0, `${method} ${fields} ${piece}`)
    }
  }
})

test('a body that is longer or shorter than its announced length is an error', async () => {
  for (const [length, text] of [
    ['4', 'hello'],
    ['6', 'hello'],
    ['0', 'hello'],
    ['5', ''],
  ] as const) {
    for (const body of [new WholeBody(Buffer.from(text)), new FedBody().push(text).end()]) {
      let requests = 0
      const server = httpApp((request, response) => {
        request.resume()
        request.on('end', () => requests++)
        response.end()
      })
      await against(server, async (client) => {
        const head = { method: 'POST', fields: ['content-length', length] }
        const whole = client.send(requestOf(head, body), new TestCaller()).then(({ body }) => readAll(body))
        if (length !== '6' || body instanceof WholeBody) await assert.rejects(whole, SidecarError)
        else await whole.catch(() => {}) // the app answered before it could know
      })
      assert.equal(requests, 0, `${length}: ${text}`)
    }
  }
})

test.run()
