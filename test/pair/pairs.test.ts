import assert from 'node:assert/strict'
import fc from 'fast-check'
import { MemoryStore } from '../../sidecar/pair/memory-store.ts'
import type { SendingMessage } from '../../sidecar/pair/sending.ts'
import { type PairStore, type PairSummary, StoreUnavailableError } from '../../sidecar/pair/store.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'
import { FakeClock, seeded } from './fakes.ts'
import {
  answered,
  awayStore,
  HOUR_MS,
  NOW,
  orders,
  PEER,
  pairsOf,
  payments,
  place,
  random,
  spying,
  World,
} from './world.ts'

const test = suite('pair/pairs')

/** A gate that holds what is carried until it is opened. */
function gate() {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { opened: promise, open: resolve }
}

const settled = () => new Promise(setImmediate)

test('pairs once, however many calls wait for it, and gives each a message of its own', async () => {
  const world = new World()
  const messages = await Promise.all(Array.from({ length: 200 }, () => world.begin()))
  assert.equal(world.hellos.length, 1)
  assert.equal(new Set(messages.map(place)).size, 200)
  for (const message of messages) await world.run(message)
  assert.deepEqual(world.pairings, [{ role: 'initiator', url: PEER, cause: undefined, name: 'payments' }])
})

test('pairs with each peer by itself', async () => {
  const world = new World()
  const [one, another] = await Promise.all([world.begin(), world.begin('http://billing:8080')])
  assert.equal(world.hellos.length, 2)
  assert.ok(!one.pairId.equals(another.pairId))
})

test('tells all who wait that a pairing failed, and tries again at once for the next', async () => {
  const world = new World()
  const failure = new Error('could not connect')
  const { carry } = world
  world.carry = () => Promise.reject(failure)
  const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => world.begin()))
  for (const outcome of outcomes) assert.ok(outcome.status === 'rejected' && outcome.reason === failure)
  assert.equal(world.hellos.length, 1)
  world.carry = carry
  await world.run(await world.begin())
  assert.equal(world.hellos.length, 2)
  assert.ok(!world.hellos[0]!.equals(world.hellos[1]!))
})

test('goes on to the next block after 65,536 messages, or after 60 s', async () => {
  const world = new World()
  for (let index = 0; index < 65_536; index++) {
    const message = await world.begin()
    if (message.block !== 0 || message.index !== index) assert.fail(`got ${place(message)} at ${index}`)
  }
  const next = await world.begin()
  assert.deepEqual([next.block, next.index], [1, 0])
  await world.run(next)
  world.advance(59_999)
  assert.deepEqual((await world.begin()).block, 1)
  world.advance(1)
  assert.deepEqual((await world.begin()).block, 2)
  assert.equal(world.hellos.length, 1)
})

test('makes the next pair before the last one ends, and no call waits for it', async () => {
  const world = new World()
  const first = await world.begin()
  await world.run(first)
  world.advance((HOUR_MS * 3) / 4)
  const held = gate()
  const { carry } = world
  world.carry = async (hello) => {
    await held.opened
    return carry(hello)
  }
  for (let i = 0; i < 20; i++) {
    world.advance(10_000)
    const message = await world.begin()
    assert.deepEqual(message.pairId, first.pairId)
    await world.run(message)
  }
  assert.equal(world.hellos.length, 2)
  held.open()
  await settled()
  const renewed = await world.begin()
  assert.ok(!renewed.pairId.equals(first.pairId))
  await world.run(renewed)
  assert.equal(world.hellos.length, 2)
})

test('has calls wait for the pairing that is under way, when the old pair ends before', async () => {
  const world = new World()
  const first = await world.begin()
  world.advance(HOUR_MS - 100_000)
  const held = gate()
  const { carry } = world
  world.carry = async (hello) => {
    await held.opened
    return carry(hello)
  }
  assert.deepEqual((await world.begin()).pairId, first.pairId)
  world.advance(100_000)
  const waiting = [world.begin(), world.begin()]
  await settled()
  held.open()
  for (const message of await Promise.all(waiting)) {
    assert.ok(!message.pairId.equals(first.pairId))
    await world.run(message)
  }
  assert.equal(world.hellos.length, 2)
})

test('goes on with the old pair when it cannot be renewed, says so, and tries again', async () => {
  const world = new World()
  const first = await world.begin()
  world.advance((HOUR_MS * 3) / 4)
  const { carry } = world
  const failure = new Error('could not connect')
  world.carry = () => Promise.reject(failure)
  for (let attempt = 1; attempt <= 3; attempt++) {
    assert.deepEqual((await world.begin()).pairId, first.pairId)
    await settled()
    assert.equal(world.hellos.length, 1 + attempt)
    world.advance(60_000)
  }
  const failed = { role: 'initiator', url: PEER, cause: undefined, name: '', error: failure }
  assert.deepEqual(world.pairings.slice(1), Array(3).fill(failed))
  world.carry = carry
  assert.deepEqual((await world.begin()).pairId, first.pairId)
  await settled()
  assert.ok(!(await world.begin()).pairId.equals(first.pairId))
})

test('says once that a pair cannot be renewed, however often its calls asked for that', async () => {
  const world = new World()
  await world.begin()
  world.advance((HOUR_MS * 3) / 4)
  const { promise, reject } = Promise.withResolvers<never>()
  world.carry = () => promise
  for (let i = 0; i < 3; i++) {
    await world.begin()
    world.advance(60_000)
  }
  const failure = new Error('could not connect')
  reject(failure)
  await settled()
  const failed = { role: 'initiator', url: PEER, cause: undefined, name: '', error: failure }
  assert.deepEqual(world.pairings.slice(1), [failed])
})

test('does not use a new pair that the responder has given up, as nobody called for half a minute', async () => {
  const world = new World()
  const first = await world.begin()
  await world.run(first)
  world.advance((HOUR_MS * 3) / 4)
  await world.begin()
  await settled()
  assert.equal(world.hellos.length, 2)
  world.advance(30_000)
  await world.run(await world.begin())
})

test('takes another pair when the peer has lost one, and keeps the pairs that it has not lost', async () => {
  const world = new World()
  const first = await world.begin()
  await world.initiator.lost(PEER, random(24))
  await world.initiator.lost('http://nobody:8080', first.pairId)
  const next = await world.begin()
  assert.deepEqual([next.pairId, next.block, next.index], [first.pairId, 0, 1])
  assert.equal(world.hellos.length, 1)
  const lost = [world.initiator.lost(PEER, first.pairId), world.initiator.lost(PEER, first.pairId)]
  await Promise.all(lost)
  const second = await world.begin()
  assert.ok(!second.pairId.equals(first.pairId))
  // Those that come late speak of the first one.
  await world.initiator.lost(PEER, first.pairId)
  assert.deepEqual((await world.begin()).pairId, second.pairId)
  assert.equal(world.hellos.length, 2)
})

test('tells that the store is away to calls that need it, and carries nothing then', async () => {
  const world = new World()
  const initiator = pairsOf({
    identity: orders,
    store: awayStore(),
    carry: (_peer, hello) => {
      world.hellos.push(hello)
      return world.carry(hello)
    },
  })
  const outcomes = await Promise.allSettled([initiator.begin(PEER), initiator.begin(PEER)])
  for (const outcome of outcomes)
    assert.ok(outcome.status === 'rejected' && outcome.reason instanceof StoreUnavailableError)
  assert.equal(world.hellos.length, 0)
  await initiator.lost(PEER, random(24))
})

test('uses no pair that the store has not acknowledged', async () => {
  const world = new World()
  const initiator = pairsOf({
    identity: orders,
    store: awayStore({ lease: async () => undefined }),
    carry: (_peer, hello) => world.carry(hello),
    nowMs: world.nowMs,
  })
  await assert.rejects(initiator.begin(PEER), StoreUnavailableError)
})

test('goes on with the lease that it has while the store is away', async () => {
  const world = new World()
  let away = false
  const initiator = pairsOf({
    identity: orders,
    store: new Proxy(world.store, {
      get: (target, name: keyof PairStore) => (away ? awayStore()[name] : target[name].bind(target as never)),
    }) as PairStore,
    carry: (_peer, hello) => world.carry(hello),
    nowMs: world.nowMs,
    clockMs: world.clock.now,
  })
  await initiator.begin(PEER)
  away = true
  for (let i = 1; i < 10; i++) assert.equal((await initiator.begin(PEER)).index, i)
  world.clock.advance(60_000)
  await assert.rejects(initiator.begin(PEER), StoreUnavailableError)
  away = false
  assert.equal((await initiator.begin(PEER)).block, 1)
})

test('remembers 1,000 peers, and leases anew for one that it forgot', async () => {
  const world = new World()
  const peer = (i: number) => `http://peer-${i}:8080`
  let counter = 0
  const initiator = pairsOf({
    identity: orders,
    store: spying(world.store, (lease) => world.leases.push(lease)),
    // Pairs are at hand, so that nothing is to be carried.
    carry: () => Promise.reject(new Error('there are pairs')),
    clockMs: world.clock.now,
  })
  for (let i = 0; i <= 1000; i++) {
    await world.store.addOutbound({
      id: Buffer.concat([Buffer.alloc(20), Buffer.of(0, 0, counter >> 8, counter++ & 0xff)]),
      peer: peer(i % 1000),
      name: 'payments',
      mesh: payments.secrets[0]!,
      chainKey: random(32),
      chunkBytesMax: 65_536,
      leaseMs: 60_000,
      ttlMs: HOUR_MS,
    })
  }
  for (let i = 0; i < 1000; i++) await initiator.begin(peer(i))
  assert.equal((await initiator.begin(peer(0))).index, 1)
  assert.equal(world.leases.length, 1000)
  await assert.rejects(initiator.begin(peer(1000)))
  assert.equal((await initiator.begin(peer(1))).index, 1)
  const again = await initiator.begin(peer(0))
  assert.deepEqual([again.block, again.index], [1, 0])
  assert.equal(world.leases.length, 1001)
  // Its keys were erased when it was forgotten.
  assert.throws(() => world.leases[0]!.keys.keys(0))
})

test('erases the keys of a lease when it ends, though no call comes by', async () => {
  const world = new World()
  await world.begin()
  world.advance(59_999)
  world.initiator.sweep()
  assert.ok(world.leases[0]!.keys.keys(0))
  world.advance(1)
  world.initiator.sweep()
  assert.throws(() => world.leases[0]!.keys.keys(0))
  assert.equal((await world.begin()).block, 1)
})

test('drops the pairs with a peer in both roles, and those with no other', async () => {
  const world = new World()
  const [dropped, other] = await Promise.all([world.begin(), world.begin('http://billing:8080')])
  await world.run(dropped)
  assert.equal(await world.initiator.drop(PEER), 1)
  assert.equal(await world.initiator.drop(PEER), 0)
  assert.ok((await world.begin('http://billing:8080')).pairId.equals(other.pairId))
  const next = await world.begin()
  assert.ok(!next.pairId.equals(dropped.pairId))
  assert.equal(await world.responder.drop('nobody'), 0)
  await world.run(next)
  const late = await world.begin()
  assert.equal(await world.responder.drop('orders'), 3)
  await assert.rejects(() => world.run(late), { code: 'state_lost' })
})

test('does not go on with a pair that is dropped while its next block is leased', async () => {
  const world = new World()
  const { store } = world
  const before = await world.begin()
  world.advance(60_000)
  const { opened, open } = gate()
  const { lease, dropPeer } = MemoryStore.prototype
  const later = <T>(answer: Promise<T>) => opened.then(() => answer)
  store.lease = (...args) => later(lease.apply(store, args))
  store.dropPeer = (peer) => later(dropPeer.call(store, peer))
  const during = world.begin()
  const dropped = world.initiator.drop(PEER)
  open()
  assert.equal(await dropped, 1)
  await during
  assert.ok(!(await world.begin()).pairId.equals(before.pairId))
})

test('ends its lease though the store does not say that it dropped the pairs, as it may have', async () => {
  const world = new World()
  const before = await world.begin()
  world.store.dropPeer = async () => {
    throw new StoreUnavailableError()
  }
  await assert.rejects(() => world.initiator.drop(PEER), StoreUnavailableError)
  assert.notEqual(place(await world.begin()), `${before.pairId.toString('hex')} 0 1`)
})

test('has the store erase what has ended, too', () => {
  let sweeps = 0
  const store = awayStore({ sweep: () => void sweeps++ })
  pairsOf({ identity: orders, store }).sweep()
  assert.equal(sweeps, 1)
})

test('tells the store what a lease spent, once', async () => {
  const world = new World()
  for (let i = 0; i < 5; i++) await world.begin()
  world.advance(60_000)
  await world.begin()
  world.advance(60_000)
  world.initiator.sweep()
  await world.begin()
  const [{ messages, block }] = (await world.store.list()) as [PairSummary]
  assert.deepEqual([messages, block], [6, 2])
})

test('never gives out an index twice, whatever happens in two processes that share a store', () => {
  const step = fc.oneof(
    fc.record({
      what: fc.constant('begin' as const),
      process: fc.nat(1),
      count: fc.integer({ min: 1, max: 70 }),
    }),
    fc.record({
      what: fc.constant('wait' as const),
      ms: fc.constantFrom(1, 30_000, 60_000, 600_000, HOUR_MS),
    }),
    fc.record({ what: fc.constant('lose' as const), process: fc.nat(1) }),
    fc.record({ what: fc.constant('sweep' as const), process: fc.nat(1) }),
  )
  return fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
      const clock = new FakeClock()
      const store = new MemoryStore(clock.now)
      const inbound = new MemoryStore(clock.now)
      const responder = pairsOf({ identity: payments, store: inbound, nowMs: () => NOW, clockMs: clock.now })
      const processes = [0, 1].map((i) =>
        pairsOf({
          identity: orders,
          store,
          carry: (_peer, hello) => answered(responder, hello),
          random: seeded(`process ${i}`),
          nowMs: () => NOW,
          clockMs: clock.now,
        }),
      )
      const seen = new Set<string>()
      let begun: Promise<SendingMessage>[] = []
      let last: SendingMessage | undefined
      const settle = async () => {
        for (const message of await Promise.all(begun)) {
          assert.ok(!seen.has(place(message)), `${place(message)} was given out twice`)
          seen.add(place(message))
          last = message
        }
        begun = []
      }
      for (const action of steps) {
        if (action.what === 'begin') {
          const { process, count } = action
          begun.push(...Array.from({ length: count }, () => processes[process]!.begin(PEER)))
        } else if (action.what === 'wait') {
          await settle()
          clock.advance(action.ms)
        } else if (action.what === 'lose' && last) {
          begun.push(
            processes[action.process]!.lost(PEER, last.pairId).then(() =>
              processes[action.process]!.begin(PEER),
            ),
          )
        } else if (action.what === 'sweep') processes[action.process]!.sweep()
      }
      await settle()
    }),
    runs(40),
  )
})

test.run()
