/** How long pairs live and how many of them are kept: the same in every store. */
import { INDICES_PER_BLOCK, MESSAGES_PER_PAIR } from './ratchet.ts'

/** A pair of which no valid message came lives so long at its responder, in ms. */
export const UNCONFIRMED_TTL_MS = 30_000
/** Its initiator gives it up before that: the first message has to get there in time. */
export const UNUSED_TTL_MS = UNCONFIRMED_TTL_MS - 5_000
/** The part of a pair's life after which the next one is made. */
const RENEWED_AFTER = 3 / 4
/** Beyond these, pairs go that are made again when they are needed. */
export const INBOUND_PAIRS_MAX = 10_000
export const OUTBOUND_PEERS_MAX = 1000
export const OUTBOUND_PAIRS_PER_PEER_MAX = 64

/** What the initiator's life of a pair is reckoned from. Clocks are the store's, in ms. */
export interface LeasedPair {
  madeAtMs: number
  ttlMs: number
  /** of one lease, as the responder grants it */
  leaseMs: number
  /** spent under leases of which this has been told */
  messages: number
  /** leases of which nobody has told what they spent: they count as if they had spent all */
  openLeases: number
}

/** Do its messages suffice for one more lease, if this and the open ones spend all of their indices? */
export function hasRoom({ messages, openLeases }: LeasedPair): boolean {
  return messages + (openLeases + 1) * INDICES_PER_BLOCK <= MESSAGES_PER_PAIR
}

/** How long a lease that begins now lasts, and whether a new pair should be made before it ends. */
export function termsOf(pair: LeasedPair, nowMs: number): { endsInMs: number; pairEnds: boolean } {
  const { madeAtMs, ttlMs, leaseMs } = pair
  // Whoever has a lease when the pair is to be renewed asks for another one then, and is told.
  const renewedAtMs = madeAtMs + RENEWED_AFTER * ttlMs
  const isOld = nowMs >= renewedAtMs
  return {
    endsInMs: Math.min(leaseMs, (isOld ? madeAtMs + ttlMs : renewedAtMs) - nowMs),
    pairEnds: isOld || !hasRoom(pair),
  }
}
