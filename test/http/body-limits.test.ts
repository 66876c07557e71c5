import assert from 'node:assert/strict'
import { type Body, type Fields, NO_BODY, WholeBody } from '../../sidecar/call.ts'
import { type ErrorCode, SidecarError } from '../../sidecar/errors.ts'
import { headProblem, LimitedBody, readAtMost } from '../../sidecar/http/body-limits.ts'
import { HeadError } from '../../sidecar/http/fields.ts'
import { Pieces } from '../support/pieces.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/body-limits')
const LIMITS = { bodyBytesMax: 10, headBytesMax: 100 }
const NONE = { withoutTrailer: () => false, refusal: headProblem }
const CUT_OFF = new SidecarError('message-truncated', 'cut off')

const isProblem = (code: ErrorCode) => (error: unknown) =>
  error instanceof SidecarError && error.code === code

async function text(body: Body): Promise<string> {
  let text = ''
  for (let piece = await body.read(); piece; piece = await body.read()) text += piece.toString()
  return text
}

test('a body up to its limit passes, piece by piece', async () => {
  for (const pieces of [[], ['0123456789'], ['01234', '56789'], ['0', '1']]) {
    const source = new Pieces(pieces, ['t', '1'])
    const body = new LimitedBody(source, [], LIMITS, NONE)
    assert.equal(source.reads, 0)
    assert.equal(await text(body), pieces.join(''))
    assert.equal(source.reads, pieces.length + 1)
    assert.deepEqual(body.trailers, ['t', '1'])
  }
})

test('a body over its limit is refused at the piece that is too much, and ever after', async () => {
  const body = new LimitedBody(new Pieces(['01234', '567890', 'more']), [], LIMITS, NONE)
  assert.equal((await body.read())?.toString(), '01234')
  await assert.rejects(body.read(), isProblem('body-too-large'))
  await assert.rejects(body.read(), isProblem('body-too-large'))
})

test('a length that is announced is held to the limit before anything is read', () => {
  const source = new Pieces(['x'])
  new LimitedBody(source, ['content-length', '10'], LIMITS, NONE)
  assert.throws(
    () => new LimitedBody(source, ['content-length', '11'], LIMITS, NONE),
    isProblem('body-too-large'),
  )
  assert.equal(source.reads, 0)
})

test('a whole body is held to the same limits', async () => {
  const whole = (text: string, trailers: Fields = []) =>
    new LimitedBody(new WholeBody(Buffer.from(text), trailers), [], LIMITS, NONE)
  assert.equal(whole('0123456789').whole(100)?.toString(), '0123456789')
  assert.throws(() => whole('01234567890').whole(100), isProblem('body-too-large'))
  const larger = whole('012345')
  assert.equal(larger.whole(5), undefined)
  assert.equal(await text(larger), '012345')
  const body = whole('a', ['t', '1'])
  body.whole(1)
  assert.deepEqual(body.trailers, ['t', '1'])
  assert.throws(() => whole('a', ['host', '1']).whole(1), isProblem('bad-request'))
  assert.equal(new LimitedBody(NO_BODY, [], LIMITS, NONE).whole(0)?.length, 0)
  assert.equal(new LimitedBody(new Pieces(['a']), [], LIMITS, NONE).whole(1), undefined)
})

test('trailers are checked before the end is told', async () => {
  for (const [trailers, code] of [
    [['t', 'x'.repeat(100)], 'headers-too-large'],
    [['A', '1'], 'bad-request'],
    [['content-length', '1'], 'bad-request'],
    [['authorization', '1'], 'bad-request'],
    [['t', 'a\nb'], 'bad-request'],
  ] as [Fields, ErrorCode][]) {
    const body = new LimitedBody(new Pieces(['a'], trailers), [], LIMITS, NONE)
    assert.equal((await body.read())?.toString(), 'a')
    await assert.rejects(body.read(), isProblem(code), trailers[0])
    await assert.rejects(body.read(), isProblem(code), trailers[0])
  }
})

test('trailers that go no further are left out, and are not held against the body', async () => {
  const trailers = ['proxy-authorization', 'hunter2', 't', '1', 'x-mte-a', '2']
  const forSidecar = (name: string) => name === 'proxy-authorization' || name.startsWith('x-mte-')
  for (const source of [new Pieces([], trailers), new WholeBody(undefined, trailers)]) {
    const body = new LimitedBody(source, [], LIMITS, { ...NONE, withoutTrailer: forSidecar })
    assert.equal(await text(body), '')
    assert.deepEqual(body.trailers, ['t', '1'])
  }
})

test('what a body fails with passes', async () => {
  const body = new LimitedBody(new Pieces(['a', CUT_OFF]), [], LIMITS, NONE)
  assert.equal((await body.read())?.toString(), 'a')
  await assert.rejects(body.read(), isProblem('message-truncated'))
})

test('a short body is read whole, and of a longer one as much as shows that it is too long', async () => {
  assert.equal((await readAtMost(new Pieces([]), 4)).toString(), '')
  assert.equal((await readAtMost(new Pieces(['01', '23']), 4)).toString(), '0123')
  const longer = new Pieces(['01', '23', '45', '67', '89'])
  assert.equal((await readAtMost(longer, 4)).toString(), '01234')
  assert.equal(longer.reads, 3)
  await assert.rejects(readAtMost(new Pieces(['01', CUT_OFF]), 4), isProblem('message-truncated'))
})

test('a head that is refused is the fault of who sent it', () => {
  assert.equal(headProblem(new HeadError('too-large', 'why')).code, 'headers-too-large')
  assert.equal(headProblem(new HeadError('malformed', 'why')).code, 'bad-request')
  assert.equal(headProblem(new HeadError('malformed', 'why')).message, 'why')
})

test.run()
