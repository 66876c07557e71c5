import assert from 'node:assert/strict'
import { Coding } from '../../sidecar/telemetry/coding.ts'
import { suite } from '../support/suite.ts'

const test = suite('coding')

test('it has no sizes and no end until there is something to tell', () => {
  const coding = new Coding('encode', 'request')
  assert.deepEqual([coding.operation, coding.what], ['encode', 'request'])
  assert.deepEqual([coding.plaintextBytes, coding.messageBytes, coding.chunks], [0, 0, 0])
  assert.deepEqual([coding.workMs, coding.endMs], [0, undefined])
})

test('its sizes are those that whatever seals or opens has come to', () => {
  const coding = new Coding('decode', 'response')
  const counts = { plaintextBytes: 0, messageBytes: 14, chunks: 0 }
  coding.of(counts)
  assert.equal(coding.messageBytes, 14)
  Object.assign(counts, { plaintextBytes: 3, messageBytes: 40, chunks: 2 })
  assert.deepEqual([coding.plaintextBytes, coding.messageBytes, coding.chunks], [3, 40, 2])
})

test('its work is what was spent within, also where that fails, and not what was waited for', async () => {
  const coding = new Coding('encode', 'response')
  assert.equal(
    coding.work(() => 'made'),
    'made',
  )
  const first = coding.workMs
  assert.ok(first > 0)
  assert.throws(
    () =>
      coding.work(() => {
        const beganMs = performance.now()
        while (performance.now() - beganMs <= 2);
        throw new Error('planted')
      }),
    /planted/,
  )
  const workMs = coding.workMs
  assert.ok(workMs > first + 1)
  const sinceMs = performance.now()
  while (performance.now() - sinceMs < 2) await Promise.resolve()
  assert.equal(coding.workMs, workMs)
})

test('whoever waits for its end is told once, and at once if it was before', () => {
  const told: string[] = []
  const telling = (name: string) => ({ onCoded: (ended: Coding) => void told.push(`${name} ${ended.what}`) })
  const coding = new Coding('encode', 'request', telling('first'))
  coding.alsoTell(telling('second'))
  assert.equal(told.length, 0)
  const beforeMs = performance.now()
  coding.end()
  assert.ok(coding.endMs! >= beforeMs && coding.endMs! >= coding.startMs)
  assert.deepEqual(told, ['first request', 'second request'])
  coding.alsoTell(telling('late'))
  assert.deepEqual(told, ['first request', 'second request', 'late request'])
})

test.run()
