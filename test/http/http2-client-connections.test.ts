import assert from 'node:assert/strict'
import { once } from 'node:events'
import http2, { type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import { mock } from 'node:test'
import { Http2Client } from '../../sidecar/http/http2-client.ts'
import { NoHttp2Error } from '../../sidecar/http/http2-session.ts'
import { certificate } from '../support/certificates.ts'
import { post, testing } from '../support/clients.ts'
import { frame, GOAWAY, peer, rawPeer, SETTINGS, u32 } from '../support/http2-peers.ts'
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

const test = suite('http/http2-client connections')

const against = testing(Http2Client)

test('a connection that is lost cuts off every answer and fails every call on it', async () => {
  for (const cut of ['end', 'resetAndDestroy', 'destroy'] as const) {
    const server = peer((stream, headers) => {
      if (headers[':path'] === '/silent') return
      stream.respond({ ':status': 200 })
      stream.write('begun')
    })
    await against(server, async (client, { sockets }) => {
      const answer = await client.send(requestOf(), new TestCaller())
      assert.equal((await answer.body.read())?.toString(), 'begun')
      const silent = failureOf(client.send(requestOf({ path: '/silent' }), new TestCaller()))
      const upload = failureOf(
        client.send(
          requestOf({ method: 'POST', path: '/silent' }, new FedBody().push('x')),
          new TestCaller(),
        ),
      )
      const rest = readUntilCut(answer.body)
      for (const socket of sockets) socket[cut]()
      assert.equal(await rest, '')
      assert.deepEqual(await silent, { failure: 'reset', sent: true })
      assert.deepEqual(await upload, { failure: 'reset', sent: true })
      assert.equal((await client.send(requestOf(), new TestCaller())).head.status, 200)
    })
  }
})

test('GOAWAY: calls under way end as they may, the next one takes another connection, as often as that happens', async () => {
  const sessions: ServerHttp2Session[] = []
  const finish: (() => void)[] = []
  const server = peer(
    (stream) => {
      stream.respond({ ':status': 200 })
      stream.write('be')
      finish.push(() => stream.end('gun'))
    },
    {},
    (session) => sessions.push(session),
  )
  await against(server, async (client) => {
    const answers = []
    for (let nth = 1; nth <= 10; nth++) {
      const answer = await client.send(requestOf(), new TestCaller())
      assert.equal(sessions.length, nth)
      answers.push(answer)
      sessions.at(-1)!.goaway()
      // The answer to a ping that follows shows that it has arrived.
      await new Promise((resolve) => sessions.at(-1)!.ping(resolve))
    }
    for (const end of finish) end()
    for (const answer of answers) assert.equal(await readAll(answer.body), 'begun')
  })
})

test('GOAWAY below a call fails that call, and it may have been sent', async () => {
  const refusing = rawPeer((socket) => socket.write(frame(GOAWAY, 0, 0, u32(0, 0))))
  await against(refusing, async (client) => {
    assert.deepEqual(await failureOf(post(client)), { failure: 'reset', sent: true })
  })
  const failing = rawPeer((socket) => socket.write(frame(GOAWAY, 0, 0, u32(0, 11))))
  await against(failing, async (client) => {
    assert.deepEqual(await failureOf(post(client)), { failure: 'reset', sent: true })
  })
})

test('calls that need a connection at once share one, and one that is aborted leaves it to the others', async () => {
  await against(
    peer((stream) => {
      stream.respond({ ':status': 200 })
      stream.end('ok')
    }),
    async (client, open) => {
      const caller = new TestCaller()
      const aborted = assert.rejects(post(client, 'body', caller), (error) => error === caller.gone)
      const others = Array.from({ length: 20 }, () => post(client))
      caller.go()
      await aborted
      assert.deepEqual(new Set(await Promise.all(others)), new Set(['ok']))
      assert.equal(open.connections, 1)
    },
  )
})

test('opens more connections where the peer takes few calls on one, and not without bound', async () => {
  const held: ServerHttp2Stream[] = []
  let onHeld = () => {}
  const server = peer(
    (stream) => {
      held.push(stream)
      onHeld()
    },
    { maxConcurrentStreams: 2 },
  )
  await against(server, async (client, open) => {
    const answers = Array.from({ length: 20 }, () => post(client))
    const release = () => {
      for (const stream of held.splice(0)) {
        stream.respond({ ':status': 200 })
        stream.end('ok')
      }
    }
    await new Promise<void>((resolve) => {
      onHeld = () => held.length === 16 && resolve()
    })
    assert.equal(open.connections, 8)
    onHeld = release
    release()
    assert.deepEqual(new Set(await Promise.all(answers)), new Set(['ok']))
    assert.equal(open.connections, 8)
  })
})

test('gives up a peer whose every connection takes no call and ends, after as many as there may be', async () => {
  const noStreams = Buffer.from([0, 3, 0, 0, 0, 0])
  const server = rawServer((socket) => {
    socket.write(frame(SETTINGS, 0, 0, noStreams))
    socket.once('data', () => setImmediate(() => socket.end()))
  })
  await against(server, async (client, open) => {
    assert.deepEqual(await failureOf(post(client)), { failure: 'connect', sent: false })
    assert.ok(open.connections <= 8, `${open.connections} connections`)
  })
})

test('opens another connection in the background where one is busy', async () => {
  const streams: ServerHttp2Stream[] = []
  const server = peer((stream) => streams.push(stream))
  await against(server, async (client, open) => {
    const callers = Array.from({ length: 300 }, () => new TestCaller())
    const answers = callers.map((caller) => post(client, 'body', caller).catch((error) => error))
    while (open.connections < 2) await new Promise(setImmediate)
    for (const caller of callers) caller.go()
    const reasons = await Promise.all(answers)
    assert.ok(reasons.every((reason, i) => reason === callers[i]!.gone))
  })
})

test('nobody listens there: it could not connect, and nothing left', async () => {
  const open = await rawServer(() => {})
  await open.close()
  const failure = await failureOf(post(new Http2Client(open.url, OPTIONS)))
  assert.deepEqual(failure, { failure: 'connect', sent: false })
})

test('an end that answers in HTTP/1.1, closes, or offers no h2, speaks no HTTP/2', async () => {
  for (const says of [
    (socket: Socket) => socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n'),
    (socket: Socket) => socket.write('HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n'),
    (socket: Socket) => socket.end(),
    (socket: Socket) => socket.resetAndDestroy(),
  ]) {
    const server = rawServer((socket) => socket.once('data', () => says(socket)))
    await against(server, async (client) => {
      const body = new FedBody().push('untouched').end()
      await assert.rejects(post(client, body), NoHttp2Error)
      assert.equal(await readAll(body), 'untouched')
    })
  }
})

test('over TLS: the system’s trust and that of the CA file, the origin’s name, and h2 by ALPN', async () => {
  const own = certificate('DNS:localhost')
  const server = http2.createSecureServer(own)
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.respond({ ':status': 200 })
    stream.end(`${(stream.session!.socket as { servername?: string }).servername} ${headers[':scheme']}`)
  })
  const open = await listening(server as never)
  const { port } = server.address() as AddressInfo
  try {
    const trusting = new Http2Client(new URL(`https://localhost:${port}`), { ...OPTIONS, ca: [own.cert] })
    assert.equal(await post(trusting), 'localhost https')
    trusting.close()
    for (const [host, ca] of [
      ['localhost', undefined],
      ['127.0.0.1', [own.cert]],
    ] as const) {
      const client = new Http2Client(new URL(`https://${host}:${port}`), {
        ...OPTIONS,
        ...(ca ? { ca: [...ca] } : {}),
      })
      assert.deepEqual(await failureOf(post(client)), { failure: 'connect', sent: false })
    }
  } finally {
    await open.close()
  }
})

/** A call is not what times out. */
const PATIENT = { responseTimeoutMs: 1_000_000 }

/** Runs a test in a time of its own, in which nothing happens until it passes. */
async function inOwnTime(body: (pass: (ms: number) => void) => Promise<void>): Promise<void> {
  const { now } = performance
  let passedMs = 0
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  performance.now = () => now.call(performance) + passedMs
  try {
    await body((ms) => {
      passedMs += ms
      mock.timers.tick(ms)
    })
  } finally {
    // Timers of this time must not be stopped in another: they stop with the connections that they are of.
    while (process.getActiveResourcesInfo().includes('TCPSocketWrap')) await new Promise(setImmediate)
    performance.now = now
    mock.timers.reset()
  }
}

test('a peer that accepts and never says a word is a connect-timeout, in plain and over TLS', async () => {
  for (const protocol of ['http', 'https']) {
    await inOwnTime(async (pass) => {
      const accepted = Promise.withResolvers<void>()
      const silent = rawServer(() => accepted.resolve()).then((open) => ({
        ...open,
        url: new URL(`${protocol}://127.0.0.1:${open.port}`),
      }))
      await against(silent, async (client) => {
        const call = failureOf(post(client))
        // One time for the connection and what has to come over it.
        pass(OPTIONS.connectTimeoutMs - 1)
        await accepted.promise
        pass(1)
        assert.deepEqual(await call, { failure: 'connect-timeout', sent: false })
      })
    })
  }
})

test('a connection that is dead fails its calls after a ping that nobody answers', async () => {
  await inOwnTime(async (pass) => {
    const arrived = Promise.withResolvers<Socket>()
    const dead = rawPeer((socket) => {
      socket.removeAllListeners('data')
      arrived.resolve(socket)
    })
    await against(
      dead,
      async (client) => {
        const call = failureOf(post(client))
        await arrived.promise
        pass(10_000)
        pass(5000)
        assert.deepEqual(await call, { failure: 'reset', sent: true })
      },
      PATIENT,
    )
  })
})

test('a connection that is slow, but answers pings, is left alone', async () => {
  await inOwnTime(async (pass) => {
    let onPing = () => {}
    const begun = Promise.withResolvers<ServerHttp2Stream>()
    const server = peer(
      (stream) => begun.resolve(stream),
      {},
      (session) => session.on('ping', () => onPing()),
    )
    await against(
      server,
      async (client) => {
        const call = client.send(requestOf(), new TestCaller())
        const stream = await begun.promise
        for (let i = 0; i < 3; i++) {
          const pinged = new Promise<void>((resolve) => {
            onPing = resolve
          })
          pass(10_000)
          await pinged
          // What the peer answered is here once it has answered us.
          await new Promise((resolve) => stream.session!.ping(resolve))
        }
        stream.respond({ ':status': 200 }, { endStream: true })
        assert.equal((await call).head.status, 200)
      },
      PATIENT,
    )
  })
})

test('a connection that nobody uses is closed after a minute', async () => {
  await inOwnTime(async (pass) => {
    const sessions: ServerHttp2Session[] = []
    const server = peer(
      (stream) => stream.respond({ ':status': 200 }, { endStream: true }),
      {},
      (session) => sessions.push(session),
    )
    await against(server, async (client, { sockets }) => {
      await post(client)
      // The client is done with the call once it has answered this.
      await new Promise((resolve) => sessions[0]!.ping(resolve))
      for (let i = 0; i < 5; i++) pass(10_000)
      assert.equal(await post(client), '')
      assert.equal(sessions.length, 1)
      await new Promise((resolve) => sessions[0]!.ping(resolve))
      const closed = once([...sockets][0]!, 'close')
      for (let i = 0; i < 6; i++) pass(10_000)
      await closed
    })
  })
})

test('a connection that is old takes no more calls, and those under way go on', async () => {
  await inOwnTime(async (pass) => {
    const streams: ServerHttp2Stream[] = []
    const server = peer((stream) => {
      stream.respond({ ':status': 200 })
      streams.push(stream)
    })
    await against(server, async (client, open) => {
      const old = await client.send(requestOf(), new TestCaller())
      pass(12.5 * 60_000)
      const next = await client.send(requestOf(), new TestCaller())
      assert.equal(open.connections, 2)
      for (const stream of streams) stream.end('ok')
      assert.equal(await readAll(old.body), 'ok')
      assert.equal(await readAll(next.body), 'ok')
    })
  })
})

test.run()
