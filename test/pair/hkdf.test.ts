import assert from 'node:assert/strict'
import { hkdfSync } from 'node:crypto'
import { expand, expandLabel, extract } from '../../sidecar/pair/hkdf.ts'
import { suite } from '../support/suite.ts'
import { hex, sameBytes } from './vectors.ts'

const test = suite('pair/hkdf')

test('agrees with RFC 5869, appendix A.1', () => {
  const prk = extract(hex('000102030405060708090a0b0c'), Buffer.alloc(22, 0x0b))
  assert.equal(prk.toString('hex'), '077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5')
  assert.equal(
    expand(prk, hex('f0f1f2f3f4f5f6f7f8f9'), 42).toString('hex'),
    '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865',
  )
})

test('agrees with node:crypto at every length around the ends of blocks', () => {
  const ikm = Buffer.from('input')
  const info = Buffer.from('info')
  for (const length of [1, 31, 32, 33, 64, 65, 4096, 255 * 32]) {
    const expected = Buffer.from(hkdfSync('sha256', ikm, '', info, length))
    sameBytes(expand(extract('', ikm), info, length), expected)
  }
})

test('binds label, context and length', () => {
  const secret = Buffer.alloc(32, 1)
  const derived = [
    expandLabel(secret, 'a', Buffer.from('b'), 32),
    expandLabel(secret, 'ab', Buffer.from(''), 32),
    expandLabel(secret, 'a', Buffer.from(''), 32),
    expandLabel(secret, 'a', Buffer.from('b'), 33).subarray(0, 32),
  ]
  assert.equal(new Set(derived.map((bytes) => bytes.toString('hex'))).size, derived.length)
})

test('takes no context of more than 255 bytes', () => {
  expandLabel(Buffer.alloc(32), 'label', Buffer.alloc(255), 32)
  assert.throws(() => expandLabel(Buffer.alloc(32), 'label', Buffer.alloc(256), 32), RangeError)
})

test.run()
