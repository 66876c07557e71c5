import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import net, { type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { SidecarError } from '../../sidecar/errors.ts'
import { type ClientOptions, Http1Client } from '../../sidecar/http/http1-client.ts'
import { certificate } from '../support/certificates.ts'
import {
  FedBody,
  failureOf,
  type Listening,
  listening,
  OPTIONS,
  rawServer,
  readAll,
  received,
  requestOf,
  TestCaller,
} from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-client connections')

async function against(
  server: Promise<Listening>,
  body: (client: Http1Client, server: Listening) => Promise<void>,
  options: Partial<ClientOptions> = {},
): Promise<void> {
  const open = await server
  const client = new Http1Client(open.url, { ...OPTIONS, ...options })
  try {
    await body(client, open)
  } finally {
    client.close()
    await open.close()
  }
}

const app = (handler: http.RequestListener) =>
  listening(http.createServer({ keepAliveTimeout: 60_000 }, handler))

async function get(client: Http1Client, head = {}): Promise<string> {
  const answer = await client.send(requestOf(head), new TestCaller())
  return readAll(answer.body)
}

/** Listens at once: a promise that rejects before anybody does so ends the process. */
function failing(answer: Promise<unknown>, why: SidecarError): Promise<void> {
  return assert.rejects(answer, (error) => error === why)
}

const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

/** Answers the first request on each connection, and closes it, in some way, when a second one comes. */
const closingOnReuse = (how: (socket: Socket) => void) =>
  rawServer((socket) => {
    let requests = 0
    socket.on('data', () => {
      if (++requests === 1) socket.write(OK)
      else how(socket)
    })
  })

const WAYS: [string, (socket: Socket) => void][] = [
  ['a FIN', (socket) => socket.end()],
  ['a RST', (socket) => socket.resetAndDestroy()],
  ['half of a head', (socket) => socket.end('HTTP/1.1 200')],
]

test('calls one after the other share a connection, calls at once have one each', async () => {
  const server = app((_request, response) => response.end('ok'))
  await against(server, async (client, { connections }) => {
    assert.equal(connections, 0)
    for (let i = 0; i < 5; i++) await get(client)
    assert.equal((await server).connections, 1)
    await Promise.all([get(client), get(client), get(client)])
    assert.equal((await server).connections, 3)
  })
})

test('closes what it keeps, and no call under way', async () => {
  const server = app((request, response) => {
    response.write('begun')
    if (request.url === '/') response.end()
    else request.socket.once('data', () => {})
    release = () => response.end(' and ended')
  })
  let release = () => {}
  await against(server, async (client, { sockets }) => {
    const answer = await client.send(requestOf({ path: '/open' }), new TestCaller())
    const end = release
    await get(client)
    assert.equal(sockets.size, 2)
    const [closing] = [...sockets].slice(1)
    client.close()
    await once(closing!, 'close')
    end()
    assert.equal(await readAll(answer.body), 'begun and ended')
  })
})

test('a connection is not kept past what the server says of it', async () => {
  const server = rawServer((socket) => {
    socket.on('data', () =>
      socket.write(`HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok`),
    )
  })
  await against(server, async (client, open) => {
    await get(client)
    await get(client)
    assert.equal(open.connections, 2)
  })
})

test('an idle connection is closed before the usual server closes it', async () => {
  const server = app((_request, response) => response.end('ok'))
  await against(server, async (client, { sockets }) => {
    await get(client)
    const idleSince = performance.now()
    const [socket] = sockets
    await once(socket!, 'end')
    assert.ok(performance.now() - idleSince < 5000)
  })
})

for (const [name, how] of WAYS) {
  test(`a kept connection that ends with ${name} costs an idempotent call nothing`, async () => {
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']) {
      await against(closingOnReuse(how), async (client, open) => {
        await get(client)
        const answer = await client.send(
          requestOf({ method }, method === 'PUT' ? 'body' : ''),
          new TestCaller(),
        )
        assert.equal(answer.head.status, 200)
        assert.equal(open.connections, 2)
      })
    }
  })

  test(`a call that is not idempotent, or whose body came in pieces, is not sent twice after ${name}`, async () => {
    for (const request of [
      requestOf({ method: 'POST' }, 'body'),
      requestOf({ method: 'PATCH' }),
      requestOf({ method: 'PUT' }, new FedBody().push('body').end()),
    ]) {
      await against(closingOnReuse(how), async (client, open) => {
        await get(client)
        const failure = await failureOf(client.send(request, new TestCaller()))
        assert.deepEqual(failure, { failure: 'reset', sent: true })
        assert.equal(open.connections, 1)
      })
    }
  })
}

test('a new connection that breaks is not tried again, nor one that breaks behind an interim response', async () => {
  const server = rawServer((socket) => {
    socket.once('data', () => socket.end())
  })
  await against(server, async (client, open) => {
    assert.deepEqual(await failureOf(get(client)), { failure: 'reset', sent: true })
    assert.equal(open.connections, 1)
  })
  const informing = closingOnReuse((socket) => socket.end('HTTP/1.1 102 Processing\r\n\r\n'))
  await against(informing, async (client, open) => {
    await get(client)
    assert.deepEqual(await failureOf(get(client)), { failure: 'reset', sent: true })
    assert.equal(open.connections, 1)
  })
})

test('what was sent again is not sent a third time', async () => {
  const server = rawServer((socket, nth) => {
    socket.on('data', () => (nth === 1 && socket.bytesWritten === 0 ? socket.write(OK) : socket.end()))
  })
  await against(server, async (client, open) => {
    await get(client)
    assert.deepEqual(await failureOf(get(client)), { failure: 'reset', sent: true })
    assert.equal(open.connections, 2)
  })
})

test('what left over a kept connection may have been executed, even if the new one cannot be had', async () => {
  let server: Listening | undefined
  const closing = closingOnReuse((socket) => {
    // The server is gone before the call that it dropped comes again.
    server!.stop()
    socket.end()
  })
  server = await closing
  await against(closing, async (client) => {
    await get(client)
    assert.deepEqual(await failureOf(get(client)), { failure: 'connect', sent: true })
  })
})

test('what a server sends unasked on a kept connection is nobody’s answer', async () => {
  const server = rawServer((socket, nth) => {
    socket.on('data', () => {
      socket.write(OK)
      if (nth === 1) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil')
    })
  })
  await against(server, async (client) => {
    assert.equal(await get(client), 'ok')
    assert.equal(await get(client), 'ok')
  })
})

test('nobody listens there, or nothing has that name: it could not connect, and nothing left', async () => {
  const open = await rawServer(() => {})
  await open.close()
  for (const url of [open.url, new URL('http://does-not-exist.invalid')]) {
    const failure = await failureOf(get(new Http1Client(url, OPTIONS)))
    assert.deepEqual(failure, { failure: 'connect', sent: false })
  }
})

test('a connection that takes too long is a connect-timeout, TLS included', async () => {
  const silent = listening(net.createServer(), 'https')
  const options = { connectTimeoutMs: 50 }
  await against(
    silent,
    async (client) => {
      assert.deepEqual(await failureOf(get(client)), { failure: 'connect-timeout', sent: false })
    },
    options,
  )
})

test('an app that says nothing is a response-timeout, on a new connection and on a kept one', async () => {
  const server = rawServer((socket) => {
    socket.once('data', () => socket.write(OK))
  })
  const options = { responseTimeoutMs: 50 }
  await against(
    server,
    async (client) => {
      await get(client)
      for (let i = 0; i < 2; i++) {
        const silent = client.send(requestOf({ method: 'POST' }, 'body'), new TestCaller())
        if (i === 0) assert.deepEqual(await failureOf(silent), { failure: 'response-timeout', sent: true })
        else assert.equal((await silent).head.status, 200)
      }
    },
    options,
  )
})

test('the time for a response begins with the last byte of the request, and again with each interim response', async () => {
  const server = rawServer((socket) => {
    socket.on('data', (bytes) => {
      if (bytes.includes('0\r\n\r\n')) onEnd()
    })
    informing = () => socket.write('HTTP/1.1 102 Processing\r\n\r\n')
  })
  let informing = () => {}
  let onEnd = () => {}
  const responseTimeoutMs = 500
  await against(
    server,
    async (client) => {
      const body = new FedBody().push('body')
      const caller = new TestCaller()
      const answer = client.send(requestOf({ method: 'POST' }, body), caller)
      const ended = new Promise<void>((resolve) => {
        onEnd = resolve
      })
      const beganAtMs = performance.now()
      // Longer than the time for a response: a request that is slow in coming is not the app's fault.
      const slow = setTimeout(() => body.end(), 1.5 * responseTimeoutMs)
      await ended
      const informed = setTimeout(() => informing(), responseTimeoutMs / 2)
      assert.deepEqual(await failureOf(answer), { failure: 'response-timeout', sent: true })
      const tookMs = performance.now() - beganAtMs
      assert.ok(tookMs > 2.9 * responseTimeoutMs, `${tookMs} ms`)
      clearTimeout(slow)
      clearTimeout(informed)
    },
    { responseTimeoutMs },
  )
})

test('a request that the app does not take is given up after its answer is complete', async () => {
  const server = rawServer((socket) => {
    socket.once('data', () => {
      socket.pause()
      socket.write(OK)
    })
  })
  await against(
    server,
    async (client, { sockets }) => {
      const endless = { trailers: [], whole: () => undefined, read: async () => Buffer.alloc(64 * 1024) }
      const answer = await client.send(requestOf({ method: 'POST' }, endless), new TestCaller())
      const [socket] = sockets
      assert.equal(await readAll(answer.body), 'ok')
      // Who does not read learns of a reset by writing.
      const broken = new Promise((resolve) => socket!.once('error', resolve))
      const write = () => socket!.write('x', (error) => error || setImmediate(write))
      write()
      await broken
    },
    { responseTimeoutMs: 50 },
  )
})

test('an abort while connecting, while a body comes, and before an answer', async () => {
  const silent = rawServer(() => {})
  await against(silent, async (client, open) => {
    for (const request of [
      requestOf(),
      requestOf({}, new FedBody()),
      requestOf({ method: 'POST' }, new FedBody().push('x')),
    ]) {
      const caller = new TestCaller()
      const answer = client.send(request, caller)
      caller.go()
      await assert.rejects(answer, (error) => error === caller.gone)
    }
    const caller = new TestCaller()
    const gone = client.send(requestOf(), {
      ...caller,
      inform() {},
      onGone: (callback) => callback(caller.gone),
    })
    await assert.rejects(gone, (error) => error === caller.gone)
    assert.ok([...open.sockets].every((socket) => socket.bytesRead === 0))
  })
})

test('an abort resets a request that is under way, and closes the connection of one that is complete', async () => {
  const arrived = Promise.withResolvers<Socket>()
  const server = rawServer((socket) => {
    received(socket, '\r\n\r\n').then(() => arrived.resolve(socket))
  })
  await against(server, async (client) => {
    const caller = new TestCaller()
    const body = new FedBody().push('half')
    const answer = failing(client.send(requestOf({ method: 'POST' }, body), caller), caller.gone)
    const socket = await arrived.promise
    const error = new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve))
    caller.go()
    assert.equal((await error).code, 'ECONNRESET')
    await answer
  })
  const complete = Promise.withResolvers<Socket>()
  const taking = rawServer((socket) => {
    received(socket, '\r\n\r\n').then(() => complete.resolve(socket))
  })
  await against(taking, async (client) => {
    const caller = new TestCaller()
    const answer = failing(client.send(requestOf(), caller), caller.gone)
    const socket = await complete.promise
    const closed = once(socket, 'close')
    caller.go()
    await closed
    await answer
  })
})

test('an abort in the middle of an answer cuts its body off', async () => {
  const server = app((_request, response) => response.write('begun'))
  await against(server, async (client) => {
    const caller = new TestCaller()
    const answer = await client.send(requestOf(), caller)
    assert.equal((await answer.body.read())?.toString(), 'begun')
    const rest = answer.body.read()
    caller.go()
    await assert.rejects(rest, (error) => error === caller.gone)
    await assert.rejects(answer.body.read(), (error) => error === caller.gone)
  })
})

test("TLS asks for the origin's own name and proves it, whatever Host says", async () => {
  const own = certificate('DNS:localhost', 'IP:127.0.0.1')
  const names: (string | false | null)[] = []
  const server = https.createServer(own, (request, response) => response.end(request.headers.host))
  server.on('secureConnection', (socket: TLSSocket) => names.push(socket.servername))
  const open = await listening(server, 'https')
  const options = { ...OPTIONS, ca: [own.cert] }
  try {
    for (const host of ['localhost', '127.0.0.1']) {
      const client = new Http1Client(new URL(`https://${host}:${open.port}`), options)
      assert.equal(await get(client, { authority: 'app.example' }), 'app.example')
      client.close()
    }
    assert.deepEqual(names, ['localhost', false])
  } finally {
    await open.close()
  }
})

test('TLS refuses a certificate for another name, or of an authority that is not trusted', async () => {
  const other = certificate('DNS:app.example')
  let requests = 0
  const server = https.createServer(other, (_request, response) => {
    requests++
    response.end()
  })
  const open = await listening(server, 'https')
  try {
    for (const ca of [[other.cert], [certificate('DNS:localhost').cert]]) {
      const client = new Http1Client(new URL(`https://localhost:${open.port}`), { ...OPTIONS, ca })
      assert.deepEqual(await failureOf(get(client)), { failure: 'connect', sent: false })
    }
    assert.equal(requests, 0)
  } finally {
    await open.close()
  }
})

test('a request over TLS that is aborted does not look complete', async () => {
  const own = certificate('IP:127.0.0.1')
  const outcome = Promise.withResolvers<string>()
  const begun = Promise.withResolvers<void>()
  const server = https.createServer(own, (request) => {
    request.once('data', () => begun.resolve())
    request.on('end', () => outcome.resolve('complete'))
    request.on('aborted', () => outcome.resolve('aborted'))
    request.on('error', () => {})
  })
  const caller = new TestCaller()
  await against(
    listening(server, 'https'),
    async (client) => {
      const request = requestOf({ method: 'POST' }, new FedBody().push('half'))
      const answer = failing(client.send(request, caller), caller.gone)
      await begun.promise
      caller.go()
      assert.equal(await outcome.promise, 'aborted')
      await answer
    },
    { ca: [own.cert] },
  )
})

test.run()
