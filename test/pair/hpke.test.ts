import assert from 'node:assert/strict'
import { createCipheriv, randomBytes } from 'node:crypto'
import { exportSecret, keySchedule, setupReceiver, setupSender } from '../../sidecar/pair/hpke.ts'
import { xwingEncapsulate, xwingKeyPair } from '../../sidecar/pair/xwing.ts'
import { suite } from '../support/suite.ts'
import { encapsulateWith, hex, relay1, sameBytes, vectors } from './vectors.ts'

const test = suite('pair/hpke')

interface HpkeVector {
  mode: number
  kdf_id: number
  aead_id: number
  info: string
  ikmE: string
  skRm: string
  pkRm: string
  enc: string
  shared_secret: string
  suite_id: string
  key: string
  base_nonce: string
  exporter_secret: string
  encryptions: { aad: string; ct: string; nonce: string; pt: string }[]
  exports: { exporter_context: string; L: number; exported_value: string }[]
}

const NONE = Buffer.alloc(0)

test('agrees with the vector of draft-ietf-hpke-pq for X-Wing and HKDF-SHA256', () => {
  const ours = vectors<HpkeVector[]>('hpke-pq.json').filter(({ kdf_id }) => kdf_id === 1)
  assert.equal(ours.length, 1)
  const vector = ours[0]!
  const keyPair = xwingKeyPair(hex(vector.skRm))
  assert.equal(keyPair.publicKey.toString('hex'), vector.pkRm)
  assert.equal(encapsulateWith(vector.ikmE)(keyPair.publicKey).enc.toString('hex'), vector.enc)
  const sharedSecret = keyPair.decapsulate(hex(vector.enc))
  assert.equal(sharedSecret.toString('hex'), vector.shared_secret)
  const info = hex(vector.info)
  const schedule = keySchedule({
    mode: vector.mode,
    aeadId: vector.aead_id,
    sharedSecret,
    info,
    psk: NONE,
    pskId: NONE,
  })
  assert.equal(schedule.suiteId.toString('hex'), vector.suite_id)
  assert.equal(schedule.key.toString('hex'), vector.key)
  assert.equal(schedule.baseNonce.toString('hex'), vector.base_nonce)
  assert.equal(schedule.exporterSecret.toString('hex'), vector.exporter_secret)
  for (const { exporter_context, L, exported_value } of vector.exports) {
    assert.equal(L, 32)
    assert.equal(exportSecret(schedule, hex(exporter_context)).toString('hex'), exported_value)
  }
  assert.equal(vector.aead_id, 3)
  const { aad, ct, nonce, pt } = vector.encryptions[0]!
  assert.equal(nonce, vector.base_nonce)
  const cipher = createCipheriv('chacha20-poly1305', schedule.key, schedule.baseNonce, { authTagLength: 16 })
  cipher.setAAD(hex(aad), { plaintextLength: hex(pt).length })
  const sealed = Buffer.concat([cipher.update(hex(pt)), cipher.final(), cipher.getAuthTag()])
  assert.equal(sealed.toString('hex'), ct)
})

test('agrees with the key schedules of the pairings', () => {
  for (const { xwing_seed, enc, shared_secret, hpke_info, hpke_key, hpke_nonce } of [
    relay1.pairing,
    relay1.pairing_signed,
  ]) {
    const sharedSecret = xwingKeyPair(hex(xwing_seed)).decapsulate(hex(enc))
    assert.equal(sharedSecret.toString('hex'), shared_secret)
    const preShared = { psk: hex(relay1.psk), pskId: hex(relay1.psk_id) }
    const schedule = keySchedule({ mode: 1, aeadId: 2, sharedSecret, info: hex(hpke_info), ...preShared })
    assert.equal(schedule.key.toString('hex'), hpke_key)
    assert.equal(schedule.baseNonce.toString('hex'), hpke_nonce)
  }
})

const keyPair = xwingKeyPair(randomBytes(32))
const preShared = { psk: Buffer.alloc(32, 1), pskId: Buffer.from('psk id') }
const info = Buffer.from('info')
const aad = Buffer.from('aad')

test('opens on one side what the other sealed, and exports the same', () => {
  const { enc, context } = setupSender(keyPair.publicKey, info, preShared, xwingEncapsulate)
  const receiver = setupReceiver(enc, keyPair, info, preShared)
  assert.equal(receiver.open(aad, context.seal(aad, Buffer.from('hello')))?.toString(), 'hello')
  sameBytes(receiver.export(Buffer.from('a')), context.export(Buffer.from('a')))
  assert.notDeepEqual(receiver.export(Buffer.from('a')), receiver.export(Buffer.from('b')))
})

test('opens nothing under another secret, its name, info, key or additional data', () => {
  const { enc, context } = setupSender(keyPair.publicKey, info, preShared, xwingEncapsulate)
  const sealed = context.seal(aad, Buffer.from('hello'))
  const exported = context.export(NONE)
  for (const receiver of [
    setupReceiver(enc, keyPair, info, { ...preShared, psk: Buffer.alloc(32, 2) }),
    setupReceiver(enc, keyPair, info, { ...preShared, pskId: Buffer.from('psk ie') }),
    setupReceiver(enc, keyPair, Buffer.from('infp'), preShared),
    setupReceiver(enc, xwingKeyPair(randomBytes(32)), info, preShared),
  ]) {
    assert.equal(receiver.open(aad, sealed), undefined)
    assert.notDeepEqual(receiver.export(NONE), exported)
  }
  assert.equal(setupReceiver(enc, keyPair, info, preShared).open(Buffer.from('aae'), sealed), undefined)
  assert.ok(setupReceiver(enc, keyPair, info, preShared).open(aad, sealed))
})

test('is for one message, and for none once it is erased', () => {
  const { enc, context } = setupSender(keyPair.publicKey, info, preShared, xwingEncapsulate)
  const sealed = context.seal(aad, Buffer.from('hello'))
  assert.throws(() => context.seal(aad, Buffer.from('hello')), /one message/)
  const receiver = setupReceiver(enc, keyPair, info, preShared)
  receiver.erase()
  assert.throws(() => receiver.open(aad, sealed), /one message/)
  assert.throws(() => receiver.export(NONE), /erased/)
})

test.run()
