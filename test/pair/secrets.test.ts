import assert from 'node:assert/strict'
import { meshSecret, ownerOf, pairIdOf } from '../../sidecar/pair/secrets.ts'
import { suite } from '../support/suite.ts'
import { flipped, hex, identity, relay1, sameBytes } from './vectors.ts'

const test = suite('pair/secrets')

test('derives what the vectors say', async () => {
  const secret = await meshSecret(relay1.secret, relay1.server_name)
  assert.equal(secret.pskId.toString('hex'), relay1.psk_id)
  assert.equal(secret.psk.toString('hex'), relay1.psk)
  assert.equal(secret.m1Secret.toString('hex'), relay1.m1_secret)
  assert.equal(secret.rejectKey.toString('hex'), relay1.reject_key)
  assert.equal(secret.pairTagKey.export().toString('hex'), relay1.pair_tag_key)
  assert.equal(secret.stateKey.toString('hex'), relay1.state_key)
})

test('keeps the keys of a fleet apart by name, and those of the mesh not', async () => {
  const orders = await meshSecret(relay1.secret, 'orders')
  const payments = await meshSecret(relay1.secret, 'payments')
  sameBytes(orders.psk, payments.psk)
  sameBytes(orders.rejectKey, payments.rejectKey)
  assert.ok(!orders.pairTagKey.equals(payments.pairTagKey))
  assert.notDeepEqual(orders.stateKey, payments.stateKey)
})

test('takes names of 1 to 255 bytes and no others', async () => {
  await meshSecret(relay1.secret, 'n'.repeat(255))
  await assert.rejects(meshSecret(relay1.secret, ''), RangeError)
  await assert.rejects(meshSecret(relay1.secret, 'é'.repeat(128)), RangeError)
})

test('finds the secret under which a pair id was given out, and none for a forged one', async () => {
  const { secrets } = await identity('payments', relay1.secret, 'the one before: 0123456789 0123456789')
  const random = hex(relay1.pairing.pair_rand)
  assert.equal(pairIdOf(secrets[0]!, random).toString('hex'), relay1.pairing.pair_id)
  for (const secret of secrets) {
    const id = pairIdOf(secret, random)
    assert.equal(ownerOf(secrets, id), secret)
    assert.equal(
      ownerOf(
        secrets.filter((other) => other !== secret),
        id,
      ),
      undefined,
    )
    for (let bit = 0; bit < 8 * id.length; bit++) assert.equal(ownerOf(secrets, flipped(id, bit)), undefined)
  }
  const { secrets: others } = await identity('orders')
  assert.equal(ownerOf(others, pairIdOf(secrets[0]!, random)), undefined)
})

test.run()
