/** The keys of a pair's messages: a chain of blocks, each of pages, each of the keys of 64 messages (relay1 section 3). */
import { createSecretKey, hash, hkdfSync, type KeyObject } from 'node:crypto'
import { open, seal } from './aes-gcm.ts'
import { expandLabel } from './hkdf.ts'

export const INDICES_PER_BLOCK = 65_536
/** How long a process may use a block that it leased. */
export const BLOCK_LEASE_MS = 60_000
/** A pair gives at most so many blocks in so many ms. */
export const BLOCKS_PER_WINDOW = 32
export const BLOCKS_WINDOW_MS = 120_000
/** How far above the highest block that authenticated a receiver goes. */
export const BLOCKS_SKIP_MAX = 64
export const MESSAGES_PER_PAIR = 2 ** 20

const KEY_BYTES = 32
const INDICES_PER_PAGE = 64
const PAGE_BYTES = INDICES_PER_PAGE * 2 * KEY_BYTES
/** Indices are used nearly in order: those of calls at the same time may lie a few pages apart. */
const PAGES_KEPT = 4
const NOTHING = Buffer.alloc(0)

/**
 * The key that the chain of a pair begins with (ck_0).
 * @param pairSecret is erased
 */
export function firstChainKey(pairSecret: Buffer): Buffer {
  const chainKey = expandLabel(pairSecret, 'chain', NOTHING, KEY_BYTES)
  pairSecret.fill(0)
  return chainKey
}

/**
 * One step of the chain. The caller erases the chain key.
 * @param chainKey ck of this block
 */
export function nextBlock(chainKey: Buffer, block: number): { blockSecret: Buffer; nextChainKey: Buffer } {
  return {
    blockSecret: expandLabel(chainKey, 'block', u32(block), KEY_BYTES),
    nextChainKey: expandLabel(chainKey, 'next', NOTHING, KEY_BYTES),
  }
}

/** The two keys of a message, for AES-256-GCM. */
export interface MessageKeyPair {
  request: KeyObject
  response: KeyObject
}

/** The keys of the messages of a block, derived a page at a time as they are asked for. */
export class BlockKeys {
  readonly #blockSecret: Buffer
  /** by number, the one that was derived first comes first */
  readonly #pages = new Map<number, Buffer>()
  #erased = false

  /** @param blockSecret owned, and erased, by this object */
  constructor(blockSecret: Buffer) {
    this.#blockSecret = blockSecret
  }

  /** @param index below INDICES_PER_BLOCK */
  keys(index: number): MessageKeyPair {
    if (this.#erased) throw new Error('the keys of this block have been erased')
    const page = this.#page(Math.floor(index / INDICES_PER_PAGE))
    const at = (index % INDICES_PER_PAGE) * 2 * KEY_BYTES
    return {
      request: createSecretKey(page.subarray(at, at + KEY_BYTES)),
      response: createSecretKey(page.subarray(at + KEY_BYTES, at + 2 * KEY_BYTES)),
    }
  }

  /** Erases the keys of a message from the memory of this object; they are derived anew if they are asked for again. */
  forget(index: number): void {
    const number = Math.floor(index / INDICES_PER_PAGE)
    this.#pages.get(number)?.fill(0)
    this.#pages.delete(number)
  }

  /** Forgets all keys; none can be had any more. */
  erase(): void {
    this.#erased = true
    this.#blockSecret.fill(0)
    for (const page of this.#pages.values()) page.fill(0)
    this.#pages.clear()
  }

  #page(number: number): Buffer {
    const kept = this.#pages.get(number)
    if (kept) return kept
    if (this.#pages.size >= PAGES_KEPT) {
      const [oldest, gone] = this.#pages.entries().next().value!
      gone.fill(0)
      this.#pages.delete(oldest)
    }
    const info = Buffer.concat([Buffer.from('relay1 page'), Buffer.of(number >> 8, number & 0xff)])
    const page = Buffer.from(hkdfSync('sha256', this.#blockSecret, NOTHING, info, PAGE_BYTES))
    this.#pages.set(number, page)
    return page
  }
}

const WRAP_RANDOM_BYTES = 16

/** Whose chain key is wrapped. */
export interface WrappedFor {
  role: 'initiator' | 'responder'
  pairId: Buffer
  block: number
}

/**
 * Wraps a chain key for a store that is not trusted with it (relay1 section 4).
 * @param random 16 fresh bytes
 */
export function wrapChainKey(
  stateKey: Buffer,
  chainKey: Buffer,
  wrappedFor: WrappedFor,
  random: Buffer,
): Buffer {
  const { key, iv } = wrappingKey(stateKey, wrappedFor, random)
  return Buffer.concat([random, seal(key, iv, NOTHING, chainKey)])
}

/** @returns undefined when it was wrapped for another block, pair, role, NAME or secret, or was changed */
export function unwrapChainKey(stateKey: Buffer, record: Buffer, wrappedFor: WrappedFor): Buffer | undefined {
  const { key, iv } = wrappingKey(stateKey, wrappedFor, record.subarray(0, WRAP_RANDOM_BYTES))
  return open(key, iv, NOTHING, record.subarray(WRAP_RANDOM_BYTES))
}

function wrappingKey(
  stateKey: Buffer,
  { role, pairId, block }: WrappedFor,
  random: Buffer,
): { key: Buffer; iv: Buffer } {
  const named = hash('sha256', Buffer.concat([pairId, u32(block)]), 'buffer')
  const context = Buffer.concat([random, Buffer.of(role === 'initiator' ? 1 : 2), named])
  return {
    key: expandLabel(stateKey, 'wrap key', context, KEY_BYTES),
    iv: expandLabel(stateKey, 'wrap iv', context, 12),
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
