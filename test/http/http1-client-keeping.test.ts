/** Which connections are used again, and which must not be. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
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

const test = suite('http/http1-client keeping connections')

const against = testing(Http1Client)

/** Whatever is closed within this time was not closed because it had been idle for too long. */
const LONG_BEFORE_IDLE_MS = 2000

/** Answers every request with the number of its connection, in some way. */
const numbered = (answer: (nth: number) => string) =>
  rawServer((socket, nth) => {
    socket.on('data', () => socket.write(answer(nth)))
  })

for (const [version, field, kept] of [
  ['1.1', '', true],
  ['1.1', 'Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n', true],
  ['1.1', 'Connection: Close\r\n', false],
  ['1.1', 'Connection: x, close\r\n', false],
  ['1.1', 'Connection: keep-alive\r\nKeep-Alive: timeout=1\r\n', false],
  ['1.0', '', false],
  ['1.0', 'Connection: keep-alive\r\n', true],
] as const) {
  test(`an answer of HTTP/${version} with ${JSON.stringify(field)} leaves a connection that is ${kept ? '' : 'not '}used again`, async () => {
    const server = numbered((nth) => `HTTP/${version} 200 OK\r\n${field}Content-Length: 1\r\n\r\n${nth}`)
    await against(server, async (client) => {
      assert.equal(await get(client), '1')
      assert.equal(await get(client), kept ? '1' : '2')
    })
  })
}

test('the connection that was used last is used first', async () => {
  const waiting: (() => void)[] = []
  const server = rawServer((socket, nth) => {
    socket.on('data', () => {
      waiting.push(() => socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${nth}`))
      if (waiting.length === 3) for (const answer of waiting) answer()
      else if (waiting.length > 3) waiting.at(-1)!()
    })
  })
  await against(server, async (client) => {
    const [, , last] = await Promise.all([get(client), get(client), get(client)])
    for (let i = 0; i < 3; i++) assert.equal(await get(client), last)
  })
})

test('keeps 256 connections, and closes what is more', async () => {
  const all = 260
  const waiting: Socket[] = []
  const closed = Promise.withResolvers<void>()
  let open = all
  const server = rawServer((socket) => {
    socket.on('data', () => {
      waiting.push(socket)
      if (waiting.length === all) for (const each of waiting) each.write(OK)
    })
    socket.on('close', () => --open === 256 && closed.resolve())
  })
  await against(server, async (client, { sockets }) => {
    await Promise.all(Array.from({ length: all }, () => get(client)))
    const answeredAt = performance.now()
    await closed.promise
    assert.ok(performance.now() - answeredAt < LONG_BEFORE_IDLE_MS)
    assert.equal(sockets.size, 256)
  })
})

test('bytes that come unasked on an idle connection close it, and are nobody’s answer', async () => {
  for (const unasked of ['HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil', '\r\n', 'x']) {
    await against(
      numbered((nth) => `HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${nth}`),
      async (client, { sockets }) => {
        assert.equal(await get(client), '1')
        const [idle] = sockets
        idle!.write(unasked)
        await once(idle!, 'close')
        assert.equal(await get(client), '2')
      },
    )
  }
})

test('of two answers at once the first one is the answer, and the connection is not used again', async () => {
  const server = numbered((nth) => {
    const answer = `HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${nth}`
    return nth === 1 ? answer + answer.replace(/.$/, 'x') : answer
  })
  await against(server, async (client) => {
    assert.equal(await get(client), '1')
    assert.equal(await get(client), '2')
  })
})

test('an answer that is longer than it said is cut off, however it is framed', async () => {
  for (const framed of [
    'Content-Length: 1\r\n\r\n1and more',
    'Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\nand more',
    'Content-Length: 0\r\n\r\nand more',
    'Content-Length: 1\r\nConnection: close\r\n\r\n1and more',
  ]) {
    const server = numbered((nth) =>
      nth === 1 ? `HTTP/1.1 200 OK\r\n${framed}` : `HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${nth}`,
    )
    await against(server, async (client) => {
      await assert.rejects(get(client), { code: 'message-truncated' })
      assert.equal(await get(client), '2')
    })
  }
})

test('a connection on which a request is still being sent is no other call’s, though its answer is complete', async () => {
  const server = numbered((nth) => `HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${nth}`)
  await against(server, async (client, open) => {
    const body = new FedBody().push('begun')
    const early = await client.send(requestOf({ method: 'POST' }, body), new TestCaller())
    assert.equal(await readAll(early.body), '1')
    assert.equal(await get(client), '2')
    const [first] = open.sockets
    const rest = received(first!, '0\r\n\r\n')
    body.push('rest').end()
    await rest
    assert.equal(open.connections, 2)
  })
})

test('a request that does not go on after its answer is given up', async () => {
  const given = Promise.withResolvers<NodeJS.ErrnoException>()
  const server = rawServer((socket) => {
    socket.once('data', () => socket.write(OK))
    socket.on('error', given.resolve)
  })
  await against(
    server,
    async (client) => {
      const body = new FedBody().push('begun')
      const early = await client.send(requestOf({ method: 'POST' }, body), new TestCaller())
      assert.equal(await readAll(early.body), 'ok')
      assert.equal((await given.promise).code, 'ECONNRESET')
    },
    { responseTimeoutMs: 50 },
  )
})

test('neither an answer nor a request that is slow in coming is given up, even on a kept connection', async () => {
  const slow = Promise.withResolvers<Socket>()
  const server = rawServer((socket) => {
    socket.on('data', (bytes) => {
      if (bytes.includes('GET /first ')) {
        socket.write('HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 0\r\n\r\n')
      } else if (bytes.includes('0\r\n\r\n')) {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbegu')
        slow.resolve(socket)
      }
    })
  })
  await against(
    server,
    async (client, open) => {
      /** Takes longer than the first connection may be idle: as long as some calls that are not answered. */
      const long = async () => {
        for (let i = 0; i < 5; i++) await failureOf(get(client, { path: '/silent' }))
      }
      await get(client, { path: '/first' })
      const body = new FedBody().push('begun')
      const sending = client.send(requestOf({ method: 'POST' }, body), new TestCaller())
      await long()
      body.end()
      const answer = await sending
      await long()
      ;(await slow.promise).write('n')
      assert.equal(await readAll(answer.body), 'begun')
      assert.equal(open.connections, 11)
    },
    { responseTimeoutMs: 300 },
  )
})

test('a connection that breaks while a request is being written is told as that', async () => {
  const server = rawServer((socket) => {
    let bytes = 0
    socket.on('data', (some) => {
      bytes += some.length
      if (bytes > 1_000_000) socket.resetAndDestroy()
    })
  })
  await against(server, async (client) => {
    const endless = { trailers: [], whole: () => undefined, read: async () => Buffer.alloc(64 * 1024) }
    const failure = await failureOf(client.send(requestOf({ method: 'POST' }, endless), new TestCaller()))
    assert.deepEqual(failure, { failure: 'reset', sent: true })
  })
})

test('a caller that goes away after its answer harms no call that has its connection', async () => {
  const server = numbered((nth) => `HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${nth}`)
  await against(server, async (client, open) => {
    const caller = new TestCaller()
    const first = await client.send(requestOf(), caller)
    const next = get(client)
    caller.go()
    assert.equal(await next, '1')
    assert.equal(await readAll(first.body), '1')
    assert.equal(open.connections, 1)
  })
})

test('once it is closed a client keeps no connection, not even that of a call that was under way', async () => {
  let answer = () => {}
  const server = rawServer((socket) => {
    socket.on('data', () => {
      answer = () => socket.write(OK)
      asked.resolve(socket)
    })
  })
  const asked = Promise.withResolvers<Socket>()
  await against(server, async (client) => {
    const got = get(client)
    const socket = await asked.promise
    client.close()
    const closed = once(socket, 'close')
    answer()
    assert.equal(await got, 'ok')
    const answeredAt = performance.now()
    await closed
    assert.ok(performance.now() - answeredAt < LONG_BEFORE_IDLE_MS)
  })
})

test('what is no HTTP on a kept connection is not asked again', async () => {
  const server = rawServer((socket, nth) => {
    let requests = 0
    socket.on('data', () => socket.write(++requests === 1 && nth === 1 ? OK : 'SSH-2.0\r\n'))
  })
  await against(server, async (client, open) => {
    await get(client)
    assert.deepEqual(await failureOf(get(client)), { failure: 'reset', sent: true })
    assert.equal(open.connections, 1)
  })
})

test('a new connection over TLS takes up the session of the last one', async () => {
  const own = certificate('IP:127.0.0.1')
  const reused: boolean[] = []
  const server = https.createServer(own, (_request, response) => response.end('ok'))
  server.on('secureConnection', (socket: TLSSocket) => reused.push(socket.isSessionReused()))
  await against(
    listening(server, 'https'),
    async (client, { sockets }) => {
      await get(client)
      const [first] = sockets
      const closed = once(first!, 'close')
      first!.destroy()
      await closed
      await get(client)
      assert.deepEqual(reused, [false, true])
    },
    { ca: [own.cert] },
  )
})

test('keeps connections to an app of node:http for as long as there are calls', async () => {
  await against(
    httpApp((request, response) => request.pipe(response)),
    async (client, open) => {
      for (let i = 0; i < 20; i++) {
        const body = i % 2 ? 'x'.repeat(i * 5000) : new FedBody().push('x').end()
        const answer = await client.send(requestOf({ method: 'POST' }, body), new TestCaller())
        assert.equal((await readAll(answer.body)).length, i % 2 ? i * 5000 : 1)
      }
      assert.equal(open.connections, 1)
    },
  )
})

test.run()
