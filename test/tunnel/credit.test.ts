/** Credit: what a call may send, and what one that nobody reads costs. */
import assert from 'node:assert/strict'
import { NO_BODY } from '../../sidecar/call.ts'
import { CallLostError } from '../../sidecar/tunnel/initiator.ts'
import { FedBody, readAll, requestOf } from '../support/sending.ts'
import { data, READY, request, response } from '../support/tunnel-end.ts'
import { BUDGET_BYTES, isDead, worldSuite } from './world.ts'

const test = worldSuite('tunnel: credit')

const FULL = 'x'.repeat(65_536)
const POST = { method: 'POST', end: false }

test('the credit of a call may be used up, in one piece of the largest size', async (world) => {
  const { end, handled, tunnel } = world.responder()
  end.send(request(1, POST), data(1, FULL), data(1, '', true))
  assert.equal(tunnel.isOver, false)
  assert.equal(await readAll(handled[0]!.request.body), FULL)
})

test('a byte more than the credit kills, of a request and of an answer', async (world) => {
  const responder = world.responder()
  responder.end.send(request(1, POST), data(1, FULL))
  responder.end.send(data(1, 'x', true))
  isDead(responder, await responder.end.end(), /more of a body than was granted/)
  assert.ok(responder.handled[0]!.gone)
  const initiator = world.initiator()
  const { answer } = initiator.call()
  initiator.end.send(response(1, { end: false }), data(1, FULL))
  const { body } = await answer
  initiator.end.send(data(1, 'x'))
  isDead(initiator, await initiator.end.end(), /more of a body than was granted/)
  await assert.rejects(readAll(body), { code: 'message-truncated' })
})

test('a piece of more than 65,536 bytes kills, whatever the credit', async (world) => {
  const side = world.responder()
  side.end.send(request(1, POST), data(1, FULL))
  const reading = readAll(side.handled[0]!.request.body)
  reading.catch(() => {})
  await side.end.until('credit')
  side.end.send(data(1, `${FULL}x`))
  isDead(side, await side.end.end(), /too long/)
  await assert.rejects(reading)
})

test('credit is given as the app takes, and grows to 1 MiB while it keeps up', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1, POST))
  const reading = readAll(handled[0]!.request.body)
  let credit = 65_536
  let most = 0
  for (let sent = 0; sent < 8 * 1024 * 1024; ) {
    for (; credit >= 65_536; credit -= 65_536) {
      end.send(data(1, FULL))
      sent += FULL.length
    }
    const granted = (await end.until('credit')).pop() as { more: number }
    credit += granted.more
    most = Math.max(most, credit)
  }
  assert.ok(most <= 1024 * 1024, `${most}`)
  assert.ok(most >= 512 * 1024, `${most}`)
  assert.ok(world.budget.leftBytes < BUDGET_BYTES - 256 * 65_536 - 512 * 1024)
  end.send(data(1, '', true))
  assert.equal((await reading).length % FULL.length, 0)
  handled[0]!.answer()
  await end.until('response')
  assert.equal(world.budget.leftBytes, BUDGET_BYTES - 256 * 65_536)
})

test('what nobody reads gets no more credit', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1, POST), data(1, FULL))
  assert.deepEqual(
    (await end.settled()).map(({ type }) => type),
    ['ready'],
  )
  await handled[0]!.request.body.read()
  const [granted] = await end.until('credit')
  assert.deepEqual(granted, { type: 'credit', call: 1, more: 2 * 65_536 })
})

test('an app that does not keep up gets what it took again, and no more', async (world) => {
  const { end, handled } = world.responder()
  const half = FULL.slice(0, 32_768)
  end.send(request(1, POST), data(1, half), data(1, half))
  await handled[0]!.request.body.read()
  assert.deepEqual((await end.until('credit')).pop(), { type: 'credit', call: 1, more: 32_768 })
})

test('as much credit as there may be is used; a byte more kills', async (world) => {
  const side = world.responder({ ready: false })
  side.end.send({ ...READY, credit: 2 ** 31 - 1 }, request(1))
  side.end.send({ type: 'credit', call: 1, more: 1 })
  assert.equal(side.tunnel.isOver, false)
  side.end.send({ type: 'credit', call: 1, more: 1 })
  isDead(side, await side.end.end(), /more credit than there may be/)
})

test('a call sends what it has credit for, and not a byte more; another goes on', async (world) => {
  const { end, handled } = world.responder({ ready: false })
  end.send({ ...READY, credit: 10 }, request(1), request(2))
  handled[0]!.answer({ body: 'x'.repeat(25) })
  handled[1]!.answer({ body: 'y'.repeat(10) })
  const sizes = (frames: Awaited<ReturnType<typeof end.settled>>, call: number) =>
    frames.flatMap((frame) =>
      frame.type === 'data' && frame.call === call ? [[frame.piece.length, frame.end]] : [],
    )
  const first = await end.settled()
  assert.deepEqual(sizes(first, 1), [[10, false]])
  assert.deepEqual(sizes(first, 2), [[10, true]])
  end.send({ type: 'credit', call: 1, more: 15 })
  assert.deepEqual(sizes(await end.settled(), 1), [[15, true]])
})

test('without any credit an empty body ends all the same', async (world) => {
  const { end, handled } = world.responder({ ready: false })
  end.send({ ...READY, credit: 0 }, request(1), request(2))
  handled[0]!.answer({ body: new FedBody().end() })
  handled[1]!.answer({ body: NO_BODY })
  const frames = await end.settled()
  assert.ok(frames.some((frame) => frame.type === 'data' && frame.end && frame.piece === ''))
  assert.ok(frames.some((frame) => frame.type === 'response' && frame.call === 2 && frame.end))
})

test(
  'where the budget is short, less is offered, and credit does not grow',
  async (world) => {
    const { end, handled, tunnel } = world.responder({ ready: false })
    const [ready] = await end.until('ready')
    assert.deepEqual(ready, { type: 'ready', credit: 65_536, calls: 2 })
    end.send(READY, request(1, POST), request(2), request(3))
    assert.deepEqual(await end.until('reset'), [{ type: 'reset', call: 3, code: 4 }])
    end.send(data(1, FULL))
    await handled[0]!.request.body.read()
    const [granted] = await end.until('credit')
    assert.equal((granted as { more: number }).more <= 8 * 65_536, true)
    assert.equal(tunnel.isOver, false)
    assert.ok(world.budget.leftBytes >= 0)
  },
  8 * 65_536,
)

test('a tunnel that dies gives back all that its calls were granted', async (world) => {
  const { end, handled, tunnel } = world.responder()
  end.send(request(1, POST), data(1, FULL))
  await handled[0]!.request.body.read()
  await end.until('credit')
  tunnel.die(new Error('for a test'))
  assert.equal(world.budget.leftBytes, BUDGET_BYTES)
})

test('a caller that goes gives back what its answer was granted', async (world) => {
  const { end, call } = world.initiator()
  const { answer, caller } = call()
  const before = world.budget.leftBytes
  end.send(response(1, { end: false }), data(1, FULL))
  const { body } = await answer
  await body.read()
  await end.until('credit')
  assert.ok(world.budget.leftBytes < before)
  caller.go()
  assert.equal(world.budget.leftBytes, before)
  assert.deepEqual((await end.until('reset')).pop(), { type: 'reset', call: 1, code: 0 })
})

test('a request that waits for credit is not lost by others, and is reset with the tunnel', async (world) => {
  const { end, call, tunnel } = world.initiator({ ready: false })
  end.send({ ...READY, credit: 5 })
  const stuck = call(requestOf({ method: 'POST' }, 'x'.repeat(100)))
  const other = call(requestOf({ method: 'POST' }, 'y'))
  await end.settled()
  end.send(response(2))
  assert.equal((await other.answer).head.status, 200)
  tunnel.take(undefined)
  assert.ok((await stuck.failure) instanceof CallLostError)
})

test.run()
