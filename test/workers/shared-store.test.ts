/** Pairs that the first process keeps: the store as the others have it, over what a channel between processes does. */
import assert from 'node:assert/strict'
import { Channel } from '../../sidecar/workers/channel.ts'
import { PairHub, type PairVerbs } from '../../sidecar/workers/pair-hub.ts'
import { SharedStore } from '../../sidecar/workers/shared-store.ts'
import { FakeClock } from '../pair/fakes.ts'
import { storeContract } from '../pair/store-contract.ts'
import { found, HOUR_MS, inboundPair, mesh, outboundPair, PEER } from '../pair/store-pairs.ts'
import { identity } from '../pair/vectors.ts'
import { suite } from '../support/suite.ts'
import { ends } from './ends.ts'

const test = suite('workers/shared-store')
const OTHER = 'another secret, of more than 32 characters'

function world() {
  const clock = new FakeClock()
  const hub = new PairHub(clock.now)
  return {
    clock,
    hub,
    open: (secrets = [mesh]) => {
      const { here, there } = ends()
      const user = {}
      new Channel(there, hub.verbs(user))
      const store = new SharedStore(new Channel<PairVerbs>(here), clock.now)
      store.setSecrets(secrets)
      return Object.assign(store, { leave: () => hub.leave(user) })
    },
    advance: async (ms: number) => clock.advance(ms),
  }
}

storeContract(test, async () => world())

test('goes on with the pairs of a process that has ended, as long as another has their secret', async () => {
  const { open } = world()
  const [one, another] = [open(), open()]
  const pair = inboundPair()
  await one.addOutbound(outboundPair())
  await one.addInbound(pair, HOUR_MS)
  assert.equal(await one.claim(await found(one, pair), 0, 0), 'new')
  one.leave()
  assert.equal((await another.lease(PEER))?.block, 0)
  assert.equal(await another.claim(await found(another, pair), 0, 0), 'replayed')
  assert.equal(await another.claim(await found(another, pair), 0, 1), 'new')
})

test('forgets what is kept under a secret once the last process has dropped it', async () => {
  const { open } = world()
  const other = (await identity('payments', OTHER)).secrets[0]!
  const [one, another] = [open(), open()]
  const pair = inboundPair()
  await one.addInbound(pair, HOUR_MS)
  await one.addOutbound(outboundPair())
  one.setSecrets([other])
  assert.deepEqual(await one.list(), [])
  assert.equal(await another.claim(await found(another, pair), 0, 0), 'new')
  another.setSecrets([other])
  another.setSecrets([mesh, other])
  assert.deepEqual(await another.list(), [])
  assert.equal(await another.findInbound(pair.id, 0), undefined)
  assert.equal(await another.lease(PEER), undefined)
  assert.ok((await another.ageMs(pair.id)) < HOUR_MS)
})

test('the keys of a block that has died are erased in every process', async () => {
  const { open, clock } = world()
  const store = open()
  const pair = inboundPair()
  await store.addInbound(pair, HOUR_MS)
  const here = await found(store, pair)
  assert.equal(await store.claim(here, 0, 0), 'new')
  const { chainKey } = here.floorKey
  clock.advance(119_999)
  store.sweep()
  assert.ok(chainKey.some((byte) => byte !== 0))
  clock.advance(1)
  store.sweep()
  assert.ok(chainKey.every((byte) => byte === 0))
})

test.run()
