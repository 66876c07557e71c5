import assert from 'node:assert/strict'
import { type Fields, NO_BODY, type Request } from '../../sidecar/call.ts'
import { DATA, END_HEADERS, frame, HEADERS, RST_STREAM, u32 } from '../support/http2-peers.ts'
import {
  answer,
  callHttp2,
  closeListeners,
  connectHttp2,
  http2Answer,
  listen,
  RawClient,
} from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener over HTTP/2')
test.after(closeListeners)

async function keeping() {
  const requests: (Request['head'] & { text: string; trailers: Fields })[] = []
  const { port, faults } = await listen(async ({ request: { head, body } }) => {
    const text = await readAll(body)
    requests.push({ ...head, text, trailers: body.trailers })
    return answer('ok')
  })
  return { port, requests, faults }
}

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

const get = (...fields: string[]) => [
  ':method',
  'GET',
  ':path',
  '/',
  ':authority',
  'a',
  ':scheme',
  'http',
  ...fields,
]
const post = (...fields: string[]) => [
  ':method',
  'POST',
  ':path',
  '/',
  ':authority',
  'a',
  ':scheme',
  'http',
  ...fields,
]

test('hands on what a request says', async () => {
  const { port, requests } = await keeping()
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
      text: '',
      trailers: [],
    },
  ])
})

test('takes Host for the authority where there is no other, and refuses one that differs', async () => {
  const { port, requests } = await keeping()
  const withoutAuthority = [':method', 'GET', ':path', '/', ':scheme', 'http']
  for (const [fields, status] of [
    [[...withoutAuthority, 'host', 'b'], 200],
    [get('host', 'a'), 200],
    [get('host', 'b'), 400],
    [get('host', 'a', 'host', 'b'), 0], // reset by node:http2 itself
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
  const { port, requests } = await keeping()
  await callHttp2(port, get('cookie', 'a=1', 'x', 'y', 'cookie', 'b=2', 'cookie', 'c=3'))
  assert.deepEqual(requests[0]?.fields, ['x', 'y', 'cookie', 'a=1; b=2; c=3'])
})

test('writes the fields of an answer in order and apart, and values byte by byte', async () => {
  const fields = [
    'set-cookie',
    'a=1',
    'x',
    'y',
    'set-cookie',
    'b=2',
    'content-type',
    'p',
    'content-type',
    'q',
    'c',
    '\xe4',
  ]
  const { port, faults } = await listen(async () => answer('ok', fields))
  const { raw } = await callHttp2(port, get())
  assert.deepEqual(raw.slice(0, -2), [':status', '200', ...fields])
  assert.equal(raw.at(-2), 'date')
  assert.deepEqual(faults, [])
})

test('takes 64 KiB of names and values, and refuses a byte more as headers-too-large', async () => {
  const { port, requests } = await keeping()
  for (const [bytes, status] of [
    [65536, 200],
    [65537, 431],
    [100_000, 431],
  ] as const) {
    const fields: string[] = []
    for (let left = bytes; left > 0; left -= 4001) fields.push('name', 'v'.repeat(Math.min(left, 4001) - 4))
    const answered = await callHttp2(port, get(...fields))
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
  const { port, requests } = await keeping()
  const session = connectHttp2(port)
  const stream = session.request(post() as never, { waitForTrailers: true })
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': ['1', '2'], y: 'z' }))
  stream.write('hello')
  setImmediate(() => stream.end(' world'))
  assert.equal((await http2Answer(stream)).body, 'ok')
  assert.deepEqual(
    [requests[0]?.text, requests[0]?.trailers],
    ['hello world', ['x-sum', '1', 'x-sum', '2', 'y', 'z']],
  )
})

test('writes the head of an answer whose body is not there yet, and each piece, at once', async () => {
  const fed = new FedBody()
  const { port } = await listen(async () => answer(fed, ['content-type', 'text/event-stream']))
  const stream = connectHttp2(port).request(get() as never)
  await new Promise((resolve) => stream.once('response', resolve))
  for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
    const arrives = new Promise((resolve) => stream.once('data', resolve))
    fed.push(event)
    assert.equal(String(await arrives), event)
  }
})

test('begins to answer before the request has ended, in both directions at once', async () => {
  const { port } = await listen(async ({ request: { body } }) => answer(body))
  const stream = connectHttp2(port).request(post() as never)
  await new Promise((resolve) => stream.once('response', resolve))
  for (const piece of ['one', 'two']) {
    const arrives = new Promise((resolve) => stream.once('data', resolve))
    stream.write(piece)
    assert.equal(String(await arrives), piece)
  }
  const answered = http2Answer(stream)
  stream.end()
  const { ended, code } = await answered
  assert.deepEqual({ ended, code }, { ended: true, code: 0 })
})

test('ends a streamed answer with END_STREAM, with trailers and without', async () => {
  for (const trailers of [[], ['x-sum', '1', 'x-sum', '2']]) {
    for (const fields of [[], ['content-length', '6']]) {
      const { port } = await listen(async () =>
        answer(new FedBody().push('one').push('two').end(trailers), fields),
      )
      const answered = await callHttp2(port, get())
      assert.deepEqual(
        [answered.body, answered.trailers, answered.ended, answered.code],
        ['onetwo', trailers, true, 0],
      )
    }
  }
})

test('writes trailers after a body that is at hand, and after none', async () => {
  for (const text of ['hello', '']) {
    const { port } = await listen(async () => {
      const body = answer(text).body
      return answer({
        read: () => body.read(),
        whole: (limit) => body.whole(limit),
        trailers: ['x-sum', '1'],
      })
    })
    const answered = await callHttp2(port, get())
    assert.deepEqual([answered.body, answered.trailers, answered.ended], [text, ['x-sum', '1'], true])
  }
})

test('keeps a Content-Length where an answer has no body', async () => {
  for (const [method, status] of [
    ['HEAD', 200],
    ['GET', 304],
  ] as const) {
    for (const body of ['', new FedBody().end()]) {
      const { port } = await listen(async () => answer(body, ['content-length', '1234'], status))
      const answered = await callHttp2(port, [
        ':method',
        method,
        ':path',
        '/',
        ':authority',
        'a',
        ':scheme',
        'http',
      ])
      assert.equal(answered.status, status)
      assert.ok(answered.raw.join().includes('content-length,1234'))
      assert.deepEqual([answered.body, answered.ended, answered.code], ['', true, 0])
    }
  }
})

test('ends 204, 205 and empty answers', async () => {
  for (const status of [200, 204, 205]) {
    for (const body of ['', new FedBody().end()]) {
      const { port, faults } = await listen(async () => answer(body, [], status))
      const answered = await callHttp2(port, get())
      assert.deepEqual([answered.status, answered.body, answered.ended], [status, '', true])
      assert.deepEqual(faults, [])
    }
  }
})

test('passes interim responses and Expect on', async () => {
  const { port } = await listen(async ({ request: { head, body }, caller }) => {
    caller.inform({ status: 103, fields: ['link', '</a>', 'link', '</b>'] })
    caller.inform({ status: 100, fields: [] })
    return answer(`${head.fields.join()} ${await readAll(body)}`)
  })
  const answered = await callHttp2(port, post('expect', '100-continue'), 'hi')
  assert.deepEqual([answered.interim, answered.body], [[103, 100], 'expect,100-continue hi'])
})

test('refuses CONNECT as not-implemented, and offers no extended one', async () => {
  const { port, requests } = await keeping()
  const answered = await callHttp2(port, { ':method': 'CONNECT', ':authority': 'a:443' })
  assert.equal(answered.status, 501)
  assert.match(answered.raw.join(), /mte-error,not-implemented/)
  const session = connectHttp2(port)
  await new Promise((resolve) => session.once('remoteSettings', resolve))
  assert.equal(session.remoteSettings.enableConnectProtocol, false)
  assert.deepEqual(requests, [])
})

test('ends a complete answer to an unfinished request with NO_ERROR, and no byte of it is lost', async () => {
  const texts = ['whole'.repeat(10_000), 'streamed'.repeat(300_000)]
  for (const text of texts) {
    for (const initialWindowSize of [1000, 1_000_000]) {
      const { port } = await listen(async ({ request: { body } }) => {
        await body.read()
        return answer(text, [], 413)
      })
      const stream = connectHttp2(port, { settings: { initialWindowSize } }).request(post() as never)
      const answered = http2Answer(stream)
      stream.write(Buffer.alloc(500_000))
      const { status, body, ended, code } = await answered
      assert.deepEqual([status, body.length, ended, code], [413, text.length, true, 0])
      assert.ok(body === text)
    }
  }
})

test('leaves no stream behind when a body that has come was not read', async () => {
  const come = Promise.withResolvers<void>()
  const { port, listener } = await listen(async ({ request: { body } }) => {
    await body.read()
    await come.promise
    return answer('ok')
  })
  const session = connectHttp2(port)
  const stream = session.request(post() as never)
  const answered = http2Answer(stream)
  stream.write(Buffer.alloc(400_000))
  stream.end(Buffer.alloc(1000), () => session.ping(() => come.resolve()))
  assert.equal((await answered).body, 'ok')
  // While the connection goes on.
  while (listener.openCalls > 0) await new Promise(setImmediate)
  assert.equal(session.closed, false)
})

test('refuses a body that is not as long as its Content-Length', async () => {
  const { port, requests } = await keeping()
  for (const body of ['hell', 'hello!']) {
    const answered = await callHttp2(port, post('content-length', '5'), body)
    assert.equal(answered.status, 0)
    assert.notEqual(answered.code, 0)
  }
  assert.deepEqual(requests, [])
})

test('refuses what HTTP/2 does not allow in a head', async () => {
  const { port, requests } = await keeping()
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
  const { port, requests } = await keeping()
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
  const { port, requests } = await keeping()
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
