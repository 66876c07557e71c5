import fc from 'fast-check'

/** `FUZZ_SEED=N npm test -- test/fuzz` tries others; the message of what fails says which seed it was. */
const { FUZZ_SEED } = process.env
const seed = FUZZ_SEED === undefined ? 2026 : Number(FUZZ_SEED)
if (!Number.isInteger(seed)) throw new Error(`FUZZ_SEED is an integer, and not ${FUZZ_SEED}`)

/** For `fc.assert`: so many inputs, and the same ones in every run, so that what fails once fails again. */
export function runs(numRuns: number): { seed: number; numRuns: number } {
  return { seed, numRuns }
}

/** Bytes, up to so many. */
export const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array))
/** So many bytes. */
export const exactly = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array))

/** Some edits of bytes that are valid: changed, cut out, put in, cut off. */
export function edited(valid: Buffer): fc.Arbitrary<Buffer> {
  const at = fc.nat(valid.length - 1)
  const edit = fc.oneof(
    fc.record({ at, remove: fc.constant(1), put: exactly(1) }),
    fc.record({ at, remove: fc.nat(40), put: bytes(40) }),
    fc.record({ at, remove: fc.constant(valid.length), put: bytes(4) }),
  )
  return fc.array(edit, { minLength: 1, maxLength: 4 }).map((edits) => {
    let result = valid
    for (const { at, remove, put } of edits) {
      result = Buffer.concat([result.subarray(0, at), put, result.subarray(at + remove)])
    }
    return result
  })
}
