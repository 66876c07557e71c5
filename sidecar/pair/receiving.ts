import {
  BLOCK_LEASE_MS,
  BLOCKS_PER_WINDOW,
  BLOCKS_SKIP_MAX,
  BlockKeys,
  type MessageKeyPair,
  nextBlock,
} from './ratchet.ts'
import { Reject } from './reject.ts'
import type { MeshSecret } from './secrets.ts'

/** How long a block may still be used after it was first seen: a lease, and as long again on the way, in ms. */
export const BLOCK_LIFE_MS = 2 * BLOCK_LEASE_MS
/** No more can be alive at once: they were leased, at the limit of BLOCKS_PER_WINDOW, within twice the window. */
const BLOCKS_ALIVE_MAX = 2 * BLOCKS_PER_WINDOW
/** Nor does one that lives lie further above the lowest: the first was skipped to, and the others leased since. */
export const BLOCKS_SPAN_MAX = BLOCKS_SKIP_MAX + BLOCKS_ALIVE_MAX

/**
 * A pair as its responder holds it: which blocks may still be used, and their keys.
 *
 * Blocks are derived at most 64 above the highest that authenticated, once each; a block that has died is erased,
 * and so are all below it (relay1 section 4).
 */
export class ReceivingPair {
  readonly id: Buffer
  /** what the initiator calls itself */
  readonly peer: string
  /** the secret under which the pair was made */
  readonly mesh: MeshSecret
  readonly chunkBytesMax: number
  /** ck of the lowest block that is not dead */
  #floorKey: Buffer
  #floor: number
  /** ck of the lowest block that is not derived */
  #nextKey: Buffer
  #next: number
  #highest: number
  /** of the blocks that are derived, and of which no message has authenticated */
  readonly #secrets = new Map<number, Buffer>()
  /** of the blocks of which a message has authenticated */
  readonly #blocks = new Map<number, BlockKeys>()
  readonly #firstSeenMs = new Map<number, number>()
  #erased = false

  constructor(pair: {
    id: Buffer
    peer: string
    mesh: MeshSecret
    chunkBytesMax: number
    /** owned, and erased, by this object */
    chainKey: Buffer
    /** the block that the chain key gives, 0 unless said; all below it are dead */
    block?: number
  }) {
    this.id = pair.id
    this.peer = pair.peer
    this.mesh = pair.mesh
    this.chunkBytesMax = pair.chunkBytesMax
    this.#floorKey = pair.chainKey
    this.#floor = pair.block ?? 0
    this.#highest = Math.max(0, this.#floor - 1)
    this.#nextKey = copy(pair.chainKey)
    this.#next = this.#floor
  }

  /** The highest block that authenticated. */
  get block(): number {
    return this.#highest
  }

  /**
   * The keys of a message.
   * @param nowMs monotonic
   * @throws Reject block_out_of_reach when its block is dead, or too far ahead; state_lost after `erase`
   */
  keys(block: number, index: number, nowMs: number): MessageKeyPair {
    if (this.#erased) throw new Reject('state_lost')
    if (block < this.floor(nowMs) || !this.reaches(block)) throw new Reject('block_out_of_reach')
    const known = this.#blocks.get(block)
    if (known) return known.keys(index)
    if (!this.#firstSeenMs.has(block) && this.#firstSeenMs.size >= BLOCKS_ALIVE_MAX)
      throw new Reject('block_out_of_reach')
    while (this.#next <= block) this.#derive()
    // Pages are kept for blocks that have authenticated alone: a forged message leaves none behind.
    const passing = new BlockKeys(copy(this.#secrets.get(block)!))
    try {
      return passing.keys(index)
    } finally {
      passing.erase()
    }
  }

  /** Erases the keys of a message, as far as memory holds them. */
  forgetKeys(block: number, index: number): void {
    this.#blocks.get(block)?.forget(index)
  }

  /** Is a block not too far ahead, as far as is known here? */
  reaches(block: number): boolean {
    return block <= Math.min(this.#highest + BLOCKS_SKIP_MAX, this.#floor + BLOCKS_SPAN_MAX)
  }

  /**
   * A message of this block authenticated.
   * @param atMs the first of them that is known of, monotonic
   */
  authenticated(block: number, atMs: number): void {
    if (block < this.#floor) return
    this.#firstSeenMs.set(block, Math.min(atMs, this.#firstSeenMs.get(block) ?? atMs))
    if (block > this.#highest) this.#highest = block
    const secret = this.#secrets.get(block)
    if (!secret) return
    this.#secrets.delete(block)
    this.#blocks.set(block, new BlockKeys(secret))
  }

  /** When the first message of each block that lives authenticated, as far as is known here; monotonic, by block. */
  get firstSeenMs(): ReadonlyMap<number, number> {
    return this.#firstSeenMs
  }

  /** The lowest block that is not dead; what is below it has been erased. */
  floor(nowMs: number): number {
    let floor = this.#floor
    for (const [block, firstSeenMs] of this.#firstSeenMs)
      if (firstSeenMs + BLOCK_LIFE_MS <= nowMs && block >= floor) floor = block + 1
    this.bury(floor)
    return this.#floor
  }

  /** Erases all blocks below this one. */
  bury(floor: number): void {
    if (this.#erased || floor <= this.#floor) return
    // Only a message above can have killed them.
    if (floor - 1 > this.#highest) this.#highest = floor - 1
    while (this.#next < floor) this.#derive()
    while (this.#floor < floor) {
      this.#forget(this.#floor)
      const { blockSecret, nextChainKey } = nextBlock(this.#floorKey, this.#floor++)
      blockSecret.fill(0)
      this.#floorKey.fill(0)
      this.#floorKey = nextChainKey
    }
  }

  /** The chain key of the lowest block that is not dead, for a store to keep: it gives nothing of those below. */
  get floorKey(): { chainKey: Buffer; block: number } {
    return { chainKey: this.#floorKey, block: this.#floor }
  }

  /** Forgets all keys; none can be had any more. */
  erase(): void {
    this.#erased = true
    this.#floorKey.fill(0)
    this.#nextKey.fill(0)
    for (let block = this.#floor; block < this.#next; block++) this.#forget(block)
  }

  #derive(): void {
    const { blockSecret, nextChainKey } = nextBlock(this.#nextKey, this.#next)
    this.#nextKey.fill(0)
    this.#nextKey = nextChainKey
    this.#secrets.set(this.#next++, blockSecret)
  }

  #forget(block: number): void {
    this.#firstSeenMs.delete(block)
    this.#secrets.get(block)?.fill(0)
    this.#secrets.delete(block)
    this.#blocks.get(block)?.erase()
    this.#blocks.delete(block)
  }
}

function copy(secret: Buffer): Buffer {
  const copied = Buffer.allocUnsafeSlow(secret.length)
  secret.copy(copied)
  return copied
}
