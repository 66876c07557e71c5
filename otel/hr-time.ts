import type { HrTime } from '@opentelemetry/api'

/** How often the clock of spans is compared with the system's, and what they may differ by. */
const CHECK_MS = 10_000
const DRIFT_MS_MAX = 5

let originMs = performance.timeOrigin
let checkedMs = 0

/**
 * A moment of performance.now() as OpenTelemetry takes it, to the microsecond: its SDK would take the number as well,
 * but with each span by a clock of its own, of whole milliseconds, so that spans would not nest.
 */
export function hrTime(ms: number): HrTime {
  if (ms - checkedMs > CHECK_MS) {
    checkedMs = ms
    const driftMs = Date.now() - (originMs + performance.now())
    if (Math.abs(driftMs) > DRIFT_MS_MAX) originMs += driftMs
  }
  const us = Math.round(1000 * (originMs + ms))
  const seconds = Math.floor(us / 1e6)
  return [seconds, 1000 * (us - 1e6 * seconds)]
}
