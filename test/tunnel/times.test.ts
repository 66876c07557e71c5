/** What the clock does to a tunnel: silence, age, late answers, replacement. */
import assert from 'node:assert/strict'
import { SendError } from '../../sidecar/http/send-error.ts'
import { CallLostError } from '../../sidecar/tunnel/initiator.ts'
import { FedBody, requestOf } from '../support/sending.ts'
import { request, response } from '../support/tunnel-end.ts'
import { isDead, RESPONSE_TIMEOUT_MS, worldSuite } from './world.ts'

const test = worldSuite('tunnel: times')

test('an initiator without calls closes after 20 s of silence, and not before', (world) => {
  const { tunnel, events } = world.initiator()
  world.later(20_000)
  assert.equal(tunnel.isOver, false)
  world.later(1)
  assert.equal(tunnel.isOver, true)
  assert.deepEqual(events, ['ready', 'closed'])
})

test('a responder without calls ends after 30 s of silence, and not before', (world) => {
  const { tunnel } = world.responder()
  world.later(30_000)
  assert.equal(tunnel.isOver, false)
  world.later(1)
  assert.equal(tunnel.isOver, true)
})

test('a responder gives the first record 5 s', (world) => {
  const { tunnel } = world.responder({ ready: false })
  world.later(5_000)
  assert.equal(tunnel.isOver, false)
  world.later(1)
  assert.equal(tunnel.isOver, true)
})

test('bytes that make no record are silence', (world) => {
  const { tunnel, end } = world.responder()
  const record = end.sealed(request(1))
  for (let i = 0; i < 30; i++) {
    tunnel.take(record.subarray(i, i + 1))
    world.later(1_001)
  }
  assert.equal(tunnel.isOver, true)
})

for (const who of ['initiator', 'responder'] as const)
  test(`with calls open the ${who} asks after 10 s of silence, and gives up after 30`, async (world) => {
    const side = who === 'initiator' ? world.initiator() : world.responder()
    if ('call' in side) side.call(requestOf({ method: 'POST' }, new FedBody()))
    else side.end.send(request(1))
    await side.end.settled()
    world.later(10_000)
    assert.ok(!(await side.end.settled()).some(({ type }) => type === 'ping'))
    world.later(10_001)
    await side.end.until('ping')
    world.later(19_999)
    assert.equal(side.tunnel.isOver, false)
    world.later(1)
    isDead(side, await side.end.end(), /not heard any more/)
  })

test('a word in time keeps it, and it asks again after the next silence', async (world) => {
  const { end, tunnel, handled } = world.responder()
  end.send(request(1))
  for (let i = 0; i < 4; i++) {
    world.later(10_001)
    await end.until('ping')
    world.later(15_000)
    end.send({ type: 'pong', payload: '\0\0\0\0ping' })
  }
  assert.equal(tunnel.isOver, false)
  assert.equal(handled[0]!.gone, undefined)
})

test('an answer that is late is reset and told as a time-out; interim responses put it off', async (world) => {
  const { end, call } = world.initiator()
  const { failure, caller } = call()
  await end.settled()
  world.later(1)
  world.later(RESPONSE_TIMEOUT_MS - 1)
  end.send({ type: 'info', call: 1, head: { status: 102, fields: [] } })
  assert.equal(caller.informed.length, 1)
  world.later(RESPONSE_TIMEOUT_MS - 1)
  assert.ok(!(await end.settled()).some(({ type }) => type === 'reset'))
  world.later(RESPONSE_TIMEOUT_MS)
  assert.deepEqual((await end.until('reset')).pop(), { type: 'reset', call: 1, code: 3 })
  const error = await failure
  assert.ok(error instanceof SendError && error.failure === 'response-timeout')
})

test('an answer is not late while its request is being sent, nor once it has begun', async (world) => {
  const { end, call } = world.initiator()
  const sending = call(requestOf({ method: 'POST' }, new FedBody()))
  const begun = call()
  await end.settled()
  end.send(response(2, { end: false }))
  await begun.answer
  for (let i = 0; i < 5; i++) {
    world.later(RESPONSE_TIMEOUT_MS)
    await end.settled()
  }
  assert.ok(!(await end.settled()).some(({ type }) => type === 'reset'))
  sending.caller.go()
})

test('a tunnel is retired between 90 and 150 s, and over when its last call is', async (world) => {
  const { end, tunnel, call, events } = world.initiator()
  for (let s = 0; s < 89; s++) {
    world.later(1_000)
    await end.settled()
  }
  assert.equal(tunnel.hasRoom, true)
  const { caller } = call(requestOf({ method: 'POST' }, new FedBody()))
  for (let s = 0; s < 62 && tunnel.hasRoom; s++) {
    await end.settled()
    world.later(1_000)
  }
  assert.equal(tunnel.hasRoom, false)
  assert.deepEqual(events, ['ready', 'retired'])
  caller.go()
  assert.deepEqual(events, ['ready', 'retired', 'closed'])
})

test('a responder begins no call after 180 s; those that it has go on', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1))
  for (let s = 0; s < 18; s++) {
    world.later(10_000)
    await end.settled()
  }
  end.send(request(2))
  assert.equal(handled.length, 2)
  world.later(1)
  end.send(request(3, { method: 'POST', end: false }))
  assert.deepEqual((await end.until('reset')).pop(), { type: 'reset', call: 3, code: 4 })
  assert.equal(handled.length, 2)
  handled[0]!.answer()
  assert.deepEqual((await end.until('response')).pop(), response(1))
})

test('a secret that does not count any more: no new call, at either end', async (world) => {
  const responder = world.responder()
  responder.end.send(request(1))
  responder.wanted = false
  const initiator = world.initiator()
  const { answer } = initiator.call()
  initiator.wanted = false
  world.later(250)
  assert.deepEqual((await responder.end.until('goaway')).pop(), { type: 'goaway', highest: 1 })
  assert.equal(initiator.tunnel.hasRoom, false)
  initiator.end.send(response(1))
  await answer
  assert.deepEqual(initiator.events, ['ready', 'retired', 'closed'])
})

test('a tunnel that is not heard loses its calls: it is not known whether they ran', async (world) => {
  const { call, events } = world.initiator()
  const { failure } = call(requestOf({ method: 'POST' }, new FedBody()))
  world.later(10_001)
  world.later(20_000)
  const error = await failure
  assert.ok(error instanceof CallLostError && !error.refused)
  assert.equal(events.at(-1), 'broke')
})

test('a responder that is to end ends although its other end takes nothing', async (world) => {
  const { tunnel, stop, end, events } = world.responder()
  await end.settled()
  stop()
  tunnel.retire()
  await new Promise(setImmediate)
  tunnel.retire()
  world.later(30_001)
  assert.equal(tunnel.isOver, true)
  assert.deepEqual(events, ['closed'])
})

test.run()
