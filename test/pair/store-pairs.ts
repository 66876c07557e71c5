/** Pairs to put into a store. */
import assert from 'node:assert/strict'
import { firstChainKey } from '../../sidecar/pair/ratchet.ts'
import { ReceivingPair } from '../../sidecar/pair/receiving.ts'
import { type MeshSecret, pairIdOf } from '../../sidecar/pair/secrets.ts'
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
export const OTHER_PEER = 'http://billing:8080'
export const HOUR_MS = 3_600_000
export const random = seeded('store contract')
const { secrets } = await identity('payments')
export const mesh = secrets[0]!

export function outboundPair(changed: Partial<OutboundPair> = {}): OutboundPair {
  return {
    id: random(24),
    peer: PEER,
    name: 'payments',
    mesh,
    chainKey: firstChainKey(random(32)),
    chunkBytesMax: 65_536,
    leaseMs: 60_000,
    ttlMs: HOUR_MS,
    ...changed,
  }
}

export function inboundPair(
  peer = 'orders',
  changed: { mesh?: MeshSecret; chainKey?: Buffer } = {},
): ReceivingPair {
  const owner = changed.mesh ?? mesh
  const id = pairIdOf(owner, random(16))
  const chainKey = changed.chainKey ?? firstChainKey(random(32))
  return new ReceivingPair({ id, peer, mesh: owner, chunkBytesMax: 65_536, chainKey })
}

/** The pair as a process finds it for a message of a block that came in. */
export async function found(store: PairStore, { id }: { id: Buffer }, block = 0): Promise<ReceivingPair> {
  const pair = await store.findInbound(id, block)
  assert.ok(pair, 'the pair is gone')
  return pair
}
