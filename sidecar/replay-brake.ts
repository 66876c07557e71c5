import { setTimeout as delay } from 'node:timers/promises'

/** Replays that are answered at once, in any second: those of a mesh that retries, and of calls that heal. */
const AT_ONCE_PER_SECOND = 100
const DELAY_MS = 250
/** Answers that wait at a time; a connection has 1,000 streams. */
const WAITING_MAX = 4000

/**
 * Lets whoever floods with replays wait for his answers: the streams of his connections are used up, and the rest of
 * the time is for good calls.
 */
export class ReplayBrake {
  readonly #clockMs: () => number
  #secondMs = Number.NEGATIVE_INFINITY
  #replays = 0
  #waiting = 0

  /** @param clockMs a monotonic clock */
  constructor(clockMs: () => number) {
    this.#clockMs = clockMs
  }

  /** Resolves when one more replay may be answered. */
  async take(): Promise<void> {
    const nowMs = this.#clockMs()
    if (nowMs >= this.#secondMs + 1000) {
      this.#secondMs = nowMs
      this.#replays = 0
    }
    if (++this.#replays <= AT_ONCE_PER_SECOND || this.#waiting >= WAITING_MAX) return
    this.#waiting++
    await delay(DELAY_MS, undefined, { ref: false })
    this.#waiting--
  }
}
