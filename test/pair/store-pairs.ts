/** Pairs to put into a store. */
import assert from 'node:assert/strict'
import { firstChainKey } from '../../sidecar/pair/ratchet.ts'
import { ReceivingPair } from '../../sidecar/pair/receiving.ts'
import { pairIdOf } from '../../sidecar/pair/secrets.ts'
import type { OutboundPair, PairStore } from '../../sidecar/pair/store.ts'
import { seeded } from './fakes.ts'
import { identity } from './vectors.ts'

/** One place where pairs live, empty at first. */
export interface Backend {
  /** The store as one process has it; each call is another process. */
  open(): PairStore
  /** Lets time pass, for all processes and for the place itself. */
  advance(ms: number): Promise<void>
}

export const PEER = 'http://payments:8080'
export const HOUR_MS = 3_600_000
export const random = seeded('store contract')
const { secrets } = await identity('payments')
const mesh = secrets[0]!

export function outboundPair(changed: Partial<OutboundPair> = {}): OutboundPair {
  return {
    id: random(24),
    peer: PEER,
    name: 'payments',
    chainKey: firstChainKey(random(32)),
    chunkBytesMax: 65_536,
    leaseMs: 60_000,
    ttlMs: HOUR_MS,
    ...changed,
  }
}

export function inboundPair(peer = 'orders'): ReceivingPair {
  const id = pairIdOf(mesh, random(16))
  return new ReceivingPair({ id, peer, mesh, chunkBytesMax: 65_536, chainKey: firstChainKey(random(32)) })
}

/** The pair as a process finds it for a message that came in, with the message's block in reach. */
export async function found(store: PairStore, { id }: { id: Buffer }): Promise<ReceivingPair> {
  const pair = await store.findInbound(id)
  assert.ok(pair, 'the pair is gone')
  return pair
}
