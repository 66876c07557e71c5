import assert from 'node:assert/strict'
import { MemoryStore } from '../../sidecar/pair/memory-store.ts'
import { parseHeader, sealRequest } from '../../sidecar/pair/message.ts'
import { Reject } from '../../sidecar/pair/reject.ts'
import { suite } from '../support/suite.ts'
import { FakeClock, rejection, seeded } from './fakes.ts'
import { identity } from './vectors.ts'
import {
  awayStore,
  headerOf,
  helloOf,
  NEW,
  NOW,
  OLD,
  orders,
  PEER,
  pairsOf,
  payments,
  random,
  record,
  World,
} from './world.ts'

const test = suite('pair/pairs: responder')

test('rejects what comes in while the store is away as state_unavailable, of no age', async () => {
  const world = new World()
  const message = await world.begin()
  const { secrets } = payments
  const responder = pairsOf({ identity: payments, store: awayStore(), nowMs: world.nowMs })
  assert.equal(await rejection(() => responder.accept(headerOf(message))), 'state_unavailable')
  const { hello } = helloOf(orders, world.nowMs())
  assert.equal(await rejection(() => responder.answer(hello)), 'state_unavailable')
  const { status, body } = await responder.rejectRecord(new Reject('state_unavailable'), hello, 'pairing')
  assert.equal(status, 503)
  const read = world.initiator.readReject(body, hello, 'pairing')
  assert.deepEqual([read?.name, read?.authentic, read?.storeAgeMs], ['state_unavailable', true, 0])
  const halfAway = pairsOf({
    identity: { ...payments, secrets },
    store: awayStore({ firstSight: async () => true }),
    nowMs: world.nowMs,
  })
  const another = helloOf(orders, world.nowMs())
  assert.equal(await rejection(() => halfAway.answer(another.hello)), 'state_unavailable')
})

test('claims nothing while the store is away', async () => {
  const world = new World()
  const message = await world.begin()
  const store = new MemoryStore(world.clock.now)
  const responder = pairsOf({
    identity: payments,
    store: awayStore({
      firstSight: (hash) => store.firstSight(hash),
      addInbound: (pair, ttlMs) => store.addInbound(pair, ttlMs),
      findInbound: (id) => store.findInbound(id),
    }),
    nowMs: world.nowMs,
  })
  world.responder = responder
  await world.initiator.lost(PEER, message.pairId)
  const received = await responder.accept(headerOf(await world.begin()))
  assert.equal(await rejection(() => received.claim()), 'state_unavailable')
})

test('answers a pairing message once, in all processes that share a store', async () => {
  const clock = new FakeClock()
  const store = new MemoryStore(clock.now)
  const process = () => pairsOf({ identity: payments, store, nowMs: () => NOW, clockMs: clock.now })
  const [one, another] = [process(), process()]
  const { hello, finish } = helloOf(orders)
  assert.ok(finish(await one.answer(hello)))
  assert.equal(await rejection(() => one.answer(hello)), 'replayed')
  assert.equal(await rejection(() => another.answer(hello)), 'replayed')
})

test('knows what it has answered even where the store has forgotten it', async () => {
  const store = awayStore({ firstSight: async () => true, addInbound: async () => {} })
  const responder = pairsOf({ identity: payments, store, nowMs: () => NOW })
  const { hello } = helloOf(orders)
  assert.ok(await responder.answer(hello))
  assert.equal(await rejection(() => responder.answer(hello)), 'replayed')
})

test('answers one of two copies that come at the same time', async () => {
  const world = new World()
  const { responder } = world
  const { hello } = helloOf(orders, world.nowMs())
  const outcomes = await Promise.allSettled([responder.answer(hello), responder.answer(Buffer.from(hello))])
  assert.deepEqual(outcomes.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected'])
})

test('refuses an initiator that pairs too often, and remembers nothing of what it refused', async () => {
  const world = new World()
  const hellos = Array.from({ length: 101 }, () => helloOf(orders, world.nowMs()).hello)
  for (const hello of hellos.slice(0, 100)) await world.responder.answer(hello)
  const late = hellos[100]!
  assert.equal(await rejection(() => world.responder.answer(late)), 'rate_limited')
  const billing = await identity('billing')
  const other = helloOf(billing, world.nowMs())
  assert.ok(await world.responder.answer(other.hello))
  world.advance(50)
  assert.ok(await world.responder.answer(late))
})

test('counts no message that does not authenticate towards the rate', async () => {
  const world = new World()
  const { responder } = world
  for (let i = 0; i < 250; i++) {
    const { hello } = helloOf(orders, world.nowMs(), seeded(`forged ${i}`))
    hello[hello.length - 1]! ^= 1
    assert.equal(await rejection(() => responder.answer(hello)), 'decrypt_failed')
  }
  const { hello } = helloOf(orders, world.nowMs())
  assert.ok(await responder.answer(hello))
})

test('runs a message once, in all processes that share a store', async () => {
  const world = new World()
  const store = new MemoryStore(world.responderClock.now)
  const process = () =>
    pairsOf({
      identity: payments,
      store,
      nowMs: world.nowMs,
      clockMs: world.responderClock.now,
    })
  const [one, another] = [process(), process()]
  world.responder = one
  const header = headerOf(await world.begin())
  const received = await Promise.all([one.accept(header), another.accept(header), one.accept(header)])
  const claims = await Promise.allSettled(received.map((message) => message.claim()))
  assert.equal(claims.filter(({ status }) => status === 'fulfilled').length, 1)
  for (const claim of claims) if (claim.status === 'rejected') assert.equal(claim.reason.code, 'replayed')
})

test('lets a forged pair id die without asking the store', async () => {
  const world = new World()
  const header = headerOf(await world.begin())
  let asked = 0
  const findInbound = async () => {
    asked++
    return undefined
  }
  const responder = pairsOf({ identity: payments, store: awayStore({ findInbound }) })
  for (let byte = 0; byte < 24; byte++) {
    const pairId = Buffer.from(header.pairId)
    pairId[byte]! ^= 0x10
    assert.equal(await rejection(() => responder.accept({ ...header, pairId })), 'unknown_pair')
  }
  assert.equal(asked, 0)
  assert.equal(await rejection(() => responder.accept(header)), 'state_lost')
  assert.equal(asked, 1)
})

test('rejects blocks that are dead or too far ahead', async () => {
  const world = new World()
  const message = await world.begin()
  const header = headerOf(message)
  assert.ok(await world.responder.accept({ ...header, block: 64 }))
  assert.equal(await rejection(() => world.responder.accept({ ...header, block: 65 })), 'block_out_of_reach')
  await world.run(message)
  const slow = await world.responder.accept({ ...header, index: 1 })
  world.advance(120_000)
  assert.equal(await rejection(() => slow.claim()), 'block_out_of_reach')
  assert.equal(await rejection(() => world.responder.accept(header)), 'block_out_of_reach')
})

test('rejects a message whose pair ends before it is claimed', async () => {
  const world = new World()
  const slow = await world.responder.accept(headerOf(await world.begin()))
  world.advance(30_000)
  assert.equal(await rejection(() => slow.claim()), 'state_lost')
})

test('tells a restarted responder by an authentic state_lost of a young store, and pairs anew', async () => {
  const world = new World()
  const message = await world.begin()
  await world.run(message)
  world.advance(1_000_000)
  world.responder = pairsOf({
    identity: payments,
    store: new MemoryStore(world.responderClock.now),
    nowMs: world.nowMs,
    clockMs: world.responderClock.now,
  })
  world.advance(1234.5)
  const next = await world.begin()
  const { header } = sealRequest(next, random(12))
  assert.equal(await rejection(() => world.responder.accept(parseHeader(header))), 'state_lost')
  const { status, body } = await world.responder.rejectRecord(new Reject('state_lost'), header, 'message')
  assert.equal(status, 421)
  const read = world.initiator.readReject(body, header, 'message')
  assert.deepEqual([read?.name, read?.authentic, read?.storeAgeMs], ['state_lost', true, 1234])
  await world.initiator.lost(PEER, next.pairId)
  await world.run(await world.begin())
})

test('takes a reject for proven only when it is of a listed secret, and of the bytes that were sent', async () => {
  const world = new World()
  const { header } = sealRequest(await world.begin(), random(12))
  const { header: other } = sealRequest(await world.begin(), random(12))
  const read = (body: Buffer) => world.initiator.readReject(body, header, 'message')
  const good = record('state_lost', header, { kind: 'message', storeAgeMs: 99 })
  assert.deepEqual(read(good), { name: 'state_lost', authentic: true, timeMs: NOW, storeAgeMs: 99 })
  assert.equal(read(record('state_lost', header, { kind: 'message', secret: OLD }))?.authentic, false)
  assert.equal(read(record('state_lost', other, { kind: 'message' }))?.authentic, false)
  assert.equal(read(record('state_lost', Buffer.alloc(0), { kind: 'message' }))?.authentic, false)
  for (let byte = 4; byte < good.length; byte++) {
    const changed = Buffer.from(good)
    changed[byte]! ^= 1
    assert.equal(read(changed)?.authentic, false)
  }
  assert.equal(read(good.subarray(1)), undefined)
})

test('makes a reject under the secret that its sender meant', async () => {
  const initiator = await identity('orders', OLD)
  const world = new World({ initiator, responder: await identity('payments', NEW, OLD) })
  const { header } = sealRequest(await world.begin(), random(12))
  const authentic = async (bytes: Buffer, kind: 'message' | 'pairing') => {
    const { body } = await world.responder.rejectRecord(new Reject('malformed'), bytes, kind)
    return world.initiator.readReject(body, bytes, kind)?.authentic
  }
  assert.equal(await authentic(header, 'message'), true)
  assert.equal(await authentic(world.hellos[0]!, 'pairing'), true)
  // Cut before the name is whole, or of a name that it does not know: it is made under the first.
  assert.equal(await authentic(header.subarray(0, 25), 'message'), false)
  assert.equal(await authentic(world.hellos[0]!.subarray(0, 11), 'pairing'), false)
  assert.equal(await authentic(Buffer.alloc(0), 'pairing'), false)
})

test.run()
