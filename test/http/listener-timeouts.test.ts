import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import {
  answer,
  callHttp2,
  closeListeners,
  connectHttp2,
  exchange,
  GET,
  http2Answer,
  listen,
  POST,
  RawClient,
} from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener time-outs and closing')
test.after(closeListeners)

const SHORT = { idleTimeoutMs: 80 }

test('resets a call in which nothing moves, and tells its handler', async () => {
  const codes: string[] = []
  const { port, listener } = await listen(
    ({ caller }) =>
      new Promise(() => {
        caller.onGone(({ code }) => codes.push(code))
      }),
    SHORT,
  )
  const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', '', '')
  assert.equal(await client.ended, 'ECONNRESET')
  const { code } = await callHttp2(port, GET)
  assert.notEqual(code, 0)
  assert.deepEqual(codes, ['idle-timeout', 'idle-timeout'])
  assert.equal(listener.openCalls, 0)
})

test('cuts off a body that does not come, and an answer that is not read', async () => {
  const { port } = await listen(async ({ request: { body } }) => answer(await readAll(body)), SHORT)
  const client = new RawClient(port).write('POST / HTTP/1.1', 'Host: a', 'Content-Length: 10', '', 'begun')
  assert.equal(await client.ended, 'ECONNRESET')
  assert.equal(client.received, '')

  const endless = await listen(
    async () => answer({ read: async () => Buffer.alloc(65536), whole: () => undefined, trailers: [] }),
    SHORT,
  )
  const slow = net.connect(endless.port, '127.0.0.1')
  slow.pause()
  slow.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  slow.on('error', () => {})
  const gone = new Promise((resolve) => slow.on('close', resolve))
  while (endless.listener.openCalls === 0) await new Promise(setImmediate)
  while (endless.listener.openCalls > 0) await new Promise(setImmediate)
  slow.resume()
  await gone
})

/** Takes as long as the time-out: a connection that sends nothing. */
async function timeout(port: number): Promise<void> {
  await new RawClient(port).ended
}

test('lets a call take as long as it moves', async () => {
  const { port } = await listen(async ({ request: { body } }) => answer(body), SHORT)
  const client = new RawClient(port).write('POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', '', '')
  await client.until(/\r\n\r\n$/)
  let over = false
  const timeouts = async () => {
    for (let i = 0; i < 4; i++) await timeout(port)
    over = true
  }
  const all = timeouts()
  while (!over) {
    client.received = ''
    client.write('1', 'x', '')
    await client.until(/1\r\nx\r\n/)
  }
  await all
  client.write('0', '', '')
  await client.until(/0\r\n\r\n$/)
})

test('ends connections that send nothing, begin a head slowly, or idle after an answer', async () => {
  const { port } = await listen(async () => answer('ok'), SHORT)
  for (const start of [
    '',
    'P',
    'PRI * HTTP/2.0\r\n\r\n',
    'GET / HTTP/1.1\r\nHost:',
    'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  ]) {
    const client = new RawClient(port)
    if (start !== '') client.write(start)
    await client.ended
    if (start.endsWith('a\r\n\r\n')) assert.match(client.received, /ok$/)
    client.socket.destroy()
  }
})

test('ends a head that comes line by line, however long that goes on', async () => {
  const { port } = await listen(async () => answer('ok'), SHORT)
  const client = new RawClient(port).write('GET / HTTP/1.1\r\n')
  let over = false
  client.ended.then(() => {
    over = true
  })
  for (let lines = 0; !over; lines++) {
    assert.ok(lines < 10)
    client.write('X: y\r\n')
    await timeout(port)
  }
  assert.equal(client.received, '')
})

test('ends a connection of HTTP/2 that nobody uses, with GOAWAY', async () => {
  const { port } = await listen(async () => answer('ok'), SHORT)
  const session = connectHttp2(port)
  const goaway = once(session, 'goaway')
  const closed = once(session, 'close')
  assert.equal((await http2Answer(session.request(GET as never))).body, 'ok')
  await goaway
  await closed
})

test('closes: resets what is open, over HTTP/1.0 too', async () => {
  const { port, listener } = await listen(async () => answer(new FedBody().push('begun')))
  const clients = ['HTTP/1.1', 'HTTP/1.0'].map((version) =>
    new RawClient(port).write(`GET / ${version}`, 'Host: a', '', ''),
  )
  for (const client of clients) await client.until(/begun/)
  const stream = connectHttp2(port).request(POST as never)
  const answered = http2Answer(stream)
  await once(stream, 'data')
  listener.close()
  for (const client of clients) assert.equal(await client.ended, 'ECONNRESET')
  assert.equal((await answered).ended, false)
  assert.equal(listener.openCalls, 0)
})

test('listens on several hosts at one port, and leaves out a family that is not there', async () => {
  const { listener } = await listen(async () => answer('ok'))
  const addresses = await listener.listen(['127.0.0.1', '127.0.0.2', '2001:db8::1'], 0)
  assert.deepEqual(
    addresses.map(({ address }) => address),
    ['127.0.0.1', '127.0.0.2'],
  )
  assert.equal(addresses[0]!.port, addresses[1]!.port)
  assert.match(
    await exchange(addresses[0]!.port, 'GET / HTTP/1.1', 'Host: a', 'Connection: close', '', ''),
    /ok$/,
  )
  await assert.rejects(() => listener.listen(['127.0.0.1'], addresses[0]!.port), { code: 'EADDRINUSE' })
  await assert.rejects(() => listener.listen(['2001:db8::1'], 0), { code: 'EADDRNOTAVAIL' })
})

test.run()
