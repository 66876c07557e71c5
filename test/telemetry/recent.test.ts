import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { CallLabels } from '../../sidecar/telemetry/metrics.ts'
import { type PeerFigures, Recent, snapshotOf } from '../../sidecar/telemetry/recent.ts'
import { suite } from '../support/suite.ts'

const test = suite('recent')

/** With a clock that stands until it is set. */
function start(): { recent: Recent; at(seconds: number): void } {
  // Any monotonic clock will do: this one has run for a while.
  let nowMs = 1_234_567
  const recent = new Recent(() => nowMs)
  return {
    recent,
    at(seconds) {
      nowMs = 1_234_567 + seconds * 1000
    },
  }
}

function labels(peer: string, error = '', direction: CallLabels['direction'] = 'outbound'): CallLabels {
  return { direction, peer, method: 'GET', status: 200, error }
}

function of(recent: Recent, peer: string): PeerFigures {
  const found = snapshotOf([recent.tally()]).peers.find((one) => one.peer === peer)
  assert.ok(found, `no figures of ${peer}`)
  return found
}

test('it has nothing to tell at first', () => {
  const { all, peers, rejects } = snapshotOf([start().recent.tally()])
  const nothing = {
    calls: 0,
    callsPerSecond: 0,
    p50Seconds: undefined,
    p99Seconds: undefined,
    failures: [],
  }
  assert.deepEqual(
    { all, peers, rejects },
    { all: { outbound: nothing, inbound: nothing }, peers: [], rejects: [] },
  )
})

test('it tells calls a second, of the time that it has been there', () => {
  const { recent, at } = start()
  for (let i = 0; i < 30; i++) recent.served(labels('billing'), 0.01)
  at(10)
  assert.equal(of(recent, 'billing').callsPerSecond, 3)
  assert.equal(snapshotOf([recent.tally()]).all.outbound.callsPerSecond, 3)
  assert.equal(snapshotOf([recent.tally()]).all.inbound.callsPerSecond, 0)
})

test('a steady stream of calls has a steady rate, whenever it is looked at', () => {
  const { recent, at } = start()
  for (let i = 0; i < 2000; i++) {
    at(i / 10)
    recent.served(labels('billing'), 0.01)
    const { callsPerSecond } = of(recent, 'billing')
    if (i >= 50) assert.ok(callsPerSecond > 9 && callsPerSecond < 11, `${callsPerSecond}/s after ${i / 10} s`)
  }
})

test('what is older than a minute is forgotten, but for when a call last succeeded and last failed', () => {
  const { recent, at } = start()
  recent.served(labels('billing'), 0.01)
  at(1)
  recent.served(labels('billing', 'upstream-timeout'), 0.01)
  recent.rejected('sent', 'replayed')
  at(54)
  assert.deepEqual(
    [of(recent, 'billing').calls, of(recent, 'billing').failures],
    [2, [{ code: 'upstream-timeout', count: 1 }]],
  )
  for (const seconds of [61, 10_000]) {
    at(seconds)
    assert.deepEqual(of(recent, 'billing'), {
      direction: 'outbound',
      peer: 'billing',
      calls: 0,
      callsPerSecond: 0,
      p50Seconds: undefined,
      p99Seconds: undefined,
      failures: [],
      lastSuccessSeconds: seconds,
      lastFailure: { code: 'upstream-timeout', secondsAgo: seconds - 1 },
    })
    const [rejects] = snapshotOf([recent.tally()]).rejects
    assert.deepEqual(rejects, { direction: 'sent', code: 'replayed', lastMinute: 0, total: 1 })
  }
})

test('a call after a long silence is counted alone', () => {
  const { recent, at } = start()
  for (let i = 0; i < 100; i++) {
    at(i)
    recent.served(labels('billing'), 0.01)
  }
  at(100_000)
  recent.served(labels('billing'), 0.01)
  assert.equal(of(recent, 'billing').calls, 1)
})

test('p50 and p99 are those of the calls, to within 5 %', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0.0001, max: 900, noNaN: true }), { minLength: 1 }),
      (latencies) => {
        const { recent } = start()
        for (const seconds of latencies) recent.served(labels('billing'), seconds)
        const sorted = latencies.toSorted((a, b) => a - b)
        const { p50Seconds, p99Seconds } = of(recent, 'billing')
        for (const [quantile, told] of [
          [0.5, p50Seconds!],
          [0.99, p99Seconds!],
        ] as const) {
          const exact = sorted[Math.ceil(quantile * sorted.length) - 1]!
          assert.ok(Math.abs(told / exact - 1) < 0.05, `${told} for ${exact}`)
        }
      },
    ),
    { seed: 1, numRuns: 200 },
  )
})

test('a call of no time at all, and one of days, are counted', () => {
  const { recent } = start()
  for (const seconds of [0, 0, 1_000_000]) recent.served(labels('billing'), seconds)
  const { calls, p50Seconds, p99Seconds } = of(recent, 'billing')
  assert.equal(calls, 3)
  assert.ok(p50Seconds! < 0.0001)
  assert.ok(p99Seconds! > 900)
})

test('failures are told by code, the most frequent first', () => {
  const { recent } = start()
  for (const error of ['503', 'upstream-timeout', '', 'upstream-timeout'])
    recent.served(labels('billing', error), 1)
  const failures = [
    { code: 'upstream-timeout', count: 2 },
    { code: '503', count: 1 },
  ]
  assert.deepEqual(of(recent, 'billing').failures, failures)
  assert.deepEqual(snapshotOf([recent.tally()]).all.outbound.failures, failures)
})

test('directions are kept apart', () => {
  const { recent } = start()
  recent.served(labels('billing', '', 'outbound'), 1)
  recent.served(labels('billing', '', 'inbound'), 1)
  recent.served(labels('billing', '', 'inbound'), 1)
  recent.rejected('sent', 'malformed')
  recent.rejected('received', 'malformed')
  const { peers, all, rejects } = snapshotOf([recent.tally()])
  assert.deepEqual(
    peers.map(({ direction, calls }) => [direction, calls]),
    [
      ['outbound', 1],
      ['inbound', 2],
    ],
  )
  assert.deepEqual([all.outbound.calls, all.inbound.calls], [1, 2])
  assert.deepEqual(
    rejects.map(({ direction, lastMinute }) => [direction, lastMinute]),
    [
      ['sent', 1],
      ['received', 1],
    ],
  )
})

test('of more than 100 peers those that came first are told apart, and no call is lost', () => {
  const { recent } = start()
  for (let i = 0; i < 1000; i++) recent.served(labels(`peer-${i}`), 0.01)
  recent.served(labels('peer-0'), 0.01)
  const { peers, all } = snapshotOf([recent.tally()])
  assert.equal(peers.length, 101)
  assert.deepEqual([of(recent, 'peer-0').calls, of(recent, 'other').calls], [2, 900])
  assert.equal(all.outbound.calls, 1001)
})

test('of more codes than there are, those that came first are told apart', () => {
  const { recent } = start()
  for (let i = 0; i < 1000; i++) {
    recent.served(labels('billing', `code-${i}`), 0.01)
    recent.rejected('received', `code-${i}`)
  }
  const { rejects } = snapshotOf([recent.tally()])
  assert.equal(of(recent, 'billing').failures.length, 51)
  assert.deepEqual(of(recent, 'billing').failures[0], { code: 'other', count: 950 })
  assert.equal(rejects.length, 51)
})

test('what several processes counted is one', () => {
  const processes = [0, 20_000].map((startMs) => {
    let nowMs = startMs
    const recent = new Recent(() => nowMs)
    return { recent, at: (ms: number) => (nowMs = startMs + ms) }
  })
  const calls: [process: number, peer: string, error: string, seconds: number][] = [
    [0, 'a', '', 0.001],
    [1, 'a', 'idle-timeout', 1],
    [1, 'a', '', 0.001],
    [0, 'b', 'idle-timeout', 1],
  ]
  for (const [i, [process, peer, error, seconds]] of calls.entries()) {
    const { recent, at } = processes[process]!
    at(1000 * i)
    recent.served({ direction: 'inbound', peer, method: 'GET', status: 200, error }, seconds)
    recent.rejected('sent', 'replayed')
  }
  for (const { at } of processes) at(4000)
  // They are cloned on their way from process to process.
  const { all, peers, rejects } = snapshotOf(structuredClone(processes.map(({ recent }) => recent.tally())))
  assert.deepEqual([all.inbound.calls, all.inbound.callsPerSecond, all.outbound.calls], [4, 1, 0])
  assert.deepEqual(all.inbound.failures, [{ code: 'idle-timeout', count: 2 }])
  assert.ok(all.inbound.p50Seconds! < 0.002 && all.inbound.p99Seconds! > 0.9)
  assert.deepEqual(
    peers.map(({ peer, calls, lastSuccessSeconds, lastFailure }) => [
      peer,
      calls,
      lastSuccessSeconds,
      lastFailure?.secondsAgo,
    ]),
    [
      ['a', 3, 2, 3],
      ['b', 1, undefined, 1],
    ],
  )
  assert.deepEqual(rejects, [{ direction: 'sent', code: 'replayed', lastMinute: 4, total: 4 }])
})

test.run()
