/** The exchange of the vectors played with either end, and every plaintext that must kill a tunnel. */
import assert from 'node:assert/strict'
import type { Fields } from '../../sidecar/call.ts'
import { type Frame, readBack } from '../pair/tunnel-frames.ts'
import { type FrameVector, plaintextOf, type Side, tunnel as vectors } from '../pair/tunnel-vectors.ts'
import { hex } from '../pair/vectors.ts'
import { FedBody, readAll, requestOf } from '../support/sending.ts'
import { data, request } from '../support/tunnel-end.ts'
import { type Call, type Handled, type Secrets, worldSuite } from './world.ts'

const test = worldSuite('tunnel: vectors')

const SECRETS: Secrets = { out: hex(vectors.out_0), in: hex(vectors.in_0) }

/** One direction of a call, however its body was cut. */
interface Direction {
  head: unknown
  informed: unknown[]
  body: string
  trailers: Fields
  end: boolean
  reset: number | undefined
}

/** What went one way, by call. */
function byCall(frames: Frame[]): Map<number, Direction> {
  const calls = new Map<number, Direction>()
  for (const frame of frames) {
    if (!('call' in frame)) continue
    const before = calls.get(frame.call)
    const call = before ?? {
      head: undefined,
      informed: [],
      body: '',
      trailers: [],
      end: false,
      reset: undefined,
    }
    calls.set(frame.call, call)
    if (frame.type === 'request' || frame.type === 'response') call.head = frame.head
    if (frame.type === 'info') call.informed.push(frame.head)
    if (frame.type === 'data') call.body += frame.piece
    if (frame.type === 'trailers') call.trailers = frame.fields
    if (frame.type === 'reset') call.reset = frame.code
    if ('end' in frame ? frame.end : frame.type === 'trailers') call.end = true
  }
  return calls
}

/** What the vectors say that a side sends. */
function expected(from: Side): Map<number, Direction> {
  return byCall(
    vectors.exchange
      .filter((record) => record.from === from)
      .flatMap((record) => readBack(plaintextOf(record), from).frames),
  )
}

const fieldsOf = ({ fields = [] }: FrameVector): Fields => fields.flat()

for (const { what, from, plaintext } of vectors.refused)
  test(`a tunnel is dead after: ${what}, from the ${from}`, async (world) => {
    if (from === 'initiator') {
      const side = world.responder()
      side.end.send(request(1, { end: false }))
      side.end.send(hex(plaintext))
      assert.equal(side.tunnel.isOver, true)
      assert.equal(side.handled.length, 1)
      assert.match(side.handled[0]!.gone!.message, /The tunnel broke: /)
    } else {
      const side = world.initiator()
      const body = new FedBody()
      const { failure } = side.call(requestOf({ method: 'POST' }, body))
      side.end.send(hex(plaintext))
      assert.equal(side.tunnel.isOver, true)
      // The answer may have begun.
      assert.match((await failure)?.message ?? '', /^$|The tunnel broke: /)
      assert.deepEqual(side.events, ['ready', 'broke'])
    }
  })

test('the exchange of the vectors: what an initiator sends, and what comes of the answers', async (world) => {
  const { end, call } = world.initiator({ ready: false, secrets: SECRETS })
  const sent: Frame[] = []
  const calls = new Map<number, { call: Call; body: FedBody }>()
  for (const { from, frames } of vectors.exchange) {
    if (from === 'responder') {
      if (frames[0]!.type !== 'READY') sent.push(...(await end.settled()))
      end.send(Buffer.concat(frames.map(({ bytes }) => hex(bytes))))
    } else for (const frame of frames) await act(frame)
  }
  async function act(frame: FrameVector): Promise<void> {
    const { type, call: number, method, authority, path, scheme } = frame
    if (type === 'HEAD') {
      const head = {
        method: method!,
        scheme: scheme!,
        authority: authority!,
        path: path!,
        fields: fieldsOf(frame),
      }
      const body = new FedBody()
      calls.set(number, { body, call: call(requestOf(head, frame.end ? '' : body)) })
    }
    const its = calls.get(number)
    if (type === 'DATA' && frame.payload) its!.body.push(hex(frame.payload))
    if (type === 'DATA' && frame.end) its!.body.end()
    if (type === 'TRAILERS') its!.body.end(fieldsOf(frame))
    if (type === 'RESET') its!.call.caller.go()
    await new Promise(setImmediate)
  }
  const answers = expected('responder')
  for (const [number, { call }] of calls) {
    const answer = answers.get(number)!
    const failure = await call.failure
    if (number === 3) assert.equal(failure, call.caller.gone)
    else if (number === 9) assert.match(failure!.message, /refused/)
    else {
      const { head, body } = await call.answer
      assert.deepEqual(head, answer.head)
      assert.equal(await readAll(body), answer.body)
      assert.deepEqual(body.trailers, answer.trailers)
      assert.deepEqual(call.caller.informed, answer.informed)
    }
  }
  assert.deepEqual(byCall(sent), expected('initiator'))
})

test('the exchange of the vectors: what reaches the app of a responder, and what it sends', async (world) => {
  const { end, handled, tunnel } = world.responder({ ready: false, secrets: SECRETS })
  const requests = expected('initiator')
  const answers = expected('responder')
  const sent: Frame[] = []
  const bodies: Promise<string>[] = []
  let credit = 65_536
  const begun = (one: Handled, number: number) => {
    bodies[number] = readAll(one.request.body)
    bodies[number].catch(() => {})
    for (const head of answers.get(number)?.informed ?? []) one.call.inform(head as never)
  }
  // What is granted in the vectors is more than what is granted here.
  const sendData = async (call: number, payload: string, ends: boolean) => {
    let left = payload
    while (left.length > credit) {
      if (credit > 0) end.send(data(call, left.slice(0, credit)))
      left = left.slice(credit)
      sent.push(...(await end.until('credit')))
      credit = (sent.at(-1) as { more: number }).more
    }
    end.send(data(call, left, ends))
    credit -= left.length
  }
  for (const { from, frames } of vectors.exchange) {
    for (const frame of frames) {
      if (from === 'initiator') {
        if (frame.type === 'DATA' && frame.call === 2)
          await sendData(2, hex(frame.payload!).toString('latin1'), frame.end!)
        else if (frame.type !== 'REKEY') end.send(hex(frame.bytes))
        if (frame.type === 'HEAD') begun(handled.at(-1)!, frame.call)
      } else if (frame.type === 'HEAD' && frame.call !== 3) {
        const { head, body, trailers, end: ended } = answers.get(frame.call)!
        const { status, fields } = head as { status: number; fields: Fields }
        const fed = new FedBody()
        if (body) fed.push(Buffer.from(body, 'latin1'))
        if (ended) fed.end(trailers)
        handled[frame.call - 1]!.answer({ status, fields, ...(frame.end ? {} : { body: fed }) })
        sent.push(...(await end.settled()))
      }
    }
  }
  assert.equal(tunnel.isOver, false)
  assert.equal(handled.length, 9)
  for (const [number, { head, body, reset }] of requests) {
    assert.deepEqual(handled[number - 1]!.request.head, head)
    if (reset === undefined) assert.equal(await bodies[number], body)
    assert.equal(handled[number - 1]!.gone !== undefined, reset !== undefined)
  }
  assert.deepEqual(handled[1]!.request.body.trailers, requests.get(2)!.trailers)
  const got = byCall(sent.filter(({ type }) => type !== 'credit'))
  for (const [number, answer] of answers) {
    if (number === 3 || number === 9) assert.equal(got.get(number), undefined)
    else assert.deepEqual(got.get(number), answer)
  }
})

test.run()
