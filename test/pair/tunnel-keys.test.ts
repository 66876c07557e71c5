import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { HEADER_BYTES, parseHeader, sealRequest } from '../../sidecar/pair/message.ts'
import { BlockKeys, firstChainKey, nextBlock } from '../../sidecar/pair/ratchet.ts'
import { Reject } from '../../sidecar/pair/reject.ts'
import {
  ANSWER_BYTES,
  checkOpening,
  isTunnelAnswer,
  OPENING_BYTES,
  parseOpening,
  sealOpening,
  tunnelAnswer,
  tunnelSecrets,
} from '../../sidecar/pair/tunnel-keys.ts'
import { suite } from '../support/suite.ts'
import { opener, tunnel } from './tunnel-vectors.ts'
import { flipped, hex, sameBytes } from './vectors.ts'

const test = suite('pair/tunnel-keys')

const RANDOM = hex(tunnel.H).subarray(HEADER_BYTES - 12)
const opening = hex(tunnel.open)
const answer = hex(tunnel.answer)

const both = ({ outbound, inbound }: ReturnType<typeof tunnelSecrets>) =>
  Buffer.concat([outbound, inbound]).toString('hex')

test('takes the keys of the index of the vectors from the chain of their pair', () => {
  let chainKey = firstChainKey(hex(tunnel.pair_secret))
  for (let block = 0; block < tunnel.block; block++) chainKey = nextBlock(chainKey, block).nextChainKey
  const { request, response } = new BlockKeys(nextBlock(chainKey, tunnel.block).blockSecret).keys(
    tunnel.index,
  )
  assert.equal(request.export().toString('hex'), tunnel.req_key)
  assert.equal(response.export().toString('hex'), tunnel.res_key)
})

test('opens, answers and derives as the vectors say', () => {
  const sealed = sealOpening(opener, RANDOM)
  assert.equal(sealed.length, OPENING_BYTES)
  assert.equal(sealed.subarray(0, HEADER_BYTES).toString('hex'), tunnel.H)
  assert.equal(sealed.toString('hex'), tunnel.open)
  assert.equal(tunnelAnswer(hex(tunnel.salt)).toString('hex'), tunnel.answer)
  assert.equal(answer.length, ANSWER_BYTES)
  assert.equal(hash('sha256', Buffer.concat([opening, answer]), 'hex'), tunnel.transcript_hash)
  assert.equal(both(tunnelSecrets(opener, opening, answer)), tunnel.out_0 + tunnel.in_0)
})

test('reads an opening back', () => {
  const { pairId, block, index, iv } = parseOpening(opening)
  sameBytes(pairId, opener.pairId)
  assert.deepEqual([block, index], [tunnel.block, tunnel.index])
  sameBytes(iv, RANDOM)
  checkOpening(opener, opening)
})

test('refuses an opening with any bit turned over, and takes no other pair, block or index for its own', () => {
  for (let bit = 0; bit < 8 * opening.length; bit++) {
    const changed = flipped(opening, bit)
    const refused = bit < 8 ? 'unsupported' : bit < 16 ? 'malformed' : 'decrypt_failed'
    assert.throws(
      () => {
        parseOpening(changed)
        checkOpening(opener, changed)
      },
      new Reject(refused),
      `bit ${bit}`,
    )
  }
})

test('refuses an opening that is cut short or goes on', () => {
  for (let length = 0; length < opening.length; length++)
    assert.throws(() => parseOpening(opening.subarray(0, length)), new Reject('malformed'))
  assert.throws(() => parseOpening(Buffer.concat([opening, Buffer.of(0)])), new Reject('malformed'))
})

test('takes a message for no opening, nor an opening for a message', () => {
  const { header } = sealRequest(opener, RANDOM)
  assert.throws(
    () => parseOpening(Buffer.concat([header, opening.subarray(HEADER_BYTES)])),
    new Reject('malformed'),
  )
  assert.throws(() => parseHeader(opening.subarray(0, HEADER_BYTES)), new Reject('malformed'))
})

test('refuses an opening that was made with the other key of its index', () => {
  const { requestKey: responseKey, responseKey: requestKey } = opener
  const swapped = sealOpening({ ...opener, requestKey, responseKey }, RANDOM)
  assert.throws(() => checkOpening(opener, swapped), new Reject('decrypt_failed'))
})

test('knows an answer by its version, its kind and its length', () => {
  assert.ok(isTunnelAnswer(answer))
  for (let bit = 0; bit < 16; bit++) assert.ok(!isTunnelAnswer(flipped(answer, bit)), `bit ${bit}`)
  for (let length = 0; length < answer.length; length++)
    assert.ok(!isTunnelAnswer(answer.subarray(0, length)), `${length} bytes`)
  assert.ok(!isTunnelAnswer(Buffer.concat([answer, Buffer.of(0)])))
})

test('gives other secrets for any bit that is another in the opening or in the answer, and to each direction', () => {
  const all = new Set<string>()
  const add = (secrets: ReturnType<typeof tunnelSecrets>) =>
    all.add(secrets.outbound.toString('hex')).add(secrets.inbound.toString('hex'))
  add(tunnelSecrets(opener, opening, answer))
  for (let bit = 0; bit < 8 * opening.length; bit++) add(tunnelSecrets(opener, flipped(opening, bit), answer))
  for (let bit = 0; bit < 8 * answer.length; bit++) add(tunnelSecrets(opener, opening, flipped(answer, bit)))
  assert.equal(all.size, 2 * (1 + 8 * (OPENING_BYTES + ANSWER_BYTES)))
})

test.run()
