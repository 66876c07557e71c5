import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import net, { type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { Http1Client } from '../../sidecar/http/http1-client.ts'
import { certificate } from '../support/certificates.ts'
import { get, httpApp, OK, testing } from '../support/clients.ts'
import {
  FedBody,
  failureOf,
  type Listening,
  listening,
  OPTIONS,
  rawServer,
  readAll,
  requestOf,
  TestCaller,
} from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-client connections')

const against = testing(Http1Client)

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
  const server = httpApp((_request, response) => response.end('ok'))
  await against(server, async (client, { connections }) => {
    assert.equal(connections, 0)
    for (let i = 0; i < 5; i++) await get(client)
    assert.equal((await server).connections, 1)
    await Promise.all([get(client), get(client), get(client)])
    assert.equal((await server).connections, 3)
  })
})

test('closes what it keeps, and no call under way', async () => {
  const server = httpApp((request, response) => {
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
  const server = httpApp((_request, response) => response.end('ok'))
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

test.run()
