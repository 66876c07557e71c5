/** How calls end: early answers, resets of either side, and what goes out before what. */
import assert from 'node:assert/strict'
import { NO_BODY } from '../../sidecar/call.ts'
import { SidecarError } from '../../sidecar/errors.ts'
import { CallLostError } from '../../sidecar/tunnel/initiator.ts'
import type { Frame } from '../pair/tunnel-frames.ts'
import { FedBody, readAll, requestOf } from '../support/sending.ts'
import { data, READY, request, response } from '../support/tunnel-end.ts'
import { worldSuite } from './world.ts'

const test = worldSuite('tunnel: ends of calls')

const reset = (call: number, code: number): Frame => ({ type: 'reset', call, code })

test('an answer that is complete before its request: it all comes, then the call is reset', async (world) => {
  const { end, handled, open } = world.responder({ ready: false })
  end.send({ ...READY, credit: 4 }, request(1, { method: 'POST', end: false }), data(1, 'abc'))
  handled[0]!.answer({ body: '0123456789' })
  const first = await end.settled()
  assert.ok(!first.some(({ type }) => type === 'reset'), 'the reset does not overtake the end')
  assert.equal(open.size, 1)
  end.send({ type: 'credit', call: 1, more: 6 })
  assert.deepEqual(await end.until('reset'), [data(1, '456789', true), reset(1, 0)])
  await assert.rejects(readAll(handled[0]!.request.body))
  assert.equal(open.size, 0)
})

test('an answer that was received whole stays, whatever reset comes behind it', async (world) => {
  const { end, call } = world.initiator()
  const { answer } = call(requestOf({ method: 'POST' }, new FedBody()))
  await end.settled()
  end.send(response(1, { end: false }), data(1, 'all of it', true), reset(1, 0))
  const { body } = await answer
  assert.equal(await readAll(body), 'all of it')
})

test('an answer that was not received whole is cut off by a reset, of whatever code', async (world) => {
  const { end, call } = world.initiator()
  const calls = [0, 2, 3, 4, 5, 6, 77].map((code) => ({ code, ...call() }))
  await end.settled()
  for (const [i, { code, answer }] of calls.entries()) {
    end.send(response(i + 1, { end: false }), data(i + 1, 'some'))
    const { body } = await answer
    end.send(reset(i + 1, code))
    await assert.rejects(readAll(body), (error) => error instanceof SidecarError)
  }
})

test('what a reset before the answer means', async (world) => {
  const { end, call } = world.initiator()
  const codes = [0, 2, 3, 4, 5, 6, 77]
  const calls = codes.map(() => call())
  await end.settled()
  const told = []
  for (const [i, { failure }] of calls.entries()) {
    end.send(reset(i + 1, codes[i]!))
    const error = await failure
    if (error instanceof CallLostError) told.push(error.refused ? 'refused' : 'lost')
    else told.push((error as SidecarError).code)
  }
  assert.deepEqual(told, ['lost', 'lost', 'lost', 'refused', 'message-refused', 'headers-too-large', 'lost'])
})

test('a caller that goes resets its call at the other end, whose handler is told', async (world) => {
  const initiator = world.initiator()
  const { caller, failure } = initiator.call(requestOf({ method: 'POST' }, new FedBody()))
  caller.go()
  assert.equal(await failure, caller.gone)
  assert.deepEqual((await initiator.end.until('reset')).pop(), reset(1, 0))
  const { end, handled, open } = world.responder()
  end.send(request(1, { method: 'POST', end: false }))
  end.send(reset(1, 0))
  assert.equal((handled[0]!.gone as SidecarError).code, 'caller-gone')
  await assert.rejects(readAll(handled[0]!.request.body))
  assert.equal(open.size, 0)
})

test('an answer to a call that was reset meanwhile is not sent', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1))
  end.send(reset(1, 0))
  handled[0]!.answer({ body: 'late' })
  assert.deepEqual(
    (await end.settled()).map(({ type }) => type),
    ['ready'],
  )
})

test('calls are answered in any order, and mixed', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1), request(2), request(3))
  const slow = new FedBody().push('slow')
  handled[0]!.answer({ body: slow })
  handled[2]!.answer({ status: 203 })
  handled[1]!.answer({ status: 202, body: 'two' })
  const first = await end.settled()
  assert.ok(first.some((frame) => frame.type === 'response' && frame.call === 3 && frame.end))
  assert.ok(first.some((frame) => frame.type === 'data' && frame.call === 2 && frame.end))
  slow.end(['x-sum', '1'])
  assert.deepEqual((await end.until('trailers')).pop(), { type: 'trailers', call: 1, fields: ['x-sum', '1'] })
})

test('no body goes before its head, however many heads wait, and however large they are', async (world) => {
  const { end, call, stop, go } = world.initiator()
  await end.settled()
  stop()
  const large = ['x-large', 'x'.repeat(50_000)]
  for (let i = 0; i < 9; i++)
    call(
      requestOf(
        { method: 'POST', fields: large },
        i % 2 ? 'y'.repeat(40_000) : new FedBody().push('a').end(['x-sum', '1']),
      ),
    )
  await new Promise(setImmediate)
  go()
  const begun = new Set<number>()
  const ended = new Set<number>()
  while (ended.size < 9) {
    const frame = await end.next()
    assert.ok('call' in frame)
    if (frame.type === 'request') begun.add(frame.call)
    assert.ok(begun.has(frame.call), `${frame.type} of call ${frame.call} before its head`)
    assert.ok(!ended.has(frame.call), `${frame.type} of call ${frame.call} after its end`)
    if (frame.type === 'trailers' || (frame.type === 'data' && frame.end)) ended.add(frame.call)
  }
})

test('a reset goes out after the head of its call', async (world) => {
  const { end, call, stop, go } = world.initiator()
  await end.settled()
  stop()
  const { caller } = call(requestOf({ method: 'POST' }, new FedBody().push('x')))
  await new Promise(setImmediate)
  caller.go()
  go()
  const types = (await end.until('reset')).map(({ type }) => type)
  assert.equal(types[0], 'request')
})

test('large bodies take turns: a short answer does not wait for a long one', async (world) => {
  const { end, handled } = world.responder({ ready: false })
  end.send({ ...READY, credit: 2 ** 24 }, request(1), request(2))
  handled[0]!.answer({ body: new FedBody().push(Buffer.alloc(2 ** 22)).end() })
  handled[1]!.answer({ body: 'short' })
  let before = 0
  for (let frame = await end.next(); ; frame = await end.next()) {
    if (frame.type !== 'data') continue
    if (frame.call === 2) break
    before += frame.piece.length
  }
  assert.ok(before <= 128 * 1024, `${before} bytes before it`)
  while (before < 2 ** 22) before += ((await end.until('data')).pop() as { piece: string }).piece.length
})

test('a tunnel that ends says everything before it does', async (world) => {
  const { end, handled, tunnel } = world.responder({ ready: false })
  end.send({ ...READY, credit: 2 ** 24 }, request(1))
  handled[0]!.answer({ body: new FedBody().push(Buffer.alloc(2 ** 20)).end() })
  tunnel.retire()
  let bytes = 0
  for (;;) {
    const frame = await end.next()
    if (frame.type === 'data') bytes += frame.piece.length
    if (frame.type === 'data' && frame.end) break
  }
  assert.equal(bytes, 2 ** 20)
  assert.equal(await end.end(), 'end')
})

test('a call that a dead tunnel had is over in every way, and its handler too', async (world) => {
  const { end, handled, tunnel, open, events } = world.responder()
  end.send(request(1, { method: 'POST', end: false }), data(1, 'x'), request(2))
  handled[1]!.answer({ body: new FedBody().push('x') })
  await end.settled()
  tunnel.take(Buffer.from('ffffffff', 'hex'))
  assert.ok(handled[0]!.gone)
  assert.ok(handled[1]!.gone)
  assert.equal(open.size, 0)
  assert.deepEqual(events, ['closed'])
  await assert.rejects(tunnel.records.read())
  handled[0]!.answer({ body: NO_BODY })
})

test.run()
