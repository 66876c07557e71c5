import assert from 'node:assert/strict'
import { type Fields, NO_BODY } from '../../sidecar/call.ts'
import { DATA, END_HEADERS, frame, HEADERS, RST_STREAM, u32 } from '../support/http2-peers.ts'
import {
  answer,
  callHttp2,
  closeListeners,
  connectHttp2,
  GET,
  http2Answer,
  listen,
  listenKeeping,
  POST,
  RawClient,
} from '../support/listener.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener requests over HTTP/2')
test.after(closeListeners)

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const END_STREAM = 1
/** GET http://a/, by the static table of HPACK */
const BLOCK = Buffer.from([0x82, 0x86, 0x84, 0x41, 1, 97])

/** A field that HPACK does not compress. */
function literal(name: string, value: string): Buffer {
  const length = (text: string) => Buffer.from([text.length])
  const bytes = (text: string) => Buffer.from(text, 'latin1')
  return Buffer.concat([Buffer.from([0]), length(name), bytes(name), length(value), bytes(value)])
}

test('hands on what a request says', async () => {
  const { port, requests } = await listenKeeping()
  const fields = ['x', '1', 'y', '2', 'x', '3', 'te', 'trailers', 'v', '\xe4\xff']
  const pseudo = [
    ':method',
    'BREW',
    ':path',
    '/a%20b?c=d',
    ':authority',
    'app.example:8080',
    ':scheme',
    'https',
  ]
  const { status, body } = await callHttp2(port, [...pseudo, ...fields])
  assert.deepEqual({ status, body }, { status: 200, body: 'ok' })
  assert.deepEqual(requests, [
    {
      method: 'BREW',
      scheme: 'https',
      authority: 'app.example:8080',
      path: '/a%20b?c=d',
      fields,
      absoluteForm: false,
      text: '',
      trailers: [],
    },
  ])
})

test('takes Host for the authority where there is no other, and refuses one that differs', async () => {
  const { port, requests } = await listenKeeping()
  const withoutAuthority = [':method', 'GET', ':path', '/', ':scheme', 'http']
  for (const [fields, status] of [
    [[...withoutAuthority, 'host', 'b'], 200],
    [[...GET, 'host', 'a'], 200],
    [[...GET, 'host', 'b'], 400],
    [[...GET, 'host', 'a', 'host', 'b'], 0], // reset by node:http2 itself
  ] as const) {
    const headers = Object.assign([...fields], { host: 'set' }) // so that node:http2 adds no :authority
    const answered = await callHttp2(port, headers)
    assert.equal(answered.status, status, fields.join())
    if (status === 400) assert.match(answered.body, /"code":"bad-request"/)
  }
  assert.deepEqual(
    requests.map(({ authority, fields }) => [authority, fields]),
    [
      ['b', []],
      ['a', []],
    ],
  )
})

test('joins cookies that HTTP/2 split', async () => {
  const { port, requests } = await listenKeeping()
  await callHttp2(port, [...GET, 'cookie', 'a=1', 'x', 'y', 'cookie', 'b=2', 'cookie', 'c=3'])
  assert.deepEqual(requests[0]?.fields, ['x', 'y', 'cookie', 'a=1; b=2; c=3'])
})

test('takes 64 KiB of names and values, and refuses a byte more as headers-too-large', async () => {
  const { port, requests } = await listenKeeping()
  for (const [bytes, status] of [
    [65536, 200],
    [65537, 431],
    [100_000, 431],
  ] as const) {
    const fields: string[] = []
    for (let left = bytes; left > 0; left -= 4001) fields.push('name', 'v'.repeat(Math.min(left, 4001) - 4))
    const answered = await callHttp2(port, [...GET, ...fields])
    assert.equal(answered.status, status, String(bytes))
    if (status === 431) assert.match(answered.raw.join(), /mte-error,headers-too-large/)
  }
  assert.equal(requests.length, 1)
})

test('gives a short body that came with its head as a whole, with its trailers', async () => {
  const bodies: [string | undefined, Fields, boolean][] = []
  const { port } = await listen(async ({ request: { body } }) => {
    bodies.push([body.whole(65536)?.toString(), body.trailers, body === NO_BODY])
    return answer('ok')
  })
  const open = [PREFACE, frame(4, 0, 0)]
  const data = frame(DATA, 0, 1, Buffer.from('hello'))
  const trailers = Buffer.concat([literal('x-sum', '1'), literal('x-sum', '2')])
  for (const frames of [
    [frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK)],
    [frame(HEADERS, END_HEADERS, 1, BLOCK), data, frame(DATA, END_STREAM, 1)],
    [frame(HEADERS, END_HEADERS, 1, BLOCK), data, frame(HEADERS, END_HEADERS | END_STREAM, 1, trailers)],
    [frame(HEADERS, END_HEADERS, 1, BLOCK), data, frame(DATA, END_STREAM, 1, Buffer.from(' world'))],
    [frame(HEADERS, END_HEADERS, 1, BLOCK), data],
  ]) {
    const client = new RawClient(port)
    client.socket.write(Buffer.concat([...open, ...frames]))
    await client.until(/ok/)
    client.socket.destroy()
  }
  assert.deepEqual(bodies, [
    ['', [], true],
    ['hello', [], false],
    ['hello', ['x-sum', '1', 'x-sum', '2'], false],
    ['hello world', [], false],
    [undefined, [], false],
  ])
})

test('reads trailers that come after the body', async () => {
  const { port, requests } = await listenKeeping()
  const session = connectHttp2(port)
  const stream = session.request(POST as never, { waitForTrailers: true })
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': ['1', '2'], y: 'z' }))
  stream.write('hello')
  setImmediate(() => stream.end(' world'))
  assert.equal((await http2Answer(stream)).body, 'ok')
  assert.deepEqual(
    [requests[0]?.text, requests[0]?.trailers],
    ['hello world', ['x-sum', '1', 'x-sum', '2', 'y', 'z']],
  )
})

test('refuses CONNECT as not-implemented, and offers no extended one', async () => {
  const { port, requests } = await listenKeeping()
  const answered = await callHttp2(port, { ':method': 'CONNECT', ':authority': 'a:443' })
  assert.equal(answered.status, 501)
  assert.match(answered.raw.join(), /mte-error,not-implemented/)
  const session = connectHttp2(port)
  await new Promise((resolve) => session.once('remoteSettings', resolve))
  assert.equal(session.remoteSettings.enableConnectProtocol, false)
  assert.deepEqual(requests, [])
})

test('leaves no stream behind when a body that has come was not read', async () => {
  const come = Promise.withResolvers<void>()
  const { port, listener } = await listen(async ({ request: { body } }) => {
    await body.read()
    await come.promise
    return answer('ok')
  })
  const session = connectHttp2(port)
  const stream = session.request(POST as never)
  const answered = http2Answer(stream)
  stream.write(Buffer.alloc(400_000))
  stream.end(Buffer.alloc(1000), () => session.ping(() => come.resolve()))
  assert.equal((await answered).body, 'ok')
  // While the connection goes on.
  while (listener.openCalls > 0) await new Promise(setImmediate)
  assert.equal(session.closed, false)
})

test('refuses a body that is not as long as its Content-Length', async () => {
  const { port, requests } = await listenKeeping()
  for (const body of ['hell', 'hello!']) {
    const answered = await callHttp2(port, [...POST, 'content-length', '5'], body)
    assert.equal(answered.status, 0)
    assert.notEqual(answered.code, 0)
  }
  assert.deepEqual(requests, [])
})

test('refuses what HTTP/2 does not allow in a head', async () => {
  const { port, requests } = await listenKeeping()
  const pseudo = [
    literal(':method', 'GET'),
    literal(':scheme', 'http'),
    literal(':path', '/'),
    literal(':authority', 'a'),
  ]
  for (const fields of [
    [literal('connection', 'close')],
    [literal('transfer-encoding', 'chunked')],
    [literal('te', 'gzip')],
    [literal('Upper', 'x')],
    [literal('x', '1'), literal(':path', '/late')],
    [literal(':path', '/again')],
    [literal(':status', '200')],
    [literal('content-length', '1'), literal('content-length', '2')],
    [literal('content-length', '-1')],
  ]) {
    const client = new RawClient(port)
    const head = frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.concat([...pseudo, ...fields]))
    client.socket.write(Buffer.concat([PREFACE, frame(4, 0, 0), head]))
    // RST_STREAM of stream 1, or the end of the connection.
    await Promise.race([client.until(/\0\0\x04\x03\0\0\0\0\x01/), client.ended])
    client.socket.destroy()
  }
  assert.deepEqual(requests, [])
})

test('hands on no field that is none, and leaves no trace of it', async () => {
  const { port, requests } = await listenKeeping()
  for (const field of [
    literal('a b', 'x'),
    literal('x', 'a\r\nb: c'),
    literal('x', 'a\0b'),
    literal('x', ' a'),
  ]) {
    const client = new RawClient(port)
    const head = frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.concat([BLOCK, field, literal('y', 'z')]))
    client.socket.write(Buffer.concat([PREFACE, frame(4, 0, 0), head]))
    await client.until(/ok/)
    client.socket.destroy()
    assert.deepEqual(requests.pop()?.fields, ['y', 'z'])
  }
})

test('ends a connection that resets its streams as fast as it opens them', async () => {
  const { port, faults } = await listen(() => new Promise(() => {}))
  const client = new RawClient(port)
  const flood = [PREFACE, frame(4, 0, 0)]
  for (let id = 1; id < 10_000; id += 2)
    flood.push(frame(HEADERS, END_HEADERS | END_STREAM, id, BLOCK), frame(RST_STREAM, 0, id, u32(8)))
  client.socket.write(Buffer.concat(flood))
  // GOAWAY, and the end.
  await client.until(/\x07\0\0\0\0\0/)
  await client.ended
  assert.deepEqual(faults, [])
})

test('takes the preface of HTTP/2 in any pieces, and what begins like it but is not for HTTP/1.1', async () => {
  const { port, requests } = await listenKeeping()
  const bytes = Buffer.concat([
    PREFACE,
    frame(4, 0, 0),
    frame(HEADERS, END_HEADERS, 1, BLOCK),
    frame(DATA, END_STREAM, 1, Buffer.from('hi')),
  ])
  for (const size of [1, 7, 23, 24, 25]) {
    const client = new RawClient(port)
    client.socket.setNoDelay(true)
    for (let at = 0; at < bytes.length; at += size) {
      client.socket.write(bytes.subarray(at, at + size))
      await new Promise(setImmediate)
    }
    await client.until(/ok/)
    client.socket.destroy()
  }
  assert.equal(requests.length, 5)
  for (const text of [
    'PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n',
    'PRI * HTTP/1.1\r\nHost: a\r\n\r\n',
    'PROPFIND / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
  ]) {
    const client = new RawClient(port).write(text)
    await client.ended
    if (text.startsWith('PROPFIND')) assert.match(client.received, /^HTTP\/1\.1 200 /)
    else assert.doesNotMatch(client.received, / 200 /)
  }
})

test.run()
