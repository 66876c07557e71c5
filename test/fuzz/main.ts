/**
 * Shows bytes to the HTTP/1.1 readers of the sidecar and to node:http until the time is over, and fails with the first
 * ones that the sidecar takes, and node:http does not, or for something else.
 *
 *     npm run fuzz                            10 minutes, other inputs each time
 *     npm run fuzz -- --minutes 1 --seed 7    the same inputs each time
 */
import { parseArgs } from 'node:util'
import { Counts, compareMutations, compareSeeds, DifferenceError } from './http1-differential.ts'
import { Mutations } from './http1-mutations.ts'

/** Between two looks at the clock. */
const PAIRS = 10_000
const TELL_EVERY_MS = 60_000

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: `${Date.now() % 2 ** 31}` },
  },
})
const minutes = Number(values.minutes)
const seed = Number(values.seed)
if (!(minutes > 0) || !Number.isInteger(seed)) {
  console.error('--minutes is a number above 0, and --seed an integer.')
  process.exit(2)
}

const counts = new Counts()
const mutations = new Mutations(seed)
const startMs = performance.now()
let tellAtMs = startMs + TELL_EVERY_MS
console.log(`Seed ${seed}`)
try {
  await compareSeeds(counts)
  while (performance.now() < startMs + minutes * 60_000) {
    await compareMutations(counts, mutations, PAIRS)
    if (performance.now() < tellAtMs) continue
    tellAtMs += TELL_EVERY_MS
    tell()
  }
} catch (error) {
  if (!(error instanceof DifferenceError)) throw error
  console.error(error.message)
  process.exitCode = 1
}
tell()

function tell(): void {
  const { inputs, takenByBoth, refusedByBoth, refusedBySidecar } = counts
  const seconds = Math.round((performance.now() - startMs) / 1000)
  console.log(
    `${seconds} s: ${inputs} inputs, ${takenByBoth} taken by both, ${refusedByBoth} refused by both, ${refusedBySidecar} refused by the sidecar alone`,
  )
}
