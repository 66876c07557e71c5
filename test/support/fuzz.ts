/** `FUZZ_SEED=N npm test -- test/fuzz` tries others; the message of what fails says which seed it was. */
const { FUZZ_SEED } = process.env
const seed = FUZZ_SEED === undefined ? 2026 : Number(FUZZ_SEED)
if (!Number.isInteger(seed)) throw new Error(`FUZZ_SEED is an integer, and not ${FUZZ_SEED}`)

/** For `fc.assert`: so many inputs, and the same ones in every run, so that what fails once fails again. */
export function runs(numRuns: number): { seed: number; numRuns: number } {
  return { seed, numRuns }
}
