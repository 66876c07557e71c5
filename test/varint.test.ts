import assert from 'node:assert/strict'
import fc from 'fast-check'
import { readVarint, varintLength, varintSize, writeVarint } from '../sidecar/varint.ts'
import { runs } from './support/fuzz.ts'
import { suite } from './support/suite.ts'

const test = suite('varint')

test('reads the examples of RFC 9000, appendix A.1', () => {
  for (const [encoded, value] of [
    ['c2197c5eff14e88c', 151_288_809_941_952_652n],
    ['9d7f3e7d', 494_878_333n],
    ['7bbd', 15_293n],
    ['25', 37n],
    ['4025', 37n],
  ] as const) {
    const bytes = Buffer.from(`ff${encoded}ff`, 'hex')
    const saturated = value > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : Number(value)
    assert.equal(readVarint(bytes, 1), saturated)
    assert.equal(varintLength(bytes[1]!), encoded.length / 2)
  }
})

test('reads eight bytes up to 2^53 - 1 exactly, and all above as that', () => {
  for (const [value, read] of [
    [2n ** 32n + 1n, 2 ** 32 + 1],
    [2n ** 53n - 1n, 2 ** 53 - 1],
    [2n ** 53n, 2 ** 53 - 1],
    [2n ** 62n - 1n, 2 ** 53 - 1],
  ] as const) {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64BE(value | (3n << 62n))
    assert.equal(readVarint(bytes, 0), read)
  }
})

test('reads what it wrote, in as many bytes as it said', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.nat(2 ** 30 - 1), fc.constantFrom(0, 63, 64, 16_383, 16_384, 2 ** 30 - 1)),
      (value) => {
        const bytes = Buffer.alloc(6, 0xff)
        const end = writeVarint(bytes, 1, value)
        assert.equal(end, 1 + varintSize(value))
        assert.equal(varintLength(bytes[1]!), varintSize(value))
        assert.equal(readVarint(bytes, 1), value)
        assert.equal(bytes[end] ?? 0xff, 0xff)
      },
    ),
    runs(100),
  )
})

test('writes none of 2^30 or more', () => {
  assert.throws(() => writeVarint(Buffer.alloc(8), 0, 2 ** 31), RangeError)
})

test('does not read past the end', () => {
  for (const encoded of ['', '40', '800000', 'c0000000000000']) {
    assert.throws(() => readVarint(Buffer.from(encoded, 'hex'), 0), RangeError)
  }
})

test.run()
