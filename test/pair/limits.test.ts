import assert from 'node:assert/strict'
import fc from 'fast-check'
import { PairingLimits, SeenHellos } from '../../sidecar/pair/limits.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'
import { seeded } from './fakes.ts'

const test = suite('pair/limits')

/** How many of so many pairings are let in at once. */
function taken(limits: PairingLimits, nowMs: number, names: readonly string[]): number {
  return names.filter((name) => limits.take(name, nowMs)).length
}

const times = (count: number, name: (i: number) => string) => Array.from({ length: count }, (_, i) => name(i))

test('lets one initiator pair 100 times at once, and then 20 times a second', () => {
  const limits = new PairingLimits(0)
  assert.equal(
    taken(
      limits,
      0,
      times(150, () => 'orders'),
    ),
    100,
  )
  assert.equal(taken(limits, 49, ['orders']), 0)
  assert.equal(taken(limits, 50, ['orders', 'orders']), 1)
  assert.equal(
    taken(
      limits,
      1050,
      times(50, () => 'orders'),
    ),
    20,
  )
  assert.equal(
    taken(
      limits,
      3_600_000,
      times(150, () => 'orders'),
    ),
    100,
  )
})

test('does not let one initiator keep another one out', () => {
  const limits = new PairingLimits(0)
  taken(
    limits,
    0,
    times(1000, () => 'orders'),
  )
  assert.equal(taken(limits, 0, ['billing', 'orders', 'billing']), 2)
})

test('lets all initiators together pair 200 times at once, and then 100 times a second', () => {
  const limits = new PairingLimits(0)
  assert.equal(
    taken(
      limits,
      0,
      times(300, (i) => `relay ${i}`),
    ),
    200,
  )
  assert.equal(taken(limits, 9, ['orders']), 0)
  assert.equal(
    taken(
      limits,
      1000,
      times(300, (i) => `relay ${i}`),
    ),
    100,
  )
})

test('counts no pairing that it refuses', () => {
  const limits = new PairingLimits(0)
  taken(
    limits,
    0,
    times(200, (i) => `relay ${i}`),
  )
  // In total there is no room: the initiator's own share stays whole.
  assert.equal(
    taken(
      limits,
      0,
      times(100, () => 'orders'),
    ),
    0,
  )
  assert.equal(
    taken(
      limits,
      1000,
      times(100, () => 'orders'),
    ),
    100,
  )
})

test('never lets in more than its rate allows, with names of all kinds', () => {
  const calls = fc.array(
    fc.record({ pauseMs: fc.nat(30), name: fc.constantFrom('a', 'b', '', '__proto__') }),
    {
      minLength: 300,
      maxLength: 600,
    },
  )
  fc.assert(
    fc.property(calls, (sequence) => {
      const limits = new PairingLimits(0)
      const counts = new Map<string, number>()
      let nowMs = 0
      for (const { pauseMs, name } of sequence) {
        nowMs += pauseMs
        if (!limits.take(name, nowMs)) continue
        const count = (counts.get(name) ?? 0) + 1
        counts.set(name, count)
        assert.ok(count <= 100 + nowMs / 50 + 1e-6)
      }
    }),
    runs(30),
  )
})

test('remembers 10,000 initiators, and forgets the one that came first', () => {
  for (const [others, allowed] of [
    [9_999, 0],
    [10_000, 1],
  ] as const) {
    const limits = new PairingLimits(0)
    limits.take('first', 0)
    for (let i = 1; i < others; i++) assert.ok(limits.take(`relay ${i}`, 10 * i))
    const nowMs = 10 * others
    assert.equal(
      taken(
        limits,
        nowMs,
        times(101, () => 'first'),
      ),
      100,
    )
    assert.ok(limits.take('the last', nowMs))
    assert.equal(taken(limits, nowMs, ['first']), allowed)
  }
})

test('remembers a pairing message for 660 s', () => {
  const seen = new SeenHellos()
  const random = seeded('hellos')
  const [one, another] = [random(32), random(32)]
  assert.equal(seen.has(one, 0), false)
  seen.add(one, 0)
  assert.equal(seen.has(Buffer.from(one), 659_999), true)
  assert.equal(seen.has(another, 0), false)
  assert.equal(seen.has(one, 660_000), false)
})

test('goes on remembering the later ones when it forgets the first', () => {
  const seen = new SeenHellos()
  const random = seeded('more hellos')
  const hashes = Array.from({ length: 10 }, () => random(32))
  for (const [i, hash] of hashes.entries()) seen.add(hash, i * 100_000)
  for (const [i, hash] of hashes.entries()) assert.equal(seen.has(hash, 900_000), i >= 3)
})

test.run()
