/**
 * How calls go between the sidecars of tests: as in any sidecar that is told nothing, which is by message where they
 * are few, or all by tunnels, where `npm test -- --carriage tunnel` says so by TEST_CARRIAGE.
 */
export const carriage = process.env.TEST_CARRIAGE === 'tunnel' ? 'tunnel' : 'message'

/** What a sidecar of tests is told of it, unless its test tells it something else. */
export const CARRIAGE: { CARRIAGE?: string } = carriage === 'tunnel' ? { CARRIAGE: carriage } : {}

/** What is right by the carriage that is tested. */
export function by<T>(right: { message: T; tunnel: T }): T {
  return right[carriage]
}
