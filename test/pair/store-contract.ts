/** What every store of pairs has to do. */
import assert from 'node:assert/strict'
import type { Suite } from '../support/suite.ts'
import { inboundContract } from './store-contract-inbound.ts'
import { outboundContract } from './store-contract-outbound.ts'
import {
  type Backend,
  found,
  HOUR_MS,
  inboundPair,
  mesh,
  OTHER_PEER,
  outboundPair,
  PEER,
} from './store-pairs.ts'
import { identity } from './vectors.ts'

const OTHER = 'another secret, of more than 32 characters'

/**
 * Registers the tests of a store.
 * @param create an empty place for pairs, for each test
 */
export function storeContract(test: Suite, create: () => Promise<Backend>): void {
  outboundContract(test, create)
  inboundContract(test, create)

  test('lists its pairs without their keys', async () => {
    const { open, advance } = await create()
    const store = open()
    const outbound = outboundPair()
    const inbound = inboundPair()
    const chainKey = Buffer.from(outbound.chainKey)
    await store.addOutbound(outbound)
    await store.addInbound(inbound, HOUR_MS)
    await store.lease(PEER)
    await store.lease(PEER, { pairId: outbound.id, messages: 5 })
    assert.equal(await store.claim(await found(store, inbound), 2, 9), 'new')
    assert.equal(await store.claim(await found(store, inbound), 2, 9), 'replayed')
    await advance(1000)
    const list = await store.list()
    for (const summary of list) assert.ok(summary.ageMs >= 1000 && summary.ageMs < 2000)
    assert.deepEqual(
      list.map(({ ageMs, ...rest }) => rest),
      [
        { role: 'initiator', peer: PEER, secret: 'current', block: 1, messages: 5 },
        { role: 'responder', peer: 'orders', secret: 'current', block: 2, messages: 1 },
      ],
    )
    const text = JSON.stringify(list)
    for (const secret of [chainKey, outbound.id, inbound.id]) {
      assert.ok(!text.includes(secret.toString('hex')) && !text.includes(secret.toString('base64')))
    }
  })

  test('knows pairs of each secret that counts, and of no other', async () => {
    const { open } = await create()
    const store = open()
    const other = (await identity('payments', OTHER)).secrets[0]!
    store.setSecrets([mesh, other])
    const made = [outboundPair(), outboundPair({ mesh: other, peer: OTHER_PEER })]
    for (const pair of made) await store.addOutbound(pair)
    const [dropped, kept] = [inboundPair(), inboundPair('orders', { mesh: other })]
    const held = []
    for (const pair of [dropped, kept]) {
      await store.addInbound(pair, HOUR_MS)
      held.push(await found(store, pair))
      assert.equal(await store.claim(held.at(-1)!, 0, 0), 'new')
    }
    const secrets = async () => (await store.list()).map(({ role, secret }) => `${role} ${secret}`).sort()
    const both = ['initiator current', 'initiator previous', 'responder current', 'responder previous']
    assert.deepEqual(await secrets(), both)
    store.setSecrets([other, mesh])
    assert.deepEqual(await secrets(), both)
    assert.deepEqual((await store.lease(PEER))?.mesh, mesh)
    store.setSecrets([other])
    assert.deepEqual(await secrets(), ['initiator current', 'responder current'])
    assert.equal(await store.lease(PEER), undefined)
    assert.deepEqual((await store.lease(OTHER_PEER))?.mesh, other)
    assert.equal(await store.findInbound(dropped.id, 0), undefined)
    assert.equal(await store.claim(held[0]!, 0, 1), 'gone')
    assert.equal(await store.claim(held[1]!, 0, 1), 'new')
  })

  test('forgets the outbound pairs of a secret with one peer', async () => {
    const { open } = await create()
    const store = open()
    const other = (await identity('payments', OTHER)).secrets[0]!
    store.setSecrets([other, mesh])
    const kept = outboundPair({ mesh: other })
    for (const pair of [kept, outboundPair(), outboundPair(), outboundPair({ peer: OTHER_PEER })])
      await store.addOutbound(pair)
    await store.retire(PEER, mesh)
    assert.deepEqual((await store.list()).map(({ peer, secret }) => `${peer} ${secret}`).sort(), [
      `${OTHER_PEER} previous`,
      `${PEER} current`,
    ])
    assert.deepEqual((await store.lease(PEER))?.pairId, kept.id)
  })
}
