import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import type { Socket } from 'node:net'
import { WholeBody } from '../../sidecar/call.ts'
import { SidecarError } from '../../sidecar/errors.ts'
import { Http1Client } from '../../sidecar/http/http1-client.ts'
import {
  FedBody,
  failureOf,
  type Listening,
  listening,
  OPTIONS,
  rawServer,
  readAll,
  readUntilCut,
  received,
  requestOf,
  TestCaller,
} from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-client')

/** Runs a test against a server, with a client of it. */
async function against(
  server: Promise<Listening>,
  body: (client: Http1Client, server: Listening) => Promise<void>,
): Promise<void> {
  const open = await server
  const client = new Http1Client(open.url, OPTIONS)
  try {
    await body(client, open)
  } finally {
    client.close()
    await open.close()
  }
}

/** An app of node:http. */
const app = (handler: http.RequestListener) =>
  listening(http.createServer({ keepAliveTimeout: 60_000 }, handler))

/** A server that answers every connection's first request with some bytes, and then does something to it. */
const answering = (bytes: string, then: (socket: Socket) => void = () => {}) =>
  rawServer((socket) => {
    socket.once('data', () => socket.write(bytes, 'latin1', () => then(socket)))
  })

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
  const server = app((request, response) => {
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
    app((request, response) => response.end(request.headers.host)),
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
      app((_request, response) => response.end()),
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
      const server = app((request, response) => {
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
      const server = app((request, response) => {
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

test('passes Expect: 100-continue on, and tells the caller of the 100', async () => {
  const server = http.createServer((request, response) => {
    request.pipe(response)
  })
  server.on('checkContinue', (request, response) => {
    response.writeContinue()
    server.emit('request', request, response)
  })
  for (const head of [
    { method: 'PUT', fields: ['content-length', '4', 'expect', '100-continue'] },
    { method: 'DELETE', fields: ['expect', '100-continue'] },
  ]) {
    const body = new FedBody()
    const caller = new TestCaller()
    const open = await listening(server)
    const client = new Http1Client(open.url, OPTIONS)
    const informed = caller.nextInformed()
    const answer = client.send(requestOf(head, body), caller)
    assert.equal((await informed).status, 100)
    body.push('body').end()
    assert.equal(await readAll((await answer).body), 'body')
    client.close()
    await open.close()
  }
})

test('passes interim responses on in order, with their fields, but never a 101', async () => {
  const hints = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\n'
  const final = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
  await against(answering(`HTTP/1.1 102 Processing\r\n\r\n${hints}${final}`), async (client) => {
    const caller = new TestCaller()
    const answer = await client.send(requestOf(), caller)
    assert.deepEqual(caller.informed, [
      { status: 102, fields: [] },
      { status: 103, fields: ['link', '</a>', 'link', '</b>'] },
    ])
    assert.equal(await readAll(answer.body), 'ok')
  })
  const upgraded = 'HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n'
  await against(answering(upgraded), async (client) => {
    const caller = new TestCaller()
    assert.deepEqual(await failureOf(client.send(requestOf(), caller)), { failure: 'reset', sent: true })
    assert.deepEqual(caller.informed, [])
  })
})

test('gives the answer before the request has ended, and sends the rest of it', async () => {
  const server = app((request, response) => {
    response.flushHeaders()
    request.pipe(response)
  })
  await against(server, async (client) => {
    const body = new FedBody()
    const answer = await client.send(requestOf({ method: 'POST' }, body), new TestCaller())
    body.push('ping')
    assert.equal((await answer.body.read())?.toString(), 'ping')
    body.push('pong').end()
    assert.equal(await readAll(answer.body), 'pong')
  })
})

test('an answer stands when the app closes the connection before it has the whole request', async () => {
  const early = 'HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge'
  await against(
    answering(early, (socket) => socket.end()),
    async (client) => {
      const body = new FedBody().push('x'.repeat(1000))
      const answer = await client.send(requestOf({ method: 'POST' }, body), new TestCaller())
      assert.equal(answer.head.status, 413)
      assert.equal(await readAll(answer.body), 'large')
      body.push('y').end()
    },
  )
})

test('takes answers without a body for complete', async () => {
  for (const [method, head] of [
    ['HEAD', 'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n'],
    ['GET', 'HTTP/1.1 204 No Content\r\n'],
    ['GET', 'HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\n'],
    ['GET', 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n'],
  ] as const) {
    await against(answering(`${head}\r\n`), async (client) => {
      const answer = await client.send(requestOf({ method }), new TestCaller())
      assert.equal(await readAll(answer.body), '')
    })
  }
})

test('gives the trailers of an answer, and a small one whole', async () => {
  const chunked =
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5\r\nx-sum: five\r\n\r\n'
  for (const read of ['piece by piece', 'whole']) {
    await against(answering(chunked), async (client) => {
      const { head, body } = await client.send(requestOf(), new TestCaller())
      assert.deepEqual(head.fields, [])
      if (read === 'whole') assert.equal(body.whole(5)?.toString(), 'hello')
      else assert.equal(await readAll(body), 'hello')
      assert.deepEqual(body.trailers, ['x-sum', '5', 'x-sum', 'five'])
    })
  }
})

test('a body that is delimited by the end of its connection ends with a FIN, and is cut off by a RST', async () => {
  const untilClose = 'HTTP/1.0 200 OK\r\n\r\nhello'
  await against(
    answering(untilClose, (socket) => socket.end()),
    async (client) => {
      const answer = await client.send(requestOf(), new TestCaller())
      assert.equal(await readAll(answer.body), 'hello')
    },
  )
  let reset = () => {}
  const server = answering(untilClose, (socket) => {
    reset = () => socket.resetAndDestroy()
  })
  await against(server, async (client) => {
    const answer = await client.send(requestOf(), new TestCaller())
    assert.equal((await answer.body.read())?.toString(), 'hello')
    reset()
    assert.equal(await readUntilCut(answer.body), '')
    assert.equal(answer.body.whole(1000), undefined)
  })
})

test('an answer that is cut off is never a shorter one', async () => {
  const heads = {
    length: 'content-length: 10\r\n\r\nhello',
    chunks: 'transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n',
  }
  for (const bytes of Object.values(heads)) {
    for (const cut of ['end', 'resetAndDestroy'] as const) {
      let stop = () => {}
      const server = answering(`HTTP/1.1 200 OK\r\n${bytes}`, (socket) => {
        stop = () => socket[cut]()
      })
      await against(server, async (client) => {
        const answer = await client.send(requestOf(), new TestCaller())
        assert.equal((await answer.body.read())?.toString(), 'hello')
        stop()
        assert.equal(await readUntilCut(answer.body), '')
        await assert.rejects(answer.body.read())
      })
    }
  }
})

test('what is no HTTP, or can be read in two ways, is no answer', async () => {
  for (const bytes of [
    'SSH-2.0-OpenSSH_9.2\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!',
    `HTTP/1.1 200 OK\r\nx: ${'a'.repeat(200_000)}\r\n\r\n`,
  ]) {
    await against(answering(bytes), async (client) => {
      const failure = await failureOf(client.send(requestOf({ method: 'POST' }), new TestCaller()))
      assert.deepEqual(failure, { failure: 'reset', sent: true })
    })
  }
})

test('reads and writes a head of 64 KiB, in one field or in two thousand', async () => {
  const large = ['x-large', 'a'.repeat(60_000)]
  const many = Array.from({ length: 4000 }, (_, i) => (i % 2 === 0 ? `x-${i}` : 'v'))
  const server = http.createServer({ maxHeaderSize: 1024 * 1024 }, (request, response) => {
    response.writeHead(200, request.rawHeaders.slice(2, -2))
    response.end()
  })
  server.maxHeadersCount = 0
  await against(listening(server), async (client) => {
    for (const fields of [large, many]) {
      const answer = await client.send(requestOf({ fields }), new TestCaller())
      assert.deepEqual(answer.head.fields.slice(0, fields.length), fields)
      await readAll(answer.body)
    }
  })
})

test('carries bodies of 200 MB both ways within flat memory, whoever is slow', async () => {
  const bytes = 200 * 1024 * 1024
  const piece = Buffer.alloc(64 * 1024, 'x')
  const server = app(async (request, response) => {
    // A slow reader and a slow writer in one: it gives back each piece before it takes the next.
    for await (const some of request)
      if (!response.write(some)) await new Promise((go) => response.once('drain', go))
    response.end()
  })
  await against(server, async (client) => {
    let left = bytes / piece.length
    const body = { trailers: [], whole: () => undefined, read: async () => (left-- > 0 ? piece : undefined) }
    const answer = await client.send(requestOf({ method: 'POST' }, body), new TestCaller())
    const before = process.memoryUsage.rss()
    let most = 0
    let got = 0
    for (let some = await answer.body.read(); some; some = await answer.body.read()) {
      got += some.length
      most = Math.max(most, process.memoryUsage.rss() - before)
      // Turns of the event loop in which nothing is taken.
      for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate)
    }
    assert.equal(got, bytes)
    assert.ok(most < 100 * 1024 * 1024, `${most >> 20} MiB more`)
  })
})

test.run()
