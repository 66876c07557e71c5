import { SeenHellos } from './limits.ts'
import {
  hasRoom,
  INBOUND_PAIRS_MAX,
  type LeasedPair,
  OUTBOUND_PAIRS_PER_PEER_MAX,
  OUTBOUND_PEERS_MAX,
  termsOf,
  UNCONFIRMED_TTL_MS,
  UNUSED_TTL_MS,
} from './lives.ts'
import {
  BLOCKS_PER_WINDOW,
  BLOCKS_WINDOW_MS,
  BlockKeys,
  INDICES_PER_BLOCK,
  MESSAGES_PER_PAIR,
  nextBlock,
} from './ratchet.ts'
import type { ReceivingPair } from './receiving.ts'
import type { MeshSecret } from './secrets.ts'
import {
  type Claim,
  type Lease,
  type OutboundPair,
  type PairStore,
  type PairSummary,
  type Spent,
  secretNamed,
} from './store.ts'

interface Outbound extends OutboundPair, LeasedPair {
  /** the next one to lease */
  block: number
  /** of the leases that still count for the limit of blocks */
  leasedAtMs: number[]
}

interface Inbound {
  pair: ReceivingPair
  ttlMs: number
  madeAtMs: number
  endsAtMs: number
  messages: number
  marks: Map<number, Bitmap>
  /** when it was used last, in uses of any pair */
  usedAt: number
}

/** A lease whose keys are still to be derived. */
export type LeasedBlock = Omit<Lease, 'keys'> & { blockSecret: Buffer }

/** Pairs in the memory of this process: they end with it. */
export class MemoryStore implements PairStore {
  readonly #clockMs: () => number
  /** since when nothing has been lost that a message could have run with */
  #losslessSinceMs: number
  /** by peer, the newest pair first; the peer that was paired with least recently comes first */
  readonly #outbound = new Map<string, Outbound[]>()
  /** by pair id in hex */
  readonly #inbound = new Map<string, Inbound>()
  #secrets: readonly MeshSecret[] = []
  #uses = 0
  readonly #hellos = new SeenHellos()

  /** @param clockMs a monotonic clock */
  constructor(clockMs: () => number) {
    this.#clockMs = clockMs
    this.#losslessSinceMs = clockMs()
  }

  setSecrets(secrets: readonly MeshSecret[]): void {
    this.#secrets = secrets
    for (const peer of this.#outbound.keys()) this.#keep(peer, ({ mesh }) => secrets.includes(mesh))
    for (const [key, inbound] of this.#inbound)
      if (!secrets.includes(inbound.pair.mesh)) this.#forget(key, inbound, this.#clockMs())
  }

  async addOutbound(pair: OutboundPair): Promise<void> {
    const { peer } = pair
    const pairs = this.#outbound.get(peer) ?? []
    pairs.unshift({
      ...pair,
      madeAtMs: this.#clockMs(),
      block: 0,
      leasedAtMs: [],
      openLeases: 0,
      messages: 0,
    })
    for (const { chainKey } of pairs.splice(OUTBOUND_PAIRS_PER_PEER_MAX)) chainKey.fill(0)
    this.#outbound.delete(peer)
    this.#outbound.set(peer, pairs)
    if (this.#outbound.size > OUTBOUND_PEERS_MAX) this.#keep(this.#outbound.keys().next().value!, () => false)
  }

  async lease(peer: string, spent?: Spent): Promise<Lease | undefined> {
    const leased = this.leaseBlock(peer, spent)
    if (!leased) return undefined
    const { blockSecret, ...lease } = leased
    return { ...lease, keys: new BlockKeys(blockSecret) }
  }

  /** As `lease`, for a process that derives the keys itself. */
  leaseBlock(peer: string, spent?: Spent): LeasedBlock | undefined {
    const nowMs = this.#clockMs()
    for (const pair of this.#outbound.get(peer) ?? []) {
      if (!spent?.pairId.equals(pair.id)) continue
      pair.messages += spent.messages
      pair.openLeases--
    }
    for (const pair of this.#keep(peer, (pair) => isAlive(pair, nowMs))) {
      pair.leasedAtMs = pair.leasedAtMs.filter((atMs) => atMs + BLOCKS_WINDOW_MS > nowMs)
      if (pair.leasedAtMs.length < BLOCKS_PER_WINDOW && hasRoom(pair)) return lease(pair, nowMs)
    }
    return undefined
  }

  async dropOutbound(peer: string, pairId: Buffer): Promise<void> {
    this.#keep(peer, ({ id }) => !id.equals(pairId))
  }

  async retire(peer: string, retired: MeshSecret): Promise<void> {
    this.#keep(peer, ({ mesh }) => mesh !== retired)
  }

  async addInbound(pair: ReceivingPair, ttlMs: number): Promise<void> {
    const nowMs = this.#clockMs()
    if (this.#inbound.size >= INBOUND_PAIRS_MAX) this.sweep()
    if (this.#inbound.size >= INBOUND_PAIRS_MAX) this.#forgetLeastUsed(nowMs)
    this.#inbound.set(pair.id.toString('hex'), {
      pair,
      ttlMs,
      madeAtMs: nowMs,
      endsAtMs: nowMs + Math.min(UNCONFIRMED_TTL_MS, ttlMs),
      messages: 0,
      marks: new Map(),
      usedAt: ++this.#uses,
    })
  }

  async findInbound(id: Buffer): Promise<ReceivingPair | undefined> {
    return this.#find(id)?.pair
  }

  /** A pair that a peer made, and when it ends, monotonic; undefined when it is gone. */
  inbound(id: Buffer): Pick<Inbound, 'pair' | 'endsAtMs'> | undefined {
    return this.#find(id)
  }

  async claim({ id }: ReceivingPair, block: number, index: number): Promise<Claim> {
    const inbound = this.#find(id)
    if (!inbound) return 'gone'
    const nowMs = this.#clockMs()
    if (block < buried(inbound, nowMs)) return 'out-of-reach'
    let marks = inbound.marks.get(block)
    if (!marks) {
      marks = new Bitmap()
      inbound.marks.set(block, marks)
    }
    if (!marks.add(index)) return 'replayed'
    inbound.pair.authenticated(block, nowMs)
    if (inbound.messages++ === 0) inbound.endsAtMs = nowMs + inbound.ttlMs
    return 'new'
  }

  async firstSight(hash: Buffer): Promise<boolean> {
    const nowMs = this.#clockMs()
    if (this.#hellos.has(hash, nowMs)) return false
    this.#hellos.add(hash, nowMs)
    return true
  }

  async ageMs(): Promise<number> {
    return Math.floor(this.#clockMs() - this.#losslessSinceMs)
  }

  async list(): Promise<PairSummary[]> {
    this.sweep()
    const nowMs = this.#clockMs()
    const initiated = [...this.#outbound.values()].flat().map(({ peer, mesh, madeAtMs, block, messages }) => {
      const highest = Math.max(0, block - 1)
      return {
        role: 'initiator' as const,
        peer,
        secret: secretNamed(this.#secrets, mesh),
        ageMs: Math.floor(nowMs - madeAtMs),
        block: highest,
        messages,
      }
    })
    const responded = [...this.#inbound.values()].map(
      ({ pair: { peer, mesh, block }, madeAtMs, messages }) => {
        const secret = secretNamed(this.#secrets, mesh)
        return {
          role: 'responder' as const,
          peer,
          secret,
          ageMs: Math.floor(nowMs - madeAtMs),
          block,
          messages,
        }
      },
    )
    return [...initiated, ...responded]
  }

  trouble(): undefined {}

  async dropPeer(peer: string): Promise<number> {
    const initiated = this.#outbound.get(peer)?.length ?? 0
    this.#keep(peer, () => false)
    const responded = [...this.#inbound].filter(([, { pair }]) => pair.peer === peer)
    for (const [key, inbound] of responded) this.#forget(key, inbound, this.#clockMs())
    return initiated + responded.length
  }

  sweep(): void {
    const nowMs = this.#clockMs()
    for (const peer of this.#outbound.keys()) this.#keep(peer, (pair) => isAlive(pair, nowMs))
    for (const [key, inbound] of this.#inbound) {
      if (inbound.endsAtMs <= nowMs) this.#forget(key, inbound, inbound.endsAtMs)
      else buried(inbound, nowMs)
    }
  }

  async close(): Promise<void> {
    for (const peer of this.#outbound.keys()) this.#keep(peer, () => false)
    for (const { pair } of this.#inbound.values()) pair.erase()
    this.#inbound.clear()
  }

  /** Erases the other pairs with a peer, and gives those that are left. */
  #keep(peer: string, isKept: (pair: Outbound) => boolean): Outbound[] {
    const kept: Outbound[] = []
    for (const pair of this.#outbound.get(peer) ?? []) {
      if (isKept(pair)) kept.push(pair)
      else pair.chainKey.fill(0)
    }
    if (kept.length > 0) this.#outbound.set(peer, kept)
    else this.#outbound.delete(peer)
    return kept
  }

  #find(id: Buffer): Inbound | undefined {
    const key = id.toString('hex')
    const inbound = this.#inbound.get(key)
    if (!inbound) return undefined
    if (inbound.endsAtMs <= this.#clockMs()) {
      this.#forget(key, inbound, inbound.endsAtMs)
      return undefined
    }
    inbound.usedAt = ++this.#uses
    return inbound
  }

  #forgetLeastUsed(nowMs: number): void {
    let least: [string, Inbound] | undefined
    for (const entry of this.#inbound) if (!least || entry[1].usedAt < least[1].usedAt) least = entry
    if (least) this.#forget(...least, nowMs)
  }

  /** @param endedAtMs from when on none of its messages could run */
  #forget(key: string, { pair, messages }: Inbound, endedAtMs: number): void {
    pair.erase()
    this.#inbound.delete(key)
    if (messages > 0) this.#losslessSinceMs = Math.max(this.#losslessSinceMs, endedAtMs)
  }
}

/** Can it still give a lease, now or later? */
function isAlive(pair: Outbound, nowMs: number): boolean {
  const ttlMs = pair.block === 0 ? Math.min(UNUSED_TTL_MS, pair.ttlMs) : pair.ttlMs
  return nowMs < pair.madeAtMs + ttlMs && pair.messages + INDICES_PER_BLOCK <= MESSAGES_PER_PAIR
}

function lease(pair: Outbound, nowMs: number): LeasedBlock {
  const { id: pairId, name, chunkBytesMax, mesh, block } = pair
  const { blockSecret, nextChainKey } = nextBlock(pair.chainKey, block)
  pair.chainKey.fill(0)
  pair.chainKey = nextChainKey
  pair.block++
  pair.leasedAtMs.push(nowMs)
  pair.openLeases++
  const { endsInMs, pairEnds } = termsOf(pair, nowMs)
  return { pairId, name, block, blockSecret, chunkBytesMax, mesh, endsAtMs: nowMs + endsInMs, pairEnds }
}

/** The lowest block that is not dead; the marks of those below are dropped, and their keys erased. */
function buried({ pair, marks }: Inbound, nowMs: number): number {
  const floor = pair.floor(nowMs)
  for (const block of marks.keys()) if (block < floor) marks.delete(block)
  return floor
}

/** A set of the indices of a block that grows with the highest one: indices are spent in order. */
class Bitmap {
  #bits = new Uint8Array(64)

  /** False when the index was there already. */
  add(index: number): boolean {
    const byte = index >> 3
    if (byte >= this.#bits.length) {
      const grown = new Uint8Array(Math.max(byte + 1, Math.min(2 * this.#bits.length, INDICES_PER_BLOCK / 8)))
      grown.set(this.#bits)
      this.#bits = grown
    }
    const bit = 1 << (index & 7)
    if ((this.#bits[byte]! & bit) !== 0) return false
    this.#bits[byte]! |= bit
    return true
  }
}
