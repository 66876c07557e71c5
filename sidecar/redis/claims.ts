import type { Claim } from '../pair/store.ts'
import type { RedisConnection } from './connection.ts'
import { CLAIM, CLAIMED } from './inbound-scripts.ts'
import type { Place } from './place.ts'

/** Messages that one script claims: it keeps others waiting no longer than a few ms. */
const CLAIMS_AT_ONCE = 128

const OUTCOMES: Record<number, Claim | 'damaged'> = {
  [CLAIMED.gone]: 'gone',
  [CLAIMED.outOfReach]: 'out-of-reach',
  [CLAIMED.replayed]: 'replayed',
  [CLAIMED.fresh]: 'new',
  [CLAIMED.damaged]: 'damaged',
}

export interface ClaimAnswer {
  /** `damaged`: something else than a pair was there, and is gone */
  outcome: Claim | 'damaged'
  /** when the first message of this block was claimed, in ms before now */
  seenMsAgo: number
  /** the lowest block that is not dead */
  floor: number
  /** to the end of the pair */
  endsInMs: number
}

interface Waiting {
  id: string
  block: number
  index: number
  resolve(answer: ClaimAnswer): void
  reject(error: unknown): void
}

/** Claims messages, those of one turn of the event loop together: one command, one round trip. */
export class Claims {
  readonly #connection: RedisConnection
  readonly #place: Place
  #waiting: Waiting[] = []

  constructor(connection: RedisConnection, place: Place) {
    this.#connection = connection
    this.#place = place
  }

  /**
   * @param id of the pair, in hex
   * @throws StoreUnavailableError; the message may have been marked then
   */
  claim(id: string, block: number, index: number): Promise<ClaimAnswer> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length === 0) setImmediate(() => this.#flush())
      this.#waiting.push({ id, block, index, resolve, reject })
    })
  }

  #flush(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (let at = 0; at < waiting.length; at += CLAIMS_AT_ONCE)
      this.#send(waiting.slice(at, at + CLAIMS_AT_ONCE))
  }

  async #send(claims: readonly Waiting[]): Promise<void> {
    const keys = [this.#place.used, this.#place.fresh]
    const args: (string | number)[] = []
    for (const { id, block, index } of claims) {
      keys.push(this.#place.pair(id), this.#place.marks(id, block))
      args.push(id, block, index)
    }
    try {
      const answers = (await this.#connection.run(CLAIM, keys, args)) as number[]
      for (const [i, { resolve }] of claims.entries()) {
        resolve({
          outcome: OUTCOMES[answers[4 * i]!]!,
          seenMsAgo: answers[4 * i + 1]!,
          floor: answers[4 * i + 2]!,
          endsInMs: answers[4 * i + 3]!,
        })
      }
    } catch (error) {
      for (const { reject } of claims) reject(error)
    }
  }
}
