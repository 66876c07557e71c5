const { TEST_CARRIAGE } = process.env

/**
 * How calls go between the sidecars of tests: by tunnel where `--carriage tunnel` says so. Otherwise as in any sidecar
 * that is told nothing, and so as messages where they are few.
 */
export const carriage = TEST_CARRIAGE === 'tunnel' ? 'tunnel' : 'message'

/** What a sidecar of tests is told of it, unless its test tells it something else. */
export const CARRIAGE: { CARRIAGE?: string } = TEST_CARRIAGE ? { CARRIAGE: TEST_CARRIAGE } : {}

/** What is right by the carriage that is tested. */
export function by<T>(right: { message: T; tunnel: T }): T {
  return right[carriage]
}
