import assert from 'node:assert/strict'
import fc from 'fast-check'
import { BlockKeys, firstChainKey, type MessageKeyPair, nextBlock } from '../../sidecar/pair/ratchet.ts'
import { ReceivingPair } from '../../sidecar/pair/receiving.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'
import { rejection, seeded } from './fakes.ts'
import { identity } from './vectors.ts'

const test = suite('pair/receiving')

const random = seeded('receiving')
const { secrets } = await identity('payments')
const LIFE_MS = 120_000

/** A pair, its chain key as the pair holds it, and the keys that its initiator has. */
function pairing() {
  const chainKey = firstChainKey(random(32))
  let next: Buffer = Buffer.from(chainKey)
  const blocks: BlockKeys[] = []
  const sent = (block: number, index: number) => {
    while (blocks.length <= block) {
      const { blockSecret, nextChainKey } = nextBlock(next, blocks.length)
      blocks.push(new BlockKeys(blockSecret))
      next = nextChainKey
    }
    return blocks[block]!.keys(index)
  }
  const pair = new ReceivingPair({
    id: random(24),
    peer: 'orders',
    mesh: secrets[0]!,
    chunkBytesMax: 1024,
    chainKey,
  })
  return { pair, chainKey, sent }
}

const same = (one: MessageKeyPair, another: MessageKeyPair) =>
  one.request.equals(another.request) && one.response.equals(another.response)

const outOfReach = async (pair: ReceivingPair, block: number, nowMs = 0) =>
  assert.equal(await rejection(() => pair.keys(block, 0, nowMs)), 'block_out_of_reach')

test('has the keys of its initiator, in any order of blocks and indices', () => {
  const place = fc.tuple(fc.nat(64), fc.nat(65_535), fc.boolean())
  fc.assert(
    fc.property(fc.array(place, { minLength: 1, maxLength: 20 }), (places) => {
      const { pair, sent } = pairing()
      for (const [block, index, authentic] of places) {
        assert.ok(same(pair.keys(block, index, 0), sent(block, index)))
        if (authentic) pair.authenticated(block, 0)
      }
    }),
    runs(20),
  )
})

test('reaches 64 blocks above the highest that authenticated, and 64 at first', async () => {
  const { pair, sent } = pairing()
  await outOfReach(pair, 65)
  await outOfReach(pair, 0xffffffff)
  assert.ok(same(pair.keys(64, 0, 0), sent(64, 0)))
  // What was derived, or asked for, has authenticated nothing.
  await outOfReach(pair, 65)
  pair.authenticated(10, 0)
  assert.equal(pair.block, 10)
  assert.ok(same(pair.keys(74, 0, 0), sent(74, 0)))
  await outOfReach(pair, 75)
  pair.authenticated(3, 0)
  assert.equal(pair.block, 10)
  await outOfReach(pair, 75)
})

test('follows no leaps beyond 128 blocks above the lowest that lives: a peer could fill the memory with keys', async () => {
  const { pair, sent } = pairing()
  for (const block of [64, 128]) {
    assert.ok(same(pair.keys(block, 0, 0), sent(block, 0)))
    pair.authenticated(block, 0)
  }
  await outOfReach(pair, 129)
  assert.equal(pair.floor(LIFE_MS), 129)
  assert.ok(same(pair.keys(192, 0, LIFE_MS), sent(192, 0)))
})

test('lets a block die 120 s after its first authenticated message', async () => {
  const { pair, sent } = pairing()
  assert.ok(pair.keys(0, 0, 0))
  pair.authenticated(0, 1000)
  pair.authenticated(0, 100_000)
  assert.ok(same(pair.keys(0, 1, 1000 + LIFE_MS - 1), sent(0, 1)))
  await outOfReach(pair, 0, 1000 + LIFE_MS)
  assert.equal(pair.floor(1000 + LIFE_MS), 1)
  assert.ok(same(pair.keys(1, 0, 1000 + LIFE_MS), sent(1, 0)))
})

test('lets no block die that has not authenticated, nor one above it', () => {
  const { pair, sent } = pairing()
  assert.ok(pair.keys(5, 0, 0))
  assert.equal(pair.floor(10 * LIFE_MS), 0)
  assert.ok(same(pair.keys(0, 0, 10 * LIFE_MS), sent(0, 0)))
})

test('lets a block die with the first that dies of those above it, as the least of the ends says', () => {
  const seen = fc.tuple(fc.nat(20), fc.nat(60_000))
  fc.assert(
    fc.property(fc.array(seen, { minLength: 1, maxLength: 12 }), fc.nat(3 * LIFE_MS), (seens, laterMs) => {
      const { pair } = pairing()
      const firstSeenMs = new Map<number, number>()
      let nowMs = 0
      for (const [block, pauseMs] of seens) {
        nowMs += pauseMs
        if (block < pair.floor(nowMs)) continue
        pair.keys(block, 0, nowMs)
        pair.authenticated(block, nowMs)
        if (!firstSeenMs.has(block)) firstSeenMs.set(block, nowMs)
      }
      nowMs += laterMs
      for (let block = 0; block <= 20; block++) {
        const ends = [...firstSeenMs].filter(([above]) => above >= block).map(([, atMs]) => atMs + LIFE_MS)
        assert.equal(block < pair.floor(nowMs), Math.min(...ends) <= nowMs, `block ${block}`)
      }
    }),
    runs(200),
  )
})

test('erases the chain key of a block when it dies, and keeps that of the next', () => {
  const { pair, chainKey } = pairing()
  const kept = Buffer.from(chainKey)
  pair.keys(1, 0, 0)
  pair.authenticated(0, 0)
  assert.equal(pair.floor(LIFE_MS - 1), 0)
  assert.deepEqual(pair.floorKey, { chainKey: kept, block: 0 })
  assert.equal(pair.floor(LIFE_MS), 1)
  assert.ok(chainKey.every((byte) => byte === 0))
  assert.deepEqual(pair.floorKey, { chainKey: nextBlock(kept, 0).nextChainKey, block: 1 })
})

test('follows blocks that authenticated elsewhere, and has none of the keys below the dead ones', async () => {
  const { pair, chainKey, sent } = pairing()
  pair.authenticated(40, 0)
  assert.equal(pair.floor(LIFE_MS), 41)
  assert.ok(chainKey.every((byte) => byte === 0))
  await outOfReach(pair, 40, LIFE_MS)
  assert.ok(same(pair.keys(41, 7, LIFE_MS), sent(41, 7)))
  pair.authenticated(41, LIFE_MS)
  assert.ok(same(pair.keys(41, 8, LIFE_MS), sent(41, 8)))
})

test('derives each block once: whoever forges blocks far ahead costs no 64 derivations twice', () => {
  const { pair } = pairing()
  const cost = (step: () => void) => {
    const before = process.cpuUsage()
    step()
    const { user, system } = process.cpuUsage(before)
    return user + system
  }
  cost(() => pairing().pair.keys(64, 0, 0)) // the first of all also warms up
  const first = Math.min(...Array.from({ length: 5 }, () => cost(() => pairing().pair.keys(64, 0, 0))))
  pair.keys(64, 0, 0)
  const again = Math.min(...Array.from({ length: 20 }, (_, i) => cost(() => pair.keys(64, i, 0))))
  assert.ok(again < first / 2, `${again} us again, ${first} us at first`)
})

test('takes no more than 64 living blocks, which is more than an initiator can have', async () => {
  const { pair } = pairing()
  for (let block = 0; block < 64; block++) {
    pair.keys(block, 0, 0)
    pair.authenticated(block, 1000 * block)
  }
  await outOfReach(pair, 64, 100_000)
  assert.ok(pair.keys(0, 1, 100_000))
  assert.ok(pair.keys(64, 0, LIFE_MS))
})

test('takes a block that authenticated elsewhere, even where there is room for no other', async () => {
  const { pair, sent } = pairing()
  for (let block = 0; block < 64; block++) pair.authenticated(block, 0)
  assert.ok(same(pair.keys(10, 3, 0), sent(10, 3)))
  await outOfReach(pair, 64)
})

test('erases the chain key of a pair that was never used', () => {
  const { pair, chainKey } = pairing()
  pair.erase()
  assert.ok(chainKey.every((byte) => byte === 0))
})

test('has no keys any more once it is erased', async () => {
  const { pair, chainKey } = pairing()
  const kept = pair.keys(2, 0, 0)
  pair.authenticated(2, 0)
  pair.erase()
  assert.ok(chainKey.every((byte) => byte === 0))
  for (const block of [0, 2, 3]) assert.equal(await rejection(() => pair.keys(block, 0, 0)), 'state_lost')
  assert.equal(kept.request.symmetricKeySize, 32)
})

test.run()
