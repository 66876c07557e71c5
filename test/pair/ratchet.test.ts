import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import {
  BlockKeys,
  firstChainKey,
  INDICES_PER_BLOCK,
  nextBlock,
  unwrapChainKey,
  type WrappedFor,
  wrapChainKey,
} from '../../sidecar/pair/ratchet.ts'
import { suite } from '../support/suite.ts'
import { flipped, hex, identity, relay1, sameBytes } from './vectors.ts'

const test = suite('pair/ratchet')

function bytesOf({ request, response }: ReturnType<BlockKeys['keys']>): string {
  return Buffer.concat([request.export(), response.export()]).toString('hex')
}

test('steps through the chain that the vectors say', () => {
  let chainKey = firstChainKey(hex(relay1.pairing.pair_secret))
  for (const [block, blockSecret] of relay1.block_secrets.entries()) {
    assert.equal(chainKey.toString('hex'), relay1.chain_keys[block])
    const next = nextBlock(chainKey, block)
    assert.equal(next.blockSecret.toString('hex'), blockSecret)
    chainKey = next.nextChainKey
  }
  assert.equal(chainKey.toString('hex'), relay1.chain_keys.at(-1))
})

test('erases the secret of the pair once the chain has begun', () => {
  const secret = hex(relay1.pairing.pair_secret)
  firstChainKey(secret)
  sameBytes(secret, Buffer.alloc(32))
})

test('derives the keys that the vectors say', () => {
  for (const { block, index, req_key, res_key } of relay1.messages) {
    const keys = new BlockKeys(hex(relay1.block_secrets[block]!))
    assert.equal(bytesOf(keys.keys(index)), req_key + res_key)
  }
})

test('gives each index keys of its own, the same whenever they are asked for', () => {
  const keys = new BlockKeys(randomBytes(32))
  const indices = [...Array(700).keys(), INDICES_PER_BLOCK - 1]
  const first = indices.map((index) => bytesOf(keys.keys(index)))
  const halves = first.flatMap((both) => [both.slice(0, 64), both.slice(64)])
  assert.equal(new Set(halves).size, 2 * indices.length)
  for (const i of [...indices.keys()].reverse()) assert.equal(bytesOf(keys.keys(indices[i]!)), first[i])
})

test('gives no keys once they are erased', () => {
  const secret = randomBytes(32)
  const keys = new BlockKeys(secret)
  keys.keys(0)
  keys.erase()
  sameBytes(secret, Buffer.alloc(32))
  assert.throws(() => keys.keys(0), /erased/)
  assert.throws(() => keys.keys(64), /erased/)
})

test('forgets the keys of one message where they are held, and derives the same ones for who asks again', () => {
  const keys = new BlockKeys(randomBytes(32))
  const before = [0, 5, 63, 64].map((index) => bytesOf(keys.keys(index)))
  const given = keys.keys(5)
  keys.forget(5)
  keys.forget(5)
  keys.forget(INDICES_PER_BLOCK - 1)
  assert.equal(bytesOf(given), before[1])
  assert.deepEqual(
    [0, 5, 63, 64].map((index) => bytesOf(keys.keys(index))),
    before,
  )
})

const pairId = hex(relay1.pairing.pair_id)
const { stateKey } = (await identity('payments')).secrets[0]!

test('wraps chain keys as the vectors say, and unwraps them', () => {
  for (const { role, block, rand, record } of relay1.wrapped) {
    const wrappedFor: WrappedFor = { role: role === 1 ? 'initiator' : 'responder', pairId, block }
    const chainKey = hex(relay1.chain_keys[block]!)
    assert.equal(wrapChainKey(stateKey, chainKey, wrappedFor, hex(rand)).toString('hex'), record)
    sameBytes(unwrapChainKey(stateKey, hex(record), wrappedFor), chainKey)
  }
  assert.equal(relay1.wrapped.length, 2)
})

test('unwraps nothing for another block, pair, role or relay, and nothing that was changed', async () => {
  const wrappedFor: WrappedFor = { role: 'initiator', pairId, block: 3 }
  const record = wrapChainKey(stateKey, randomBytes(32), wrappedFor, randomBytes(16))
  assert.ok(unwrapChainKey(stateKey, record, wrappedFor))
  for (const other of [{ block: 2 }, { role: 'responder' }, { pairId: flipped(pairId, 0) }] as const) {
    assert.equal(unwrapChainKey(stateKey, record, { ...wrappedFor, ...other }), undefined)
  }
  const orders = (await identity('orders')).secrets[0]!
  assert.equal(unwrapChainKey(orders.stateKey, record, wrappedFor), undefined)
  for (let bit = 0; bit < 8 * record.length; bit++) {
    assert.equal(unwrapChainKey(stateKey, flipped(record, bit), wrappedFor), undefined)
  }
  for (let length = 0; length < record.length; length++) {
    assert.equal(unwrapChainKey(stateKey, record.subarray(0, length), wrappedFor), undefined)
  }
})

test.run()
