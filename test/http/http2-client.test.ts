import assert from 'node:assert/strict'
import { once } from 'node:events'
import http2, { type ServerHttp2Stream } from 'node:http2'
import { SidecarError } from '../../sidecar/errors.ts'
import { Http2Client } from '../../sidecar/http/http2-client.ts'
import { carriesMuch, post, testing } from '../support/clients.ts'
import {
  DATA,
  END_HEADERS,
  frame,
  HEADERS,
  peer,
  RST_STREAM,
  rawPeer,
  STATUS_200,
  u32,
} from '../support/http2-peers.ts'
import { FedBody, failureOf, readAll, readUntilCut, requestOf, TestCaller } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http2-client')

const against = testing(Http2Client)

test('sends pseudo-header fields and fields as they are, and gives the answer', async () => {
  const server = peer((stream, _headers, raw) => {
    stream.respond([
      ':status',
      '201',
      'x-two',
      'a',
      'x-two',
      'b',
      'set-cookie',
      'c=1',
      'set-cookie',
      'd=2',
    ] as never)
    stream.end(JSON.stringify(raw))
  })
  await against(server, async (client, { url }) => {
    for (const [authority, seen] of [
      ['billing', 'billing'],
      ['', url.host],
    ] as const) {
      const fields = ['x-one', '1', 'cookie', 'a=1', 'x-one', '2', 'te', 'trailers']
      const answer = await client.send(requestOf({ authority, path: '/a?b=%20', fields }), new TestCaller())
      assert.equal(answer.head.status, 201)
      assert.deepEqual(answer.head.fields.slice(0, 8), [
        'x-two',
        'a',
        'x-two',
        'b',
        'set-cookie',
        'c=1',
        'set-cookie',
        'd=2',
      ])
      const raw = JSON.parse(await readAll(answer.body)) as string[]
      assert.deepEqual(raw.slice(0, 8), [
        ':method',
        'GET',
        ':path',
        '/a?b=%20',
        ':scheme',
        'http',
        ':authority',
        seen,
      ])
      assert.deepEqual(raw.slice(8), fields)
    }
  })
})

test('sends a body that is there, one that comes in pieces, and none', async () => {
  const server = peer((stream) => {
    const none = stream.endAfterHeaders
    stream.respond({ ':status': 200 })
    if (none) stream.end('none')
    else stream.pipe(stream)
  })
  await against(server, async (client, open) => {
    assert.equal(await post(client, 'whole'), 'whole')
    assert.equal(await post(client, new FedBody().push('in ', 'pieces').end()), 'in pieces')
    assert.equal(await post(client, ''), 'none')
    assert.equal(open.connections, 1)
  })
})

test('gives the answer before the request has ended, and sends the rest of it', async () => {
  const server = peer((stream) => {
    stream.respond({ ':status': 200 })
    stream.pipe(stream)
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

test('gives the trailers of an answer, and tells nobody of interim responses, which nobody vouches for', async () => {
  const server = peer((stream) => {
    stream.additionalHeaders({ ':status': 103, link: '</a>' })
    stream.respond({ ':status': 200 }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '4' }))
    stream.end('body')
  })
  await against(server, async (client) => {
    const caller = new TestCaller()
    const answer = await client.send(requestOf(), caller)
    assert.equal(answer.head.status, 200)
    assert.equal(await readAll(answer.body), 'body')
    assert.deepEqual(answer.body.trailers, ['x-sum', '4'])
    assert.deepEqual(caller.informed, [])
  })
})

test('an answer before the end of the request that is followed by RST_STREAM(NO_ERROR) is complete', async () => {
  const server = peer((stream) => {
    stream.respond({ ':status': 413 })
    stream.end('x'.repeat(100_000), () => stream.close(http2.constants.NGHTTP2_NO_ERROR))
  })
  await against(server, async (client) => {
    const answer = await client.send(
      requestOf({ method: 'POST' }, new FedBody().push('begun')),
      new TestCaller(),
    )
    assert.equal(answer.head.status, 413)
    assert.equal((await readAll(answer.body)).length, 100_000)
  })
})

for (const [name, code] of [
  ['NO_ERROR', 0],
  ['INTERNAL_ERROR', 2],
  ['CANCEL', 8],
] as const) {
  test(`an answer that is cut off by RST_STREAM(${name}) is never a shorter one`, async () => {
    const begun = [frame(HEADERS, END_HEADERS, 1, STATUS_200), frame(DATA, 0, 1, Buffer.from('hello'))]
    for (const method of ['GET', 'POST']) {
      const server = rawPeer((socket) =>
        socket.write(Buffer.concat([...begun, frame(RST_STREAM, 0, 1, u32(code))])),
      )
      await against(server, async (client) => {
        const body = method === 'POST' ? new FedBody().push('begun') : ''
        const answer = await client.send(requestOf({ method }, body), new TestCaller())
        assert.ok('hello'.startsWith(await readUntilCut(answer.body)))
        await assert.rejects(answer.body.read(), SidecarError)
      })
    }
  })

  test(`a call that is reset by RST_STREAM(${name}) before its answer may have been sent`, async () => {
    const server = rawPeer((socket) => socket.write(frame(RST_STREAM, 0, 1, u32(code))))
    await against(server, async (client) => {
      assert.deepEqual(await failureOf(post(client)), { failure: 'reset', sent: true })
    })
  })
}

test('an abort resets the stream, in the middle of a request as of an answer', async () => {
  const codes: number[] = []
  let ended = 0
  const closed = Promise.withResolvers<void>()
  const server = peer((stream) => {
    stream.respond({ ':status': 200 })
    stream.write('begun')
    stream.on('end', () => stream.aborted || ended++)
    stream.resume()
    stream.on('close', () => {
      codes.push(stream.rstCode)
      if (codes.length === 2) closed.resolve()
    })
  })
  await against(server, async (client, open) => {
    for (const body of [new FedBody().push('half'), new FedBody().push('half').end()]) {
      const caller = new TestCaller()
      const answer = await client.send(requestOf({ method: 'POST' }, body), caller)
      assert.equal((await answer.body.read())?.toString(), 'begun')
      const rest = assert.rejects(answer.body.read(), (error) => error === caller.gone)
      caller.go()
      await rest
    }
    await closed.promise
    assert.ok(codes.every((code) => code !== 0))
    assert.ok(ended <= 1)
    assert.equal(open.connections, 1)
  })
})

test('a request whose body is cut off is reset', async () => {
  const outcome = Promise.withResolvers<string>()
  const server = peer((stream) => {
    stream.on('aborted', () => outcome.resolve('aborted'))
    stream.on('end', () => outcome.resolve(stream.aborted ? 'aborted' : 'complete'))
    stream.resume()
  })
  await against(server, async (client) => {
    await assert.rejects(post(client, new FedBody().push('half').fail()), SidecarError)
    assert.equal(await outcome.promise, 'aborted')
  })
})

test('a peer that does not answer is a response-timeout, and its connection serves on', async () => {
  const server = peer((stream, headers) => {
    if (headers[':method'] === 'POST') return
    stream.respond({ ':status': 200 })
    stream.end('ok')
  })
  await against(
    server,
    async (client, open) => {
      const piecewise = new FedBody().push('body').end()
      for (const body of ['body', piecewise]) {
        assert.deepEqual(await failureOf(post(client, body)), { failure: 'response-timeout', sent: true })
      }
      assert.equal((await client.send(requestOf(), new TestCaller())).head.status, 200)
      assert.equal(open.connections, 1)
    },
    { responseTimeoutMs: 300 },
  )
})

test('an answer that has begun is not timed any more', async () => {
  const answered = Promise.withResolvers<ServerHttp2Stream>()
  const server = peer((stream, headers) => {
    if (headers[':path'] === '/silent') return
    stream.respond({ ':status': 200 })
    stream.resume()
    answered.resolve(stream)
  })
  await against(
    server,
    async (client) => {
      const body = new FedBody()
      const answer = await client.send(requestOf({ method: 'POST' }, body), new TestCaller())
      body.push('a piece that leaves after the answer has begun')
      // Twice, as the second one begins after that piece has left.
      for (let i = 0; i < 2; i++) {
        const { failure } = await failureOf(client.send(requestOf({ path: '/silent' }), new TestCaller()))
        assert.equal(failure, 'response-timeout')
      }
      body.end()
      const stream = await answered.promise
      stream.end('ok')
      assert.equal(await readAll(answer.body), 'ok')
    },
    { responseTimeoutMs: 50 },
  )
})

test('reads a head of 64 KiB', async () => {
  const many = Array.from({ length: 4000 }, (_, i) => (i % 2 === 0 ? `x-${i}` : 'v'))
  const server = peer((stream) => {
    stream.respond([':status', '200', ...many] as never, { endStream: true })
  })
  await against(server, async (client) => {
    const answer = await client.send(requestOf(), new TestCaller())
    assert.deepEqual(answer.head.fields.slice(0, many.length), many)
    assert.equal(await readAll(answer.body), '')
  })
})

test('carries bodies of 200 MB both ways within flat memory, whoever is slow', async () => {
  const server = peer(async (stream) => {
    stream.respond({ ':status': 200 })
    for await (const some of stream) if (!stream.write(some)) await once(stream, 'drain')
    stream.end()
  })
  await against(server, carriesMuch)
})

test.run()
