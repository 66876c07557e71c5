import assert from 'node:assert/strict'
import { createSecretKey, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import {
  HEADER_BYTES,
  type MessageId,
  type MessageKeys,
  type Opener,
  openRequest,
  openResponse,
  parseHeader,
  RESPONSE_HEADER_BYTES,
  type Sealer,
  sealRequest,
  sealResponse,
} from '../../sidecar/pair/message.ts'
import { Reject, type RejectName } from '../../sidecar/pair/reject.ts'
import { writeVarint } from '../../sidecar/varint.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'
import { flipped, hex, relay1, sameBytes } from './vectors.ts'

const test = suite('pair/message')

const TAG_BYTES = 16
const MAX = 1024
const IV = Buffer.alloc(12, 0xa5)

const message: MessageId & MessageKeys = {
  pairId: hex(relay1.pairing.pair_id),
  block: 7,
  index: 300,
  requestKey: createSecretKey(randomBytes(32)),
  responseKey: createSecretKey(randomBytes(32)),
  chunkBytesMax: MAX,
}

function rejects(code: RejectName, step: () => unknown): void {
  assert.throws(step, (error) => {
    assert.ok(error instanceof Reject, String(error))
    assert.equal(error.code, code)
    return true
  })
}

/** Opens a whole message that comes in pieces of so many bytes; `released` gets the plaintext as it comes out. */
function opened(
  opener: Opener,
  bytes: Buffer,
  pieceBytes = bytes.length + 1,
  released: Buffer[] = [],
): Buffer[] {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    for (const plaintext of opener.push(bytes.subarray(at, at + pieceBytes))) released.push(plaintext)
  }
  released.push(opener.end())
  return released
}

/** A request of chunks 'a', 'bb' and, final, 'ccc': its header, and each chunk with its length. */
function sample(from = message): { header: Buffer; chunks: [Buffer, Buffer, Buffer]; body: Buffer } {
  const { header, sealer } = sealRequest(from, IV)
  const first = sealer.seal(Buffer.from('a')).subarray(HEADER_BYTES)
  const chunks: [Buffer, Buffer, Buffer] = [
    first,
    sealer.seal(Buffer.from('bb')),
    sealer.end(Buffer.from('ccc')),
  ]
  return { header, chunks, body: Buffer.concat(chunks) }
}

const texts = (pieces: Buffer[]) => pieces.map(String)
const hexes = (pieces: Buffer[]) => pieces.map((piece) => piece.toString('hex'))

function sealedAs(sealer: Sealer, chunks: string[]): string {
  const pieces = chunks.map(hex)
  const last = pieces.pop()!
  return Buffer.concat([...pieces.map((piece) => sealer.seal(piece)), sealer.end(last)]).toString('hex')
}

test('seals and opens the messages of the vectors, both ways, however they are cut', () => {
  assert.equal(relay1.messages.length, 6)
  for (const vector of relay1.messages) {
    const { block, index, request_chunks, response_chunks } = vector
    const keys: MessageId & MessageKeys = {
      pairId: message.pairId,
      block,
      index,
      requestKey: createSecretKey(hex(vector.req_key)),
      responseKey: createSecretKey(hex(vector.res_key)),
      chunkBytesMax: 65_536,
    }
    const { header, sealer } = sealRequest(keys, hex(vector.req_iv))
    assert.equal(header.toString('hex'), vector.header)
    assert.equal(sealedAs(sealer, request_chunks), vector.message)
    assert.equal(
      sealedAs(sealResponse(keys, header, hex(vector.response_iv)), response_chunks),
      vector.response,
    )
    const request = hex(vector.message).subarray(HEADER_BYTES)
    const response = hex(vector.response)
    const responseHeader = response.subarray(0, RESPONSE_HEADER_BYTES)
    for (const pieceBytes of [1, 7, 16_384, undefined]) {
      assert.deepEqual(hexes(opened(openRequest(keys, header), request, pieceBytes)), request_chunks)
      const opener = openResponse(keys, header, responseHeader)
      assert.deepEqual(
        hexes(opened(opener, response.subarray(RESPONSE_HEADER_BYTES), pieceBytes)),
        response_chunks,
      )
    }
  }
})

test('seals a small message as one buffer: header, zero, sealed', () => {
  const { header, sealer } = sealRequest(message, IV)
  const sealed = sealer.end(Buffer.from('hello '), Buffer.from('world'))
  assert.equal(sealed.length, HEADER_BYTES + 1 + 11 + TAG_BYTES)
  sameBytes(sealed.subarray(0, HEADER_BYTES), header)
  assert.equal(sealed[HEADER_BYTES], 0)
  assert.deepEqual(texts(opened(openRequest(message, header), sealed.subarray(HEADER_BYTES))), [
    'hello world',
  ])
})

test('reads the header that it wrote, and no other', () => {
  const { header } = sealRequest({ ...message, block: 2 ** 32 - 1, index: 65_535 }, IV)
  const { pairId, block, index, iv } = parseHeader(header)
  sameBytes(pairId, message.pairId)
  assert.deepEqual([block, index], [2 ** 32 - 1, 65_535])
  sameBytes(iv, IV)
  for (let length = 0; length < HEADER_BYTES; length++)
    rejects('malformed', () => parseHeader(header.subarray(0, length)))
  for (let bit = 0; bit < 8; bit++) {
    rejects('unsupported', () => parseHeader(flipped(header, bit)))
    rejects('malformed', () => parseHeader(flipped(header, 8 + bit)))
  }
})

test('reads the header of a response, and no other', () => {
  const { header } = sample()
  const response = sealResponse(message, header, IV).end().subarray(0, RESPONSE_HEADER_BYTES)
  openResponse(message, header, response)
  for (let length = 0; length < response.length; length++) {
    rejects('malformed', () => openResponse(message, header, response.subarray(0, length)))
  }
  rejects('unsupported', () => openResponse(message, header, flipped(response, 0)))
  rejects('malformed', () => openResponse(message, header, flipped(response, 8)))
})

test('splits at the largest chunk, across pieces, and never exceeds it', () => {
  const lengths = (pieces: number[], ends: boolean) => {
    const { header, sealer } = sealRequest(message, IV)
    const buffers = pieces.map((length, i) => Buffer.alloc(length, i + 1))
    const parts = ends ? [sealer.end(...buffers)] : [sealer.seal(...buffers), sealer.end()]
    const out = opened(openRequest(message, header), Buffer.concat(parts).subarray(HEADER_BYTES))
    sameBytes(Buffer.concat(out), Buffer.concat(buffers))
    return out.map(({ length }) => length)
  }
  assert.deepEqual(lengths([MAX], true), [MAX])
  assert.deepEqual(lengths([MAX], false), [MAX, 0])
  assert.deepEqual(lengths([MAX + 1], true), [MAX, 1])
  assert.deepEqual(lengths([2 * MAX], true), [MAX, MAX])
  assert.deepEqual(lengths([3, MAX - 3, 1], false), [MAX, 1, 0])
  assert.deepEqual(lengths([3, 2 * MAX, 5], true), [MAX, MAX, 8])
  assert.deepEqual(lengths([0, 5, 0], false), [5, 0])
})

test('seals nothing as no chunk, but ends with one that may be empty', () => {
  const { header, sealer } = sealRequest(message, IV)
  const nothing = [sealer.seal(), sealer.seal(Buffer.alloc(0))]
  sameBytes(Buffer.concat(nothing), header)
  const end = sealer.end()
  assert.equal(end.length, 1 + TAG_BYTES)
  assert.deepEqual(texts(opened(openRequest(message, header), end)), [''])
  assert.throws(() => sealer.seal(Buffer.from('more')), /to its end/)
  assert.throws(() => sealer.end(), /to its end/)
})

test('opens what was sealed, whatever the pieces on either side', () => {
  const piece = fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.from(bytes))
  fc.assert(
    fc.property(
      fc.array(fc.array(piece, { maxLength: 3 }), { maxLength: 4 }),
      fc.array(piece),
      fc.nat(5000),
      (seals, last, cut) => {
        const { header, sealer } = sealRequest(message, IV)
        const sealed = [...seals.map((pieces) => sealer.seal(...pieces)), sealer.end(...last)]
        const opener = openRequest(message, header)
        const out = opened(opener, Buffer.concat(sealed).subarray(HEADER_BYTES), cut + 1)
        sameBytes(Buffer.concat(out), Buffer.concat([...seals.flat(), ...last]))
        assert.ok(out.every(({ length }) => length <= MAX))
        assert.ok(out.slice(0, -1).every(({ length }) => length > 0))
        assert.ok(opener.ended)
      },
    ),
    runs(100),
  )
})

test('releases each chunk as soon as it is complete, and none before', () => {
  const { header, chunks } = sample()
  const opener = openRequest(message, header)
  for (const [chunk, text] of [
    [chunks[0], 'a'],
    [chunks[1], 'bb'],
  ] as const) {
    assert.equal(opener.push(chunk.subarray(0, -1)).length, 0)
    assert.deepEqual(texts(opener.push(chunk.subarray(-1))), [text])
  }
  assert.equal(opener.push(chunks[2]).length, 0)
  assert.equal(opener.ended, false)
  assert.equal(opener.end().toString(), 'ccc')
  assert.equal(opener.ended, true)
})

test('refuses a message that is cut off, wherever', () => {
  const { header, chunks, body } = sample()
  const finalAt = chunks[0].length + chunks[1].length
  for (let length = 0; length < body.length; length++) {
    for (const pieceBytes of [1, undefined]) {
      const opener = openRequest(message, header)
      const released: Buffer[] = []
      const code = length < finalAt + 1 + TAG_BYTES ? 'malformed' : 'decrypt_failed'
      rejects(code, () => opened(opener, body.subarray(0, length), pieceBytes, released))
      assert.deepEqual(
        texts(released),
        ['a', 'bb'].slice(0, length < chunks[0].length ? 0 : length < finalAt ? 1 : 2),
      )
      assert.equal(opener.ended, false)
    }
  }
})

test('refuses a message with any bit turned over, and releases nothing that was changed', () => {
  const { header, body } = sample()
  for (let bit = 0; bit < 8 * body.length; bit++) {
    const released: Buffer[] = []
    assert.throws(() => opened(openRequest(message, header), flipped(body, bit), 1, released), Reject)
    assert.deepEqual(texts(released), ['a', 'bb'].slice(0, released.length))
  }
})

test('refuses a message under another header', () => {
  const { header, body } = sample()
  for (let bit = 0; bit < 8 * HEADER_BYTES; bit++) {
    rejects('decrypt_failed', () => opened(openRequest(message, flipped(header, bit)), body))
  }
})

test('refuses bytes that follow the end', () => {
  const { header, body } = sample()
  const opener = openRequest(message, header)
  rejects('decrypt_failed', () => opened(opener, Buffer.concat([body, Buffer.alloc(1)])))
  const over = openRequest(message, header)
  opened(over, body)
  rejects('malformed', () => over.push(Buffer.alloc(1)))
  rejects('malformed', () => over.end())
})

test('refuses chunks out of order, dropped, doubled or of another message', () => {
  const { header, chunks } = sample()
  const [a, b, c] = chunks
  const other = sample({ ...message, requestKey: message.responseKey })
  const changedIv = sealRequest(message, flipped(IV, 0)).sealer.seal(Buffer.from('a')).subarray(HEADER_BYTES)
  for (const order of [
    [b, a, c],
    [b, c],
    [a, c],
    [c],
    [a, a, b, c],
    [a, b, b, c],
    [a, other.chunks[1], c],
    [changedIv, b, c],
  ]) {
    rejects('decrypt_failed', () => opened(openRequest(message, header), Buffer.concat(order)))
  }
  rejects('malformed', () => opened(openRequest(message, header), Buffer.concat([a, b])))
  assert.deepEqual(texts(opened(openRequest(message, header), Buffer.concat([a, b, c]))), ['a', 'bb', 'ccc'])
})

test('tells final chunks from others', () => {
  const { header, chunks } = sample()
  const asFinal = Buffer.concat([chunks[0], Buffer.of(0), chunks[1].subarray(1)])
  rejects('decrypt_failed', () => opened(openRequest(message, header), asFinal))
  const asNotFinal = Buffer.concat([chunks[0], chunks[1], Buffer.of(3 + TAG_BYTES), chunks[2].subarray(1)])
  rejects('decrypt_failed', () => openRequest(message, header).push(asNotFinal))
})

test('tells requests from responses, and one response from another', () => {
  const same = { ...message, responseKey: message.requestKey }
  const { header, body } = sample(same)
  const responseHeader = Buffer.concat([hex('0191'), IV])
  rejects('decrypt_failed', () => opened(openResponse(same, header, responseHeader), body))
  const response = sealResponse(message, header, IV)
    .end(Buffer.from('answer'))
    .subarray(RESPONSE_HEADER_BYTES)
  assert.deepEqual(texts(opened(openResponse(message, header, responseHeader), response)), ['answer'])
  const another = sealRequest(message, randomBytes(12)).header
  rejects('decrypt_failed', () => opened(openResponse(message, another, responseHeader), response))
  rejects('decrypt_failed', () =>
    opened(openResponse(message, header, flipped(responseHeader, 16)), response),
  )
})

test('takes lengths that are not minimal', () => {
  const { header, chunks } = sample()
  const [a, b, c] = chunks
  const long = [
    hex('4011'),
    a.subarray(1),
    hex('80000012'),
    b.subarray(1),
    hex('c000000000000000'),
    c.subarray(1),
  ]
  for (const pieceBytes of [1, 3, undefined]) {
    assert.deepEqual(texts(opened(openRequest(message, header), Buffer.concat(long), pieceBytes)), [
      'a',
      'bb',
      'ccc',
    ])
  }
})

test('refuses a length below 17 or over the limit before a byte of the chunk has come', () => {
  const { header } = sample()
  const length = (value: number) => {
    const bytes = Buffer.alloc(4)
    return bytes.subarray(0, writeVarint(bytes, 0, value))
  }
  assert.equal(openRequest(message, header).push(length(TAG_BYTES + 1)).length, 0)
  assert.equal(openRequest(message, header).push(length(MAX + TAG_BYTES)).length, 0)
  const tooLong = [
    length(MAX + TAG_BYTES + 1),
    length(2 ** 30 - 1),
    hex('c000000100000011'),
    hex('ffffffffffffffff'),
  ]
  const tooShort = [1, 2, TAG_BYTES - 1, TAG_BYTES].map(length)
  for (const bytes of [...tooLong, ...tooShort])
    rejects('malformed', () => openRequest(message, header).push(bytes))
})

test('holds a final chunk to the limit before it is over', () => {
  const { header, sealer } = sealRequest({ ...message, chunkBytesMax: 2 * MAX }, IV)
  const bytes = sealer.end(Buffer.alloc(MAX + 1)).subarray(HEADER_BYTES)
  rejects('malformed', () => openRequest(message, header).push(bytes))
  const opener = openRequest(message, header)
  assert.equal(opener.push(bytes.subarray(0, -1)).length, 0)
  rejects('malformed', () => opener.push(bytes.subarray(-1)))
})

test('opens nothing after it has refused something', () => {
  const { header, body } = sample()
  const opener = openRequest(message, header)
  rejects('malformed', () => opener.push(Buffer.of(1)))
  rejects('malformed', () => opener.push(body))
  rejects('malformed', () => opener.end())
  assert.equal(opener.ended, false)
})

test.run()
