/** Pairs as tunnels use them: an opening takes an index like a message. */
import assert from 'node:assert/strict'
import { HEADER_BYTES } from '../../sidecar/pair/message.ts'
import { Reject } from '../../sidecar/pair/reject.ts'
import {
  checkOpening,
  parseOpening,
  sealOpening,
  tunnelAnswer,
  tunnelSecrets,
} from '../../sidecar/pair/tunnel-keys.ts'
import { suite } from '../support/suite.ts'
import { rejection } from './fakes.ts'
import { flipped, identity, sameBytes } from './vectors.ts'
import { NEW, OLD, orders, payments, place, random, World } from './world.ts'

const test = suite('pair/pairs: tunnels')

const opened = async (world: World) => {
  const message = await world.begin()
  return { message, opening: sealOpening(message, random(12)) }
}

/** What a responder does with an opening before it answers. */
async function taken({ responder }: World, opening: Buffer) {
  const received = await responder.accept(parseOpening(opening))
  checkOpening(received, opening)
  await received.claim()
  return received
}

test('both ends of an opening have the same secrets, and know the pair that it is of', async () => {
  const world = new World()
  const { message, opening } = await opened(world)
  const received = await taken(world, opening)
  const answer = tunnelAnswer(random(32))
  const ours = tunnelSecrets(message, opening, answer)
  const theirs = tunnelSecrets(received, opening, answer)
  sameBytes(ours.outbound, theirs.outbound)
  sameBytes(ours.inbound, theirs.inbound)
  assert.deepEqual([message.peer, received.peer], ['payments', 'orders'])
  assert.equal(message.mesh, orders.secrets[0])
  assert.equal(received.mesh, payments.secrets[0])
})

test('an opening is taken once, and its index for nothing else', async () => {
  const world = new World()
  const { message, opening } = await opened(world)
  await taken(world, opening)
  assert.equal(await rejection(() => taken(world, opening)), 'replayed')
  assert.equal(await rejection(() => taken(world, sealOpening(message, random(12)))), 'replayed')
  assert.equal(await rejection(() => world.run(message)), 'replayed')
  const next = await world.begin()
  assert.notEqual(place(next), place(message))
  await world.run(next)
  assert.equal(await rejection(() => taken(world, sealOpening(next, random(12)))), 'replayed')
})

test('an opening that is not authentic spends nothing', async () => {
  const world = new World()
  const { opening } = await opened(world)
  const forged = flipped(opening, 8 * opening.length - 1)
  assert.equal(await rejection(() => taken(world, forged)), 'decrypt_failed')
  await taken(world, opening)
})

test('keys that are forgotten leave those of other messages, at both ends', async () => {
  const world = new World()
  const { message, opening } = await opened(world)
  const earlier = await world.begin()
  const received = await taken(world, opening)
  const answer = tunnelAnswer(random(32))
  const before = tunnelSecrets(received, opening, answer)
  message.forgetKeys()
  received.forgetKeys()
  for (const keys of [message, received])
    sameBytes(tunnelSecrets(keys, opening, answer).outbound, before.outbound)
  await world.run(earlier)
  await world.run(await world.begin())
  assert.equal(await rejection(() => taken(world, opening)), 'replayed')
})

test('a reject of an opening is believed when it is of that opening', async () => {
  const world = new World()
  const { opening } = await opened(world)
  const other = await opened(world)
  for (const code of ['replayed', 'rate_limited', 'state_lost'] as const) {
    const { body } = await world.responder.rejectRecord(new Reject(code), opening, 'message')
    const read = (sent: Buffer) => world.initiator.readReject(body, sent, 'message')
    assert.deepEqual([read(opening)?.name, read(opening)?.authentic], [code, true])
    assert.equal(read(opening.subarray(0, HEADER_BYTES))?.authentic, true)
    assert.equal(read(other.opening)?.authentic, false)
  }
})

test('a tunnel can tell whether the secret of its pair still counts', async () => {
  const initiator = await identity('orders', OLD, NEW)
  const responder = await identity('payments', OLD, NEW)
  const world = new World({ initiator, responder })
  const { message, opening } = await opened(world)
  const received = await taken(world, opening)
  const listed = () => [world.initiator.isListed(message.mesh), world.responder.isListed(received.mesh)]
  assert.deepEqual(listed(), [true, true])
  world.initiator.setSecrets(initiator.secrets.toReversed())
  world.responder.setSecrets(responder.secrets.toReversed())
  assert.deepEqual(listed(), [true, true])
  world.initiator.setSecrets(initiator.secrets.slice(1))
  assert.deepEqual(listed(), [false, true])
  world.responder.setSecrets(responder.secrets.slice(1))
  assert.deepEqual(listed(), [false, false])
  const next = await opened(world)
  const taking = await taken(world, next.opening)
  assert.ok(world.initiator.isListed(next.message.mesh) && world.responder.isListed(taking.mesh))
})

test('an opening of a pair whose secret has gone is rejected', async () => {
  const responder = await identity('payments', OLD, NEW)
  const world = new World({ initiator: await identity('orders', OLD, NEW), responder })
  const { opening } = await opened(world)
  const received = await world.responder.accept(parseOpening(opening))
  world.responder.setSecrets(responder.secrets.slice(1))
  assert.equal(await rejection(() => received.claim()), 'state_lost')
  assert.equal(await rejection(() => taken(world, opening)), 'unknown_pair')
})

test.run()
