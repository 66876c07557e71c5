import { BLOCK_LIFE_MS, type ReceivingPair } from './receiving.ts'

/** A pair that no message uses here is read anew when one does: its blocks died meanwhile. */
const UNUSED_MS = 2 * BLOCK_LIFE_MS

interface Known {
  pair: ReceivingPair
  /** until when it need not be looked up, monotonic */
  endsAtMs: number
  usedAtMs: number
}

/** What a store that several processes share tells of a pair's state when one of them claims a message. */
export interface Claimed {
  /** may the message run? */
  isNew: boolean
  /** when the first message of this block was claimed, in ms before now */
  seenMsAgo: number
  /** the lowest block that is not dead */
  floor: number
  /** to the end of the pair */
  endsInMs: number
}

/**
 * The pairs that peers made, as one of the processes knows them that share a store: their keys are in its memory, and
 * what decides is in the store. Ids are in hex.
 */
export class KnownPairs {
  readonly #clockMs: () => number
  readonly #known = new Map<string, Known>()
  readonly #lookups = new Map<string, Promise<ReceivingPair | undefined>>()

  /** @param clockMs monotonic */
  constructor(clockMs: () => number) {
    this.#clockMs = clockMs
  }

  /** The pair, if it need not be looked up for a message of this block. */
  find(id: string, block: number): ReceivingPair | undefined {
    const known = this.#known.get(id)
    const nowMs = this.#clockMs()
    if (!known || nowMs >= known.endsAtMs || !known.pair.reaches(block)) return undefined
    known.usedAtMs = nowMs
    return known.pair
  }

  /** The pair, whatever else is known of it. */
  get(id: string): ReceivingPair | undefined {
    return this.#known.get(id)?.pair
  }

  /** Reads a pair from the store, once however many messages wait for it. */
  lookUp(id: string, read: () => Promise<ReceivingPair | undefined>): Promise<ReceivingPair | undefined> {
    let lookup = this.#lookups.get(id)
    if (!lookup) {
      lookup = read().finally(() => this.#lookups.delete(id))
      this.#lookups.set(id, lookup)
    }
    return lookup
  }

  /** @param endsAtMs monotonic */
  keep(id: string, pair: ReceivingPair, endsAtMs: number): void {
    this.#known.set(id, { pair, endsAtMs, usedAtMs: this.#clockMs() })
  }

  /** A message of a block was claimed in the store. */
  claimed(id: string, block: number, { isNew, seenMsAgo, floor, endsInMs }: Claimed): void {
    const known = this.#known.get(id)
    if (!known) return
    const nowMs = this.#clockMs()
    known.endsAtMs = nowMs + endsInMs
    if (isNew) known.pair.authenticated(block, nowMs - seenMsAgo)
    known.pair.bury(floor)
  }

  /** Erases a pair here. */
  forget(id: string): void {
    this.#known.get(id)?.pair.erase()
    this.#known.delete(id)
  }

  /** Erases the keys of what has ended, or is not used here; gives the pairs that are left. */
  sweep(): ReceivingPair[] {
    const nowMs = this.#clockMs()
    const left: ReceivingPair[] = []
    for (const [id, { pair, endsAtMs, usedAtMs }] of this.#known) {
      if (endsAtMs <= nowMs || usedAtMs + UNUSED_MS <= nowMs) {
        this.forget(id)
        continue
      }
      pair.floor(nowMs)
      left.push(pair)
    }
    return left
  }

  close(): void {
    for (const id of this.#known.keys()) this.forget(id)
  }
}
