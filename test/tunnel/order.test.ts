/** Numbers and order of frames: READY, calls, what comes for calls that are over, GOAWAY. */
import assert from 'node:assert/strict'
import { CallLostError } from '../../sidecar/tunnel/initiator.ts'
import type { Frame } from '../pair/tunnel-frames.ts'
import { FedBody, requestOf } from '../support/sending.ts'
import { data, READY, request, response } from '../support/tunnel-end.ts'
import { isDead, worldSuite } from './world.ts'

const test = worldSuite('tunnel: order of frames')

/** A head that cannot be read, and DATA: who ignores frames does not look into them. */
const UNREADABLE_INFO = Buffer.from('02000000010000050064ffff00', 'hex')

const PAD = Buffer.from('1f00000000000000', 'hex')

test('READY is the first frame, whatever comes in its record behind it', async (world) => {
  const { end, handled } = world.responder({ ready: false })
  end.send(READY, PAD, request(1))
  assert.equal(handled.length, 1)
  handled[0]!.answer()
  const [first] = await end.until('response')
  assert.equal(first?.type, 'ready')
})

for (const [what, frames] of [
  ['padding before READY', [PAD, READY]],
  ['a call before READY', [request(1), READY]],
  ['READY with the bit of an end', [Buffer.from('90000000000000080001000000000100', 'hex')]],
  ['READY that offers more credit than there may be', [{ ...READY, credit: 2 ** 31 + 1 }]],
] as const)
  test(`a tunnel is dead after: ${what}`, async (world) => {
    const side = world.responder({ ready: false })
    side.end.send(...frames)
    isDead(side, await side.end.end(), /does not begin with READY|a credit is too large/)
    assert.equal(side.handled.length, 0)
  })

test('as much credit as there may be is taken', async (world) => {
  const { end, tunnel } = world.responder({ ready: false })
  end.send({ type: 'ready', credit: 2 ** 31, calls: 2 ** 32 - 1 }, request(1))
  assert.equal(tunnel.isOver, false)
})

test('an initiator begins no call before READY', async (world) => {
  const { end, tunnel } = world.initiator({ ready: false })
  assert.equal(tunnel.hasRoom, false)
  end.send(READY)
  assert.equal(tunnel.hasRoom, true)
})

for (const number of [0xffffffff, 3, 1])
  test(`after call 1, a call of the number ${number} kills`, async (world) => {
    const side = world.responder()
    side.end.send(request(1))
    side.end.send(request(number))
    isDead(side, await side.end.end(), /a call is not the next one/)
    assert.equal(side.handled.length, 1)
    assert.ok(side.handled[0]!.gone)
  })

test('a call that was begun in a record that breaks later does not reach the handler', async (world) => {
  const side = world.responder()
  side.end.send(request(1), request(2, { end: false }), data(2, 'x'), Buffer.of(0xff))
  isDead(side, await side.end.end(), /a frame is cut off/)
  assert.deepEqual(side.handled, [])
})

test('a call that is begun and reset in one record does not reach the handler', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1), { type: 'reset', call: 1, code: 0 }, request(2))
  assert.equal(handled.length, 1)
  assert.equal(handled[0]!.call.number, 2)
})

test('whatever comes for a call that is over is ignored, and not read', async (world) => {
  const { end, handled, tunnel } = world.responder()
  end.send(request(1, { method: 'POST', end: false }), data(1, 'abc'))
  end.send({ type: 'reset', call: 1, code: 0 })
  assert.ok(handled[0]!.gone)
  end.send(
    data(1, 'x'.repeat(65_536)),
    data(1, 'x'.repeat(65_536), true),
    Buffer.from('040000000100000400ffff00', 'hex'),
    { type: 'credit', call: 1, more: 2 ** 32 - 1 },
    { type: 'reset', call: 1, code: 200 },
  )
  assert.equal(tunnel.isOver, false)
  end.send(request(2))
  handled[1]!.answer({ status: 204 })
  assert.deepEqual((await end.until('response')).pop(), response(2, { status: 204 }))
})

test('whatever comes to an initiator for a call that is over is ignored, and not read', async (world) => {
  const { end, tunnel, call } = world.initiator()
  const { answer } = call()
  end.send(response(1))
  await answer
  end.send(UNREADABLE_INFO, response(1), data(1, 'x'), { type: 'trailers', call: 1, fields: [] })
  assert.equal(tunnel.isOver, false)
})

test('GOAWAY refuses the calls above it; those below are answered, and then it is over', async (world) => {
  const { end, tunnel, call, events } = world.initiator()
  const calls = [call(), call(), call()]
  end.send({ type: 'goaway', highest: 1 })
  for (const { failure } of calls.slice(1)) {
    const lost = await failure
    assert.ok(lost instanceof CallLostError && lost.refused)
  }
  assert.equal(tunnel.hasRoom, false)
  end.send(response(2), data(3, 'ignored'), response(1))
  assert.equal((await calls[0]!.answer).head.status, 200)
  assert.deepEqual(events, ['ready', 'retired', 'closed'])
})

test('a second GOAWAY may be lower, and refuses more', async (world) => {
  const { end, call, tunnel } = world.initiator()
  const calls = [call(), call()]
  end.send({ type: 'goaway', highest: 2 }, { type: 'goaway', highest: 2 })
  assert.equal(tunnel.isOver, false)
  end.send({ type: 'goaway', highest: 1 })
  assert.ok(((await calls[1]!.failure) as CallLostError).refused)
  end.send(response(1))
  await calls[0]!.answer
})

test('a second GOAWAY that is higher kills; what was under way is not known to be refused', async (world) => {
  const side = world.initiator()
  const calls = [side.call(), side.call()]
  side.end.send({ type: 'goaway', highest: 1 })
  side.end.send({ type: 'goaway', highest: 2 })
  isDead(side, await side.end.end(), /GOAWAY is taken back/)
  assert.equal(((await calls[0]!.failure) as CallLostError).refused, false)
  assert.equal(((await calls[1]!.failure) as CallLostError).refused, true)
})

test('a responder that said GOAWAY ignores new calls unread, counts them, and ends after the last', async (world) => {
  const { end, handled, tunnel, events } = world.responder()
  end.send(request(1))
  tunnel.retire()
  assert.deepEqual((await end.until('goaway')).pop(), { type: 'goaway', highest: 1 })
  const unreadable = Buffer.from('010000000200000200ff', 'hex')
  end.send(unreadable, data(2, 'ignored'), { type: 'credit', call: 2, more: 1 }, request(3))
  assert.equal(tunnel.isOver, false)
  assert.equal(handled.length, 1)
  handled[0]!.answer()
  assert.deepEqual(await end.until('response'), [response(1)])
  assert.equal(await end.end(), 'end')
  assert.deepEqual(events, ['closed'])
})

test('behind GOAWAY, too, a call must be the next one', async (world) => {
  const side = world.responder()
  side.end.send(request(1))
  side.tunnel.retire()
  side.end.send(request(3))
  assert.equal(side.tunnel.isOver, true)
})

test('16 interim responses are passed on; the 17th kills', async (world) => {
  const side = world.initiator()
  const { caller, failure } = side.call()
  const info: Frame = { type: 'info', call: 1, head: { status: 103, fields: [] } }
  side.end.send(...Array.from({ length: 16 }, () => info))
  assert.equal(caller.informed.length, 16)
  assert.equal(side.tunnel.isOver, false)
  side.end.send(info)
  isDead(side, await side.end.end(), /interim/)
  assert.ok((await failure) instanceof CallLostError)
  assert.equal(caller.informed.length, 16)
})

test('a responder sends 16 interim responses of a call, however many there are', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1))
  for (let i = 0; i < 20; i++) handled[0]!.call.inform({ status: 102, fields: [] })
  handled[0]!.answer()
  const frames = await end.until('response')
  assert.equal(frames.filter(({ type }) => type === 'info').length, 16)
})

test('an end of the stream in the middle of calls resets them, and without calls it is quiet', async (world) => {
  const quiet = world.initiator()
  quiet.tunnel.take(undefined)
  assert.deepEqual(quiet.events, ['ready', 'closed'])
  const broken = world.initiator()
  const { failure } = broken.call(requestOf({ method: 'POST' }, new FedBody()))
  broken.tunnel.take(undefined)
  assert.equal(((await failure) as CallLostError).refused, false)
  assert.deepEqual(broken.events, ['ready', 'broke'])
})

test('a call that comes to a tunnel that has just died is refused', async (world) => {
  const { tunnel, call } = world.initiator()
  tunnel.take(undefined)
  assert.equal(((await call().failure) as CallLostError).refused, true)
})

test('more calls than the other end wants are not begun', async (world) => {
  const { end, tunnel, call } = world.initiator({ ready: false })
  end.send({ ...READY, calls: 2 })
  const { caller } = call()
  call()
  assert.equal(tunnel.hasRoom, false)
  caller.go()
  assert.equal(tunnel.hasRoom, true)
})

test('more calls than either end offered are refused, and only they', async (world) => {
  const { end, handled } = world.responder({ ready: false })
  end.send({ ...READY, calls: 2 }, request(1), request(2), request(3))
  assert.equal(handled.length, 2)
  assert.deepEqual((await end.until('reset')).pop(), { type: 'reset', call: 3, code: 4 })
  handled[0]!.answer()
  await end.until('response')
  end.send(request(4))
  assert.equal(handled.length, 3)
})

test.run()
