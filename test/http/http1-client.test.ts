import assert from 'node:assert/strict'
import http from 'node:http'
import type { Socket } from 'node:net'
import { Http1Client } from '../../sidecar/http/http1-client.ts'
import { carriesMuch, httpApp, testing } from '../support/clients.ts'
import {
  FedBody,
  failureOf,
  listening,
  OPTIONS,
  rawServer,
  readAll,
  readUntilCut,
  requestOf,
  TestCaller,
} from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-client')

const against = testing(Http1Client)

/** A server that answers every connection's first request with some bytes, and then does something to it. */
const answering = (bytes: string, then: (socket: Socket) => void = () => {}) =>
  rawServer((socket) => {
    socket.once('data', () => socket.write(bytes, 'latin1', () => then(socket)))
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
  const server = httpApp((request, response) => {
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
  // Right behind the bytes, before those are read.
  await against(
    answering(untilClose, (socket) => socket.resetAndDestroy()),
    async (client) => {
      await assert.rejects(async () => readAll((await client.send(requestOf(), new TestCaller())).body))
    },
  )
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
  const server = httpApp(async (request, response) => {
    // A slow reader and a slow writer in one: it gives back each piece before it takes the next.
    for await (const some of request)
      if (!response.write(some)) await new Promise((go) => response.once('drain', go))
    response.end()
  })
  await against(server, carriesMuch)
})

test.run()
