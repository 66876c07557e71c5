import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import type { Fields, RequestHead, ResponseHead } from '../../sidecar/call.ts'
import {
  beginRequest,
  beginResponse,
  contentChunkHeader,
  encodeRequest,
  encodeResponse,
  endOfBody,
  RequestDecoder,
  ResponseDecoder,
  responseHead,
} from '../../sidecar/http/bhttp.ts'
import { FIELDS_MAX } from '../../sidecar/http/fields.ts'
import {
  bytes,
  CONTROL,
  type Decoder,
  decode,
  decodeRequest,
  decodeResponse,
  HEAD_BYTES_MAX,
  known,
  REQUEST,
  refuses,
  response,
  varint,
} from '../support/binary-http.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/bhttp')
const NOTHING = Buffer.alloc(0)
const hex = (text: string) => Buffer.from(text, 'hex')
const VECTORS = JSON.parse(readFileSync(new URL('../vectors/binary-http.json', import.meta.url), 'utf8'))
const FIGURE_8 = hex(VECTORS.figure_8)
const FIGURE_9 = hex(VECTORS.figure_9)
const FIGURE_11 = hex(VECTORS.figure_11)
const FIGURE_13 = hex(VECTORS.figure_13)
const CURL: Fields = [
  'user-agent',
  'curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3',
  'host',
  'www.example.com',
  'accept-language',
  'en, mi',
]
const HELLO: RequestHead = { method: 'GET', scheme: 'https', authority: '', path: '/hello.txt', fields: CURL }
const INTERIM: ResponseHead[] = [
  { status: 102, fields: ['running', '"sleep 15"'] },
  {
    status: 103,
    fields: ['link', '</style.css>; rel=preload; as=style', 'link', '</script.js>; rel=preload; as=script'],
  },
]
const APACHE: ResponseHead = {
  status: 200,
  fields: [
    ...['date', 'Mon, 27 Jul 2009 12:28:53 GMT', 'server', 'Apache'],
    ...[
      'last-modified',
      'Wed, 22 Jul 2009 19:15:56 GMT',
      'etag',
      '"34aa387-d-1568eb00"',
      'accept-ranges',
      'bytes',
    ],
    ...['content-length', '51', 'vary', 'Accept-Encoding', 'content-type', 'text/plain'],
  ],
}
const WORLD = 'Hello World! My content includes a trailing CRLF.\r\n'
const CRLF = 'This content contains CRLF.\r\n'

test('the examples of RFC 9292 are read as what they stand for', () => {
  const curl = {
    head: { ...HELLO, authority: 'www.example.com', fields: [...CURL.slice(0, 2), ...CURL.slice(4)] },
    informational: [],
    body: '',
    trailers: [],
  }
  assert.deepEqual(decodeRequest(FIGURE_8), curl)
  assert.deepEqual(decodeRequest(FIGURE_9), curl)
  assert.deepEqual(decodeResponse(FIGURE_11), {
    head: APACHE,
    informational: INTERIM,
    body: WORLD,
    trailers: [],
  })
  assert.deepEqual(decodeResponse(FIGURE_13), {
    head: { status: 200, fields: [] },
    informational: [],
    body: CRLF,
    trailers: ['trailer', 'text'],
  })
})

test('the examples of RFC 9292 are what is written for them', () => {
  // Those of known length are cut by their empty sections, as section 3.8 has it.
  assert.deepEqual(encodeRequest(HELLO, NOTHING, []), FIGURE_8.subarray(0, -2))
  assert.deepEqual(Buffer.concat([beginRequest(HELLO), endOfBody([])]), FIGURE_9.subarray(0, -10))
  const body = Buffer.from(WORLD)
  assert.deepEqual(
    Buffer.concat([
      beginResponse(),
      ...[...INTERIM, APACHE].map(responseHead),
      contentChunkHeader(body.length),
      body,
      endOfBody([]),
    ]),
    FIGURE_11,
  )
  assert.deepEqual(
    encodeResponse({ status: 200, fields: [] }, Buffer.from(CRLF), ['trailer', 'text']),
    FIGURE_13,
  )
  assert.deepEqual(encodeResponse({ status: 200, fields: [] }, NOTHING, []), hex('0140c8'))
  assert.deepEqual(
    encodeRequest({ ...HELLO, authority: 'example.com', path: '/', fields: [] }, NOTHING, []),
    hex('00034745540568747470730b6578616d706c652e636f6d012f'),
  )
})

const SAMPLES: { name: string; bytes: Buffer; decoder: () => Decoder }[] = [
  ...[
    FIGURE_8,
    FIGURE_9,
    known(['a', '1'], 'body', ['t', '2']),
    known(['content-length', '4', 'b', ''], 'body', [], Buffer.alloc(3)),
  ].map((bytes, i) => ({ name: `request ${i}`, bytes, decoder: () => new RequestDecoder(HEAD_BYTES_MAX) })),
  {
    name: 'streamed request',
    bytes: bytes(
      2,
      ...CONTROL,
      'a',
      'x'.repeat(70),
      'b',
      '',
      0,
      'one',
      'y'.repeat(300),
      0,
      't',
      'z',
      0,
      Buffer.alloc(2),
    ),
    decoder: () => new RequestDecoder(HEAD_BYTES_MAX),
  },
  ...[FIGURE_11, FIGURE_13, bytes(1, 103, ['a', '1'], 404, ['b', 'x'.repeat(100)], 'body', ['t', '2'])].map(
    (bytes, i) => ({
      name: `response ${i}`,
      bytes,
      decoder: () => new ResponseDecoder(HEAD_BYTES_MAX, 'GET'),
    }),
  ),
]

test('a message is the same wherever it is cut in two', () => {
  for (const { name, bytes, decoder } of SAMPLES) {
    const whole = decode(decoder(), bytes)
    for (let cut = 0; cut <= bytes.length; cut++) {
      assert.deepEqual(
        decode(decoder(), bytes.subarray(0, cut), bytes.subarray(cut)),
        whole,
        `${name} at ${cut}`,
      )
    }
  }
})

test('a message is the same byte by byte', () => {
  for (const { name, bytes, decoder } of SAMPLES) {
    const pieces = Array.from(bytes, (_byte, i) => bytes.subarray(i, i + 1))
    assert.deepEqual(decode(decoder(), ...pieces), decode(decoder(), bytes), name)
  }
})

test('a head is there before its body, and pieces of the body before its end', () => {
  const request = new RequestDecoder(HEAD_BYTES_MAX)
  request.push(bytes(2, ...CONTROL, 'a', '1'))
  assert.equal(request.head, undefined)
  request.push(bytes(0))
  assert.deepEqual(request.head, { ...REQUEST, fields: ['a', '1'] })
  request.push(Buffer.concat([bytes(1000), Buffer.from('first')]))
  assert.deepEqual(request.body.splice(0), [Buffer.from('first')])

  const answer = new ResponseDecoder(HEAD_BYTES_MAX, 'GET')
  answer.push(bytes(3, 103, 'a', '1', 0))
  assert.deepEqual(answer.informational, [{ status: 103, fields: ['a', '1'] }])
  assert.equal(answer.head, undefined)
  answer.push(bytes(200, 0))
  assert.deepEqual(answer.head, { status: 200, fields: [] })
})

test('pieces of the body are those that were pushed, and none is kept', () => {
  const piece = Buffer.alloc(1000, 'x')
  for (const start of [bytes(0, ...CONTROL, [], 2 ** 40), bytes(2, ...CONTROL, 0, 2 ** 40)]) {
    const decoder = new RequestDecoder(HEAD_BYTES_MAX)
    decoder.push(start)
    for (let i = 0; i < 100; i++) {
      decoder.push(piece)
      const [taken, ...more] = decoder.body.splice(0)
      assert.deepEqual(more, [])
      assert.equal(taken?.buffer, piece.buffer)
      assert.equal(taken.length, piece.length)
    }
    refuses(() => decoder.end())
  }
})

test('sections that are empty up to the end may be absent', () => {
  const empty = { head: REQUEST, informational: [], body: '', trailers: [] }
  for (const message of [
    bytes(0, ...CONTROL),
    known([]),
    known([], ''),
    known([], '', []),
    bytes(2, ...CONTROL),
    bytes(2, ...CONTROL, 0),
    bytes(2, ...CONTROL, 0, 0),
    bytes(2, ...CONTROL, 0, 0, 0),
  ]) {
    assert.deepEqual(decodeRequest(message), empty, message.toString('hex'))
  }
  for (const message of [
    bytes(1, 204),
    response(204, []),
    bytes(3, 204),
    bytes(3, 204, 0),
    bytes(3, 204, 0, 0),
  ]) {
    assert.deepEqual(decodeResponse(message).head, { status: 204, fields: [] })
  }
  assert.equal(decodeRequest(known(['a', '1'], 'body')).body, 'body')
  assert.equal(decodeRequest(bytes(2, ...CONTROL, 0, 'body', 0)).body, 'body')
})

test('a message that is cut anywhere else is refused', () => {
  /** Lengths that are those of a message of its own: cut after a whole section, all later ones taken for empty. */
  const cases: { bytes: Buffer; ends: Buffer[]; decoder: () => Decoder }[] = [
    {
      bytes: known(['a', '1'], 'body', ['t', '2']),
      ends: [bytes(0, ...CONTROL), known(['a', '1']), known(['a', '1'], 'body')],
      decoder: () => new RequestDecoder(HEAD_BYTES_MAX),
    },
    {
      bytes: bytes(2, ...CONTROL, 'a', '1', 0, 'one', 'two', 0, 't', '2', 0),
      ends: [
        bytes(2, ...CONTROL),
        bytes(2, ...CONTROL, 'a', '1', 0),
        bytes(2, ...CONTROL, 'a', '1', 0, 'one', 'two', 0),
      ],
      decoder: () => new RequestDecoder(HEAD_BYTES_MAX),
    },
    {
      bytes: known(['content-length', '4'], 'body', ['t', '2']),
      ends: [bytes(0, ...CONTROL), known(['content-length', '4'], 'body')],
      decoder: () => new RequestDecoder(HEAD_BYTES_MAX),
    },
    {
      bytes: bytes(3, 103, 'a', '1', 0, 200, 'content-length', '4', 0, 'bo', 'dy', 0, 't', '2', 0),
      ends: [
        bytes(3, 103, 'a', '1', 0, 200),
        bytes(3, 103, 'a', '1', 0, 200, 'content-length', '4', 0, 'bo', 'dy', 0),
      ],
      decoder: () => new ResponseDecoder(HEAD_BYTES_MAX, 'GET'),
    },
  ]
  for (const { bytes: message, ends, decoder } of cases) {
    const lengths = new Set(ends.map((end) => end.length))
    for (let length = 0; length < message.length; length++) {
      const cut = message.subarray(0, length)
      if (lengths.has(length)) decode(decoder(), cut)
      else refuses(() => decode(decoder(), cut), 'malformed', `${message.toString('hex')} at ${length}`)
    }
  }
})

test('padding is zero, of any length, and is told from what is not', () => {
  const message = known(['a', '1'], 'body', ['t', '2'])
  const whole = decodeRequest(message)
  for (const length of [1, 2, 10_000]) assert.deepEqual(decodeRequest(message, Buffer.alloc(length)), whole)
  for (const padding of ['01', '0001', '000000ff', '40']) refuses(() => decodeRequest(message, hex(padding)))
  refuses(() => decodeRequest(message, Buffer.alloc(10_000), hex('01')))
  assert.deepEqual(decodeRequest(bytes(0, ...CONTROL), Buffer.alloc(50)), decodeRequest(bytes(0, ...CONTROL)))
  refuses(() => decodeResponse(FIGURE_13, hex('00'), hex('80')))
})

test('lengths need not be minimal', () => {
  for (const size of [2, 4, 8]) {
    const text = (it: string) => Buffer.concat([varint(it.length, size), Buffer.from(it)])
    const section = (...items: string[]) => {
      const inner = Buffer.concat(items.map(text))
      return Buffer.concat([varint(inner.length, size), inner])
    }
    const control = CONTROL.map(text)
    assert.deepEqual(
      decodeRequest(varint(0, size), ...control, section('a', '1', 'b', ''), text('body'), section('t', '2')),
      decodeRequest(known(['a', '1', 'b', ''], 'body', ['t', '2'])),
    )
    const zero = varint(0, size)
    const chunks = [text('bo'), text('dy'), zero]
    assert.deepEqual(
      decodeRequest(
        varint(2, size),
        ...control,
        text('a'),
        text('1'),
        text('b'),
        zero,
        zero,
        ...chunks,
        text('t'),
        text('2'),
        zero,
      ),
      decodeRequest(known(['a', '1', 'b', ''], 'body', ['t', '2'])),
    )
    assert.deepEqual(decodeResponse(Buffer.concat([varint(1, size), varint(200, Math.max(size, 2))])).head, {
      status: 200,
      fields: [],
    })
  }
  const line = (name: string, value: string) =>
    Buffer.concat([varint(name.length, 8), Buffer.from(name), varint(value.length, 8), Buffer.from(value)])
  const many = Array.from({ length: FIELDS_MAX }, () => line('a', 'x'.repeat(30)))
  assert.equal(decodeRequest(bytes(2, ...CONTROL), ...many, bytes(0)).head.fields.length, 2 * FIELDS_MAX)
})

test('lengths of every size are written as they are read', () => {
  for (const length of [0, 1, 63, 64, 16383, 16384, 65536, 100_000]) {
    const value = 'x'.repeat(length)
    const head = { ...REQUEST, fields: ['a', value] }
    const body = Buffer.alloc(length, 'y')
    const decoder = new RequestDecoder(HEAD_BYTES_MAX * 2)
    const message = encodeRequest(head, body, ['t', value])
    assert.deepEqual(message, known(['a', value], body.toString(), ['t', value]))
    assert.deepEqual(decode(decoder, message), {
      head,
      informational: [],
      body: body.toString(),
      trailers: ['t', value],
    })
  }
  assert.deepEqual(contentChunkHeader(2 ** 30 - 1), hex('bfffffff'))
})

const characters = (text: string) => fc.constantFrom(...text)
const fieldName = fc
  .string({ unit: characters("!#$%&'*+-.^_`|~0189abcxyz"), minLength: 1, maxLength: 70 })
  .map((name) => `x${name}`)
const fieldValue = fc
  .string({ unit: characters(' \t!~aZ09",;=\x80\xff'), maxLength: 200 })
  .map((value) => value.replaceAll(/^[ \t]+|[ \t]+$/g, ''))
const fields = fc.array(fc.tuple(fieldName, fieldValue), { maxLength: 8 }).map((pairs) => pairs.flat())
const record = <T>(parts: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(parts, { noNullPrototype: true })
const head = record<RequestHead>({
  method: fc.constantFrom('GET', 'POST', 'PROPFIND'),
  scheme: fc.constantFrom('http', 'https'),
  authority: fc.constantFrom('', 'billing', 'a.example:8080', '[::1]:1'),
  path: fc.string({ unit: characters('/?a%.~\x80\xff'), maxLength: 100 }).map((rest) => `/${rest}`),
  fields,
})
const piece = fc.uint8Array({ minLength: 1, maxLength: 300 }).map((bytes) => Buffer.from(bytes))
const body = fc.array(piece, { maxLength: 5 })
const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 6 })

function pieces(message: Buffer, cuts: number[]): Buffer[] {
  const places = [
    0,
    ...cuts.map((cut) => Math.floor(cut * message.length)).sort((a, b) => a - b),
    message.length,
  ]
  return places.slice(1).map((end, i) => message.subarray(places[i], end))
}

function chunks(body: Buffer[]): Buffer[] {
  return body.flatMap((piece) => [contentChunkHeader(piece.length), piece])
}

test('what is written is read again, in both forms and however it is cut', () => {
  fc.assert(
    fc.property(head, body, fields, cuts, (head, body, trailers, cuts) => {
      const whole = Buffer.concat(body)
      const expected = { head, informational: [], body: whole.toString('latin1'), trailers }
      assert.deepEqual(decodeRequest(...pieces(encodeRequest(head, whole, trailers), cuts)), expected)
      const streamed = Buffer.concat([beginRequest(head), ...chunks(body), endOfBody(trailers)])
      assert.deepEqual(decodeRequest(...pieces(streamed, cuts)), expected)
    }),
    runs(500),
  )
  fc.assert(
    fc.property(
      record<ResponseHead>({ status: fc.constantFrom(200, 201, 299, 404, 599), fields }),
      fc.array(record<ResponseHead>({ status: fc.constantFrom(100, 102, 103, 199), fields }), {
        maxLength: 3,
      }),
      body,
      fields,
      cuts,
      (head, informational, body, trailers, cuts) => {
        const whole = Buffer.concat(body)
        const expected = {
          head,
          informational: [] as ResponseHead[],
          body: whole.toString('latin1'),
          trailers,
        }
        assert.deepEqual(decodeResponse(...pieces(encodeResponse(head, whole, trailers), cuts)), expected)
        expected.informational = informational
        const streamed = [
          beginResponse(),
          ...informational.map(responseHead),
          responseHead(head),
          ...chunks(body),
        ]
        assert.deepEqual(
          decodeResponse(...pieces(Buffer.concat([...streamed, endOfBody(trailers)]), cuts)),
          expected,
        )
      },
    ),
    runs(500),
  )
})

test.run()
