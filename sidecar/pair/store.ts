import type { BlockKeys } from './ratchet.ts'
import type { ReceivingPair } from './receiving.ts'
import { Reject } from './reject.ts'
import type { MeshSecret } from './secrets.ts'

/** The exclusive right to the indices of one block of a pair, until it ends. */
export interface Lease {
  pairId: Buffer
  /** what the responder calls itself */
  name: string
  block: number
  keys: BlockKeys
  chunkBytesMax: number
  /** the secret under which the pair was made */
  mesh: MeshSecret
  /** monotonic, in ms */
  endsAtMs: number
  /** is the pair near its end, so that a new one should be made before it is needed? */
  pairEnds: boolean
}

/** A pair that the initiator made. */
export interface OutboundPair {
  id: Buffer
  /** base URL of the peer's sidecar */
  peer: string
  /** what the responder calls itself */
  name: string
  /** the secret under which the pair was made */
  mesh: MeshSecret
  /** ck_0; owned by the store from here on */
  chainKey: Buffer
  chunkBytesMax: number
  leaseMs: number
  ttlMs: number
}

/** How many messages were sent under a lease that is over. */
export interface Spent {
  pairId: Buffer
  messages: number
}

/**
 * What became of a claim to run a message: only a `new` one may run. `out-of-reach`: what is known of the block's
 * messages has been forgotten, so that it may have run. `gone`: the store does not know the pair.
 */
export type Claim = 'new' | 'replayed' | 'gone' | 'out-of-reach'

/** What may be told of a pair: never key material. */
export interface PairSummary {
  role: 'initiator' | 'responder'
  /** base URL of the responder's sidecar, or what the initiator calls itself */
  peer: string
  /** which CLIENT_ID_SECRET it was made under */
  secret: 'current' | 'previous'
  ageMs: number
  /** the highest in use */
  block: number
  /** an initiator counts those of leases that are over */
  messages: number
}

/**
 * Where pairs live. Every verb is atomic: however many processes share a store, no block is leased twice and no
 * message is claimed twice.
 * @throws StoreUnavailableError from every verb that gives a promise, when the store is away
 */
export interface PairStore {
  /**
   * Sets the secrets that count, the current one first. Pairs that were made under others are forgotten, as far as this
   * process holds them, and none of their messages can be leased or claimed here any more.
   * @param secrets those that stay are the same objects
   */
  setSecrets(secrets: readonly MeshSecret[]): void
  /** Keeps a pair that this sidecar made; resolves when the store has acknowledged it. */
  addOutbound(pair: OutboundPair): Promise<void>
  /**
   * Leases the next block of a live pair with a peer, of the newest that has one to give: at most 32 blocks in
   * any 120 s, and never more than the pair's 2^20 messages, even if all leases spend all of their indices.
   * @param spent of the lease that this process had before: what it did not use is given back
   * @returns undefined when there is none to be had
   */
  lease(peer: string, spent?: Spent): Promise<Lease | undefined>
  /** Forgets an outbound pair, because its responder has. */
  dropOutbound(peer: string, pairId: Buffer): Promise<void>
  /** Forgets the outbound pairs with a peer that were made under a secret: one under another has taken their place. */
  retire(peer: string, mesh: MeshSecret): Promise<void>

  /**
   * Keeps a pair that a peer made with this sidecar; resolves when the store has acknowledged it.
   * @param ttlMs its life from the first claimed message on; until then it lives 30 s
   */
  addInbound(pair: ReceivingPair, ttlMs: number): Promise<void>
  /**
   * The pair, for the keys of a message of this block: it knows how far the messages that any process has claimed
   * make its blocks reach.
   * @returns undefined when it is gone
   */
  findInbound(id: Buffer, block: number): Promise<ReceivingPair | undefined>
  /**
   * Marks a message, whose first chunk has authenticated, as run.
   * @param pair as `findInbound` gave it; told that the block authenticated
   */
  claim(pair: ReceivingPair, block: number, index: number): Promise<Claim>
  /** Remembers the hash of a pairing message for 660 s; false when it was there already. */
  firstSight(hash: Buffer): Promise<boolean>

  /**
   * How long ago the store last forgot a pair of which it had marks, or else came to be; in whole ms, rounded down.
   * A message of this pair, which is gone, cannot have run if it left later.
   */
  ageMs(pairId: Buffer): Promise<number>
  /** Why the store is away, and what to do about it; undefined when it is not. */
  trouble(): string | undefined
  list(): Promise<PairSummary[]>
  /**
   * Forgets all pairs with a peer, in both roles.
   * @param peer as `list` names it
   * @returns how many they were
   */
  dropPeer(peer: string): Promise<number>
  /** Erases the keys that this process holds of what has ended: to be called every few seconds. */
  sweep(): void
  close(): Promise<void>
}

/** Which of the secrets that count a pair was made under. */
export function secretNamed(secrets: readonly MeshSecret[], mesh: MeshSecret): PairSummary['secret'] {
  return mesh === secrets[0] ? 'current' : 'previous'
}

/** The store cannot be reached, or cannot do what it was asked. */
export class StoreUnavailableError extends Error {
  constructor(message = 'the store of the pairs is away') {
    super(message)
    this.name = 'StoreUnavailableError'
  }
}

/**
 * What a store answers.
 * @throws Reject state_unavailable when it is away: the initiator is told so
 */
export async function available<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof StoreUnavailableError) throw new Reject('state_unavailable')
    throw error
  }
}
