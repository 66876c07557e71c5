import assert from 'node:assert/strict'
import fc from 'fast-check'
import { firstChainKey, unwrapChainKey } from '../../sidecar/pair/ratchet.ts'
import type { ReceivingPair } from '../../sidecar/pair/receiving.ts'
import { meshSecret } from '../../sidecar/pair/secrets.ts'
import type { PairStore } from '../../sidecar/pair/store.ts'
import { storeContract } from '../pair/store-contract.ts'
import { found, HOUR_MS, inboundPair, outboundPair, PEER, random } from '../pair/store-pairs.ts'
import { identity } from '../pair/vectors.ts'
import { runs } from '../support/fuzz.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { suite } from '../support/suite.ts'
import { RedisWorld } from './world.ts'

const test = suite('redis/redis-store')
const { secrets } = await identity('payments')
const mesh = secrets[0]!

let server: RedisServer
const worlds: RedisWorld[] = []
test.before(async () => {
  server = await startRedis({ config: { 'enable-debug-command': 'yes' } })
})
test.after(async () => {
  for (const world of worlds) await world.close()
  await server.stop()
})

/** Empty, whatever the tests before have left. */
async function create(): Promise<RedisWorld> {
  for (const world of worlds.splice(0)) await world.close()
  const world = await RedisWorld.create(server.url)
  worlds.push(world)
  return world
}

storeContract(test, create)

/** A pair of which a message ran, in a store that is an hour old. */
async function usedPair(world: RedisWorld, store: PairStore): Promise<ReceivingPair> {
  await store.ageMs(random(24))
  await world.advance(HOUR_MS)
  const pair = inboundPair()
  await store.addInbound(pair, HOUR_MS)
  assert.equal(await store.claim(await found(store, pair), 0, 7), 'new')
  assert.ok((await store.ageMs(random(24))) >= HOUR_MS)
  return pair
}

/** It is not known whether messages of this pair ran: each is refused, and the age proves nothing. */
async function isForgotten(store: PairStore, pair: ReceivingPair): Promise<void> {
  assert.equal(await store.claim(pair, 0, 7), 'gone')
  assert.equal(await store.findInbound(pair.id, 0), undefined)
  assert.ok((await store.ageMs(pair.id)) < HOUR_MS)
}

const keyOf = async (world: RedisWorld, part: string) =>
  (await world.keys()).find((key) => key.includes(part))!

test('keeps chain keys wrapped alone, for this pair, block and role', async () => {
  const world = await create()
  const store = world.open()
  const outbound = outboundPair()
  const chainKey = Buffer.from(outbound.chainKey)
  const secret = random(32)
  const inbound = inboundPair('orders', { chainKey: firstChainKey(Buffer.from(secret)) })
  await store.addOutbound(outbound)
  await store.addInbound(inbound, HOUR_MS)
  const held = await Promise.all(
    (await world.keys()).map(async (key) => [key, (await world.redis.dumpBuffer(key)).toString('latin1')]),
  )
  const text = JSON.stringify(held)
  for (const key of [chainKey, firstChainKey(Buffer.from(secret))]) {
    for (const form of ['latin1', 'hex', 'base64'] as const)
      assert.ok(!text.includes(JSON.stringify(key.toString(form)).slice(1, -1)))
  }
  const record = JSON.parse(
    (await world.redis.hget(await keyOf(world, 'peer:'), outbound.id.toString('hex')))!,
  ) as { key: string }
  const initiator = { role: 'initiator', pairId: outbound.id, block: 0 } as const
  const wrapped = Buffer.from(record.key, 'base64')
  assert.deepEqual(unwrapChainKey(mesh.stateKey, wrapped, initiator), chainKey)
  assert.equal(unwrapChainKey(mesh.stateKey, wrapped, { ...initiator, role: 'responder' }), undefined)
  const responder = Buffer.from((await world.redis.hget(await keyOf(world, 'pair:'), 'key'))!, 'base64')
  assert.deepEqual(
    unwrapChainKey(mesh.stateKey, responder, { role: 'responder', pairId: inbound.id, block: 0 }),
    firstChainKey(secret),
  )
})

test('gives every key a lifetime, and begins each with mte: and the role', async () => {
  const world = await create()
  const store = world.open()
  const pair = inboundPair()
  await store.addOutbound(outboundPair())
  await store.lease(PEER)
  await store.addInbound(inboundPair(), HOUR_MS)
  await store.addInbound(pair, HOUR_MS)
  assert.equal(await store.claim(await found(store, pair), 0, 0), 'new')
  assert.equal(await store.claim(await found(store, pair), 3, 0), 'new')
  await store.firstSight(random(32))
  await store.list()
  const keys = await world.keys()
  assert.equal(keys.length, 9)
  for (const key of keys) {
    assert.match(key, /^mte:[ir]:\{[0-9a-f]{16}\}:/)
    assert.ok((await world.redis.pttl(key)) > 0, key)
  }
})

test('leaves nothing of pairs that nobody uses but how old the store is', async () => {
  const world = await create()
  const store = world.open()
  await store.addOutbound(outboundPair({ ttlMs: 40 }))
  await store.addInbound(inboundPair(), 40)
  await world.gone('pair:')
  await world.gone('peer:')
  const left = await world.keys()
  assert.deepEqual(
    left.map((key) => key.replace(/\{.*\}/, 'TAG')),
    ['mte:i:TAG:peers', 'mte:r:TAG:fresh', 'mte:r:TAG:used'],
  )
})

test('keeps fleets with other secrets, and services with other names, apart', async () => {
  const world = await create()
  const other = 'another secret, of more than 32 characters'
  const strangers = await Promise.all([
    meshSecret(other, 'payments'),
    meshSecret('correct horse battery staple 0123456789', 'shipping'),
  ])
  const own = world.open()
  const pair = inboundPair()
  await own.addOutbound(outboundPair())
  await own.addInbound(pair, HOUR_MS)
  assert.equal(await own.claim(await found(own, pair), 0, 0), 'new')
  const hash = random(32)
  assert.ok(await own.firstSight(hash))
  const before = await world.keys()
  for (const stranger of strangers) {
    const store = world.open([stranger])
    assert.equal(await store.lease(PEER), undefined)
    assert.equal(await store.findInbound(pair.id, 0), undefined)
    assert.deepEqual(await store.list(), [])
    assert.equal(await store.dropPeer(PEER), 0)
    assert.equal(await store.dropPeer('orders'), 0)
    assert.ok(await store.firstSight(hash))
  }
  const after = await world.keys()
  for (const key of before) assert.ok(after.includes(key), key)
  assert.equal((await own.list()).length, 2)
  assert.ok(await own.lease(PEER))
})

test('shares the pairs made under the secret before, in both roles', async () => {
  const world = await create()
  const before = await meshSecret('the secret before, of more than 32 characters', 'payments')
  const old = world.open([before])
  await old.addOutbound(outboundPair({ mesh: before }))
  const pair = inboundPair('orders', { mesh: before })
  await old.addInbound(pair, HOUR_MS)
  const both = world.open([mesh, before])
  assert.equal((await both.lease(PEER))?.block, 0)
  assert.equal((await old.lease(PEER))?.block, 1)
  assert.equal(await both.claim(await found(both, pair), 0, 0), 'new')
  assert.equal(await old.claim(await found(old, pair), 0, 0), 'replayed')
  assert.equal((await both.list()).length, 2)
  await both.addOutbound(outboundPair())
  assert.equal((await both.lease(PEER))?.block, 0)
  assert.equal(await both.dropPeer(PEER), 2)
  assert.equal(await both.dropPeer('orders'), 1)
  assert.deepEqual(await both.list(), [])
})

test('knows nothing of a pair that was made on another primary', async () => {
  const world = await create()
  const [store, another] = [world.open(), world.open()]
  await store.addOutbound(outboundPair())
  const pair = await usedPair(world, store)
  assert.equal(await another.claim(await found(another, pair), 0, 8), 'new')
  // What a replica does that is promoted.
  await world.redis.call('DEBUG', 'CHANGE-REPL-ID')
  assert.equal(await store.lease(PEER), undefined)
  for (const each of [store, another]) await isForgotten(each, pair)
  const fresh = inboundPair()
  await store.addInbound(fresh, HOUR_MS)
  assert.equal(await another.claim(await found(another, fresh), 0, 7), 'new')
})

test('is new when everything was flushed', async () => {
  const world = await create()
  const store = world.open()
  await store.addOutbound(outboundPair())
  const pair = await usedPair(world, store)
  await world.redis.flushall()
  assert.equal(await store.lease(PEER), undefined)
  await isForgotten(store, pair)
})

test('does not vouch for a pair of which it had forgotten that it was used', async () => {
  const world = await create()
  const store = world.open()
  const pair = await usedPair(world, store)
  await world.redis.del(await keyOf(world, ':used'))
  await store.ageMs(random(24))
  await world.advance(HOUR_MS / 2)
  assert.equal(await store.claim(await found(store, pair, 1), 1, 0), 'new')
  await world.redis.del(await keyOf(world, 'pair:'))
  assert.equal(await store.claim(pair, 1, 0), 'gone')
  assert.ok((await store.ageMs(pair.id)) < HOUR_MS / 2)
})

test('makes room for a pair among 10,000 that are used: the one that ends the soonest goes', async () => {
  const world = await create()
  const store = world.open()
  const soonest = await usedPair(world, store)
  const used = await keyOf(world, ':used')
  const later = Number(await world.redis.zscore(used, soonest.id.toString('hex'))) + 1
  await world.redis.zadd(used, ...Array.from({ length: 9999 }, (_, i) => [later, `other-${i}`]).flat())
  const pair = inboundPair()
  await store.addInbound(pair, HOUR_MS)
  assert.equal(await store.findInbound(soonest.id, 0), undefined)
  assert.equal(await store.claim(await found(store, pair), 0, 0), 'new')
})

test('does not vouch for what somebody else has removed', async () => {
  const world = await create()
  const store = world.open()
  const pair = await usedPair(world, store)
  await world.redis.del(await keyOf(world, 'pair:'))
  await isForgotten(store, pair)
})

test('runs nothing of a block whose marks somebody else has removed', async () => {
  const world = await create()
  const store = world.open()
  const pair = await usedPair(world, store)
  await world.redis.del(await keyOf(world, 'marks:'))
  assert.equal(await store.claim(await found(store, pair), 0, 7), 'out-of-reach')
  assert.equal(await store.claim(await found(store, pair), 0, 8), 'out-of-reach')
  assert.equal(await store.claim(await found(store, pair), 1, 8), 'new')
})

test('takes a pair for gone, and says so, when its record holds anything else', async () => {
  const values: ((world: RedisWorld, key: string) => Promise<unknown>)[] = [
    ({ redis }, key) => redis.set(key, 'something else'),
    ({ redis }, key) => redis.lpush(key, 'something else'),
    ({ redis }, key) => redis.hset(key, { ends: 'x' }),
  ]
  for (const put of values) {
    for (const knows of [true, false]) {
      const world = await create()
      const store = world.open()
      const pair = await usedPair(world, store)
      const key = await keyOf(world, 'pair:')
      if (put !== values[2]) await world.redis.del(key)
      await put(world, key)
      await isForgotten(knows ? store : world.open(), pair)
      assert.match(world.lines.at(-1)?.message ?? '', /changed by somebody else/)
    }
  }
})

test('runs nothing twice, and fails with what to do, when other keys hold anything else', async () => {
  for (const part of ['marks:', 'used', 'fresh']) {
    const world = await create()
    const store = world.open()
    const pair = await usedPair(world, store)
    const key = await keyOf(world, part)
    await world.redis.set(key ?? (await keyOf(world, 'used')).replace('used', part), 'something else')
    await world.redis.pexpire(await keyOf(world, part), HOUR_MS)
    try {
      assert.notEqual(await store.claim(pair, 0, 7), 'new')
    } catch (error) {
      assert.match((error as Error).message, /WRONGTYPE.*delete those keys/s)
    }
  }
})

test('drops a pair of which the wrapped key was changed, and says so', async () => {
  const world = await create()
  const store = world.open()
  const pair = await usedPair(world, store)
  await world.redis.hset(await keyOf(world, 'pair:'), 'key', random(64).toString('base64'))
  const another = world.open()
  assert.equal(await another.findInbound(pair.id, 0), undefined)
  await isForgotten(another, pair)
  await store.addOutbound(outboundPair())
  const outbound = await keyOf(world, 'peer:')
  const [id, record] = Object.entries(await world.redis.hgetall(outbound))[0]!
  for (const key of [random(64).toString('base64'), 'AAAA', '', 7]) {
    await world.redis.hset(outbound, id, JSON.stringify({ ...JSON.parse(record), key }))
    assert.equal(await store.lease(PEER), undefined)
  }
  const said = world.lines.filter(({ level, message }) => level === 'error' && message.includes('is dropped'))
  assert.equal(said.length, 4)
})

test('survives anything in the record of a pair that it made', () =>
  fc.assert(
    fc.asyncProperty(fc.oneof(fc.json(), fc.string()), async (record) => {
      const world = await create()
      const store = world.open()
      await store.addOutbound(outboundPair())
      const key = await keyOf(world, 'peer:')
      await world.redis.hset(key, random(24).toString('hex'), record)
      assert.equal((await store.lease(PEER))?.block, 0)
      assert.equal((await store.list()).length, 1)
    }),
    runs(10),
  ))

test('raises the chain key in Redis when blocks have died, though no message comes', async () => {
  const world = await create()
  const store = world.open()
  const pair = await usedPair(world, store)
  assert.equal(await store.claim(await found(store, pair), 2, 0), 'new')
  const key = await keyOf(world, 'pair:')
  await world.advance(119_000)
  store.sweep()
  await store.list()
  assert.equal(await world.redis.hget(key, 'base'), '0')
  await world.advance(1000)
  store.sweep()
  await store.list()
  assert.equal(await world.redis.hget(key, 'base'), '3')
  const there = await found(world.open(), pair, 3)
  const here = await found(store, pair, 3)
  assert.ok(there.keys(3, 0, 0).request.equals(here.keys(3, 0, world.clockMs()).request))
})

test('leases on from the chain key that is there, however far behind it is', async () => {
  const world = await create()
  const store = world.open()
  await store.addOutbound(outboundPair())
  const key = await keyOf(world, 'peer:')
  const [id] = Object.keys(await world.redis.hgetall(key))
  const before = JSON.parse((await world.redis.hget(key, id!))!)
  const spent = { pairId: Buffer.from(id!, 'hex'), messages: 0 }
  const first = (await store.lease(PEER))!
  const second = (await store.lease(PEER, spent))!
  const after = JSON.parse((await world.redis.hget(key, id!))!)
  assert.ok(after.base > 0)
  // As if no key but the first had been kept.
  await world.redis.hset(key, id!, JSON.stringify({ ...before, open: 2 }))
  for (const { block, keys } of [first, second]) {
    const again = (await store.lease(PEER, spent))!
    assert.equal(again.block, block)
    assert.ok(again.keys.keys(5).request.equals(keys.keys(5).request))
  }
})

test('claims all messages of one turn with one command', async () => {
  const world = await create()
  const store = world.open()
  const pair = inboundPair()
  await store.addInbound(pair, HOUR_MS)
  const known = await found(store, pair)
  await store.claim(known, 0, 1000)
  const calls = async () => {
    const stats = await world.redis.info('commandstats')
    return Number(/cmdstat_evalsha:calls=([0-9]+)/.exec(stats)![1])
  }
  const before = await calls()
  const claims = await Promise.all(Array.from({ length: 100 }, (_, index) => store.claim(known, 0, index)))
  assert.ok(claims.every((claim) => claim === 'new'))
  assert.equal((await calls()) - before, 1)
})

test('keeps the pairs with 1,000 peers, those that were made last', async () => {
  const world = await create()
  const store = world.open()
  for (let i = 0; i < 1000; i++) {
    await store.addOutbound(outboundPair({ peer: `http://peer-${i}:8080` }))
    if (i < 2) await world.advance(10)
  }
  await world.advance(10)
  await store.addOutbound(outboundPair({ peer: 'http://peer-0:8080' }))
  await store.addOutbound(outboundPair({ peer: 'http://peer-1000:8080' }))
  assert.ok(await store.lease('http://peer-0:8080'))
  assert.equal(await store.lease('http://peer-1:8080'), undefined)
  assert.ok(await store.lease('http://peer-2:8080'))
  assert.ok(await store.lease('http://peer-1000:8080'))
})

test.run()
