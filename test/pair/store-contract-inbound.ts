/** What every store has to do with the pairs that peers made with this sidecar. */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { ReceivingPair } from '../../sidecar/pair/receiving.ts'
import type { PairStore } from '../../sidecar/pair/store.ts'
import { runs } from '../support/fuzz.ts'
import type { Suite } from '../support/suite.ts'
import { rejection } from './fakes.ts'
import { type Backend, found, HOUR_MS, inboundPair, random } from './store-pairs.ts'

const BLOCK = 65_536

/** Adds many pairs, some at a time: they must all be there before the first ends. */
async function addAll(store: PairStore, pairs: ReceivingPair[]): Promise<void> {
  for (let at = 0; at < pairs.length; at += 100)
    await Promise.all(pairs.slice(at, at + 100).map((pair) => store.addInbound(pair, HOUR_MS)))
}

/** Registers the tests of claims, and of what else a responder keeps. */
export function inboundContract(test: Suite, create: () => Promise<Backend>): void {
  test('claims a message once, of however many at once and in whichever process', async () => {
    const { open } = await create()
    const [one, another] = [open(), open()]
    const pair = inboundPair()
    await one.addInbound(pair, HOUR_MS)
    const claims = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const store = i % 2 === 0 ? one : another
        return store.claim(await found(store, pair), 0, 7)
      }),
    )
    assert.deepEqual(claims.toSorted(), ['new', ...Array(19).fill('replayed')])
    assert.equal(await another.claim(await found(another, pair), 0, 8), 'new')
    assert.equal(await another.claim(await found(another, pair), 1, 7), 'new')
    assert.equal(await one.claim(await found(one, pair), 1, 7), 'replayed')
  })

  test('claims each message once, in any order of blocks and indices', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: BLOCK - 1 })), {
          maxLength: 60,
        }),
        async (messages) => {
          const { open } = await create()
          const store = open()
          const pair = inboundPair()
          await store.addInbound(pair, HOUR_MS)
          const seen = new Set<string>()
          for (const [block, index] of [...messages, ...messages]) {
            const key = `${block} ${index}`
            assert.equal(
              await store.claim(await found(store, pair), block, index),
              seen.has(key) ? 'replayed' : 'new',
            )
            seen.add(key)
          }
        },
      ),
      runs(30),
    ))

  test('claims the first and the last index of a block', async () => {
    const { open } = await create()
    const store = open()
    const pair = inboundPair()
    await store.addInbound(pair, HOUR_MS)
    for (const index of [BLOCK - 1, 0]) {
      assert.equal(await store.claim(await found(store, pair), 0, index), 'new')
      assert.equal(await store.claim(await found(store, pair), 0, index), 'replayed')
    }
  })

  test('knows the keys of a pair in each process, and what the others have claimed', async () => {
    const { open } = await create()
    const [one, another] = [open(), open()]
    const pair = inboundPair()
    await one.addInbound(pair, HOUR_MS)
    assert.equal(
      await rejection(async () => (await found(another, pair, 65)).keys(65, 0, 0)),
      'block_out_of_reach',
    )
    const here = (await found(one, pair, 60)).keys(60, 3, 0)
    const there = (await found(another, pair, 60)).keys(60, 3, 0)
    assert.ok(here.request.equals(there.request) && here.response.equals(there.response))
    assert.equal(await one.claim(await found(one, pair), 60, 3), 'new')
    assert.ok((await found(another, pair, 124)).keys(124, 0, 0))
    assert.equal(
      await rejection(async () => (await found(another, pair, 125)).keys(125, 0, 0)),
      'block_out_of_reach',
    )
  })

  test('claims nothing of a pair that it does not have', async () => {
    const { open } = await create()
    const store = open()
    const stranger = inboundPair()
    assert.equal(await store.findInbound(stranger.id, 0), undefined)
    assert.equal(await store.claim(stranger, 0, 0), 'gone')
  })

  test('claims nothing of a block 120 s after its first claim', async () => {
    const { open, advance } = await create()
    const [one, another] = [open(), open()]
    const pair = inboundPair()
    await one.addInbound(pair, HOUR_MS)
    assert.equal(await one.claim(await found(one, pair), 0, 0), 'new')
    await advance(119_000)
    assert.equal(await one.claim(await found(one, pair), 0, 1), 'new')
    assert.equal(await another.claim(await found(another, pair), 0, 1), 'replayed')
    await advance(1000)
    for (const store of [one, another]) {
      assert.equal(await store.claim(await found(store, pair), 0, 0), 'out-of-reach')
      assert.equal(await store.claim(await found(store, pair), 0, 2), 'out-of-reach')
    }
    assert.equal(await another.claim(await found(another, pair), 1, 0), 'new')
  })

  test('claims nothing of a block below one that is dead', async () => {
    const { open, advance } = await create()
    const store = open()
    const pair = inboundPair()
    await store.addInbound(pair, HOUR_MS)
    assert.equal(await store.claim(await found(store, pair), 5, 0), 'new')
    await advance(60_000)
    assert.equal(await store.claim(await found(store, pair), 4, 0), 'new')
    assert.equal(await store.claim(await found(store, pair), 6, 0), 'new')
    await advance(60_000)
    for (const block of [3, 4, 5]) {
      assert.equal(await store.claim(await found(store, pair), block, 1), 'out-of-reach')
    }
    assert.equal(await store.claim(await found(store, pair), 6, 1), 'new')
  })

  test('keeps a pair for 30 s until its first message, and then for its life', async () => {
    const { open, advance } = await create()
    const store = open()
    const [unused, used, short] = [inboundPair(), inboundPair(), inboundPair()]
    for (const pair of [unused, used]) await store.addInbound(pair, HOUR_MS)
    await store.addInbound(short, 10_000)
    await advance(10_000)
    assert.equal(await store.findInbound(short.id, 0), undefined)
    await advance(19_000)
    assert.equal(await store.claim(await found(store, used), 0, 0), 'new')
    await advance(1000)
    assert.equal(await store.findInbound(unused.id, 0), undefined)
    assert.equal(await store.claim(unused, 0, 0), 'gone')
    await advance(HOUR_MS - 2000)
    assert.equal(await store.claim(await found(store, used), 1, 0), 'new')
    await advance(1000)
    assert.equal(await store.findInbound(used.id, 0), undefined)
    assert.equal(await store.claim(used, 2, 0), 'gone')
  })

  test('keeps 10,000 pairs of peers, those that were used last', async () => {
    // Before the store is opened: on a busy machine it would wait in vain for its connection meanwhile.
    const pairs = Array.from({ length: 10_000 }, () => inboundPair())
    const { open, advance } = await create()
    const store = open()
    for (const pair of pairs.slice(0, 2)) {
      await store.addInbound(pair, HOUR_MS)
      // The next comes after it by any clock.
      await advance(10)
    }
    await addAll(store, pairs.slice(2))
    assert.equal(await store.claim(await found(store, pairs[0]!), 0, 0), 'new')
    await store.addInbound(inboundPair(), HOUR_MS)
    assert.equal((await store.list()).length, 10_000)
    assert.ok(await store.findInbound(pairs[0]!.id, 0))
    assert.equal(await store.findInbound(pairs[1]!.id, 0), undefined)
    assert.ok(await store.findInbound(pairs[2]!.id, 0))
  })

  test('lets what has ended go first where there is no room', async () => {
    const { open, advance } = await create()
    const store = open()
    const used = inboundPair()
    await store.addInbound(used, HOUR_MS)
    assert.equal(await store.claim(await found(store, used), 0, 0), 'new')
    await addAll(
      store,
      Array.from({ length: 9999 }, () => inboundPair()),
    )
    await advance(30_000)
    await store.addInbound(inboundPair(), HOUR_MS)
    assert.ok(await store.findInbound(used.id, 0))
    assert.equal((await store.list()).length, 2)
  })

  test('remembers a pairing message for 660 s, in all processes', async () => {
    const { open, advance } = await create()
    const [one, another] = [open(), open()]
    const hash = random(32)
    const sights = await Promise.all([one, another, one].map((store) => store.firstSight(hash)))
    assert.deepEqual(sights.toSorted(), [false, false, true])
    assert.equal(await one.firstSight(random(32)), true)
    await advance(659_000)
    assert.equal(await another.firstSight(hash), false)
    await advance(2000)
    assert.equal(await one.firstSight(hash), true)
  })

  test('tells its age in whole ms, rounded down, and the same to all processes', async () => {
    const { open, advance } = await create()
    const store = open()
    const young = await store.ageMs(random(24))
    assert.ok(young >= 0 && young < 1000)
    await advance(1500.75)
    const age = await open().ageMs(random(24))
    assert.ok(Number.isInteger(age))
    assert.ok(age >= 1500 && age < 2500)
  })

  test('never lets a message that ran pass for one that could not have run', async () => {
    const { open, advance } = await create()
    const store = open()
    await advance(HOUR_MS)
    const pair = inboundPair()
    await store.addInbound(pair, 20_000)
    await store.addInbound(inboundPair(), 20_000)
    assert.equal(await store.claim(await found(store, pair), 0, 0), 'new')
    await advance(30_000)
    assert.equal(await store.claim(pair, 0, 0), 'gone')
    const age = await store.ageMs(pair.id)
    assert.ok(age <= 30_000, `${age} ms are more than have passed since it ran`)
  })

  test('stays as old as it is when a pair ends that was never used', async () => {
    const { open, advance } = await create()
    const store = open()
    // A store that is shared is as old as its first use.
    await store.ageMs(random(24))
    await advance(HOUR_MS)
    await store.addInbound(inboundPair(), HOUR_MS)
    await advance(30_000)
    assert.deepEqual(await store.list(), [])
    assert.ok((await store.ageMs(random(24))) >= HOUR_MS + 30_000)
  })
}
