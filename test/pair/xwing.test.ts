import assert from 'node:assert/strict'
import { decapsulate, encapsulate, randomBytes } from 'node:crypto'
import { InvalidKeyError, privateKey, publicKey, rawPublicKey, x25519 } from '../../sidecar/pair/raw-keys.ts'
import { ENC_BYTES, PUBLIC_KEY_BYTES, xwingEncapsulate, xwingKeyPair } from '../../sidecar/pair/xwing.ts'
import { suite } from '../support/suite.ts'
import { encapsulateWith, flipped, hex, sameBytes, vectors } from './vectors.ts'

const test = suite('pair/xwing')

const ML_KEM_PUBLIC_KEY_BYTES = 1184
const ML_KEM_CIPHERTEXT_BYTES = 1088

interface XWingVector {
  seed: string
  eseed: string
  ss: string
  sk: string
  pk: string
  ct: string
}

test('agrees with the vectors of the draft', () => {
  const all = vectors<XWingVector[]>('x-wing.json')
  assert.equal(all.length, 3)
  for (const { seed, eseed, ss, sk, pk, ct } of all) {
    assert.equal(seed, sk)
    const keyPair = xwingKeyPair(hex(seed))
    assert.equal(keyPair.publicKey.toString('hex'), pk)
    assert.equal(keyPair.decapsulate(hex(ct)).toString('hex'), ss)
    const { sharedSecret, enc } = encapsulateWith(eseed)(keyPair.publicKey)
    assert.equal(enc.toString('hex'), ct)
    assert.equal(sharedSecret.toString('hex'), ss)
  }
})

test('gives both sides one secret, and another one each time', () => {
  const keyPair = xwingKeyPair(randomBytes(32))
  const one = xwingEncapsulate(keyPair.publicKey)
  const other = xwingEncapsulate(keyPair.publicKey)
  assert.equal(keyPair.publicKey.length, PUBLIC_KEY_BYTES)
  assert.equal(one.enc.length, ENC_BYTES)
  sameBytes(keyPair.decapsulate(one.enc), one.sharedSecret)
  sameBytes(keyPair.decapsulate(other.enc), other.sharedSecret)
  assert.notDeepEqual(one.sharedSecret, other.sharedSecret)
})

test('gives another secret for another key or a changed ciphertext', () => {
  const keyPair = xwingKeyPair(randomBytes(32))
  const { sharedSecret, enc } = xwingEncapsulate(keyPair.publicKey)
  assert.notDeepEqual(xwingKeyPair(randomBytes(32)).decapsulate(enc), sharedSecret)
  for (const bit of [0, 4321, 8 * ML_KEM_CIPHERTEXT_BYTES, 8 * ENC_BYTES - 1]) {
    assert.notDeepEqual(keyPair.decapsulate(flipped(enc, bit)), sharedSecret)
  }
})

test('refuses keys and ciphertexts that cannot be used', () => {
  const keyPair = xwingKeyPair(randomBytes(32))
  const notCanonical = Buffer.from(keyPair.publicKey).fill(0xff, 0, 3)
  const lowOrder = Buffer.from(keyPair.publicKey).fill(0, ML_KEM_PUBLIC_KEY_BYTES)
  const short = keyPair.publicKey.subarray(1)
  const long = Buffer.concat([keyPair.publicKey, Buffer.alloc(1)])
  for (const key of [notCanonical, lowOrder, short, long, Buffer.alloc(0)]) {
    assert.throws(() => xwingEncapsulate(key), InvalidKeyError)
  }
  const { enc } = xwingEncapsulate(keyPair.publicKey)
  const lowOrderShare = Buffer.from(enc).fill(0, ML_KEM_CIPHERTEXT_BYTES)
  for (const bytes of [
    lowOrderShare,
    enc.subarray(1),
    Buffer.concat([enc, Buffer.alloc(1)]),
    Buffer.alloc(0),
  ]) {
    assert.throws(() => keyPair.decapsulate(bytes), InvalidKeyError)
  }
})

interface MlKemWycheproof {
  testGroups: { tests: { tcId: number; seed: string; ek: string; c: string; K: string; result: string }[] }[]
}

test('agrees with Wycheproof on ML-KEM-768', () => {
  const results = { valid: 0, invalid: 0 }
  for (const { tests } of vectors<MlKemWycheproof>('wycheproof-mlkem-768.json').testGroups) {
    for (const { tcId, seed, ek, c, K, result } of tests) {
      if (result === 'valid') {
        const key = privateKey('ml-kem-768', hex(seed))
        assert.equal(rawPublicKey(key).toString('hex'), ek, `test ${tcId}`)
        assert.equal(decapsulate(key, hex(c)).toString('hex'), K, `test ${tcId}`)
        const { sharedKey, ciphertext } = encapsulate(publicKey('ml-kem-768', hex(ek)))
        sameBytes(decapsulate(key, ciphertext), sharedKey)
        results.valid++
      } else {
        assert.throws(() => decapsulate(privateKey('ml-kem-768', hex(seed)), hex(c)), `test ${tcId}`)
        results.invalid++
      }
    }
  }
  assert.deepEqual(results, { valid: 153, invalid: 40 })
})

test('refuses each coefficient of an ML-KEM key that is not below q', () => {
  const key = rawPublicKey(privateKey('ml-kem-768', randomBytes(64)))
  publicKey('ml-kem-768', key)
  const q = 3329
  for (let coefficient = 0; coefficient < 768; coefficient++) {
    const changed = Buffer.from(key)
    const at = 3 * (coefficient >> 1)
    if (coefficient % 2 === 0) {
      changed[at] = q & 0xff
      changed[at + 1] = (changed[at + 1]! & 0xf0) | (q >> 8)
    } else {
      changed[at + 1] = (changed[at + 1]! & 0x0f) | ((q & 0x0f) << 4)
      changed[at + 2] = q >> 4
    }
    assert.throws(() => publicKey('ml-kem-768', changed), InvalidKeyError)
  }
})

interface X25519Wycheproof {
  testGroups: {
    tests: { tcId: number; flags: string[]; public: string; private: string; shared: string }[]
  }[]
}

test('agrees with Wycheproof on X25519, and refuses what gives a secret of zeros', () => {
  const results = { agreed: 0, refused: 0 }
  for (const { tests } of vectors<X25519Wycheproof>('wycheproof-x25519.json').testGroups) {
    for (const { tcId, flags, public: raw, private: scalar, shared } of tests) {
      const key = privateKey('x25519', hex(scalar))
      if (flags.includes('ZeroSharedSecret')) {
        assert.throws(() => x25519(key, hex(raw)), InvalidKeyError, `test ${tcId}`)
        results.refused++
      } else {
        assert.equal(x25519(key, hex(raw)).toString('hex'), shared, `test ${tcId}`)
        results.agreed++
      }
    }
  }
  assert.deepEqual(results, { agreed: 487, refused: 31 })
})

test('takes raw keys of the exact length alone', () => {
  for (const [type, publicBytes, privateBytes] of [
    ['ml-kem-768', 1184, 64],
    ['x25519', 32, 32],
    ['ed25519', 32, 32],
  ] as const) {
    const key = privateKey(type, randomBytes(privateBytes))
    const raw = rawPublicKey(key)
    assert.equal(raw.length, publicBytes)
    assert.ok(publicKey(type, raw).asymmetricKeyType === type)
    for (const length of [0, publicBytes - 1, publicBytes + 1]) {
      assert.throws(() => publicKey(type, Buffer.alloc(length)), InvalidKeyError)
    }
    for (const length of [0, privateBytes - 1, privateBytes + 1]) {
      assert.throws(() => privateKey(type, Buffer.alloc(length)), InvalidKeyError)
    }
  }
})

test.run()
