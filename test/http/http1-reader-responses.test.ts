import assert from 'node:assert/strict'
import { Http1ResponseReader } from '../../sidecar/http/http1-reader.ts'
import { bytesOf, HEAD_BYTES_MAX, Hearer, pushAll, readResponse } from '../support/http1-reader.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-reader of responses')
const limits = { headBytesMax: HEAD_BYTES_MAX }
const MALFORMED = { name: 'Http1Error', kind: 'malformed' }

const RESPONSE = [
  'HTTP/1.1 100 Continue\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n',
  'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n',
  '5\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 6\r\n\r\n',
].join('')

test('tells all that the head of a response says', () => {
  const [response] = readResponse(
    'GET',
    'HTTP/1.1 404 Not\tF\xf6und\r\nServer: x\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n',
  )
  assert.deepEqual(response, {
    head: {
      status: 404,
      minor: 1,
      raw: ['server', 'x', 'transfer-encoding', 'Chunked'],
      bytes: 31,
      length: undefined,
      chunked: true,
      keepAlive: true,
    },
    body: 'hi',
    trailers: [],
  })
})

test('reads the same whatever the pieces are', () => {
  const responses = readResponse('GET', RESPONSE)
  assert.deepEqual(
    responses.map(({ head, body, trailers }) => [head.status, body, trailers]),
    [
      [100, '', undefined],
      [103, '', undefined],
      [200, 'hello!', ['x-sum', '6']],
    ],
  )
  for (let pieceBytes = 1; pieceBytes < RESPONSE.length; pieceBytes++)
    assert.deepEqual(readResponse('GET', RESPONSE, pieceBytes), responses, `pieces of ${pieceBytes} bytes`)
  for (let cut = 1; cut < RESPONSE.length; cut++) {
    const hearer = new Hearer()
    const reader = new Http1ResponseReader(hearer, limits)
    reader.next('GET')
    reader.push(bytesOf(RESPONSE.slice(0, cut)))
    assert.equal(reader.midMessage, true, `after ${cut} bytes`)
    reader.push(bytesOf(RESPONSE.slice(cut)))
    assert.equal(reader.midMessage, false)
    assert.deepEqual(hearer.told, responses, `after ${cut} bytes`)
  }
})

test('a connection may end before a response or behind it, and nowhere else', () => {
  readResponse('GET', '')
  readResponse('GET', RESPONSE)
  for (let cut = 1; cut < RESPONSE.length; cut++)
    assert.throws(() => readResponse('GET', RESPONSE.slice(0, cut)), MALFORMED, `after ${cut} bytes`)
})

for (const [method, status, body] of [
  ['HEAD', 200, ''],
  ['HEAD', 404, ''],
  ['GET', 304, ''],
  ['GET', 200, 'hello'],
  ['OPTIONS', 200, 'hello'],
  ['POST', 500, 'hello'],
] as const) {
  test(`a ${status} to ${method} ${body === '' ? 'ends with its head' : 'has a body'}`, () => {
    for (const [framing, sent, keepAlive] of [
      ['Content-Length: 5', 'hello', true],
      ['Transfer-Encoding: chunked', '5\r\nhello\r\n0\r\n\r\n', true],
      ['X: y', 'hello', status === 304],
    ] as const) {
      const [response] = readResponse(
        method,
        `HTTP/1.1 ${status} X\r\n${framing}\r\n\r\n${body === '' ? '' : sent}`,
      )
      assert.equal(response!.body, body)
      assert.deepEqual(response!.trailers, [])
      assert.equal(response!.head.keepAlive, keepAlive)
    }
  })
}

test('a 204 has no body, and keeps the connection if it announces none', () => {
  for (const [fields, keepAlive] of [
    ['', true],
    ['Content-Length: 0\r\n', true],
    ['Transfer-Encoding: chunked\r\n', false],
  ] as const) {
    const [response] = readResponse('GET', `HTTP/1.1 204 No Content\r\n${fields}\r\n`)
    assert.deepEqual(response!.trailers, [])
    assert.equal(response!.head.keepAlive, keepAlive)
  }
})

test('a body without a length and without chunks lasts until the connection ends', () => {
  const hearer = new Hearer()
  const reader = new Http1ResponseReader(hearer, limits)
  reader.next('GET')
  pushAll(reader, 'HTTP/1.0 200 OK\r\n\r\nhello\r\n\r\nHTTP/1.1 200 OK\r\n\r\n', 3)
  assert.equal(hearer.told[0]!.trailers, undefined)
  assert.equal(reader.midMessage, true)
  reader.finish()
  assert.equal(reader.midMessage, false)
  assert.deepEqual(hearer.told.length, 1)
  assert.equal(hearer.told[0]!.body, 'hello\r\n\r\nHTTP/1.1 200 OK\r\n\r\n')
  assert.deepEqual(hearer.told[0]!.trailers, [])
  assert.equal(hearer.told[0]!.head.keepAlive, false)
})

test('reads one response after the other, each for its request', () => {
  const hearer = new Hearer()
  const reader = new Http1ResponseReader(hearer, limits)
  for (const [method, text] of [
    ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'],
    ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n'],
    ['POST', RESPONSE],
    ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'],
  ] as const) {
    reader.next(method)
    reader.push(bytesOf(text))
  }
  assert.deepEqual(
    hearer.told.map(({ body }) => body),
    ['hi', '', '', '', 'hello!', 'hi'],
  )
})

test('refuses bytes that come before the request that they would answer', () => {
  const hearer = new Hearer()
  const reader = new Http1ResponseReader(hearer, limits)
  assert.throws(() => reader.push(bytesOf('H')), MALFORMED)
  reader.next('GET')
  reader.push(bytesOf('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'))
  assert.deepEqual(hearer.told, [])
})

test('a response that is longer than it said does not end', () => {
  for (const text of [
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi!',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/2',
  ]) {
    const hearer = new Hearer()
    assert.throws(() => readResponse('GET', text, undefined, hearer), MALFORMED)
    assert.equal(hearer.told.length, 1)
    assert.equal(hearer.told[0]!.trailers, undefined)
  }
})

test("a response that nobody asked for does not spoil the one before it, and is nobody's", () => {
  const text = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'
  for (const behind of [text, text.slice(0, 3)]) {
    const hearer = new Hearer()
    const reader = new Http1ResponseReader(hearer, limits)
    reader.next('GET')
    reader.push(bytesOf(text + behind))
    assert.equal(hearer.told.length, 1)
    assert.deepEqual(hearer.told[0]!.trailers, [])
    assert.equal(reader.buffered, true)
    assert.throws(() => reader.next('GET'), MALFORMED)
    // Not even if the next call is ready for it.
    const hasty = new Hearer((event) => event === 'end' && other.next('GET'))
    const other = new Http1ResponseReader(hasty, limits)
    other.next('GET')
    assert.throws(() => other.push(bytesOf(text + behind)), MALFORMED)
    assert.equal(hasty.told.length, 1)
  }
})

test.run()
