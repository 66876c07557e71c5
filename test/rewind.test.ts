import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type Body, WholeBody } from '../sidecar/call.ts'
import { SidecarError } from '../sidecar/errors.ts'
import { Rewindable } from '../sidecar/rewind.ts'
import { runs } from './support/fuzz.ts'
import { FedBody, readAll } from './support/sending.ts'
import { suite } from './support/suite.ts'

const test = suite('rewind')

const truncated = new SidecarError('message-truncated', 'The body was cut off before its end.')

/** The next so many pieces; fewer at the end. */
async function take(body: Body, pieces: number): Promise<string> {
  let text = ''
  for (let i = 0; i < pieces; i++) text += (await body.read())?.toString() ?? ''
  return text
}

test('every reader reads from the start, as long as no more than the limit came, and the last one to the end', async () => {
  const pieces = fc.array(fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 20 }), {
    maxLength: 10,
  })
  const reads = fc.array(fc.nat(12), { maxLength: 5 })
  const property = fc.asyncProperty(pieces, reads, fc.nat(100), async (pieces, reads, limit) => {
    const whole = pieces.join('')
    const rewindable = new Rewindable(new FedBody().push(...pieces).end(['x-sum', '1']), limit)
    let most = 0
    for (const count of reads) {
      const kept = pieces.slice(0, most).join('').length <= limit
      assert.equal(rewindable.isKept, kept)
      const reader = rewindable.reader()
      assert.equal(reader !== undefined, kept)
      if (!reader) return
      assert.equal(await take(reader, count), pieces.slice(0, count).join(''))
      most = Math.max(most, Math.min(count, pieces.length))
    }
    const last = rewindable.reader()
    if (!last) return assert.ok(whole.length > limit)
    assert.equal(await readAll(last), whole)
    assert.deepEqual(last.trailers, ['x-sum', '1'])
    assert.equal(await last.read(), undefined)
  })
  await fc.assert(property, runs(500))
})

test('a reader that began reads on to the end past the limit, and after the rest is forgotten', async () => {
  for (const forget of [false, true]) {
    const rewindable = new Rewindable(new FedBody().push('one ', 'two ', 'three').end(), forget ? 1000 : 5)
    await take(rewindable.reader()!, 1)
    const reader = rewindable.reader()!
    if (forget) rewindable.forget()
    assert.equal(await readAll(reader), 'one two three')
    assert.equal(rewindable.isKept, false)
    assert.equal(rewindable.reader(), undefined)
  }
})

test('what is forgotten in the middle is read to its end all the same', async () => {
  const rewindable = new Rewindable(new FedBody().push('one ', 'two ', 'three').end(), 1000)
  await take(rewindable.reader()!, 3)
  const reader = rewindable.reader()!
  assert.equal(await take(reader, 1), 'one ')
  rewindable.forget()
  assert.equal(await readAll(reader), 'two three')
})

test('for an older reader the body fails, even while it waits, and the piece goes to the newest', async () => {
  const source = new FedBody()
  const rewindable = new Rewindable(source, 1000)
  const older = rewindable.reader()!
  const waiting = assert.rejects(older.read(), SidecarError)
  await source.awaited
  const newest = rewindable.reader()!
  const first = newest.read()
  source.push('one ').push('two').end()
  await waiting
  assert.equal((await first)?.toString(), 'one ')
  await assert.rejects(older.read(), SidecarError)
  assert.equal(older.whole(1000), undefined)
  assert.equal(await readAll(newest), 'two')
})

test('an older reader never gets an end, even when nothing is kept any more', async () => {
  const rewindable = new Rewindable(new FedBody().push('one ', 'two ', 'three').end(), 5)
  const older = rewindable.reader()!
  assert.equal(await take(older, 1), 'one ')
  const newest = rewindable.reader()!
  assert.equal(await take(newest, 2), 'one two ')
  await assert.rejects(older.read(), SidecarError)
  assert.equal(await readAll(newest), 'three')
})

test('a failure of the source reaches whoever reads, in its place, and ends it for good', async () => {
  const source = new FedBody()
  const rewindable = new Rewindable(source, 1000)
  const older = rewindable.reader()!
  const waiting = assert.rejects(older.read(), SidecarError)
  await source.awaited
  const newest = rewindable.reader()!
  const failing = assert.rejects(newest.read(), (error) => error === truncated)
  source.fail(truncated)
  await waiting
  await failing
  await assert.rejects(newest.read(), (error) => error === truncated)
  assert.equal(newest.whole(1000), undefined)
  assert.throws(
    () => rewindable.reader(),
    (error) => error === truncated,
  )
})

test('what came before a failure is read before it', async () => {
  const rewindable = new Rewindable(new FedBody().push('one').fail(truncated), 1000)
  await take(rewindable.reader()!, 1)
  const reader = rewindable.reader()!
  assert.equal(await take(reader, 1), 'one')
  await assert.rejects(reader.read(), (error) => error === truncated)
})

test('a source that fails as a whole is not taken for an empty one', () => {
  const source: Body = {
    trailers: [],
    read: async () => undefined,
    whole: () => {
      throw truncated
    },
  }
  const rewindable = new Rewindable(source, 1000)
  for (let i = 0; i < 2; i++) {
    assert.throws(
      () => rewindable.reader(),
      (error) => error === truncated,
    )
  }
})

test('is whole for each reader where its source is, and within the limit that is asked for', async () => {
  const property = fc.asyncProperty(
    fc.string({ maxLength: 20 }),
    fc.nat(20),
    fc.nat(20),
    async (text, limit, asked) => {
      const bytes = Buffer.from(text)
      const rewindable = new Rewindable(new WholeBody(bytes, ['x-sum', '1']), limit)
      for (let i = 0; i < 3; i++) {
        const reader = rewindable.reader()!
        const whole = reader.whole(asked)
        const fits = bytes.length <= limit && bytes.length <= asked
        assert.equal(whole?.toString(), fits ? text : undefined)
        if (whole) assert.equal(await reader.read(), undefined)
        else if (i === 2) assert.equal((await readAll(reader)).length, bytes.length)
        assert.deepEqual(reader.trailers, ['x-sum', '1'])
      }
    },
  )
  await fc.assert(property, runs(300))
})

test('the rest is whole once the end has come', async () => {
  for (const forget of [false, true]) {
    const rewindable = new Rewindable(new FedBody().push('one ', 'two ', 'three').end(), 1000)
    const first = rewindable.reader()!
    assert.equal(first.whole(1000), undefined)
    await readAll(first)
    const reader = rewindable.reader()!
    if (forget) rewindable.forget()
    assert.equal(await take(reader, 1), 'one ')
    assert.equal(reader.whole(8), undefined)
    assert.equal(reader.whole(9)?.toString(), 'two three')
    assert.equal(await reader.read(), undefined)
  }
})

test.run()
