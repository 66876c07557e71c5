/** What every store has to do with the pairs that this sidecar made. */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { BlockKeys, nextBlock } from '../../sidecar/pair/ratchet.ts'
import type { Lease, PairStore } from '../../sidecar/pair/store.ts'
import { runs } from '../support/fuzz.ts'
import type { Suite } from '../support/suite.ts'
import { type Backend, OTHER_PEER, outboundPair, PEER } from './store-pairs.ts'

const BLOCK = 65_536

const isErased = (key: Buffer) => key.every((byte) => byte === 0)
const firstKey = (keys: BlockKeys) => keys.keys(0).request.export().toString('hex')

/** Leases until there is nothing to be had, each time telling that nothing was spent. */
async function leaseAll(store: PairStore, peer = PEER): Promise<Lease[]> {
  const leases: Lease[] = []
  for (;;) {
    const last = leases.at(-1)
    const lease = await store.lease(peer, last && { pairId: last.pairId, messages: 0 })
    if (!lease) return leases
    leases.push(lease)
  }
}

/** Registers the tests of leases. */
export function outboundContract(test: Suite, create: () => Promise<Backend>): void {
  test('has no lease where there is no pair, or one with another peer', async () => {
    const { open } = await create()
    const store = open()
    assert.equal(await store.lease(PEER), undefined)
    await store.addOutbound(outboundPair())
    assert.equal(await store.lease(OTHER_PEER), undefined)
    assert.ok(await store.lease(PEER))
  })

  test('leases each block once, however many processes ask at once, with the keys of its chain', async () => {
    const { open } = await create()
    const processes = [open(), open(), open()]
    const pair = outboundPair({ chunkBytesMax: 1024 })
    let chainKey: Buffer = Buffer.from(pair.chainKey)
    await processes[0]!.addOutbound(pair)
    const asked = Array.from({ length: 15 }, (_, i) => processes[i % 3]!.lease(PEER))
    const leases = (await Promise.all(asked)).filter((lease) => lease !== undefined)
    leases.sort((a, b) => a.block - b.block)
    assert.deepEqual(
      leases.map(({ block }) => block),
      Array.from({ length: 15 }, (_, i) => i),
    )
    for (const { pairId, block, keys, chunkBytesMax } of leases) {
      assert.deepEqual(pairId, pair.id)
      assert.equal(chunkBytesMax, 1024)
      const { blockSecret, nextChainKey } = nextBlock(chainKey, block)
      assert.equal(firstKey(keys), firstKey(new BlockKeys(blockSecret)))
      chainKey = nextChainKey
    }
  })

  test('leases no more of a pair than its 2^20 messages, even if every lease spends all', async () => {
    const { open } = await create()
    const [one, another] = [open(), open()]
    const pair = outboundPair()
    await one.addOutbound(pair)
    const leases = await Promise.all(Array.from({ length: 20 }, () => one.lease(PEER)))
    assert.equal(leases.filter(Boolean).length, 16)
    // What a lease did not use is given back, whoever asks next.
    assert.ok(await another.lease(PEER, { pairId: pair.id, messages: 0 }))
    assert.equal(await another.lease(PEER), undefined)
    assert.equal(await another.lease(PEER, { pairId: pair.id, messages: 1 }), undefined)
  })

  test('leases a pair for 2^20 messages, says when the next is needed, and forgets it', async () => {
    const { open, advance } = await create()
    const store = open()
    const pair = outboundPair()
    await store.addOutbound(pair)
    let lease = await store.lease(PEER)
    for (let block = 1; block < 16; block++) {
      assert.equal(lease?.pairEnds, false)
      await advance(10_000)
      lease = await store.lease(PEER, { pairId: pair.id, messages: BLOCK })
      assert.equal(lease?.block, block)
    }
    assert.equal(lease?.pairEnds, true)
    assert.equal(await store.lease(PEER, { pairId: pair.id, messages: BLOCK }), undefined)
    assert.deepEqual(await store.list(), [])
  })

  test('leases 32 blocks of a pair in 120 s and no more, then those of another live pair', async () => {
    const { open, advance } = await create()
    const store = open()
    const older = outboundPair()
    const newer = outboundPair()
    await store.addOutbound(older)
    await store.addOutbound(newer)
    const leases = await leaseAll(store)
    assert.deepEqual(
      leases.map(({ pairId, block }) => [pairId.equals(newer.id), block]),
      [true, false].flatMap((isNewer) => Array.from({ length: 32 }, (_, block) => [isNewer, block])),
    )
    await advance(119_000)
    assert.equal(await store.lease(PEER), undefined)
    await advance(1020)
    const { pairId, block } = (await store.lease(PEER))!
    assert.deepEqual([pairId, block], [newer.id, 32])
  })

  test('never leases more than 32 blocks of a pair in any 120 s', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 15_000 }), { minLength: 40, maxLength: 80 }),
        async (pauses) => {
          const { open, advance } = await create()
          const store = open()
          await store.addOutbound(outboundPair())
          const leasedAtMs: number[] = []
          let nowMs = 0
          let last: Lease | undefined
          for (const pauseMs of pauses) {
            await advance(pauseMs)
            nowMs += pauseMs
            const lease = await store.lease(PEER, last && { pairId: last.pairId, messages: 1 })
            last = lease
            if (lease) leasedAtMs.push(nowMs)
          }
          leasedAtMs.forEach((atMs, i) => {
            const before = leasedAtMs[i - 32]
            assert.ok(before === undefined || atMs - before >= 120_000)
          })
        },
      ),
      runs(10),
    ))

  test('ends a lease after its time', async () => {
    const { open } = await create()
    const store = open()
    await store.addOutbound(outboundPair({ leaseMs: 60_000 }))
    const long = await store.lease(PEER)
    await store.addOutbound(outboundPair({ leaseMs: 5_000 }))
    const short = await store.lease(PEER)
    assert.ok(Math.abs(long!.endsAtMs - short!.endsAtMs - 55_000) < 1000)
  })

  test('ends a lease when its pair is to be renewed, and the last ones with the pair', async () => {
    const { open, advance } = await create()
    const store = open()
    await store.addOutbound(outboundPair({ ttlMs: 100_000 }))
    const first = (await store.lease(PEER))!
    assert.equal(first.pairEnds, false)
    await advance(60_000)
    const second = (await store.lease(PEER))!
    assert.equal(second.pairEnds, false)
    assert.ok(Math.abs(second.endsAtMs - first.endsAtMs - 15_000) < 1000)
    await advance(15_000)
    const last = (await store.lease(PEER))!
    assert.equal(last.pairEnds, true)
    assert.ok(Math.abs(last.endsAtMs - second.endsAtMs - 25_000) < 1000)
    await advance(25_000)
    assert.equal(await store.lease(PEER), undefined)
  })

  test('gives up a pair that nobody used before its responder does, after 30 s', async () => {
    const { open, advance } = await create()
    const store = open()
    const used = outboundPair()
    await store.addOutbound(used)
    assert.ok(await store.lease(PEER))
    const unused = outboundPair()
    await store.addOutbound(unused)
    await advance(29_000)
    assert.deepEqual((await store.lease(PEER))?.pairId, used.id)
    assert.ok(isErased(unused.chainKey))
  })

  test('forgets an outbound pair, and no other', async () => {
    const { open } = await create()
    const store = open()
    const kept = outboundPair()
    const dropped = outboundPair()
    await store.addOutbound(kept)
    await store.addOutbound(dropped)
    await store.dropOutbound(OTHER_PEER, dropped.id)
    assert.deepEqual((await store.lease(PEER))?.pairId, dropped.id)
    await store.dropOutbound(PEER, dropped.id)
    assert.deepEqual((await store.lease(PEER))?.pairId, kept.id)
    await store.dropOutbound(PEER, kept.id)
    assert.equal(await store.lease(PEER), undefined)
  })

  test('keeps 64 pairs with a peer, the newest', async () => {
    const { open } = await create()
    const store = open()
    const pairs = Array.from({ length: 66 }, () => outboundPair())
    for (const pair of pairs) await store.addOutbound(pair)
    assert.equal((await store.list()).length, 64)
    assert.ok(isErased(pairs[0]!.chainKey) && isErased(pairs[1]!.chainKey))
    for (const pair of pairs.slice(2).reverse()) {
      assert.deepEqual((await store.lease(PEER))?.pairId, pair.id)
      await store.dropOutbound(PEER, pair.id)
    }
    assert.equal(await store.lease(PEER), undefined)
  })

  test('erases a chain key when it is used, forgotten or over', async () => {
    const { open, advance } = await create()
    const store = open()
    const [leased, dropped, ended, closed] = [outboundPair(), outboundPair(), outboundPair(), outboundPair()]
    await store.addOutbound(leased)
    assert.ok(await store.lease(PEER))
    assert.ok(isErased(leased.chainKey))
    await store.addOutbound(dropped)
    await store.dropOutbound(PEER, dropped.id)
    assert.ok(isErased(dropped.chainKey))
    await store.addOutbound({ ...ended, ttlMs: 10_000 })
    await advance(10_000)
    store.sweep()
    assert.ok(isErased(ended.chainKey))
    await store.addOutbound(closed)
    await store.close()
    assert.ok(isErased(closed.chainKey))
  })
}
