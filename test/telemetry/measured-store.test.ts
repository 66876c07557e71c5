import assert from 'node:assert/strict'
import { MemoryStore } from '../../sidecar/pair/memory-store.ts'
import { type PairStore, StoreUnavailableError } from '../../sidecar/pair/store.ts'
import { measuredStore } from '../../sidecar/telemetry/measured-store.ts'
import { suite } from '../support/suite.ts'

const test = suite('measured store')

type Stored = [operation: string, seconds: number, failed: boolean]

function measured(store: PairStore): { store: PairStore; stored: Stored[] } {
  const stored: Stored[] = []
  return { store: measuredStore(store, { stored: (...one) => stored.push(one) }), stored }
}

/** The names of all that a store can do. */
function verbsOf(store: object): string[] {
  const own = Object.getPrototypeOf(store) === Object.prototype ? store : Object.getPrototypeOf(store)
  // These two are for whoever keeps pairs for other processes.
  const others = ['leaseBlock', 'inbound']
  return Object.getOwnPropertyNames(own)
    .filter((name) => name !== 'constructor' && !others.includes(name))
    .toSorted()
}

test('it can do all that the store can', () => {
  const plain = new MemoryStore(() => performance.now())
  assert.deepEqual(verbsOf(measured(plain).store), verbsOf(plain))
})

test('what the store answers is given on, and told with how long it took', async () => {
  const { store, stored } = measured(new MemoryStore(() => performance.now()))
  assert.deepEqual(await store.list(), [])
  assert.equal(await store.dropPeer('http://billing:8080'), 0)
  assert.deepEqual(
    stored.map(([operation, , failed]) => [operation, failed]),
    [
      ['list', false],
      ['dropPeer', false],
    ],
  )
  for (const [, seconds] of stored) assert.ok(seconds >= 0 && seconds < 5)
})

test('what the store is given reaches it, and what it throws is thrown on and told as a failure', async () => {
  const away = new StoreUnavailableError('planted')
  const given: unknown[] = []
  const plain = new MemoryStore(() => performance.now())
  plain.lease = async (...args) => {
    given.push(...args)
    throw away
  }
  const { store, stored } = measured(plain)
  await assert.rejects(store.lease('http://billing:8080'), (error) => error === away)
  assert.deepEqual(given, ['http://billing:8080'])
  assert.deepEqual(
    stored.map(([operation, , failed]) => [operation, failed]),
    [['lease', true]],
  )
})

test('what waits for nobody is not measured', async () => {
  const { store, stored } = measured(new MemoryStore(() => performance.now()))
  assert.equal(store.trouble(), undefined)
  store.sweep()
  await store.close()
  assert.deepEqual(stored, [])
})

test.run()
