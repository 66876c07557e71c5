/** Secrets that change while there are pairs. */
import assert from 'node:assert/strict'
import { MemoryStore } from '../../sidecar/pair/memory-store.ts'
import { Reject } from '../../sidecar/pair/reject.ts'
import type { MeshSecret } from '../../sidecar/pair/secrets.ts'
import { suite } from '../support/suite.ts'
import { identity } from './vectors.ts'
import { answered, headerOf, NEW, NOW, OLD, PEER, pairsOf, World } from './world.ts'

const test = suite('pair/pairs: secrets')

const initiatorWith = (...texts: string[]) => identity('orders', ...texts)
const responderWith = (...texts: string[]) => identity('payments', ...texts)
const ordersSecrets = async (...texts: string[]) => (await initiatorWith(...texts)).secrets
const paymentsSecrets = async (...texts: string[]) => (await responderWith(...texts)).secrets

const worldOf = async (initiator: string[], responder = initiator) =>
  new World({
    initiator: await initiatorWith(...initiator),
    responder: await responderWith(...responder),
  })

const settled = () => new Promise(setImmediate)

/** The secret by which a pairing message was made. */
const pskIdOf = (hello: Buffer) => hello.subarray(4, 12).toString('hex')
const idOf = ({ pskId }: MeshSecret) => pskId.toString('hex')

test('one that comes beside the current one changes nothing for the pairs that there are', async () => {
  const world = await worldOf([OLD])
  const before = await world.begin()
  await world.run(before)
  world.initiator.setSecrets(await ordersSecrets(OLD, NEW))
  world.responder.setSecrets(await paymentsSecrets(OLD, NEW))
  for (let i = 0; i < 3; i++) {
    const message = await world.begin()
    await world.run(message)
    await settled()
    assert.ok(message.pairId.equals(before.pairId))
  }
  assert.equal(world.hellos.length, 1)
})

test('when another is the current one, the pair serves until one that is made under that has taken its place', async () => {
  const world = await worldOf([OLD, NEW])
  const before = await world.begin()
  await world.run(before)
  const { promise: held, resolve: open } = Promise.withResolvers<void>()
  const { carry } = world
  world.carry = async (hello) => {
    await held
    return carry(hello)
  }
  world.initiator.setSecrets(await ordersSecrets(NEW, OLD))
  const [meanwhile] = await Promise.all([world.begin(), world.begin()])
  assert.ok(meanwhile.pairId.equals(before.pairId))
  await world.run(meanwhile)
  open()
  while (!world.pairings[1]) await settled()
  await settled()
  const after = await world.begin()
  assert.ok(!after.pairId.equals(before.pairId))
  await world.run(after)
  assert.equal(world.hellos.length, 2)
  assert.equal(pskIdOf(world.hellos[1]!), idOf((await ordersSecrets(NEW))[0]!))
  assert.deepEqual(
    (await world.store.list()).map(({ secret }) => secret),
    ['current'],
  )
})

test('a peer that does not know the current one yet is asked once, and serves under the one before', async () => {
  const world = await worldOf([OLD])
  await world.run(await world.begin())
  world.initiator.setSecrets(await ordersSecrets(NEW, OLD))
  for (let i = 0; i < 5; i++) {
    await world.run(await world.begin())
    await settled()
    world.advance(60_000)
  }
  assert.equal(world.hellos.length, 3)
  assert.ok((await world.store.list()).every(({ secret }) => secret === 'previous'))
})

test('a process that has not changed its own yet does not undo what another one of the same store did', async () => {
  const world = await worldOf([OLD, NEW])
  const other = pairsOf({
    identity: await initiatorWith(OLD, NEW),
    store: world.store,
    carry: () => Promise.reject(new Error('it has no need to pair')),
    nowMs: () => NOW,
    clockMs: world.clock.now,
  })
  await world.run(await world.begin())
  await world.run(await other.begin(PEER))
  world.initiator.setSecrets(await ordersSecrets(NEW, OLD))
  await world.begin()
  while (!world.pairings[1]) await settled()
  await settled()
  const ours = await world.begin()
  world.advance(60_000)
  for (const pairs of [other, world.initiator, other, world.initiator]) {
    const message = await pairs.begin(PEER)
    await settled()
    assert.ok(message.pairId.equals(ours.pairId))
  }
  assert.equal(world.hellos.length, 2)
})

test('one that is dropped ends its pairs in both roles, and the next message is of a new one', async () => {
  const world = await worldOf([OLD, NEW])
  const sent = await world.begin()
  const late = await world.begin()
  await world.run(sent)
  const accepted = await world.responder.accept(headerOf(await world.begin()))
  world.responder.setSecrets(await paymentsSecrets(NEW))
  await assert.rejects(() => world.run(late), new Reject('unknown_pair'))
  await assert.rejects(() => accepted.claim(), new Reject('state_lost'))
  world.initiator.setSecrets(await ordersSecrets(NEW))
  assert.deepEqual(await world.store.list(), [])
  const next = await world.begin()
  assert.ok(!next.pairId.equals(sent.pairId))
  await world.run(next)
  assert.equal(pskIdOf(world.hellos.at(-1)!), idOf((await ordersSecrets(NEW))[0]!))
})

test('one that is dropped while a pairing by it is under way makes no pair', async () => {
  const world = await worldOf([OLD], [OLD, NEW])
  const { carry } = world
  world.carry = async (hello) => {
    const answer = await carry(hello)
    if (world.hellos.length === 1) world.initiator.setSecrets(await ordersSecrets(NEW))
    return answer
  }
  const messages = await Promise.all([world.begin(), world.begin()])
  for (const message of messages) await world.run(message)
  assert.deepEqual(
    world.hellos.map(pskIdOf),
    [(await ordersSecrets(OLD))[0]!, (await ordersSecrets(NEW))[0]!].map(idOf),
  )
  assert.deepEqual(
    (await world.store.list()).map(({ secret }) => secret),
    ['current'],
  )
})

test('one that is dropped while a block of its pair is leased, or its pair kept, sends nothing', async () => {
  for (const verb of ['lease', 'addOutbound'] as const) {
    const world = await worldOf([OLD], [OLD, NEW])
    const { promise: held, resolve: open } = Promise.withResolvers<void>()
    const { store } = world
    const original = MemoryStore.prototype[verb] as (...args: unknown[]) => Promise<unknown>
    const waits = Promise.withResolvers<void>()
    Object.assign(store, {
      [verb]: async (...args: unknown[]) => {
        const answer = await original.apply(store, args)
        waits.resolve()
        await held
        return answer
      },
    })
    if (verb === 'lease') await store.addOutbound(await outboundOf(world))
    const message = world.begin()
    await waits.promise
    world.initiator.setSecrets(await ordersSecrets(NEW))
    open()
    await world.run(await message)
    assert.equal(pskIdOf(world.hellos.at(-1)!), idOf((await ordersSecrets(NEW))[0]!))
  }
})

/** A pair that the initiator could go on with. */
async function outboundOf({ responder }: World): Promise<Parameters<MemoryStore['addOutbound']>[0]> {
  const store = new MemoryStore(() => 0)
  const { promise, resolve } = Promise.withResolvers<Parameters<MemoryStore['addOutbound']>[0]>()
  store.addOutbound = async (pair) => resolve({ ...pair, chainKey: Buffer.from(pair.chainKey) })
  const pairs = pairsOf({
    identity: await initiatorWith(OLD),
    store,
    carry: (_peer, hello) => answered(responder, hello),
    nowMs: () => NOW,
  })
  pairs.begin(PEER).catch(() => {}) // the store does not keep it
  return promise
}

test('one that a responder drops while it answers a pairing makes no pair there either', async () => {
  const world = await worldOf([OLD])
  const store = new MemoryStore(world.responderClock.now)
  world.responder = pairsOf({ identity: await responderWith(OLD, NEW), store, nowMs: () => NOW })
  store.firstSight = async () => {
    world.responder.setSecrets(await paymentsSecrets(NEW))
    return true
  }
  await assert.rejects(() => world.begin(), { reason: 'secret-mismatch' })
  assert.deepEqual(await store.list(), [])
})

test.run()
