import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { TunnelError } from '../../sidecar/pair/tunnel-error.ts'
import {
  CREDIT_MAX,
  DATA_BYTES_MAX,
  FRAME_HEADER_BYTES,
  readFrames,
  startsWithReady,
  TUNNEL_HEAD_BYTES_MAX,
  writeData,
} from '../../sidecar/pair/tunnel-frames.ts'
import { PLAINTEXT_BYTES_MAX, RecordOpener, RecordSealer } from '../../sidecar/pair/tunnel-records.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'
import { type Frame, Frames, readBack, written } from './tunnel-frames.ts'
import { type FrameVector, plaintextOf, type Side, tunnel } from './tunnel-vectors.ts'
import { hex, sameBytes } from './vectors.ts'

const test = suite('pair/tunnel-frames')

const latin1 = (bytes = ''): string => hex(bytes).toString('latin1')

/** What a vector says; undefined for PAD and REKEY, which nobody is told of. */
function told(vector: FrameVector, from: Side): Frame | undefined {
  const { call, end = false, method, scheme, authority, path, status = 0, payload } = vector
  const fields = vector.fields?.flat() ?? []
  switch (vector.type) {
    case 'HEAD':
      return from === 'responder'
        ? { type: 'response', call, end, head: { status, fields } }
        : {
            type: 'request',
            call,
            end,
            head: { method: method!, scheme: scheme!, authority: authority!, path: path!, fields },
          }
    case 'INFO':
      return { type: 'info', call, head: { status, fields } }
    case 'DATA':
      return { type: 'data', call, end, piece: latin1(payload) }
    case 'TRAILERS':
      return { type: 'trailers', call, fields }
    case 'RESET':
      return { type: 'reset', call, code: vector.code! }
    case 'CREDIT':
      return { type: 'credit', call, more: vector.bytes_more! }
    case 'READY':
      return { type: 'ready', credit: vector.credit!, calls: vector.calls! }
    case 'PING':
      return { type: 'ping', payload: latin1(payload) }
    case 'PONG':
      return { type: 'pong', payload: latin1(payload) }
    case 'GOAWAY':
      return { type: 'goaway', highest: vector.highest! }
  }
  assert.ok(vector.type === 'PAD' || vector.type === 'REKEY', vector.type)
  return undefined
}

/** Whoever gets a PONG is not told what is in it: only the newest PING is answered. */
const asRead = (frame: Frame): Frame => (frame.type === 'pong' ? { type: 'pong', payload: '' } : frame)

test('writes each frame of the vectors, byte for byte', () => {
  const seen = new Set<string>()
  for (const { from, frames, what } of tunnel.exchange) {
    for (const vector of frames) {
      const frame = told(vector, from)
      if (!frame) continue
      seen.add(frame.type)
      assert.ok(written(frame).toString('hex') === vector.bytes, `${what}: ${vector.type}`)
    }
  }
  assert.equal(seen.size, 11)
})

test('reads each record of the vectors', () => {
  for (const vector of tunnel.exchange) {
    const { frames, rekey } = readBack(plaintextOf(vector), vector.from)
    const expected = vector.frames
      .map((frame) => told(frame, vector.from))
      .filter((frame) => frame !== undefined)
    assert.deepEqual(frames, expected.map(asRead), vector.what)
    assert.equal(rekey, vector.frames.at(-1)!.type === 'REKEY', vector.what)
    assert.equal(startsWithReady(plaintextOf(vector)), vector.frames[0]!.type === 'READY')
  }
})

/** They are well formed, and wrong for where they come in a tunnel: refused by whoever keeps its calls. */
const WRONG_IN_THEIR_PLACE = [
  'a call skipped',
  'a call begun twice',
  'a call begun by the responder',
  'DATA of a call never begun',
  'RESET of a call never begun',
  'CREDIT of a call never begun',
  'DATA after the end',
  'TRAILERS after the end',
  'DATA before the head',
  'TRAILERS before the head',
  'INFO after the head',
  'a second answer',
  'INFO from the initiator',
  'GOAWAY from the initiator',
  'READY again',
]

test('refuses what the vectors say, as far as a frame tells by itself', () => {
  const passed: string[] = []
  for (const { what, from, plaintext } of tunnel.refused) {
    try {
      readBack(hex(plaintext), from)
      passed.push(what)
    } catch (error) {
      assert.ok(error instanceof TunnelError, what)
    }
  }
  assert.deepEqual(passed.toSorted(), WRONG_IN_THEIR_PLACE.toSorted())
})

const frameOf = (type: number, call: number, payload: Buffer): Buffer => {
  const header = Buffer.alloc(FRAME_HEADER_BYTES)
  header[0] = type
  header.writeUInt32BE(call, 1)
  header.writeUIntBE(payload.length, 5, 3)
  return Buffer.concat([header, payload])
}

const NONE = Buffer.alloc(0)
const refusesIt = (record: Buffer, from: Side = 'initiator') =>
  assert.throws(() => readBack(record, from), TunnelError, record.subarray(0, 32).toString('hex'))

test('refuses every type that there is not, the end bit where it is none, and a call where there may be none', () => {
  const known = [1, 2, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x14, 0x1f]
  for (let type = 0; type < 256; type++) {
    if (known.includes(type)) continue
    if (type === 0x81 || type === 0x83) continue
    for (const call of [0, 1])
      for (const bytes of [0, 1, 2, 4, 8]) refusesIt(frameOf(type, call, Buffer.alloc(bytes, 1)))
  }
  for (const type of [...known, 0x81, 0x83]) {
    const payload = { 1: hex('00c8'), 2: hex('0064'), 3: hex('00'), 5: NONE }[type]
    refusesIt(frameOf(type, (type & 0x7f) < 0x10 ? 0 : 1, payload ?? NONE), 'responder')
  }
})

test('refuses lengths that are not those of a frame', () => {
  for (const [type, call, length] of [
    [0x05, 1, 1],
    [0x06, 1, 4],
    [0x10, 0, 8],
    [0x11, 0, 8],
    [0x12, 0, 8],
    [0x13, 0, 4],
    [0x14, 0, 0],
  ] as const) {
    readBack(frameOf(type, call, Buffer.alloc(length, 1)), 'responder')
    for (let wrong = 0; wrong < 12; wrong++)
      if (wrong !== length) refusesIt(frameOf(type, call, Buffer.alloc(wrong, 1)), 'responder')
  }
})

test('takes numbers up to their limits, and not beyond', () => {
  const ready = (credit: number): Buffer => written({ type: 'ready', credit, calls: 2 ** 32 - 1 })
  assert.deepEqual(readBack(ready(CREDIT_MAX), 'responder').frames, [
    { type: 'ready', credit: CREDIT_MAX, calls: 2 ** 32 - 1 },
  ])
  assert.deepEqual(readBack(ready(0), 'responder').frames, [{ type: 'ready', credit: 0, calls: 2 ** 32 - 1 }])
  refusesIt(ready(CREDIT_MAX + 1))
  refusesIt(written({ type: 'credit', call: 1, more: 0 }))
  for (const [status, taken] of [
    [199, false],
    [200, true],
    [599, true],
    [600, false],
  ] as const) {
    const record = written({ type: 'response', call: 1, end: true, head: { status, fields: [] } })
    if (taken) assert.equal(readBack(record, 'responder').frames.length, 1)
    else refusesIt(record, 'responder')
  }
  for (const [status, taken] of [
    [99, false],
    [100, true],
    [101, false],
    [102, true],
    [199, true],
    [200, false],
  ] as const) {
    const record = written({ type: 'info', call: 1, head: { status, fields: [] } })
    if (taken) assert.equal(readBack(record, 'responder').frames.length, 1)
    else refusesIt(record, 'responder')
  }
})

test('takes pieces of a body of 1 to 65,536 bytes, and an empty one only as its end', () => {
  const record = (bytes: number, end: boolean): Buffer =>
    written({ type: 'data', call: 1, end, piece: 'x'.repeat(bytes) })
  for (const [bytes, end] of [
    [1, false],
    [DATA_BYTES_MAX, false],
    [DATA_BYTES_MAX, true],
    [0, true],
  ] as const)
    assert.deepEqual(readBack(record(bytes, end), 'initiator').frames, [
      { type: 'data', call: 1, end, piece: 'x'.repeat(bytes) },
    ])
  refusesIt(record(0, false))
  refusesIt(record(DATA_BYTES_MAX + 1, false))
  refusesIt(record(DATA_BYTES_MAX + 1, true))
})

test('refuses a record of which a frame is cut anywhere, and tells of none after it', () => {
  const first = written({ type: 'reset', call: 1, code: 0 })
  const head = { method: 'GET', scheme: 'http', authority: 'payments', path: '/', fields: ['x-a', '1'] }
  const second = written({ type: 'request', call: 2, end: true, head })
  const record = Buffer.concat([first, second])
  for (let length = first.length + 1; length < record.length; length++) {
    const sink = new Frames('initiator')
    assert.throws(() => readFrames(record.subarray(0, length), sink), TunnelError)
    assert.deepEqual(sink.frames, [{ type: 'reset', call: 1, code: 0 }])
  }
})

test('refuses heads of which a string is missing or cut, wherever', () => {
  const head = {
    method: 'GET',
    scheme: 'http',
    authority: 'payments',
    path: '/',
    fields: ['x-a', '1', 'x-b', ''],
  }
  const whole = written({ type: 'request', call: 1, end: false, head }).subarray(FRAME_HEADER_BYTES)
  const strings = [head.method, head.scheme, head.authority, head.path, ...head.fields]
  let at = 0
  const ends = strings.map((string) => (at += 2 + string.length))
  // A head may end after its path, and after every value.
  const good = [3, 5, 7].map((string) => ends[string])
  for (let length = 0; length <= whole.length; length++) {
    const record = frameOf(0x01, 1, whole.subarray(0, length))
    if (good.includes(length)) assert.equal(readBack(record, 'initiator').frames.length, 1)
    else refusesIt(record)
  }
})

/** With the prototype of what is read, so that both are equal. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record<T>(model, { noNullPrototype: true })

const string = (max: number) =>
  fc
    .oneof(fc.uint8Array({ maxLength: max }), fc.uint8Array({ minLength: 120, maxLength: 140 }))
    .map((bytes) => Buffer.from(bytes).toString('latin1'))
const fields = fc.array(fc.tuple(string(20), string(300)), { maxLength: 8 }).map((pairs) => pairs.flat())
const call = fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 2 ** 32 - 1 }))
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const eight = fc
  .uint8Array({ minLength: 8, maxLength: 8 })
  .map((bytes) => Buffer.from(bytes).toString('latin1'))
const end = fc.boolean()
const responseHead = record({ status: fc.integer({ min: 200, max: 599 }), fields })
const interimHead = record({ status: fc.integer({ min: 102, max: 199 }), fields })
const requestHead = record({
  method: string(10),
  scheme: string(5),
  authority: string(30),
  path: string(200),
  fields,
})

/** What one side may send. */
const frames = (from: Side): fc.Arbitrary<Frame> =>
  fc.oneof(
    from === 'initiator'
      ? record({ type: fc.constant('request' as const), call, end, head: requestHead })
      : record({ type: fc.constant('response' as const), call, end, head: responseHead }),
    record({ type: fc.constant('info' as const), call, head: interimHead }),
    record({ type: fc.constant('data' as const), call, end, piece: string(2000) }).map((frame) => ({
      ...frame,
      end: frame.end || frame.piece === '',
    })),
    record({ type: fc.constant('trailers' as const), call, fields }),
    record({ type: fc.constant('reset' as const), call, code: fc.nat(255) }),
    record({ type: fc.constant('credit' as const), call, more: u32.map((more) => more || 1) }),
    record({ type: fc.constant('ready' as const), credit: fc.nat(CREDIT_MAX - 1), calls: u32 }),
    record({ type: fc.constantFrom('ping' as const, 'pong' as const), payload: eight }),
    record({ type: fc.constant('goaway' as const), highest: u32 }),
  )

const batch = (from: Side) =>
  record({
    from: fc.constant(from),
    records: fc.array(fc.array(frames(from), { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 5 }),
  })

test('what is written in records is read back, however their bytes are cut', () => {
  fc.assert(
    fc.property(
      fc.oneof(batch('initiator'), batch('responder')),
      fc.integer({ min: 1, max: 3000 }),
      fc.boolean(),
      ({ from, records }, pieceBytes, rekeys) => {
        const secret = randomBytes(32)
        const sealer = new RecordSealer(Buffer.from(secret), 0)
        const sink = new Frames(from)
        const opener = new RecordOpener(secret, (record) => readFrames(record, sink))
        const bytes = Buffer.concat(
          records.map((record, i) =>
            sealer.seal(Buffer.concat(record.map(written)), rekeys ? i * 60_000 : 0),
          ),
        )
        for (let at = 0; at < bytes.length; at += pieceBytes) opener.push(bytes.subarray(at, at + pieceBytes))
        assert.deepEqual(sink.frames, records.flat().map(asRead))
        assert.ok(!opener.midRecord)
      },
    ),
    runs(300),
  )
})

test('a PAD that ends like REKEY changes no keys, and REKEY after it does', () => {
  const rekey = hex('1400000000000000')
  const pad = frameOf(0x1f, 0, rekey)
  assert.deepEqual(readBack(pad, 'initiator'), { frames: [], rekey: false })
  assert.deepEqual(readBack(Buffer.concat([pad, rekey]), 'initiator'), { frames: [], rekey: true })
  refusesIt(Buffer.concat([rekey, pad]))
  refusesIt(Buffer.concat([rekey, rekey]))
})

test('a piece of a body is written in its place and nowhere else', () => {
  const into = Buffer.alloc(40, 0xee)
  const at = writeData(into, 5, 7, Buffer.from('piece'), true)
  assert.equal(at, 5 + FRAME_HEADER_BYTES + 5)
  sameBytes(into.subarray(0, 5), Buffer.alloc(5, 0xee))
  sameBytes(into.subarray(5, at), frameOf(0x83, 7, Buffer.from('piece')))
  sameBytes(into.subarray(at), Buffer.alloc(40 - at, 0xee))
})

test('a head of the most bytes that a frame has room for is read back, be they in one string or in 2,000 fields', () => {
  const head = { method: 'A', scheme: 'http', authority: '', path: '/', fields: [] as string[] }
  const restBytes = TUNNEL_HEAD_BYTES_MAX - 6
  const long = 'x'.repeat(restBytes)
  for (const changed of [
    { path: `/${long}` },
    { fields: ['x', long.slice(1)] },
    { fields: Array.from({ length: 2000 }, (_, i) => [`x-${i}`, long.slice(0, 25)]).flat() },
  ]) {
    const frame: Frame = { type: 'request', call: 1, end: true, head: { ...head, ...changed } }
    const record = written(frame)
    assert.ok(record.length <= PLAINTEXT_BYTES_MAX)
    assert.ok(isDeepStrictEqual(readBack(record, 'initiator').frames, [frame]))
  }
})

test('a record of the most bytes that there may be is read', () => {
  const record = frameOf(0x1f, 0, Buffer.alloc(PLAINTEXT_BYTES_MAX - FRAME_HEADER_BYTES))
  assert.equal(record.length, PLAINTEXT_BYTES_MAX)
  assert.deepEqual(readBack(record, 'responder'), { frames: [], rekey: false })
})

test.run()
