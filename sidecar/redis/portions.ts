/** Keys that one script asks about: it keeps others waiting no longer than a few ms. */
const KEYS_AT_ONCE = 500

/** What many keys are asked for, as many at once as one script may. */
export function portions<T>(all: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(all.length / KEYS_AT_ONCE) }, (_, i) =>
    all.slice(i * KEYS_AT_ONCE, (i + 1) * KEYS_AT_ONCE),
  )
}
