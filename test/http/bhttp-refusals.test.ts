import assert from 'node:assert/strict'
import v8 from 'node:v8'
import vm from 'node:vm'
import type { RequestHead } from '../../sidecar/call.ts'
import { RequestDecoder, ResponseDecoder } from '../../sidecar/http/bhttp.ts'
import { FIELDS_MAX, HeadError } from '../../sidecar/http/fields.ts'
import {
  bytes,
  CONTROL,
  type Decoder,
  decode,
  decodeRequest,
  decodeResponse,
  HEAD_BYTES_MAX,
  type Item,
  known,
  REQUEST,
  refuses,
  response,
} from '../support/binary-http.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/bhttp refusals')
v8.setFlagsFromString('--expose-gc')
const collectGarbage: () => void = vm.runInNewContext('gc')

test('a message of another kind is refused', () => {
  for (const framing of [1, 3, 4, 63, 64, 2 ** 40])
    refuses(() => decodeRequest(bytes(framing, ...CONTROL, 0, 0, 0)))
  for (const framing of [0, 2, 4, 5, 2 ** 40]) refuses(() => decodeResponse(bytes(framing, 200, 0, 0, 0)))
  refuses(() => decodeRequest())
  refuses(() => decodeResponse(Buffer.alloc(0)))
})

const HUGE = 2 ** 40
/** Each announces a part of a head or of trailers that is larger than allowed, and nothing of the part itself is there. */
const TOO_LARGE: [string, Decoder, Buffer][] = [
  ['method', new RequestDecoder(1000), bytes(0, HUGE)],
  ['scheme', new RequestDecoder(1000), bytes(2, 'GET', HUGE)],
  ['authority', new RequestDecoder(1000), bytes(0, 'GET', 'http', HUGE)],
  ['path', new RequestDecoder(1000), bytes(0, 'GET', 'http', 'a', 100_000)],
  ['section', new RequestDecoder(1000), bytes(0, ...CONTROL, HUGE)],
  ['name', new RequestDecoder(1000), bytes(2, ...CONTROL, HUGE)],
  ['value', new RequestDecoder(1000), bytes(2, ...CONTROL, 'a', HUGE)],
  ['second value', new RequestDecoder(1000), bytes(2, ...CONTROL, 'a', 'b', 'c', 100_000)],
  ['trailers', new RequestDecoder(1000), bytes(0, ...CONTROL, [], 'body', HUGE)],
  ['trailer', new RequestDecoder(1000), bytes(2, ...CONTROL, 0, 'body', 0, 'a', HUGE)],
  ['fields of a response', new ResponseDecoder(1000, 'GET'), bytes(1, 200, HUGE)],
  ['fields of an interim response', new ResponseDecoder(1000, 'GET'), bytes(1, 103, HUGE)],
  ['largest length', new RequestDecoder(1000), Buffer.concat([bytes(2, ...CONTROL), Buffer.alloc(8, 0xff)])],
]

test('a part that is too large is refused as soon as it is announced', () => {
  for (const [name, decoder, announcement] of TOO_LARGE)
    refuses(() => decoder.push(announcement), 'too-large', name)
})

test('a head is as large as its names, values and control data, and may be as large as is allowed', () => {
  const value = 'x'.repeat(1000)
  const size = CONTROL.join('').length + 1 + value.length
  for (const message of [known(['a', value]), bytes(2, ...CONTROL, 'a', value, 0)]) {
    assert.equal(decode(new RequestDecoder(size), message).head.fields[1], value)
    refuses(() => decode(new RequestDecoder(size - 1), message), 'too-large')
  }
  for (const message of [
    response(200, ['a', value]),
    response(103, ['a', value], 200, []),
    response(200, [], '', ['a', value]),
  ]) {
    decode(new ResponseDecoder(1001, 'GET'), message)
    refuses(() => decode(new ResponseDecoder(1000, 'GET'), message), 'too-large')
  }
  refuses(() => decodeRequest(known(Array(2 * FIELDS_MAX + 2).fill('a'))), 'too-large')
})

test('of a section that never ends no more than its limit is taken', () => {
  const line = bytes('name', 'value')
  const allowed = 1000 + 16 * FIELDS_MAX + line.length
  for (const start of [
    bytes(2, ...CONTROL),
    bytes(2, ...CONTROL, 0, 0),
    bytes(2, ...CONTROL, 'a', 1001),
    bytes(0, ...CONTROL, 2000),
  ]) {
    const decoder = new RequestDecoder(1000)
    decoder.push(start)
    let taken = 0
    assert.throws(() => {
      for (; taken <= allowed; taken++)
        decoder.push(line.subarray(taken % line.length, (taken % line.length) + 1))
    }, HeadError)
    assert.ok(taken < allowed, `${taken} bytes`)
  }
})

test('what is waited for in tiny pieces is not kept as such', async () => {
  const length = HEAD_BYTES_MAX
  const decoder = new RequestDecoder(2 * HEAD_BYTES_MAX)
  decoder.push(bytes(2, ...CONTROL, 'a', length))
  const pushed = Array.from({ length: length - 1 }, () => {
    const piece = Buffer.alloc(1, 'x')
    decoder.push(piece)
    return new WeakRef(piece)
  })
  await new Promise(setImmediate) // until then a WeakRef keeps what it is of
  collectGarbage()
  const kept = pushed.filter((piece) => piece.deref()).length
  assert.ok(kept < 1000, `${kept} pieces`)
  decoder.push(Buffer.from('x\0'))
  assert.equal(decoder.head?.fields[1], 'x'.repeat(length))
})

test('a body is as long as its Content-Length says', () => {
  const lengthOf = (length: string) => ['content-length', length]
  for (const message of [
    known(lengthOf('4'), 'body'),
    known(lengthOf('0')),
    known(lengthOf('0'), ''),
    bytes(2, ...CONTROL, ...lengthOf('004'), 0, 'bo', 'dy', 0),
  ]) {
    decodeRequest(message)
  }
  for (const message of [
    known(lengthOf('5'), 'body'),
    known(lengthOf('4')),
    known(lengthOf('4'), '', []),
    bytes(2, ...CONTROL, ...lengthOf('5'), 0, 'bo', 'dy', 0),
    bytes(2, ...CONTROL, ...lengthOf('5'), 0, 0, 0),
  ]) {
    refuses(() => decodeRequest(message), 'malformed', message.toString('latin1'))
  }
})

test('a body that is longer than its Content-Length is refused before a byte too many is passed on', () => {
  for (const message of [known(['content-length', '3'], 'body'), known(['content-length', '0'], 'b')]) {
    const decoder = new RequestDecoder(HEAD_BYTES_MAX)
    refuses(() => decoder.push(message))
    assert.deepEqual(decoder.body, [])
  }
  const decoder = new RequestDecoder(HEAD_BYTES_MAX)
  refuses(() => decoder.push(bytes(2, ...CONTROL, 'content-length', '3', 0, 'bo', 'dy', 0)))
  assert.equal(Buffer.concat(decoder.body).toString(), 'bo')
})

test('a Content-Length that is none, or a second one, is refused', () => {
  for (const value of ['', '-1', '+4', '4,4', '4, 4', '0x4', '4.0', '1e1', '9'.repeat(16)]) {
    refuses(() => decodeRequest(known(['content-length', value], 'body')), 'malformed', value)
  }
  refuses(() => decodeRequest(known(['content-length', '4', 'content-length', '4'], 'body')))
  refuses(() => decodeResponse(response(200, ['content-length', '4', 'content-length', '4'], 'body')))
})

test('an answer to HEAD, and a 304, may announce a body, and has none', () => {
  const message = response(200, ['content-length', '1000'])
  assert.equal(decode(new ResponseDecoder(HEAD_BYTES_MAX, 'HEAD'), message).body, '')
  refuses(() => decode(new ResponseDecoder(HEAD_BYTES_MAX, 'GET'), message))
  assert.equal(decodeResponse(response(304, ['content-length', '1000'])).body, '')
  for (const status of [204, 304])
    refuses(() => decodeResponse(response(status, [], 'body')), 'malformed', `${status}`)
  refuses(() => decode(new ResponseDecoder(HEAD_BYTES_MAX, 'HEAD'), response(200, [], 'body')))
  refuses(() =>
    decode(new ResponseDecoder(HEAD_BYTES_MAX, 'HEAD'), response(200, ['content-length', '4'], 'body')),
  )
  refuses(() => decodeResponse(response(204, ['content-length', '4'])))
})

test('a status is one that can be passed on', () => {
  for (const status of [0, 99, 101, 600, 999, 2 ** 40])
    refuses(() => decodeResponse(response(status, [])), 'malformed', `${status}`)
  refuses(() => decodeResponse(response(103, [], 101, [], 200, [])))
})

test('interim responses are followed by a final one, and there are at most 16 of them', () => {
  const interim = (count: number) => Array<Item>(count).fill([103, []]).flat()
  const nested = (count: number) =>
    bytes(3, ...Array.from({ length: count }, () => [103, 'a', '1', 0]).flat(), 200)
  assert.equal(decodeResponse(nested(16)).informational.length, 16)
  refuses(() => decodeResponse(nested(17)))
  refuses(() => decodeResponse(bytes(1, ...interim(1))))
  refuses(() => decodeResponse(bytes(1, 103)))
})

test('fields that may not be passed on are refused', () => {
  const bad: [string, string][] = [
    ...['A', 'Content-Type', 'x y', 'x:', 'x\r\n', '\u00e9', ''].map((name): [string, string] => [name, '1']),
    ...[':path', ':status', ':authority', ':'].map((name): [string, string] => [name, '/']),
    ...['a\r\nb', 'a\nb', 'a\rb', 'a\0b', 'a\x7f', ' a', 'a '].map((value): [string, string] => ['x', value]),
    ...['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade', 'te'].map(
      (name): [string, string] => [name, 'chunked'],
    ),
  ]
  for (const [name, value] of bad) {
    const why = JSON.stringify([name, value])
    refuses(() => decodeRequest(known([name, value])), 'malformed', why)
    refuses(() => decodeRequest(known(['a', 'b', name, value], 'body')), 'malformed', why)
    refuses(() => decodeRequest(known([], 'body', [name, value])), 'malformed', why)
    refuses(() => decodeResponse(response(200, [name, value])), 'malformed', why)
    refuses(() => decodeResponse(response(103, [name, value], 200, [])), 'malformed', why)
    // An empty name is the end of the section in this form.
    if (name === '') continue
    refuses(() => decodeRequest(bytes(2, ...CONTROL, name, value, 0)), 'malformed', why)
    refuses(() => decodeRequest(bytes(2, ...CONTROL, 0, 0, name, value, 0)), 'malformed', why)
  }
  assert.deepEqual(decodeRequest(known(['te', 'trailers'])).head.fields, ['te', 'trailers'])
})

test('a section of known length holds whole lines', () => {
  for (const fields of [
    ['a'],
    ['a', '1', 'b'],
    ['a', 5],
    ['a', '1', 200, Buffer.alloc(1)],
    [Buffer.from([0x40])],
    [Buffer.from([1])],
  ]) {
    refuses(() => decodeRequest(known(fields)), 'malformed', JSON.stringify(fields))
    refuses(() => decodeRequest(known([], 'body', fields)), 'malformed', JSON.stringify(fields))
  }
})

test('trailers hold nothing that belongs into the head', () => {
  for (const name of ['content-length', 'host', 'transfer-encoding', 'te', 'authorization']) {
    refuses(() => decodeRequest(known([], 'body', [name, '4'])), 'malformed', name)
    refuses(() => decodeResponse(bytes(3, 200, 0, 'body', 0, name, '4', 0)), 'malformed', name)
  }
})

test('a Host is the authority', () => {
  assert.deepEqual(decodeRequest(known(['host', 'example.com'])).head, REQUEST)
  refuses(() => decodeRequest(known(['host', 'example.org'])))
  refuses(() => decodeRequest(known(['host', 'example.com', 'host', 'example.com'])))
  refuses(() => decodeResponse(response(200, ['host', 'example.com'])))
})

test('control data that may not be passed on is refused', () => {
  const control: [string, string, string, string][] = [
    ['get', 'http', 'a', '/'],
    ['', 'http', 'a', '/'],
    ['CONNECT', 'http', 'a', '/'],
    ['GET /x', 'http', 'a', '/'],
    ['GET', 'ftp', 'a', '/'],
    ['GET', '', 'a', '/'],
    ['GET', 'http', 'a/b', '/'],
    ['GET', 'http', 'u@a', '/'],
    ['GET', 'http', 'a\r\n', '/'],
    ['GET', 'http', 'a', ''],
    ['GET', 'http', 'a', '*'],
    ['GET', 'http', 'a', 'http://b/'],
    ['GET', 'http', 'a', '/a b'],
    ['GET', 'http', 'a', '/a\r\nx: y'],
    ['GET', 'http', 'a', '/#'],
  ]
  for (const items of control)
    refuses(() => decodeRequest(bytes(0, ...items)), 'malformed', JSON.stringify(items))
  assert.equal((decodeRequest(bytes(0, 'OPTIONS', 'http', 'a', '*')).head as RequestHead).path, '*')
})

test('after an error nothing is taken, and the end is an error too', () => {
  for (const decoder of [new RequestDecoder(HEAD_BYTES_MAX), new ResponseDecoder(HEAD_BYTES_MAX, 'GET')]) {
    refuses(() => decoder.push(bytes(63)))
    refuses(() => decoder.push(bytes(0, ...CONTROL)))
    refuses(() => decoder.end())
    assert.equal(decoder.head, undefined)
  }
})

test('errors hold nothing of the call', () => {
  for (const message of [
    known(['Hunter2', 'hunter2']),
    known(['a', 'hunter2\0']),
    bytes(0, 'hunter2', 'a', 'b', 'c'),
  ]) {
    assert.throws(
      () => decodeRequest(message),
      (error) => error instanceof HeadError && !/hunter2/i.test(`${error.stack}`),
    )
  }
})

test.run()
