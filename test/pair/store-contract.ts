/** What every store of pairs has to do. */
import assert from 'node:assert/strict'
import type { Suite } from '../support/suite.ts'
import { inboundContract } from './store-contract-inbound.ts'
import { outboundContract } from './store-contract-outbound.ts'
import { type Backend, found, HOUR_MS, inboundPair, outboundPair, PEER } from './store-pairs.ts'

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
        { role: 'initiator', peer: PEER, block: 1, messages: 5 },
        { role: 'responder', peer: 'orders', block: 2, messages: 1 },
      ],
    )
    const text = JSON.stringify(list)
    for (const secret of [chainKey, outbound.id, inbound.id]) {
      assert.ok(!text.includes(secret.toString('hex')) && !text.includes(secret.toString('base64')))
    }
  })
}
