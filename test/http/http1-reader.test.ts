import assert from 'node:assert/strict'
import http from 'node:http'
import { Http1RequestReader } from '../../sidecar/http/http1-reader.ts'
import { bytesOf, HEAD_BYTES_MAX, Hearer, readRequests, readResponse } from '../support/http1-reader.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-reader')
const limits = { headBytesMax: HEAD_BYTES_MAX }
const MALFORMED = { name: 'Http1Error', kind: 'malformed' }

const GET = 'GET /next HTTP/1.1\r\nHost: a\r\n\r\n'
const MESSAGES = [
  'POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Padded: \t\xe4 b\t \r\n\r\nhello',
  'POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n' +
    '5;name=token;q="a ; b"\r\nhello\r\n00e\r\n, how are you?\r\n0\r\nX-Sum: 19 \r\nx-sum:\r\n\r\n',
  'PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n',
  'DELETE /d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
]
const REQUESTS = `\r\n\r\n${MESSAGES.join('')}`

test('tells all that the head of a request says', () => {
  const [request] = readRequests(
    'POST /a?b=c HTTP/1.1\r\nHOST: a:80\r\nX-One: 1\r\nx-one:2\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n' +
      'Connection: Upgrade\r\nUpgrade: x\r\nUpgrade: y\r\n\r\nhi',
  )
  assert.deepEqual(request, {
    head: {
      method: 'POST',
      target: '/a?b=c',
      minor: 1,
      raw: [
        ...['host', 'a:80', 'x-one', '1', 'x-one', '2', 'content-length', '2'],
        ...['expect', '100-Continue', 'connection', 'Upgrade', 'upgrade', 'x', 'upgrade', 'y'],
      ],
      bytes: 86,
      length: 2,
      chunked: false,
      hasBody: true,
      keepAlive: true,
      host: 'a:80',
      expectsContinue: true,
      upgrade: 'x',
    },
    body: 'hi',
    trailers: [],
  })
})

test('trims values of spaces and tabs, and keeps what is within', () => {
  const [request] = readRequests(
    'GET / HTTP/1.1\r\nHost:\t a \t\r\nA:\r\nB: \t \r\nC:b  \tc\r\nD: : "\xff\x80" ,\r\n!#$%&\'*+-.^_`|~09aZ: e\r\n\r\n',
  )
  assert.deepEqual(request!.head.raw, [
    'host',
    'a',
    'a',
    '',
    'b',
    '',
    'c',
    'b  \tc',
    'd',
    ': "\xff\x80" ,',
    "!#$%&'*+-.^_`|~09az",
    'e',
  ])
})

test('knows names in every case, and longer ones than it remembers', () => {
  const long = 'X'.repeat(100)
  const text = `GET / HTTP/1.1\r\nhOsT: a\r\n${long}: b\r\ncontent-LENGTH: 0\r\n\r\n`
  for (const { head } of readRequests(text + text)) {
    assert.deepEqual(head.raw, ['host', 'a', long.toLowerCase(), 'b', 'content-length', '0'])
    assert.equal(head.host, 'a')
    assert.equal(head.length, 0)
  }
})

test('knows names after more other ones than it remembers', () => {
  for (let i = 0; i < 3000; i++) {
    const [request] = readRequests(`GET / HTTP/1.1\r\nHost: a\r\nX-${i}: ${i}\r\nConnection: close\r\n\r\n`)
    assert.deepEqual(request!.head.raw, ['host', 'a', `x-${i}`, `${i}`, 'connection', 'close'])
    assert.equal(request!.head.keepAlive, false)
  }
})

test('takes every method that node:http knows', () => {
  for (const method of http.METHODS) {
    const target = method === 'CONNECT' ? 'a:443' : '/'
    const [request] = readRequests(`${method} ${target} HTTP/1.1\r\nHost: a\r\n\r\n`)
    assert.equal(request!.head.method, method)
    assert.equal(request!.head.target, target)
  }
})

for (const [method, target] of [
  ['GET', '/'],
  ['GET', '//a/b?c=d&e=%20?f'],
  ['GET', '/"<>\\^`{|}~!$'],
  ['GET', 'http://a'],
  ['GET', 'HTTPS://[::1]:80/a?b'],
  ['GET', 'http://a?b'],
  ['OPTIONS', '*'],
  ['OPTIONS', '/'],
  ['CONNECT', '[::1]:80'],
] as const) {
  test(`takes ${method} ${target}`, () => {
    const [request] = readRequests(`${method} ${target} HTTP/1.1\r\nHost: a\r\n\r\n`)
    assert.equal(request!.head.target, target)
  })
}

for (const [version, fields, keepAlive] of [
  ['1.1', [], true],
  ['1.1', ['Connection: keep-alive'], true],
  ['1.1', ['Connection: x, y'], true],
  ['1.1', ['Connection: Close'], false],
  ['1.1', ['Connection: keep-alive, close'], false],
  ['1.1', ['Connection: keep-alive', 'Connection: x,close'], false],
  ['1.1', ['Proxy-Connection: close'], false],
  ['1.0', [], false],
  ['1.0', ['Connection: Keep-Alive'], true],
  ['1.0', ['Connection: keep-alive, x'], false],
  ['1.0', ['Connection: keep-alive', 'Connection: close'], false],
] as const) {
  const what = `HTTP/${version} with ${fields.join(', ') || 'no Connection'}`
  test(`${keepAlive ? 'keeps' : 'does not keep'} a connection with ${what}`, () => {
    const lines = fields.map((field) => `${field}\r\n`).join('')
    const [request] = readRequests(`GET / HTTP/${version}\r\nHost: a\r\n${lines}\r\n`)
    assert.equal(request!.head.keepAlive, keepAlive)
    const [response] = readResponse('GET', `HTTP/${version} 200 OK\r\nContent-Length: 0\r\n${lines}\r\n`)
    assert.equal(response!.head.keepAlive, keepAlive)
  })
}

test('expects to be told to continue only as HTTP/1.1 says it', () => {
  const expects = (version: string, value: string) =>
    readRequests(`PUT / HTTP/${version}\r\nHost: a\r\nExpect: ${value}\r\n\r\n`)[0]!.head.expectsContinue
  assert.equal(expects('1.1', '100-continue'), true)
  assert.equal(expects('1.1', '100-continue, x'), false)
  assert.equal(expects('1.1', 'x'), false)
  assert.equal(expects('1.0', '100-continue'), false)
})

test('takes HTTP/1.0 without a Host', () => {
  assert.equal(readRequests('GET / HTTP/1.0\r\n\r\n')[0]!.head.host, undefined)
})

test('a request without a length and without chunks has no body', () => {
  const [first, second] = readRequests(`POST / HTTP/1.1\r\nHost: a\r\n\r\n${GET}`)
  assert.equal(first!.head.hasBody, false)
  assert.deepEqual(first!.trailers, [])
  assert.equal(second!.head.target, '/next')
})

test('gives trailers without what a message that is passed on does not carry', () => {
  const [request] = readRequests(
    'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\nKeep-Alive: 5\r\nX-A: 2\r\n\r\n',
  )
  assert.deepEqual(request!.trailers, ['x-a', '1', 'x-a', '2'])
})

test('reads the same whatever the pieces are', () => {
  const requests = readRequests(REQUESTS)
  assert.deepEqual(
    requests.map(({ head, body, trailers }) => [head.method, head.target, body, trailers]),
    [
      ['POST', '/a?b', 'hello', []],
      ['POST', '/b', 'hello, how are you?', ['x-sum', '19', 'x-sum', '']],
      ['PUT', '/c', '', []],
      ['GET', '/', '', []],
      ['DELETE', '/d', '', []],
    ],
  )
  for (let pieceBytes = 1; pieceBytes < REQUESTS.length; pieceBytes++) {
    assert.deepEqual(readRequests(REQUESTS, pieceBytes), requests, `pieces of ${pieceBytes} bytes`)
  }
})

test('reads the same wherever it is cut in two, and knows whether that is in the middle of a message', () => {
  const whole = readRequests(REQUESTS)
  const ends = [0, 2, 4]
  for (const message of MESSAGES) ends.push(ends.at(-1)! + message.length)
  for (let cut = 0; cut <= REQUESTS.length; cut++) {
    const hearer = new Hearer((event) => event === 'end' && reader.next())
    const reader = new Http1RequestReader(hearer, limits)
    reader.push(bytesOf(REQUESTS.slice(0, cut)))
    assert.equal(reader.midMessage, !ends.includes(cut), `after ${cut} bytes`)
    reader.push(bytesOf(REQUESTS.slice(cut)))
    assert.deepEqual(hearer.told, whole, `after ${cut} bytes`)
  }
})

test('a connection may end between messages, and nowhere else', () => {
  for (const message of MESSAGES) {
    readRequests(message)
    for (let cut = 1; cut < message.length; cut++)
      assert.throws(() => readRequests(message.slice(0, cut)), MALFORMED, `after ${cut} bytes of ${message}`)
  }
})

test('passes bodies on as parts of what came', () => {
  const hearer = new Hearer()
  const reader = new Http1RequestReader(hearer, limits)
  const first = bytesOf('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe')
  const second = bytesOf('llo\r\n2\r\n')
  const third = bytesOf('hi')
  for (const bytes of [first, second, third]) reader.push(bytes)
  assert.deepEqual(hearer.pieces.map(String), ['he', 'llo', 'hi'])
  for (const [i, bytes] of [first, second, third].entries())
    assert.equal(hearer.pieces[i]!.buffer, bytes.buffer)
  assert.equal(hearer.pieces[2], third)
})

test('holds what came behind a request until it goes on', () => {
  const hearer = new Hearer()
  const reader = new Http1RequestReader(hearer, limits)
  reader.push(bytesOf(GET))
  assert.equal(reader.buffered, false)
  reader.push(bytesOf(GET.slice(0, 10)))
  reader.push(bytesOf(`${GET.slice(10)}${GET}GET`))
  assert.equal(reader.buffered, true)
  assert.equal(reader.midMessage, false)
  assert.equal(hearer.told.length, 1)
  reader.next()
  assert.equal(hearer.told.length, 2)
  assert.equal(reader.buffered, true)
  reader.next()
  assert.equal(hearer.told.length, 3)
  assert.equal(reader.buffered, true)
  reader.next()
  assert.equal(hearer.told.length, 3)
  assert.equal(reader.buffered, false)
  assert.equal(reader.midMessage, true)
})

test('knows when it tells the end of a request that bytes wait behind it', () => {
  const buffered: boolean[] = []
  const hearer = new Hearer((event) => event === 'end' && buffered.push(reader.buffered))
  const reader = new Http1RequestReader(hearer, limits)
  reader.push(bytesOf(GET + GET))
  reader.next()
  assert.deepEqual(buffered, [true, false])
})

test('goes on from request to request without end', () => {
  const hearer = new Hearer((event) => event === 'end' && reader.next())
  const reader = new Http1RequestReader(hearer, limits)
  reader.push(bytesOf(GET.repeat(100_000)))
  assert.equal(hearer.told.length, 100_000)
  assert.equal(reader.buffered, false)
})

test('refuses what is wrong with what waited when it goes on', () => {
  const reader = new Http1RequestReader(new Hearer(), limits)
  reader.push(bytesOf(`${GET}get / HTTP/1.1\r\n\r\n`))
  assert.throws(() => reader.next(), MALFORMED)
})

for (const [what, last] of [
  ['a request that ends the connection', 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
  ['a request of HTTP/1.0', 'GET / HTTP/1.0\r\n\r\n'],
  ['CONNECT, which has no body', 'CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\n'],
] as const) {
  test(`reads nothing behind ${what}`, () => {
    const hearer = new Hearer()
    const reader = new Http1RequestReader(hearer, limits)
    reader.push(bytesOf(`${last}${GET}`))
    reader.push(bytesOf(`\0${GET}`))
    assert.equal(reader.buffered, false)
    reader.next()
    reader.push(bytesOf(GET))
    reader.finish()
    assert.equal(hearer.told.length, 1)
    assert.deepEqual(hearer.told[0]!.trailers, [])
    assert.equal(hearer.told[0]!.head.hasBody, false)
  })
}

test('tells nothing more once it is stopped, whatever it was telling', () => {
  const text = `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi${GET}`
  for (const [event, told] of [
    ['head', { body: '', trailers: undefined }],
    ['body', { body: 'hi', trailers: undefined }],
    ['end', { body: 'hi', trailers: [] }],
  ] as const) {
    const hearer = new Hearer((what) => what === event && reader.stop())
    const reader = new Http1RequestReader(hearer, limits)
    reader.push(bytesOf(text))
    reader.next()
    reader.push(bytesOf(GET))
    reader.finish()
    assert.equal(hearer.told.length, 1)
    const { body, trailers } = hearer.told[0]!
    assert.deepEqual({ body, trailers }, told)
    assert.equal(reader.buffered, false)
    assert.equal(reader.midMessage, false)
  }
})

test('is of no more use once it has refused something, or its hearer threw', () => {
  const hearer = new Hearer()
  const reader = new Http1RequestReader(hearer, limits)
  assert.throws(() => reader.push(bytesOf('GET / HTTP/1.1\r\nHost : a\r\n\r\n')), MALFORMED)
  reader.push(bytesOf(GET))
  reader.finish()
  assert.deepEqual(hearer.told, [])

  const failure = new Error('no room')
  const failing = new Hearer(() => {
    throw failure
  })
  const other = new Http1RequestReader(failing, limits)
  assert.throws(() => other.push(bytesOf(GET)), failure)
  other.push(bytesOf(GET))
  assert.equal(failing.told.length, 1)
})

test('a head that comes byte by byte costs no more than its length', () => {
  const length = 1_000_000
  const reader = new Http1RequestReader(new Hearer(), { headBytesMax: length })
  const byte = bytesOf('y')
  const startMs = performance.now()
  reader.push(bytesOf('GET / HTTP/1.1\r\nHost: a\r\nX: '))
  for (let i = 0; i < length; i++) reader.push(byte)
  assert.equal(reader.midMessage, true)
  // Less than one second; but minutes if all that is held were copied or looked through for each byte.
  assert.ok(performance.now() - startMs < 20_000)
})

test.run()
