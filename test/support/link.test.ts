import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { type Link, startLink } from './link.ts'
import { listen } from './sidecars.ts'
import { suite } from './suite.ts'

const test = suite('support/link')

/** A server that answers each piece with its name before it. */
async function withEcho(name: string, body: (port: number) => Promise<void>): Promise<void> {
  const sockets = new Set<net.Socket>()
  const server = net.createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('data', (bytes) => socket.write(`${name}:${bytes}`))
  })
  try {
    await body(await listen(server))
  } finally {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
}

/** Runs a test with a link that leads to a server named `one`. */
function withLink(body: (link: Link) => Promise<void>): Promise<void> {
  return withEcho('one', async (port) => {
    const link = await startLink(port)
    try {
      await body(link)
    } finally {
      await link.close()
    }
  })
}

function dial({ port }: Link): net.Socket {
  return net.connect({ port, host: '127.0.0.1' }).on('error', () => {})
}

async function connect(link: Link): Promise<net.Socket> {
  const socket = dial(link)
  await once(socket, 'connect')
  return socket
}

async function answer(socket: net.Socket, text: string): Promise<string> {
  socket.write(text)
  return String((await once(socket, 'data'))[0])
}

/** Resolves when the connection is reset, and rejects when it ends in another way. */
async function reset(socket: net.Socket): Promise<void> {
  const [error] = await once(socket, 'close').then(
    () => [undefined],
    (thrown) => [thrown],
  )
  assert.equal(error?.code, 'ECONNRESET')
}

test('carries bytes both ways, and the end of them, and counts connections', () =>
  withLink(async (link) => {
    assert.equal(link.connections, 0)
    const first = await connect(link)
    assert.equal(await answer(first, 'a'), 'one:a')
    const second = await connect(link)
    assert.equal(await answer(second, 'b'), 'one:b')
    assert.equal(link.connections, 2)
    second.end('c')
    assert.equal(String(await second.toArray()), 'one:c')
  }))

test('an answer arrives whole when the server closes after it', async () => {
  const bytes = Buffer.alloc(1_000_000, 'x')
  const server = net.createServer((socket) => socket.on('error', () => {}).end(bytes))
  const link = await startLink(await listen(server))
  const got = Buffer.concat(await (await connect(link)).toArray())
  assert.equal(got.length, bytes.length)
  await link.close()
  server.close()
})

test('resets those who come when its server is not there', async () => {
  const server = net.createServer()
  const link = await startLink(await listen(server))
  server.close()
  await reset(dial(link))
  await link.close()
})

test('a cut resets what is open, and what comes, until it is healed', () =>
  withLink(async (link) => {
    const open = await connect(link)
    assert.equal(await answer(open, 'a'), 'one:a')
    link.cut()
    await reset(open)
    await reset(dial(link))
    const attempts = link.attempts(3)
    await Promise.all([attempts, reset(dial(link))])
    assert.equal(link.connections, 3)
    link.heal()
    assert.equal(await answer(await connect(link), 'b'), 'one:b')
  }))

test('a freeze carries nothing and tells nobody; when it is healed what was silent is reset', () =>
  withLink(async (link) => {
    const open = await connect(link)
    assert.equal(await answer(open, 'a'), 'one:a')
    link.freeze()
    const came = await connect(link)
    await link.attempts(2)
    for (const socket of [open, came]) {
      socket.on('data', () => assert.fail('it carries'))
      socket.on('end', () => assert.fail('it tells'))
      await new Promise((resolve) => socket.write('b', resolve))
    }
    link.heal()
    await Promise.all([reset(open), reset(came)])
    assert.equal(await answer(await connect(link), 'c'), 'one:c')
  }))

test('leads elsewhere when it is told to, and resets what is open', () =>
  withLink((link) =>
    withEcho('two', async (port) => {
      const open = await connect(link)
      assert.equal(await answer(open, 'a'), 'one:a')
      link.retarget(port)
      await reset(open)
      assert.equal(await answer(await connect(link), 'b'), 'two:b')
    }),
  ))

test.run()
