import assert from 'node:assert/strict'
import { MemoryStore } from '../../sidecar/pair/memory-store.ts'
import { ReceivingPair } from '../../sidecar/pair/receiving.ts'
import { suite } from '../support/suite.ts'
import { FakeClock } from './fakes.ts'
import { storeContract } from './store-contract.ts'
import { identity } from './vectors.ts'

const test = suite('pair/memory-store')
const { secrets } = await identity('payments')
const mesh = secrets[0]!

storeContract(test, async () => {
  const clock = new FakeClock()
  const store = new MemoryStore(clock.now)
  store.setSecrets(secrets)
  return { open: () => store, advance: async (ms) => clock.advance(ms) }
})

test('keeps the pairs with 1,000 peers, those that were made last', async () => {
  const clock = new FakeClock()
  const store = new MemoryStore(clock.now)
  const chainKeys = Array.from({ length: 1001 }, (_, i) => Buffer.alloc(32, 1 + (i % 255)))
  const add = (i: number) =>
    store.addOutbound({
      id: Buffer.alloc(24, i),
      peer: `http://peer-${i}:8080`,
      name: `peer-${i}`,
      mesh,
      chainKey: chainKeys[i]!,
      chunkBytesMax: 65_536,
      leaseMs: 60_000,
      ttlMs: 3_600_000,
    })
  for (let i = 0; i < 1000; i++) await add(i)
  await store.lease('http://peer-0:8080')
  await store.addOutbound({
    id: Buffer.alloc(24, 0xff),
    peer: 'http://peer-0:8080',
    name: 'peer-0',
    mesh,
    chainKey: Buffer.alloc(32, 7),
    chunkBytesMax: 65_536,
    leaseMs: 60_000,
    ttlMs: 3_600_000,
  })
  await add(1000)
  assert.ok(await store.lease('http://peer-0:8080'))
  assert.equal(await store.lease('http://peer-1:8080'), undefined)
  assert.ok(chainKeys[1]!.every((byte) => byte === 0))
  assert.ok(await store.lease('http://peer-2:8080'))
})

test('erases the keys of blocks that have died, though no message comes', async () => {
  const clock = new FakeClock()
  const store = new MemoryStore(clock.now)
  const chainKey = Buffer.alloc(32, 7)
  const id = Buffer.alloc(24)
  const pair = new ReceivingPair({ id, peer: 'orders', mesh, chunkBytesMax: 65_536, chainKey })
  await store.addInbound(pair, 3_600_000)
  assert.equal(await store.claim(pair, 0, 0), 'new')
  clock.advance(119_999)
  store.sweep()
  assert.ok(chainKey.every((byte) => byte === 7))
  clock.advance(1)
  store.sweep()
  assert.ok(chainKey.every((byte) => byte === 0))
})

test.run()
