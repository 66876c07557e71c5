import assert from 'node:assert/strict'
import { hrTimeToMicroseconds } from '@opentelemetry/core'
import fc from 'fast-check'
import { hrTime } from '../../otel/hr-time.ts'
import { suite } from '../support/suite.ts'

const test = suite('hr time')

const DAY_MS = 24 * 60 * 60 * 1000

test('now is now, to within what the clocks of a system may differ by', () => {
  const [seconds, nanos] = hrTime(performance.now())
  assert.ok(Math.abs(1000 * seconds + nanos / 1e6 - Date.now()) < 50)
})

test('moments keep their distance, to the microsecond', () => {
  const beganMs = performance.now()
  const [began, ended] = [beganMs, beganMs + 1.234].map((ms) => hrTimeToMicroseconds(hrTime(ms)))
  assert.ok(Math.abs(ended! - began! - 1234) <= 1)
})

test('it is whole microseconds below a second, and later moments are never earlier', () => {
  // All within the time after which clocks are compared again.
  const baseMs = performance.now()
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 5000, noNaN: true }),
      fc.double({ min: 0, max: 4000, noNaN: true }),
      (a, b) => {
        const times = [a, a + b].map((ms) => hrTime(baseMs + ms))
        for (const [seconds, nanos] of times) {
          assert.ok(Number.isInteger(seconds) && Number.isInteger(nanos) && nanos % 1000 === 0)
          assert.ok(nanos >= 0 && nanos <= 1e9, String(nanos))
        }
        const [one, two] = times.map(hrTimeToMicroseconds)
        assert.ok(one! <= two!)
      },
    ),
    { seed: 1, numRuns: 500 },
  )
})

test('nanoseconds are below a second also where rounding would make them one', () => {
  const baseMs = performance.now()
  const [, nanos] = hrTime(baseMs)
  const toNextMs = 1000 - nanos / 1e6
  for (let i = -40; i <= 40; i++) {
    const [, near] = hrTime(baseMs + toNextMs + i / 20_000)
    assert.ok(near < 1e9, String(near))
  }
})

test('a clock that was set is followed, but for what drifts as clocks do', () => {
  const { now } = Date
  const at = (ms: number) => {
    const [seconds, nanos] = hrTime(ms)
    return 1000 * seconds + nanos / 1e6
  }
  const laterMs = performance.now() + DAY_MS
  const before = at(laterMs)
  try {
    Date.now = () => now() + 3_600_000
    assert.ok(Math.abs(at(laterMs + 1) - (before + 1)) < 0.01, 'not looked at again within 10 s')
    const after = at(laterMs + 10_001)
    assert.ok(Math.abs(after - (before + 10_001 + 3_600_000)) < 50, String(after - before))
    Date.now = () => now() + 3_600_000 + 1
    assert.ok(Math.abs(at(laterMs + 30_000) - (after + 19_999)) < 0.01)
  } finally {
    Date.now = now
    at(laterMs + 60_000)
  }
})

test.run()
