import assert from 'node:assert/strict'
import { open, seal } from '../../sidecar/pair/aes-gcm.ts'
import { suite } from '../support/suite.ts'
import { flipped, hex, vectors } from './vectors.ts'

const test = suite('pair/aes-gcm')

interface Wycheproof {
  testGroups: {
    ivSize: number
    keySize: number
    tagSize: number
    tests: {
      tcId: number
      key: string
      iv: string
      aad: string
      msg: string
      ct: string
      tag: string
      result: string
    }[]
  }[]
}

test('agrees with Wycheproof', () => {
  const groups = vectors<Wycheproof>('wycheproof-aes-gcm.json').testGroups
  const ours = groups.filter(
    ({ ivSize, keySize, tagSize }) => ivSize === 96 && keySize === 256 && tagSize === 128,
  )
  const results = { valid: 0, invalid: 0 }
  for (const { tcId, key, iv, aad, msg, ct, tag, result } of ours.flatMap(({ tests }) => tests)) {
    const opened = open(hex(key), hex(iv), hex(aad), hex(ct + tag))
    if (result === 'valid') {
      assert.equal(opened?.toString('hex'), msg, `test ${tcId}`)
      assert.equal(seal(hex(key), hex(iv), hex(aad), hex(msg)).toString('hex'), ct + tag, `test ${tcId}`)
      results.valid++
    } else {
      assert.equal(opened, undefined, `test ${tcId}`)
      results.invalid++
    }
  }
  assert.deepEqual(results, { valid: 39, invalid: 27 })
})

test('opens nothing that was cut, changed or moved to other additional data', () => {
  const key = Buffer.alloc(32, 1)
  const iv = Buffer.alloc(12, 2)
  const aad = Buffer.from('aad')
  const sealed = seal(key, iv, aad, Buffer.from('plaintext'))
  assert.equal(open(key, iv, aad, sealed)?.toString(), 'plaintext')
  for (let length = 0; length < sealed.length; length++) {
    assert.equal(open(key, iv, aad, sealed.subarray(0, length)), undefined)
  }
  for (let bit = 0; bit < 8 * sealed.length; bit++)
    assert.equal(open(key, iv, aad, flipped(sealed, bit)), undefined)
  assert.equal(open(key, iv, Buffer.from('aae'), sealed), undefined)
  assert.equal(open(key, flipped(iv, 0), aad, sealed), undefined)
  assert.equal(open(flipped(key, 0), iv, aad, sealed), undefined)
})

test.run()
