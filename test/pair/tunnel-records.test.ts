import assert from 'node:assert/strict'
import { createCipheriv, randomBytes } from 'node:crypto'
import { expandLabel } from '../../sidecar/pair/hkdf.ts'
import { TunnelError } from '../../sidecar/pair/tunnel-error.ts'
import { tunnelSecrets } from '../../sidecar/pair/tunnel-keys.ts'
import { PLAINTEXT_BYTES_MAX, RecordOpener, RecordSealer } from '../../sidecar/pair/tunnel-records.ts'
import { suite } from '../support/suite.ts'
import { FakeClock } from './fakes.ts'
import { opener as keys, plaintextOf, recordsOf, type Side, tunnel } from './tunnel-vectors.ts'
import { flipped, hex, sameBytes } from './vectors.ts'

const test = suite('pair/tunnel-records')

const TAG_BYTES = 16
const LENGTH_BYTES = 4
const REKEY = hex('1400000000000000')
const MINUTE_MS = 60_000
const SIDES = ['initiator', 'responder'] as const

const { outbound, inbound } = tunnelSecrets(keys, hex(tunnel.open), hex(tunnel.answer))
const secretOf = (side: Side): Buffer => Buffer.from(side === 'initiator' ? outbound : inbound)

const endsWithRekey = (frames: Buffer): boolean => frames.subarray(-REKEY.length).equals(REKEY)

/** What comes out, in hex. Frames of these tests end with the bytes of REKEY only where they are one. */
function opening(secret: Buffer): { opener: RecordOpener; opened: string[] } {
  const opened: string[] = []
  const opener = new RecordOpener(secret, (frames) => {
    opened.push(frames.toString('hex'))
    return endsWithRekey(frames)
  })
  return { opener, opened }
}

const SECRET = randomBytes(32)
const secret = (): Buffer => Buffer.from(SECRET)
const sealing = (nowMs = 0): RecordSealer => new RecordSealer(secret(), nowMs)
const text = (n: number): Buffer => Buffer.from(`the frames of record ${n}`)

/** So many records, sealed one after the other. */
function sealed(count: number): Buffer[] {
  const sealer = sealing()
  return Array.from({ length: count }, (_, n) => sealer.seal(text(n), 0))
}

const texts = (count: number): string[] => Array.from({ length: count }, (_, n) => text(n).toString('hex'))

test('seals each record of the vectors, byte for byte', () => {
  for (const side of SIDES) {
    const generations = side === 'initiator' ? tunnel.out : tunnel.in
    const sealers = generations.map(({ secret }) => new RecordSealer(hex(secret), 0))
    for (const vector of recordsOf(side)) {
      const record = sealers[vector.generation]!.seal(plaintextOf(vector), 0)
      assert.ok(record.toString('hex') === vector.record, vector.what)
    }
  }
})

test('opens each record of the vectors, however they are cut', () => {
  for (const side of SIDES) {
    const records = recordsOf(side)
    const whole = Buffer.concat(records.map(({ record }) => hex(record)))
    for (const pieceBytes of [whole.length, 16_384, 1000, 37, 1]) {
      const { opener, opened } = opening(secretOf(side))
      for (let at = 0; at < whole.length; at += pieceBytes) opener.push(whole.subarray(at, at + pieceBytes))
      assert.ok(!opener.midRecord)
      for (const [i, vector] of records.entries())
        assert.ok(opened[i] === plaintextOf(vector).toString('hex'), vector.what)
      assert.equal(opened.length, records.length)
    }
  }
})

test('goes through the generations of the vectors, with REKEY where it is time', () => {
  for (const [side, generations] of [
    ['initiator', tunnel.out],
    ['responder', tunnel.in],
  ] as const) {
    let nowMs = 0
    const sealer = new RecordSealer(secretOf(side), nowMs)
    const { opener, opened } = opening(secretOf(side))
    for (const { key, iv } of generations) {
      nowMs += MINUTE_MS
      const record = sealer.seal(text(0), nowMs)
      opener.push(record)
      const cipher = createCipheriv('aes-256-gcm', hex(key), hex(iv))
      const expected = Buffer.concat([
        cipher.update(text(0)),
        cipher.update(REKEY),
        cipher.final(),
        cipher.getAuthTag(),
      ])
      sameBytes(record.subarray(LENGTH_BYTES), expected)
      assert.equal(opened.at(-1), Buffer.concat([text(0), REKEY]).toString('hex'))
    }
  }
  assert.deepEqual([tunnel.out.length, tunnel.in.length], [3, 1])
})

test('tells whether a record has begun', () => {
  const [record] = sealed(1)
  const { opener, opened } = opening(secret())
  assert.ok(!opener.midRecord)
  for (const [at, byte] of record!.entries()) {
    opener.push(Buffer.of(byte))
    assert.equal(opener.midRecord, at < record!.length - 1, `after ${at + 1} bytes`)
  }
  assert.deepEqual(opened, texts(1))
})

test('opens records that are cut at any byte, and nothing before it is whole', () => {
  const whole = Buffer.concat(sealed(3))
  for (let cut = 0; cut <= whole.length; cut++) {
    const { opener, opened } = opening(secret())
    opener.push(whole.subarray(0, cut))
    assert.equal(opened.length, Math.floor((3 * cut) / whole.length), `cut after ${cut} bytes`)
    opener.push(whole.subarray(cut))
    assert.deepEqual(opened, texts(3))
  }
})

/** What comes out before these bytes kill the tunnel. */
function killing(bytes: Buffer, by = secret()): string[] {
  const { opener, opened } = opening(by)
  assert.throws(() => opener.push(bytes), TunnelError)
  const before = opened.length
  opener.push(Buffer.concat(sealed(1)))
  assert.equal(opened.length, before, 'it goes on though it is dead')
  return opened
}

test('dies of any bit that was turned over, but for a length that became longer, which opens nothing', () => {
  const [first, second, third] = sealed(3) as [Buffer, Buffer, Buffer]
  for (let bit = 0; bit < 8 * second.length; bit++) {
    const bytes = Buffer.concat([first, flipped(second, bit), third])
    const { opener, opened } = opening(secret())
    try {
      opener.push(bytes)
      assert.ok(opener.midRecord && bit < 8 * LENGTH_BYTES, `bit ${bit} passed`)
    } catch (error) {
      assert.ok(error instanceof TunnelError)
    }
    assert.deepEqual(opened, texts(1))
  }
})

test('dies of records that are swapped, repeated or left out', () => {
  const [first, second, third] = sealed(3) as [Buffer, Buffer, Buffer]
  assert.deepEqual(killing(Buffer.concat([second, first, third])), [])
  assert.deepEqual(killing(Buffer.concat([first, first, second])), texts(1))
  assert.deepEqual(killing(Buffer.concat([first, third])), texts(1))
  assert.deepEqual(killing(Buffer.concat([first, second, first])), texts(2))
})

test('dies of a record of the other direction, of another tunnel or of another generation', () => {
  const fromInitiator = hex(recordsOf('initiator')[0]!.record)
  killing(fromInitiator, secretOf('responder'))
  killing(hex(recordsOf('responder')[0]!.record), secretOf('initiator'))
  const other = tunnelSecrets(keys, hex(tunnel.open), flipped(hex(tunnel.answer), 100))
  killing(fromInitiator, other.outbound)

  const sealer = sealing()
  const last = sealer.seal(text(0), MINUTE_MS)
  const next = sealer.seal(text(1), MINUTE_MS)
  assert.deepEqual(killing(next), [])
  // Who does not say that the keys have changed cannot have changed them, and who says so must.
  const opener = new RecordOpener(secret(), () => false)
  opener.push(last)
  assert.throws(() => opener.push(next), TunnelError)
  const hasty = new RecordOpener(secret(), () => true)
  const [first, second] = sealed(2) as [Buffer, Buffer]
  hasty.push(first)
  assert.throws(() => hasty.push(second), TunnelError)
})

/** A record of the first generation, made without the sealer. */
function recordOf(frames: Buffer): Buffer {
  const expanded = (label: string, bytes: number) => expandLabel(SECRET, label, Buffer.alloc(0), bytes)
  const cipher = createCipheriv('aes-256-gcm', expanded('key', 32), expanded('iv', 12))
  const sealedFrames = Buffer.concat([cipher.update(frames), cipher.final(), cipher.getAuthTag()])
  return Buffer.concat([length(sealedFrames.length), sealedFrames])
}

function length(value: number): Buffer {
  const bytes = Buffer.alloc(LENGTH_BYTES)
  bytes.writeUInt32BE(value)
  return bytes
}

test('takes records of 1 byte to the most that there may be, and dies of a length beyond at once', () => {
  for (const size of [1, PLAINTEXT_BYTES_MAX]) {
    const frames = Buffer.alloc(size, 7)
    const { opener, opened } = opening(secret())
    opener.push(sealing().seal(frames, 0))
    assert.ok(opened[0] === frames.toString('hex') && opened.length === 1, `${size} bytes`)
  }
  for (const wrong of [0, 1, TAG_BYTES, PLAINTEXT_BYTES_MAX + TAG_BYTES + 1, 2 ** 31, 2 ** 32 - 1])
    assert.throws(() => opening(secret()).opener.push(length(wrong)), TunnelError, `${wrong}`)
  for (const right of [TAG_BYTES + 1, PLAINTEXT_BYTES_MAX + TAG_BYTES]) {
    const { opener } = opening(secret())
    opener.push(length(right))
    assert.ok(opener.midRecord)
  }
})

test('seals no record that is empty or too long', () => {
  const sealer = sealing()
  assert.throws(() => sealer.seal(Buffer.alloc(0), 0), RangeError)
  assert.throws(() => sealer.seal(Buffer.alloc(PLAINTEXT_BYTES_MAX + 1), 0), RangeError)
  // Nothing of them has counted.
  sameBytes(sealer.seal(text(0), 0), sealed(1)[0]!)
})

test('a record that is empty, though it is sealed well, is refused', () => {
  assert.deepEqual(killing(recordOf(Buffer.alloc(0))), [])
})

test('takes new keys after 60 s of a generation, and not before', () => {
  const clock = new FakeClock()
  const sealer = sealing(clock.ms)
  const { opener, opened } = opening(secret())
  for (const [ms, isLast] of [
    [0, false],
    [MINUTE_MS - 1, false],
    [1, true],
    [0, false],
    [MINUTE_MS - 1, false],
    [1, true],
    [10 * MINUTE_MS, true],
    [0, false],
  ] as const) {
    clock.advance(ms)
    opener.push(sealer.seal(text(0), clock.ms))
    assert.equal(opened.at(-1), Buffer.concat([text(0), isLast ? REKEY : Buffer.alloc(0)]).toString('hex'))
  }
})

test('takes new keys with the 65,536th record of a generation', () => {
  const sealer = sealing()
  const lasts: number[] = []
  let n = 0
  const opener = new RecordOpener(secret(), (frames) => {
    n++
    const isLast = endsWithRekey(frames)
    if (isLast) lasts.push(n)
    return isLast
  })
  const frames = Buffer.of(1)
  for (let i = 0; i < 2 * 65_536 + 1; i++) opener.push(sealer.seal(frames, 0))
  assert.deepEqual(lasts, [65_536, 2 * 65_536])
  assert.equal(n, 2 * 65_536 + 1)
})

test('takes new keys with the record that makes 4 GiB of a generation full', () => {
  const sealer = sealing()
  const frames = Buffer.alloc(PLAINTEXT_BYTES_MAX - REKEY.length)
  const lengths: number[] = []
  for (let bytes = 0; bytes < 2 ** 32 + frames.length; bytes += frames.length)
    lengths.push(sealer.seal(frames, 0).length)
  const plain = LENGTH_BYTES + frames.length + TAG_BYTES
  assert.deepEqual(
    [...lengths.entries()].filter(([, bytes]) => bytes !== plain),
    [[Math.ceil(2 ** 32 / frames.length) - 1, plain + REKEY.length]],
  )
})

test('puts REKEY off where frames leave no room for it', () => {
  const sealer = sealing()
  const { opener, opened } = opening(secret())
  for (const [room, hasRekey] of [
    [REKEY.length - 1, false],
    [0, false],
    [REKEY.length, true],
  ] as const) {
    const frames = Buffer.alloc(PLAINTEXT_BYTES_MAX - room, 7)
    opener.push(sealer.seal(frames, MINUTE_MS))
    assert.equal(endsWithRekey(hex(opened.pop()!)), hasRekey)
  }
  opener.push(sealer.seal(text(0), MINUTE_MS))
  assert.deepEqual(opened, texts(1))
})

test('erases its secret when the keys change, and when it is told to', () => {
  const erased = Buffer.alloc(32)
  const [first, second, third, fourth] = [secret(), secret(), secret(), secret()]
  const sealer = new RecordSealer(first, 0)
  const { opener } = opening(second)
  sameBytes(first, SECRET)
  opener.push(sealer.seal(text(0), 0))
  sameBytes(second, SECRET)
  opener.push(sealer.seal(text(0), MINUTE_MS))
  sameBytes(first, erased)
  sameBytes(second, erased)

  const ended = new RecordSealer(third, 0)
  ended.erase()
  ended.erase()
  sameBytes(third, erased)
  assert.throws(() => ended.seal(text(0), 0), /erased/)
  const closed = opening(fourth)
  const [record] = sealed(1) as [Buffer]
  closed.opener.push(record.subarray(0, 20))
  closed.opener.erase()
  sameBytes(fourth, erased)
  assert.ok(!closed.opener.midRecord)
  closed.opener.push(record)
  assert.deepEqual(closed.opened, [])
})

test('erases its secret when it dies', () => {
  for (const bytes of [length(0), flipped(sealed(1)[0]!, 200)]) {
    const dying = secret()
    assert.throws(() => opening(dying).opener.push(bytes), TunnelError)
    sameBytes(dying, Buffer.alloc(32))
  }
})

test('opens no further record once it was erased by who took the last one, or that one threw', () => {
  let taken = 0
  const ended: RecordOpener = new RecordOpener(secret(), () => {
    taken++
    ended.erase()
    return true
  })
  ended.push(Buffer.concat(sealed(3)))
  assert.equal(taken, 1)
  const failure = new TunnelError('the frames are no good')
  const failing = new RecordOpener(secret(), () => {
    taken++
    throw failure
  })
  assert.throws(() => failing.push(Buffer.concat(sealed(3))), failure)
  failing.push(Buffer.concat(sealed(3)))
  assert.equal(taken, 2)
})

test('holds what has come of a record, and not what its length announces', () => {
  const before = process.memoryUsage().arrayBuffers
  const waiting = Array.from({ length: 1000 }, () => {
    const { opener } = opening(secret())
    opener.push(length(PLAINTEXT_BYTES_MAX + TAG_BYTES))
    for (let i = 0; i < 100; i++) opener.push(Buffer.of(i))
    return opener
  })
  const grownBytes = process.memoryUsage().arrayBuffers - before
  assert.ok(waiting.every(({ midRecord }) => midRecord))
  assert.ok(grownBytes < 8 * 2 ** 20, `${grownBytes} bytes for 1,000 records of which 100 bytes came each`)
})

test.run()
