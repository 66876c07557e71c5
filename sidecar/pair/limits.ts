/** Allows so many events a second on average, and so many at once. */
class Bucket {
  #tokens: number
  #filledAtMs: number
  readonly #perSecond: number
  readonly #burst: number

  constructor(perSecond: number, burst: number, nowMs: number) {
    this.#perSecond = perSecond
    this.#burst = burst
    this.#tokens = burst
    this.#filledAtMs = nowMs
  }

  available(nowMs: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((nowMs - this.#filledAtMs) / 1000) * this.#perSecond)
    this.#filledAtMs = nowMs
    return this.#tokens >= 1
  }

  take(): void {
    this.#tokens--
  }
}

const TOTAL_PER_SECOND = 100
const NAME_PER_SECOND = 20
/** Beyond, the name that came first is forgotten. */
const NAMES_MAX = 10_000

/** The rate at which this responder pairs: by initiator, and in total. */
export class PairingLimits {
  readonly #total: Bucket
  readonly #names = new Map<string, Bucket>()

  /** @param nowMs monotonic */
  constructor(nowMs: number) {
    this.#total = new Bucket(TOTAL_PER_SECOND, 2 * TOTAL_PER_SECOND, nowMs)
  }

  /** Counts a pairing; false, and nothing is counted, when it is one too many. */
  take(name: string, nowMs: number): boolean {
    if (!this.#total.available(nowMs)) return false
    let bucket = this.#names.get(name)
    if (!bucket) {
      if (this.#names.size >= NAMES_MAX) this.#names.delete(this.#names.keys().next().value!)
      bucket = new Bucket(NAME_PER_SECOND, 5 * NAME_PER_SECOND, nowMs)
      this.#names.set(name, bucket)
    }
    if (!bucket.available(nowMs)) return false
    bucket.take()
    this.#total.take()
    return true
  }
}

/** Longer than the time stamp of a message is accepted, both ways, in ms. */
export const HELLO_REMEMBERED_MS = 660_000

/** Pairing messages that were seen, by hash: as many as the limits let in within 660 s. */
export class SeenHellos {
  /** expiry by hash, in the order of expiry */
  readonly #seen = new Map<string, number>()

  has(hash: Buffer, nowMs: number): boolean {
    return (this.#seen.get(hash.toString('base64')) ?? 0) > nowMs
  }

  add(hash: Buffer, nowMs: number): void {
    for (const [old, endsAtMs] of this.#seen) {
      if (endsAtMs > nowMs) break
      this.#seen.delete(old)
    }
    this.#seen.set(hash.toString('base64'), nowMs + HELLO_REMEMBERED_MS)
  }
}
