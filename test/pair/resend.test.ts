import assert from 'node:assert/strict'
import fc from 'fast-check'
import { REJECTS, type RejectName } from '../../sidecar/pair/reject.ts'
import { type FailedCopy, Resend, type Verdict } from '../../sidecar/pair/resend.ts'
import { type Repeatability, repeatability } from '../../sidecar/repeatability.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('pair/resend')

const KINDS: Repeatability[] = ['safe', 'idempotent', 'unsafe']
const ALL_KEPT = { same: true, anew: true }

/** A copy that left 10 ms ago and came to nothing, in an authentic way if it was by a reject. */
function failed(what: FailedCopy['what'], changed: Partial<FailedCopy> = {}): FailedCopy {
  const authentic = what !== 'broken' && what !== 'timed-out'
  return { what, authentic, sent: true, elapsedMs: 10, storeAgeMs: 0, ...changed }
}

const unproven = (what: RejectName) => failed(what, { authentic: false, storeAgeMs: 1_000_000 })

/** Short for a verdict: `same`, `anew`, `certain` or `unknown`. */
const said = (verdict: Verdict) => (verdict.again === 'no' ? verdict.outcome : verdict.again)

/** What is said of copies that fail one after the other. */
function judged(kind: Repeatability, copies: FailedCopy[], kept = ALL_KEPT): string[] {
  const resend = new Resend(kind)
  return copies.map((copy, i) => said(resend.judge(copy, 1000 + 10 * (i + 1), kept)))
}

test('knows what running a call twice does', () => {
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'TRACE']) assert.equal(repeatability(method, false), 'safe')
  for (const method of ['PUT', 'DELETE']) assert.equal(repeatability(method, false), 'idempotent')
  for (const method of ['POST', 'PATCH', 'CONNECT', 'PROPFIND', 'get', 'Put', '']) {
    assert.equal(repeatability(method, false), 'unsafe')
    assert.equal(repeatability(method, true), 'idempotent')
  }
  assert.equal(repeatability('GET', true), 'safe')
})

/** What the first failure leads to, for safe, idempotent and unsafe calls. */
const TABLE: [string, FailedCopy, [safe: string, idempotent: string, unsafe: string]][] = [
  ['unknown_pair', failed('unknown_pair'), ['anew', 'anew', 'unknown']],
  ['unknown_pair, unproven', unproven('unknown_pair'), ['anew', 'anew', 'unknown']],
  ['unknown_pair of an old store', failed('unknown_pair', { storeAgeMs: 1e6 }), ['anew', 'anew', 'unknown']],
  ['block_out_of_reach', failed('block_out_of_reach', { storeAgeMs: 1e6 }), ['anew', 'anew', 'unknown']],
  ['block_out_of_reach, unproven', unproven('block_out_of_reach'), ['anew', 'anew', 'unknown']],
  ['state_lost of an older store', failed('state_lost', { storeAgeMs: 11 }), ['anew', 'anew', 'anew']],
  ['state_lost of a store as old', failed('state_lost', { storeAgeMs: 10 }), ['anew', 'anew', 'unknown']],
  ['state_lost of a younger store', failed('state_lost', { storeAgeMs: 9 }), ['anew', 'anew', 'unknown']],
  ['state_lost, unproven', unproven('state_lost'), ['anew', 'anew', 'unknown']],
  ['replayed', failed('replayed'), ['anew', 'anew', 'unknown']],
  ['replayed, unproven', unproven('replayed'), ['anew', 'anew', 'unknown']],
  ['decrypt_failed', failed('decrypt_failed'), ['same', 'same', 'same']],
  ['decrypt_failed, unproven', unproven('decrypt_failed'), ['same', 'same', 'same']],
  ['malformed', failed('malformed'), ['same', 'same', 'same']],
  ['malformed, unproven', unproven('malformed'), ['same', 'same', 'same']],
  ['unsupported', failed('unsupported'), ['certain', 'certain', 'certain']],
  ['unsupported, unproven', unproven('unsupported'), ['same', 'same', 'same']],
  ['psk_unknown', failed('psk_unknown'), ['certain', 'certain', 'certain']],
  ['psk_unknown, unproven', unproven('psk_unknown'), ['same', 'same', 'same']],
  ['auth_failed', failed('auth_failed'), ['certain', 'certain', 'certain']],
  ['auth_failed, unproven', unproven('auth_failed'), ['same', 'same', 'same']],
  ['clock_skew', failed('clock_skew'), ['certain', 'certain', 'certain']],
  ['clock_skew, unproven', unproven('clock_skew'), ['same', 'same', 'same']],
  ['rate_limited', failed('rate_limited'), ['certain', 'certain', 'certain']],
  ['rate_limited, unproven', unproven('rate_limited'), ['same', 'same', 'same']],
  ['too_large', failed('too_large'), ['certain', 'certain', 'certain']],
  ['too_large, unproven', unproven('too_large'), ['same', 'same', 'same']],
  ['state_unavailable', failed('state_unavailable'), ['same', 'same', 'same']],
  ['state_unavailable, unproven', unproven('state_unavailable'), ['same', 'same', 'same']],
  ['a broken connection', failed('broken'), ['same', 'same', 'same']],
  ['no connection', failed('broken', { sent: false }), ['same', 'same', 'same']],
  ['no answer in time', failed('timed-out'), ['certain', 'unknown', 'unknown']],
]

for (const [name, copy, verdicts] of TABLE) {
  test(`knows what to do after ${name}`, () => {
    assert.deepEqual(
      KINDS.map((kind) => judged(kind, [copy])[0]),
      verdicts,
    )
  })
}

/** Of the same failures, what is left when neither the bytes nor the call are kept. */
const NOT_KEPT: [string, FailedCopy, [safe: string, idempotent: string, unsafe: string]][] = [
  ['unknown_pair', failed('unknown_pair'), ['certain', 'unknown', 'unknown']],
  [
    'state_lost of an older store',
    failed('state_lost', { storeAgeMs: 11 }),
    ['certain', 'certain', 'certain'],
  ],
  [
    'state_lost of a younger store',
    failed('state_lost', { storeAgeMs: 9 }),
    ['certain', 'unknown', 'unknown'],
  ],
  ['decrypt_failed', failed('decrypt_failed'), ['certain', 'unknown', 'unknown']],
  ['malformed', failed('malformed'), ['certain', 'unknown', 'unknown']],
  ['malformed, unproven', unproven('malformed'), ['certain', 'unknown', 'unknown']],
  ['state_unavailable', failed('state_unavailable'), ['certain', 'certain', 'certain']],
  ['state_unavailable, unproven', unproven('state_unavailable'), ['certain', 'unknown', 'unknown']],
  ['a broken connection', failed('broken'), ['certain', 'unknown', 'unknown']],
  ['no connection', failed('broken', { sent: false }), ['certain', 'certain', 'certain']],
]

for (const [name, copy, verdicts] of NOT_KEPT) {
  test(`says what became of a call that is not kept after ${name}`, () => {
    assert.deepEqual(
      KINDS.map((kind) => judged(kind, [copy], { same: false, anew: false })[0]),
      verdicts,
    )
  })
}

test('has a row for every reject', () => {
  for (const name of Object.keys(REJECTS))
    assert.ok(
      TABLE.some(([row]) => row.startsWith(name)),
      name,
    )
})

test('needs the kept bytes for the same, and the kept call for anew', () => {
  assert.deepEqual(judged('safe', [failed('broken')], { same: true, anew: false }), ['same'])
  assert.deepEqual(judged('safe', [failed('broken')], { same: false, anew: true }), ['certain'])
  assert.deepEqual(judged('safe', [failed('unknown_pair')], { same: false, anew: true }), ['anew'])
  assert.deepEqual(judged('safe', [failed('unknown_pair')], { same: true, anew: false }), ['certain'])
})

test('resends the same bytes at most twice', () => {
  for (const what of ['broken', 'state_unavailable'] as const) {
    assert.deepEqual(judged('idempotent', Array(3).fill(failed(what))).slice(0, 2), ['same', 'same'])
  }
  assert.equal(judged('unsafe', Array(3).fill(failed('broken')))[2], 'unknown')
  assert.equal(judged('unsafe', Array(3).fill(failed('state_unavailable')))[2], 'certain')
  assert.equal(judged('safe', Array(3).fill(failed('broken')))[2], 'certain')
  assert.equal(judged('unsafe', Array(3).fill(failed('broken', { sent: false })))[2], 'certain')
  const mixed = [failed('broken'), failed('decrypt_failed'), failed('state_unavailable')]
  assert.deepEqual(judged('unsafe', mixed), ['same', 'same', 'unknown'])
})

test('waits before it resends, the second time for longer', () => {
  const resend = new Resend('unsafe')
  const delays = [1, 2].map((i) => {
    const verdict = resend.judge(failed('broken'), 1000 * i, ALL_KEPT)
    return verdict.again === 'same' ? verdict.delayMs : undefined
  })
  assert.deepEqual(delays, [50, 500])
})

test('resends the same bytes within 5 s of their first copy, however long the pairing took before', () => {
  const within = new Resend('unsafe')
  assert.equal(said(within.judge(failed('broken', { elapsedMs: 4999 }), 99_000, ALL_KEPT)), 'same')
  const first = new Resend('unsafe')
  assert.equal(said(first.judge(failed('broken', { elapsedMs: 5000 }), 99_000, ALL_KEPT)), 'unknown')
  const second = new Resend('unsafe')
  assert.equal(said(second.judge(failed('broken', { elapsedMs: 3000 }), 3000, ALL_KEPT)), 'same')
  assert.equal(said(second.judge(failed('broken', { elapsedMs: 1000 }), 5000, ALL_KEPT)), 'unknown')
})

for (const what of ['decrypt_failed', 'malformed'] as const) {
  test(`resends once after ${what}, and then does not know`, () => {
    assert.deepEqual(judged('unsafe', Array(2).fill(failed(what))), ['same', 'unknown'])
    assert.deepEqual(judged('unsafe', [failed(what), failed('replayed')]), ['same', 'unknown'])
    assert.deepEqual(judged('safe', Array(2).fill(failed(what))), ['same', 'certain'])
  })
}

test('encodes anew three times: several pairs may be gone', () => {
  const anew = Array(3).fill('anew')
  for (const kind of KINDS) {
    const lost = failed('state_lost', { storeAgeMs: 1000 })
    assert.deepEqual(judged(kind, Array(4).fill(lost)), [...anew, 'certain'])
  }
  assert.deepEqual(judged('safe', Array(4).fill(failed('unknown_pair'))), [...anew, 'certain'])
  assert.deepEqual(judged('idempotent', Array(4).fill(failed('unknown_pair'))), [...anew, 'unknown'])
})

test('gives a message that was encoded anew its own resends', () => {
  const garbled = failed('decrypt_failed')
  assert.deepEqual(judged('safe', [garbled, failed('unknown_pair'), garbled]), ['same', 'anew', 'same'])
  const copies = [failed('broken'), failed('unknown_pair'), ...Array(3).fill(failed('broken'))]
  assert.deepEqual(judged('idempotent', copies), ['same', 'anew', 'same', 'same', 'unknown'])
  const resend = new Resend('safe')
  assert.equal(said(resend.judge(failed('unknown_pair'), 1000, ALL_KEPT)), 'anew')
  assert.equal(said(resend.judge(failed('broken'), 60_000, ALL_KEPT)), 'same')
})

test('takes no proof from a store whose age is rounded up to what has passed', () => {
  const lost = (storeAgeMs: number, elapsedMs: number) =>
    judged('unsafe', [failed('state_lost', { storeAgeMs, elapsedMs })])[0]
  assert.equal(lost(10, 10.5), 'unknown')
  assert.equal(lost(10.9, 10), 'unknown')
  assert.equal(lost(11, 10.999), 'anew')
  assert.equal(lost(0, 0), 'unknown')
})

test('takes no proof when the bytes of another copy left, even one that a store refused', () => {
  const lost = failed('state_lost', { storeAgeMs: 1e6 })
  assert.deepEqual(judged('unsafe', [failed('broken'), lost]), ['same', 'unknown'])
  assert.deepEqual(judged('unsafe', [failed('state_unavailable'), lost]), ['same', 'unknown'])
  assert.deepEqual(judged('unsafe', [failed('decrypt_failed'), lost]), ['same', 'unknown'])
  assert.deepEqual(judged('unsafe', [failed('broken', { sent: false }), lost]), ['same', 'anew'])
})

test('does not take the refusal of one copy for that of another', () => {
  for (const what of ['unsupported', 'auth_failed', 'rate_limited', 'too_large'] as const) {
    assert.deepEqual(judged('unsafe', [failed('broken'), failed(what)]), ['same', 'unknown'])
    assert.deepEqual(judged('safe', [failed('broken'), failed(what)]), ['same', 'certain'])
    assert.deepEqual(judged('unsafe', [failed('broken', { sent: false }), failed(what)]), ['same', 'certain'])
    assert.deepEqual(judged('unsafe', [failed('state_unavailable'), failed(what)]), ['same', 'certain'])
  }
})

test('encodes an unsafe call anew after a proof and never else, in any run of failures', () => {
  const copy = fc.record({
    what: fc.constantFrom(...(Object.keys(REJECTS) as RejectName[]), 'broken' as const, 'timed-out' as const),
    authentic: fc.boolean(),
    sent: fc.boolean(),
    elapsedMs: fc.integer({ min: 0, max: 100 }),
    storeAgeMs: fc.integer({ min: 0, max: 200 }),
  })
  fc.assert(
    fc.property(fc.array(copy, { minLength: 1, maxLength: 8 }), (copies) => {
      const resend = new Resend('unsafe')
      let left = 0
      let anew = 0
      let same = 0
      for (const failure of copies) {
        if (failure.sent) left++
        const verdict = resend.judge(failure, 1000, ALL_KEPT)
        if (verdict.again === 'no') break
        if (verdict.again === 'same') assert.ok(++same <= 2)
        if (verdict.again === 'anew') {
          assert.ok(++anew <= 3)
          assert.ok(left <= 1)
          assert.ok(
            failure.what === 'state_lost' && failure.authentic && failure.storeAgeMs > failure.elapsedMs,
          )
          left = 0
          same = 0
        }
      }
    }),
    runs(500),
  )
})

test.run()
