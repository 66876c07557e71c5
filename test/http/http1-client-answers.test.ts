/** How answers are read from the wire, and requests written to it, byte by byte. */
import assert from 'node:assert/strict'
import https from 'node:https'
import { type Caller, WholeBody } from '../../sidecar/call.ts'
import { HeadError } from '../../sidecar/http/fields.ts'
import { Http1Client } from '../../sidecar/http/http1-client.ts'
import { certificate } from '../support/certificates.ts'
import { carriesMuch, get, testing } from '../support/clients.ts'
import {
  FedBody,
  failureOf,
  listening,
  rawServer,
  readAll,
  readUntilCut,
  received,
  requestOf,
  TestCaller,
} from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-client answers')

const against = testing(Http1Client)

/** Answers the first request on each connection with pieces, each in a packet of its own, and then ends it. */
const piecewise = (...pieces: string[]) =>
  rawServer((socket) => {
    socket.setNoDelay(true)
    socket.once('data', async () => {
      for (const piece of pieces) {
        await new Promise((go) => socket.write(piece, 'latin1', go))
        await new Promise(setImmediate)
      }
      socket.end()
    })
  })

test('reads an answer of which each byte comes by itself', async () => {
  const bytes =
    'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nX-Name: \xe9\xff \r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\nA\r\n and again\r\n0\r\nx-sum: 15\r\n\r\n'
  await against(piecewise(...bytes), async (client) => {
    const caller = new TestCaller()
    const { head, body } = await client.send(requestOf(), caller)
    assert.deepEqual(caller.informed, [{ status: 103, fields: ['link', '</a>'] }])
    assert.deepEqual(head, { status: 200, fields: ['x-name', '\xe9\xff'] })
    assert.equal(await readAll(body), 'hello and again')
    assert.deepEqual(body.trailers, ['x-sum', '15'])
  })
})

test('an answer without a length lasts until the FIN, in HTTP/1.0 and in HTTP/1.1', async () => {
  for (const head of ['HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n', 'HTTP/1.1 200 OK\r\n']) {
    await against(piecewise(`${head}\r\n`, 'hel', 'lo'), async (client) => {
      assert.equal(await get(client), 'hello')
    })
  }
})

/** Sends the head and the first chunk of an answer and, once that has been read, more; it must be cut off there. */
async function cutBehindFirstChunk(more: string): Promise<void> {
  let go = () => {}
  const server = rawServer((socket) => {
    socket.once('data', () =>
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n'),
    )
    go = () => socket.end(more)
  })
  await against(server, async (client) => {
    const { body } = await client.send(requestOf(), new TestCaller())
    assert.equal(String(await body.read()), 'ok')
    go()
    await readUntilCut(body)
    assert.equal(body.whole(1000), undefined)
  })
}

test('an answer that ends in the middle of a chunk, of its size or of its trailers is cut off', async () => {
  for (const more of ['', '1', '10\r\nmore', '5\r\nhello', '5\r\nhello\r', '0\r\n', '0\r\nx-sum: 1\r\n']) {
    await cutBehindFirstChunk(more)
  }
})

test('an answer of which the rest cannot be read is cut off there', async () => {
  for (const more of ['x\r\n', '5\r\nhello!', '0\r\nno colon\r\n\r\n', '0\r\ncontent-length: 2\r\n\r\n']) {
    await cutBehindFirstChunk(more)
  }
})

test('what can be read in two ways is no answer', async () => {
  for (const head of [
    'HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n',
    'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length : 2\r\n',
    'HTTP/1.1 200 OK\r\nx-folded: a\r\n b\r\ncontent-length: 2\r\n',
    'HTTP/1.1 200 OK\ncontent-length: 2\r\n',
    'HTTP/2.0 200 OK\r\ncontent-length: 2\r\n',
  ]) {
    await against(piecewise(`${head}\r\nok`), async (client) => {
      assert.deepEqual(await failureOf(get(client)), { failure: 'reset', sent: true }, head)
    })
  }
})

test('interim responses without end are told as they come, and none of them is kept', async () => {
  const interim = 'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n'
  const server = piecewise(...Array<string>(200).fill(interim.repeat(1000)), 'HTTP/1.1 204 Done\r\n\r\n')
  await against(server, async (client) => {
    let informed = 0
    let most = 0
    const before = process.memoryUsage.rss()
    const caller: Caller = {
      onGone() {},
      inform: () => {
        if (++informed % 1000 === 0) most = Math.max(most, process.memoryUsage.rss() - before)
      },
    }
    assert.equal((await client.send(requestOf(), caller)).head.status, 204)
    assert.equal(informed, 200_000)
    assert.ok(most < 100 * 1024 * 1024, `${most >> 20} MiB more`)
  })
})

test('an interim response that does not end is no answer', async () => {
  const line = `x-hint: ${'a'.repeat(1000)}\r\n`
  await against(
    piecewise('HTTP/1.1 103 Early Hints\r\n', ...Array<string>(200).fill(line)),
    async (client) => {
      const caller = new TestCaller()
      const failure = await failureOf(client.send(requestOf(), caller))
      assert.deepEqual([failure, caller.informed], [{ failure: 'reset', sent: true }, []])
    },
  )
})

test('carries bodies of 200 MB both ways over TLS, within flat memory', async () => {
  const own = certificate('IP:127.0.0.1')
  const server = https.createServer(own, async (request, response) => {
    for await (const some of request)
      if (!response.write(some)) await new Promise((go) => response.once('drain', go))
    response.end()
  })
  await against(listening(server, 'https'), carriesMuch, { ca: [own.cert] })
})

test('writes each character of a head as one byte, before a body that is there and before one that comes', async () => {
  for (const body of [new WholeBody(Buffer.from('hello')), new FedBody().push('hello').end()]) {
    let bytes = Promise.resolve('')
    const server = rawServer((socket) => {
      bytes = received(socket, 'hello')
      bytes.then(() => socket.write('HTTP/1.1 204 No Content\r\n\r\n')).catch(() => {})
    })
    await against(server, async (client) => {
      const head = { method: 'POST', path: '/\xe9', fields: ['x-name', 'caf\xe9'] }
      await client.send(requestOf(head, body), new TestCaller())
      assert.match(await bytes, /^POST \/\xe9 HTTP\/1\.1\r\nhost: app\.example\r\nx-name: caf\xe9\r\n/)
    })
  }
})

test('writes nothing of a request that would be read as another one', async () => {
  for (const head of [
    { fields: ['x-a', 'b\r\nx-c: d'] },
    { fields: ['x-a: b\r\nx-c', 'd'] },
    { fields: ['x-a', '\u010d\u010ax-c: d'] },
    { path: '/ HTTP/1.1\r\nx-c: d' },
    { path: '/\u010d\u010a' },
    { method: 'GET /other' },
    { authority: 'app.example\r\nx-c: d' },
  ]) {
    for (const body of ['', new FedBody().push('x').end()]) {
      await against(
        rawServer((socket) => socket.on('data', (bytes) => assert.fail(`${bytes} came`))),
        async (client) => {
          await assert.rejects(client.send(requestOf(head, body), new TestCaller()), HeadError)
        },
      )
    }
  }
})

test('a trailer that would be read as something else resets the request', async () => {
  const reset = Promise.withResolvers<string>()
  const server = rawServer((socket) => {
    let text = ''
    socket.on('data', (bytes) => {
      text += bytes
    })
    socket.on('close', () => reset.resolve(text))
  })
  await against(server, async (client) => {
    const body = new FedBody().push('hello').end(['x-sum', '5\r\n\r\nGET / HTTP/1.1'])
    await assert.rejects(client.send(requestOf({ method: 'POST' }, body), new TestCaller()), HeadError)
    assert.ok(!(await reset.promise).includes('0\r\n'))
  })
})

test.run()
