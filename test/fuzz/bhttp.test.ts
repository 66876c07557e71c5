import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { RequestHead, ResponseHead } from '../../sidecar/call.ts'
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
import {
  checkRequestHead,
  checkResponseHead,
  checkTrailers,
  contentLength,
  HeadError,
  isBodyless,
} from '../../sidecar/http/fields.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('fuzz/bhttp')
const HEAD_BYTES_MAX = 2000
const RUNS = 12_000

const REQUEST: RequestHead = {
  method: 'POST',
  scheme: 'https',
  authority: 'example.com',
  path: '/a?b=c',
  fields: ['content-length', '8', 'x-a', 'y'.repeat(70), 'te', 'trailers'],
}
const INTERIM: ResponseHead = { status: 103, fields: ['link', '</a>'] }
const RESPONSE: ResponseHead = {
  status: 200,
  fields: ['content-length', '8', 'set-cookie', 'a=b', 'set-cookie', 'c=d'],
}
const TRAILERS = ['grpc-status', '0']
const BODY = Buffer.from('the body')
const CHUNKS = [
  contentChunkHeader(3),
  BODY.subarray(0, 3),
  contentChunkHeader(5),
  BODY.subarray(3),
  endOfBody(TRAILERS),
]

const REQUESTS = [
  encodeRequest(REQUEST, BODY, TRAILERS),
  encodeRequest({ ...REQUEST, authority: '', fields: ['host', 'a'] }, Buffer.alloc(0), []),
  Buffer.concat([beginRequest(REQUEST), ...CHUNKS]),
  Buffer.concat([
    beginRequest({ ...REQUEST, method: 'OPTIONS', path: '*', fields: [] }),
    endOfBody([]),
    Buffer.alloc(5),
  ]),
]
const RESPONSES = [
  encodeResponse(RESPONSE, BODY, TRAILERS),
  encodeResponse({ status: 204, fields: [] }, Buffer.alloc(0), []),
  Buffer.concat([
    beginResponse(),
    responseHead(INTERIM),
    responseHead(INTERIM),
    responseHead(RESPONSE),
    ...CHUNKS,
  ]),
  Buffer.concat([
    beginResponse(),
    responseHead({ status: 304, fields: ['content-length', '9'] }),
    endOfBody([]),
  ]),
]

/** What a mutation puts in: lengths at the borders of their forms, and what is not allowed in one place or another. */
const TOKENS = [
  ...[
    '',
    '00',
    '01',
    '02',
    '03',
    '3f',
    '4000',
    '4040',
    '7fff',
    '80000000',
    'bfffffff',
    'c000000000000000',
    'ffffffffffffffff',
  ],
  ...[
    '0a',
    '0d',
    '20',
    '3a',
    '41',
    '7f',
    'ff',
    '01610131',
    '04686f73740161',
    '0161013104686f737401610474686174',
  ],
].map((hex) => Buffer.from(hex, 'hex'))

interface Mutation {
  kind: 'flip' | 'put' | 'insert' | 'remove' | 'repeat' | 'splice' | 'cut'
  at: number
  length: number
  token: Buffer
}

const mutation: fc.Arbitrary<Mutation> = fc.record({
  kind: fc.constantFrom('flip', 'put', 'insert', 'remove', 'repeat', 'splice', 'cut'),
  at: fc.nat(300),
  length: fc.nat(20),
  token: fc.constantFrom(...TOKENS),
})

function mutated(message: Buffer, { kind, at, length, token }: Mutation, others: Buffer[]): Buffer {
  at %= message.length + 1
  const [before, after] = [message.subarray(0, at), message.subarray(at)]
  switch (kind) {
    case 'flip': {
      const flipped = Buffer.from(message)
      if (at < message.length) flipped[at]! ^= 1 << (length & 7)
      return flipped
    }
    case 'put':
      return Buffer.concat([before, token, after.subarray(token.length)])
    case 'insert':
      return Buffer.concat([before, token, after])
    case 'remove':
      return Buffer.concat([before, after.subarray(length)])
    case 'repeat':
      return Buffer.concat([before, ...Array<Buffer>(length).fill(after.subarray(0, length)), after])
    case 'splice':
      return Buffer.concat([before, others[length % others.length]!.subarray(at)])
    case 'cut':
      return before
  }
}

/** Messages that are nearly valid, and the size of the pieces in which they come. */
const inputs = (messages: Buffer[]) =>
  fc
    .tuple(fc.constantFrom(...messages), fc.array(mutation, { minLength: 1, maxLength: 3 }), fc.nat(40))
    .map(([message, mutations, size]) => ({
      message: mutations.reduce((bytes, one) => mutated(bytes, one, messages), message),
      size: size + 1,
    }))

/** What comes out of a decoder; undefined when it refuses the message. Whatever else it does is a failure. */
function outcome<D extends RequestDecoder | ResponseDecoder>(decoder: D, message: Buffer, size: number) {
  const body: Buffer[] = []
  try {
    for (let at = 0; at < message.length; at += size) {
      decoder.push(message.subarray(at, at + size))
      body.push(...decoder.body.splice(0))
    }
    const trailers = decoder.end()
    body.push(...decoder.body.splice(0))
    return { head: decoder.head as NonNullable<D['head']>, body: Buffer.concat(body), trailers }
  } catch (error) {
    if (error instanceof HeadError) return undefined
    throw error
  }
}

function run(messages: Buffer[], check: (message: Buffer, size: number) => boolean): void {
  let taken = 0
  fc.assert(
    fc.property(inputs(messages), ({ message, size }) => {
      if (check(message, size)) taken++
    }),
    runs(RUNS),
  )
  // Else most mutations would go no further than the first check.
  assert.ok(taken > RUNS / 20 && taken < RUNS, `${taken} of ${RUNS} were taken`)
}

test('whatever is made of a request is refused, or passes all checks and is the same however it is cut', () => {
  run(REQUESTS, (message, size) => {
    const got = outcome(new RequestDecoder(HEAD_BYTES_MAX), message, size)
    assert.deepEqual(outcome(new RequestDecoder(HEAD_BYTES_MAX), message, message.length + 1), got)
    if (!got) return false
    assert.equal(checkRequestHead(got.head, HEAD_BYTES_MAX), got.head)
    checkTrailers(got.trailers, HEAD_BYTES_MAX)
    assert.equal(contentLength(got.head.fields) ?? got.body.length, got.body.length)
    const again = encodeRequest(got.head, got.body, got.trailers)
    assert.deepEqual(outcome(new RequestDecoder(HEAD_BYTES_MAX), again, size), got)
    return true
  })
})

test('whatever is made of a response is refused, or passes all checks and is the same however it is cut', () => {
  run(RESPONSES, (message, size) => {
    const decoder = new ResponseDecoder(HEAD_BYTES_MAX, 'GET')
    const got = outcome(decoder, message, size)
    assert.deepEqual(outcome(new ResponseDecoder(HEAD_BYTES_MAX, 'GET'), message, message.length + 1), got)
    for (const head of decoder.informational) {
      assert.ok(head.status < 200)
      checkResponseHead(head, HEAD_BYTES_MAX)
    }
    if (!got) return false
    assert.ok(got.head.status >= 200)
    checkResponseHead(got.head, HEAD_BYTES_MAX)
    checkTrailers(got.trailers, HEAD_BYTES_MAX)
    const length = isBodyless('GET', got.head.status) ? 0 : contentLength(got.head.fields)
    assert.equal(length ?? got.body.length, got.body.length)
    const again = encodeResponse(got.head, got.body, got.trailers)
    assert.deepEqual(outcome(new ResponseDecoder(HEAD_BYTES_MAX, 'GET'), again, size), got)
    return true
  })
})

test('bytes that are no message at all are refused, or pass the same checks', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 1, max: 50 }), (bytes, size) => {
      for (const first of [0, 2]) {
        const got = outcome(new RequestDecoder(HEAD_BYTES_MAX), Buffer.from([first, ...bytes]), size)
        if (got) checkRequestHead(got.head, HEAD_BYTES_MAX)
      }
      for (const first of [1, 3]) {
        const got = outcome(
          new ResponseDecoder(HEAD_BYTES_MAX, 'GET'),
          Buffer.from([first, 0x40, 200, ...bytes]),
          size,
        )
        if (got) checkResponseHead(got.head, HEAD_BYTES_MAX)
      }
    }),
    runs(5000),
  )
})

test.run()
