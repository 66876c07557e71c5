import assert from 'node:assert/strict'
import v8 from 'node:v8'
import vm from 'node:vm'
import { FIELDS_MAX } from '../../sidecar/http/fields.ts'
import { Http1RequestReader, Http1ResponseReader } from '../../sidecar/http/http1-reader.ts'
import { bytesOf, HEAD_BYTES_MAX, Hearer, readRequests, readResponse } from '../support/http1-reader.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-reader limits')
v8.setFlagsFromString('--expose-gc')
const collectGarbage: () => void = vm.runInNewContext('gc')
const TOO_LARGE = { name: 'Http1Error', kind: 'too-large' }
const MALFORMED = { name: 'Http1Error', kind: 'malformed' }
const SECTION_BYTES_MAX = HEAD_BYTES_MAX + 32 * 1024
const CHUNKED = 'Transfer-Encoding: chunked\r\n\r\n'

/** A section that begins so, filled up to its size, with the empty line. */
function filled(beginning: string, bytes: number): string {
  const rest = 'x: \r\n\r\n'
  return `${beginning}x: ${'y'.repeat(bytes - beginning.length - rest.length)}\r\n\r\n`
}

test('a head may be HEAD_BYTES_MAX and 32 KiB long, and no longer, in whatever pieces', () => {
  for (const pieceBytes of [undefined, 1, 1000, SECTION_BYTES_MAX]) {
    const request = (bytes: number) =>
      readRequests(filled('GET / HTTP/1.1\r\nHost: a\r\n', bytes), pieceBytes)
    const response = (bytes: number) => readResponse('HEAD', filled('HTTP/1.1 200 OK\r\n', bytes), pieceBytes)
    assert.equal(request(SECTION_BYTES_MAX).length, 1)
    assert.equal(response(SECTION_BYTES_MAX).length, 1)
    assert.throws(() => request(SECTION_BYTES_MAX + 1), TOO_LARGE)
    assert.throws(() => response(SECTION_BYTES_MAX + 1), TOO_LARGE)
  }
})

test('so may trailers', () => {
  for (const pieceBytes of [undefined, 1, 1000]) {
    const request = (bytes: number) =>
      readRequests(`POST / HTTP/1.1\r\nHost: a\r\n${CHUNKED}0\r\n${filled('', bytes)}`, pieceBytes)
    assert.equal(request(SECTION_BYTES_MAX)[0]!.trailers!.length, 2)
    assert.throws(() => request(SECTION_BYTES_MAX + 1), TOO_LARGE)
  }
})

test('a head that does not end is refused at its limit, and nothing more of it is held', () => {
  const requests = new Http1RequestReader(new Hearer(), { headBytesMax: HEAD_BYTES_MAX })
  requests.push(bytesOf(`GET /${'y'.repeat(SECTION_BYTES_MAX - 5)}`))
  assert.throws(() => requests.push(bytesOf('y')), TOO_LARGE)
  const responses = new Http1ResponseReader(new Hearer(), { headBytesMax: HEAD_BYTES_MAX })
  responses.next('GET')
  responses.push(bytesOf(`HTTP/1.1 200 ${'y'.repeat(SECTION_BYTES_MAX - 13)}`))
  assert.throws(() => responses.push(bytesOf('y')), TOO_LARGE)
})

test('a body in the same piece does not count', () => {
  const body = 'y'.repeat(2 * SECTION_BYTES_MAX)
  const [request] = readRequests(
    `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  )
  assert.equal(request!.body.length, body.length)
})

test(`there may be ${2 * FIELDS_MAX} fields, and no more`, () => {
  const head = (fields: number) => `GET / HTTP/1.1\r\nHost: a\r\n${'a:\r\n'.repeat(fields - 1)}\r\n`
  const trailers = (fields: number) =>
    `POST / HTTP/1.1\r\nHost: a\r\n${CHUNKED}0\r\n${'a:\r\n'.repeat(fields)}\r\n`
  assert.equal(readRequests(head(2 * FIELDS_MAX))[0]!.head.raw.length, 4 * FIELDS_MAX)
  assert.equal(readRequests(trailers(2 * FIELDS_MAX))[0]!.trailers!.length, 4 * FIELDS_MAX)
  assert.throws(() => readRequests(head(2 * FIELDS_MAX + 1)), TOO_LARGE)
  assert.throws(() => readRequests(trailers(2 * FIELDS_MAX + 1)), TOO_LARGE)
})

test('four empty lines are ignored before a request, and before each, but not a fifth', () => {
  const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
  const four = '\r\n'.repeat(4)
  for (const pieceBytes of [undefined, 1]) {
    assert.equal(readRequests(`${four}${get}${four}${get}${four}`, pieceBytes).length, 2)
    for (const text of [`\r\n${four}${get}`, `${get}\r\n${four}${get}`])
      assert.throws(() => readRequests(text, pieceBytes), MALFORMED)
  }
})

test('a length has 15 digits at most', () => {
  const request = (length: string) =>
    readRequests(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\nhello`)
  assert.equal(request('000000000000005')[0]!.body, 'hello')
  assert.throws(() => request('0000000000000005'), MALFORMED)
  const reader = new Http1RequestReader(new Hearer(), { headBytesMax: HEAD_BYTES_MAX })
  reader.push(bytesOf('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999\r\n\r\nhello'))
  assert.equal(reader.midMessage, true)
})

test('a chunk size has 15 digits at most, and is counted exactly', () => {
  const chunks = (size: string) => `POST / HTTP/1.1\r\nHost: a\r\n${CHUNKED}${size}\r\nhello`
  assert.equal(readRequests(`${chunks('000000000000005')}\r\n0\r\n\r\n`)[0]!.body, 'hello')
  assert.throws(() => readRequests(`${chunks('0000000000000005')}\r\n0\r\n\r\n`), /not a size/)
  const reader = new Http1RequestReader(new Hearer(), { headBytesMax: HEAD_BYTES_MAX })
  reader.push(bytesOf(chunks('01fffffffffffff'))) // 2^53 - 1
  assert.equal(reader.midMessage, true)
  assert.throws(() => readRequests(chunks('020000000000000')), /not a size/)
})

test('the line before a chunk may be 1024 bytes long, and no longer, in whatever pieces', () => {
  const request = (bytes: number) =>
    `POST / HTTP/1.1\r\nHost: a\r\n${CHUNKED}5;${'y'.repeat(bytes - 4)}\r\nhello\r\n0\r\n\r\n`
  for (const pieceBytes of [undefined, 1, 100]) {
    assert.equal(readRequests(request(1024), pieceBytes)[0]!.body, 'hello')
    assert.throws(() => readRequests(request(1025), pieceBytes), /too long/)
  }
})

test('names that were read take little memory, however many there are, and nothing of their heads', () => {
  const grownBy = (heads: number, fields: (head: number) => string) => {
    collectGarbage()
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < heads; i++) readRequests(`GET / HTTP/1.1\r\nHost: a\r\n${fields(i)}\r\n`)
    collectGarbage()
    return process.memoryUsage().heapUsed - before
  }
  const many = (head: number) =>
    Array.from({ length: 400 }, (_, i) => `x-${'y'.repeat(50)}-${head}-${i}:\r\n`).join('')
  const long = (head: number) => `x-${'y'.repeat(30_000)}-${head}:\r\n`
  const besides = (head: number) => `x-${'y'.repeat(50)}-${head}: ${'z'.repeat(30_000)}\r\n`
  for (const [what, bytes] of [
    ['many', grownBy(100, many)],
    ['long', grownBy(1500, long)],
    ['besides', grownBy(1500, besides)],
  ] as const)
    assert.ok(bytes < 4 * 1024 * 1024, `${what}: ${bytes} bytes`)
})

test.run()
