import assert from 'node:assert/strict'
import { createSecretKey, hash, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { seal } from '../../sidecar/pair/aes-gcm.ts'
import { initiate, openHello } from '../../sidecar/pair/handshake.ts'
import { expandLabel } from '../../sidecar/pair/hkdf.ts'
import { HEADER_BYTES, openRequest, parseHeader, sealRequest } from '../../sidecar/pair/message.ts'
import { decodeAnswer, decodeHello } from '../../sidecar/pair/plaintexts.ts'
import { parseReject, Reject, rejectRecord } from '../../sidecar/pair/reject.ts'
import { readVarint, varintLength } from '../../sidecar/varint.ts'
import { identity, relay1, sameBytes } from '../pair/vectors.ts'
import { bytes, edited, exactly, runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('fuzz/pair')

const NOW = relay1.time_ms
const orders = await identity('orders')
const payments = await identity('payments')
const mesh = orders.secrets[0]!
const grant = { random: randomBytes, leaseMs: 60_000, pairTtlS: 3600, chunkLog2: 16 }

/** What a step gives, or undefined when it is refused as it should be: with a Reject. */
function attempt<T>(step: () => T): T | undefined {
  try {
    return step()
  } catch (error) {
    if (error instanceof Reject) return undefined
    throw error
  }
}

test('a varint is at least 0, a safe integer, and never read past the end', () => {
  fc.assert(
    fc.property(exactly(8), fc.nat(8), (encoded, length) => {
      const cut = encoded.subarray(0, length)
      if (length === 0 || length < varintLength(cut[0]!)) {
        assert.throws(() => readVarint(cut, 0), RangeError)
      } else {
        const value = readVarint(cut, 0)
        assert.ok(Number.isSafeInteger(value) && value >= 0)
      }
    }),
    runs(20_000),
  )
})

const message = {
  pairId: Buffer.alloc(24, 1),
  block: 1,
  index: 2,
  requestKey: createSecretKey(Buffer.alloc(32, 3)),
  responseKey: createSecretKey(Buffer.alloc(32, 4)),
  chunkBytesMax: 1024,
}
const pieces = ['first', 'second', 'x'.repeat(1024), 'last']
const { header, sealer } = sealRequest(message, Buffer.alloc(12, 5))
const sealed = Buffer.concat(
  pieces.map((text, i) => (i === 3 ? sealer.end : sealer.seal).call(sealer, Buffer.from(text))),
)
const body = sealed.subarray(HEADER_BYTES)

test('chunks that were not sealed are refused, and nothing comes out but what was sealed', () => {
  fc.assert(
    fc.property(
      fc.oneof(bytes(3000), edited(body)),
      fc.integer({ min: 1, max: 3000 }),
      (changed, pieceBytes) => {
        const opener = openRequest(message, header)
        const released: string[] = []
        const ended = attempt(() => {
          for (let at = 0; at < changed.length; at += pieceBytes) {
            released.push(...opener.push(changed.subarray(at, at + pieceBytes)).map(String))
          }
          released.push(opener.end().toString())
          return true
        })
        assert.deepEqual(released, pieces.slice(0, released.length))
        assert.equal(ended ?? false, changed.equals(body))
        assert.equal(opener.ended, ended ?? false)
      },
    ),
    runs(3000),
  )
})

test('a header is read in one way, or refused', () => {
  fc.assert(
    fc.property(fc.oneof(bytes(60), edited(header)), (changed) => {
      const parsed = attempt(() => parseHeader(changed))
      if (parsed) sameBytes(sealRequest({ ...message, ...parsed }, parsed.iv).header, changed)
    }),
    runs(5000),
  )
})

const { hello } = initiate(orders, { secret: mesh, responderName: '', random: randomBytes, now: NOW })
const opening = { now: NOW, seen: () => false }

test('an m1 that was changed is refused', () => {
  openHello(payments, hello, opening)
  fc.assert(
    fc.property(fc.oneof(bytes(2000), edited(hello)), (changed) => {
      assert.equal(attempt(() => openHello(payments, changed, opening)) !== undefined, changed.equals(hello))
    }),
    runs(3000),
  )
})

test('an m1 of someone with the secret is taken or refused, whatever is inside and whatever the key', () => {
  const padded = (start: Buffer) => Buffer.concat([start, Buffer.alloc(640)]).subarray(0, 640)
  const text = fc.string({ minLength: 1, maxLength: 20 }).map((from) => Buffer.from(from))
  const names = fc
    .tuple(
      fc.oneof(text, bytes(20)),
      fc.oneof(fc.constantFrom(Buffer.alloc(0), Buffer.from('payments')), bytes(3)),
      fc.nat(3),
    )
    .map(([from, to, form]) => {
      const time = Buffer.alloc(8)
      time.writeBigUInt64BE(BigInt(NOW))
      return padded(
        Buffer.concat([time, Buffer.of(from.length), from, Buffer.of(to.length), to, Buffer.of(form)]),
      )
    })
  const key = fc.oneof(exactly(1216), fc.constant(hello.subarray(44, 1260)), edited(hello.subarray(44, 1260)))
  let taken = 0
  fc.assert(
    fc.property(fc.oneof(names, exactly(640)), key, (plaintext, publicKey) => {
      const header = Buffer.concat([hello.subarray(0, 44), publicKey, Buffer.alloc(1216)]).subarray(0, 1260)
      const context = hash('sha256', header, 'buffer')
      const m1Key = expandLabel(mesh.m1Secret, 'm1 key', context, 32)
      const forged = Buffer.concat([
        header,
        seal(m1Key, expandLabel(mesh.m1Secret, 'm1 iv', context, 12), header, plaintext),
      ])
      if (attempt(() => openHello(payments, forged, opening).accept(grant))) taken++
    }),
    runs(1000),
  )
  assert.ok(taken > 0)
})

test('an m2 that was changed is refused', () => {
  const { answer } = openHello(payments, hello, opening).accept(grant)
  fc.assert(
    fc.property(fc.oneof(bytes(1700), edited(answer), exactly(answer.length)), (changed) => {
      const { finish } = initiate(orders, { secret: mesh, responderName: '', random: randomBytes, now: NOW })
      assert.equal(
        attempt(() => finish(changed)),
        undefined,
      )
    }),
    runs(500),
  )
})

test('the plaintexts of a pairing are read or refused, whatever is in them', () => {
  fc.assert(
    fc.property(exactly(640), exactly(448), (hello, answer) => {
      const read = attempt(() => decodeHello(hello))
      if (read) assert.ok(Number.isSafeInteger(read.timeMs) && read.initiatorName !== '')
      const granted = attempt(() => decodeAnswer(answer))
      if (granted) assert.ok(granted.chunkLog2 >= 10 && granted.chunkLog2 <= 16 && granted.leaseMs > 0)
    }),
    runs(5000),
  )
})

test('a reject record that was changed is not believed', () => {
  const echo = Buffer.alloc(32, 6)
  const record = rejectRecord({ name: 'state_lost', secret: mesh, echo, timeMs: NOW, storeAgeMs: 7 })
  fc.assert(
    fc.property(fc.oneof(bytes(100), exactly(76), edited(record)), (changed) => {
      assert.equal(parseReject(changed, orders.secrets, echo)?.authentic ?? false, changed.equals(record))
    }),
    runs(5000),
  )
})

test.run()
