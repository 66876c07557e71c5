/** Heads, lengths and trailers that are not valid: the call is reset, by itself. */
import assert from 'node:assert/strict'
import type { Frame } from '../pair/tunnel-frames.ts'
import { FedBody, readAll, requestOf } from '../support/sending.ts'
import { data, request, response } from '../support/tunnel-end.ts'
import { type InitiatorSide, type ResponderSide, worldSuite } from './world.ts'

const test = worldSuite('tunnel: messages that are not valid')

const MALFORMED = 5
const TOO_LARGE = 6
const LARGE = ['x-large', 'x'.repeat(65_000), 'x-more', 'x'.repeat(2_000)]
const trailers = (call: number, ...fields: string[]): Frame => ({ type: 'trailers', call, fields })

/** The tunnel lives, and a call in it is answered. */
async function goesOnAnswering({ end, handled }: ResponderSide, number: number): Promise<void> {
  end.send(request(number))
  handled.at(-1)!.answer({ status: 204 })
  assert.deepEqual((await end.until('response')).pop(), response(number, { status: 204 }))
}

async function goesOnAsking({ end, call }: InitiatorSide, number: number): Promise<void> {
  const { answer } = call()
  await end.settled()
  end.send(response(number, { status: 204 }))
  assert.equal((await answer).head.status, 204)
}

const length = (bytes: number | string) => ['content-length', String(bytes)]

/** Requests of call 2, and what they are reset with. */
const REQUESTS: [string, Frame[], number][] = [
  [
    'a longer body than announced',
    [request(2, { end: false, fields: length(3) }), data(2, 'abcd', true)],
    MALFORMED,
  ],
  [
    'a shorter body than announced',
    [request(2, { end: false, fields: length(3) }), data(2, 'ab', true)],
    MALFORMED,
  ],
  ['no body where one is announced', [request(2, { fields: length(3) })], MALFORMED],
  [
    'trailers before the body is whole',
    [request(2, { end: false, fields: length(3) }), data(2, 'ab'), trailers(2)],
    MALFORMED,
  ],
  ['a length that is none', [request(2, { fields: length('3x') })], MALFORMED],
  [
    'two lengths',
    [request(2, { end: false, fields: [...length(1), ...length(2)] }), data(2, 'x', true)],
    MALFORMED,
  ],
  ['a transfer coding', [request(2, { fields: ['transfer-encoding', 'chunked'] })], MALFORMED],
  ['a line break in a value', [request(2, { fields: ['x-a', 'b\r\nx-c: d'] })], MALFORMED],
  ['a NUL in a value', [request(2, { fields: ['x-a', '\0'] })], MALFORMED],
  ['a name with a space', [request(2, { fields: ['x a', 'b'] })], MALFORMED],
  ['an empty name', [request(2, { fields: ['', 'b'] })], MALFORMED],
  ['a name in capitals', [request(2, { fields: ['X-A', 'b'] })], MALFORMED],
  ['a method that is none', [request(2, { method: 'GE T' })], MALFORMED],
  ['an empty method', [request(2, { method: '' })], MALFORMED],
  ['CONNECT', [request(2, { method: 'CONNECT' })], MALFORMED],
  ['a head that is too large', [request(2, { fields: LARGE })], TOO_LARGE],
  [
    'trailers that are too large',
    [request(2, { end: false }), data(2, 'x'), trailers(2, ...LARGE)],
    TOO_LARGE,
  ],
  [
    'a trailer that may be none',
    [request(2, { end: false }), data(2, 'x'), trailers(2, 'content-length', '1')],
    MALFORMED,
  ],
  [
    'a line break in a trailer',
    [request(2, { end: false }), data(2, 'x'), trailers(2, 'x-a', 'b\n')],
    MALFORMED,
  ],
]

for (const [what, frames, code] of REQUESTS)
  test(`a request with ${what} is reset by itself`, async (world) => {
    const side = world.responder()
    side.end.send(request(1))
    side.end.send(...frames)
    assert.deepEqual((await side.end.until('reset')).pop(), { type: 'reset', call: 2, code })
    assert.equal(side.handled.length, 1, 'what came in one record does not reach the handler')
    await goesOnAnswering(side, 3)
    side.handled[0]!.answer()
    assert.deepEqual(await side.end.until('response'), [response(1)])
  })

test('what completes a length is no end: a request that is cut off behind it is never whole', async (world) => {
  const { end, handled, tunnel } = world.responder()
  end.send(request(1, { method: 'POST', end: false, fields: length(3) }))
  end.send(data(1, 'abc'))
  const { body } = handled[0]!.request
  tunnel.take(undefined)
  await assert.rejects(readAll(body), { code: 'message-truncated' })
  assert.ok(handled[0]!.gone)
})

test('a body that is exactly as long as announced is whole, with its end in its last piece or behind it', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1, { end: false, fields: length(3) }), data(1, 'ab'), data(1, 'c', true))
  end.send(request(2, { end: false, fields: length(3) }), data(2, 'abc'), data(2, '', true))
  end.send(request(3, { end: false, fields: length(3) }), data(3, 'abc'), trailers(3, 'x-sum', '1'))
  end.send(request(4, { end: false, fields: length(0) }), data(4, '', true))
  const bodies = await Promise.all(handled.map(({ request: { body } }) => readAll(body)))
  assert.deepEqual(bodies, ['abc', 'abc', 'abc', ''])
  assert.deepEqual(handled[2]!.request.body.trailers, ['x-sum', '1'])
})

/** Answers to call 1, what they are reset with, and whether they began before. */
const ANSWERS: [string, Frame[], number, 'begun' | 'never'][] = [
  [
    'a longer body than announced',
    [response(1, { end: false, fields: length(3) }), data(1, 'abcd', true)],
    MALFORMED,
    'begun',
  ],
  [
    'a shorter body than announced',
    [response(1, { end: false, fields: length(3) }), data(1, 'ab', true)],
    MALFORMED,
    'begun',
  ],
  ['no body where one is announced', [response(1, { fields: length(3) })], MALFORMED, 'never'],
  [
    'a body where none may be',
    [response(1, { status: 204, end: false }), data(1, 'x', true)],
    MALFORMED,
    'begun',
  ],
  [
    'a line break in a value',
    [response(1, { fields: ['x-a', 'b\r\n\r\nHTTP/1.1 200'] })],
    MALFORMED,
    'never',
  ],
  ['two lengths', [response(1, { end: false, fields: [...length(1), ...length(2)] })], MALFORMED, 'never'],
  ['a transfer coding', [response(1, { fields: ['transfer-encoding', 'chunked'] })], MALFORMED, 'never'],
  ['a head that is too large', [response(1, { fields: LARGE })], TOO_LARGE, 'never'],
  [
    'trailers that are too large',
    [response(1, { end: false }), data(1, 'x'), trailers(1, ...LARGE)],
    TOO_LARGE,
    'begun',
  ],
  [
    'an interim head that is not valid',
    [{ type: 'info', call: 1, head: { status: 103, fields: ['a b', 'c'] } }],
    MALFORMED,
    'never',
  ],
]

for (const [what, frames, code, begun] of ANSWERS)
  test(`an answer with ${what} is reset by itself`, async (world) => {
    const side = world.initiator()
    const { answer, failure } = side.call()
    await side.end.settled()
    side.end.send(...frames)
    assert.deepEqual((await side.end.until('reset')).pop(), { type: 'reset', call: 1, code })
    if (begun === 'begun') await assert.rejects(readAll((await answer).body))
    else
      assert.equal(
        ((await failure) as { code?: string }).code,
        code === TOO_LARGE ? 'headers-too-large' : 'message-refused',
      )
    await goesOnAsking(side, 2)
  })

test('an answer to HEAD may announce a body that does not come', async (world) => {
  const { end, call } = world.initiator()
  const { answer } = call(requestOf({ method: 'HEAD' }))
  end.send(response(1, { fields: length(5) }))
  assert.equal(await readAll((await answer).body), '')
})

test('a body of our own that breaks its word, or off, is reset and never ended', async (world) => {
  const { end, handled } = world.responder()
  end.send(request(1), request(2), request(3))
  handled[0]!.answer({ fields: length(2), body: new FedBody().push('abc').end() })
  handled[1]!.answer({ fields: length(2), body: new FedBody().push('a').end() })
  const cut = new FedBody().push('a')
  handled[2]!.answer({ body: cut })
  cut.fail()
  const frames = await end.settled()
  for (const call of [1, 2, 3]) {
    const its = frames.filter((frame) => 'call' in frame && frame.call === call)
    assert.equal(its.at(-1)?.type, 'reset')
    assert.ok(its.every((frame) => !('end' in frame) || !frame.end))
  }
})

test('what a handler throws is a problem before the answer, and a reset in the middle of it', async (world) => {
  const { end, handled, faults } = world.responder()
  end.send(request(1))
  handled[0]!.fail(new Error('a bug'))
  const head = (await end.until('data')).find(({ type }) => type === 'response')
  assert.equal(head?.type === 'response' && head.head.status, 500)
  assert.equal(faults.length, 1)
})

test.run()
