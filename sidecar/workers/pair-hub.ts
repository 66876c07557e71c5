import { SeenHellos } from '../pair/limits.ts'
import { MemoryStore } from '../pair/memory-store.ts'
import { ReceivingPair } from '../pair/receiving.ts'
import type { MeshSecret } from '../pair/secrets.ts'
import type { Claim, OutboundPair, PairSummary } from '../pair/store.ts'

/** What the first process is asked for pairs. Secrets are told by their psk id, and those and ids are in hex. */
export type PairVerbs = ReturnType<PairHub['verbs']>

/** A pair that a peer made, as it is told to a process that is to derive its keys. */
export interface TellablePair {
  id: string
  peer: string
  chunkBytesMax: number
  /** ck of `block`, the lowest that is not dead */
  chainKey: Buffer
  block: number
}

/**
 * The pairs of all WORKERS in the memory of the first process, where there is no Redis. It decides which of them may use
 * a block or run a message; they derive the keys.
 */
export class PairHub {
  readonly #clockMs: () => number
  /** by secret: a worker knows no pairs of a secret that does not count there, or not yet */
  readonly #stores = new Map<string, MemoryStore>()
  readonly #secretsInUse = new Map<object, readonly string[]>()
  readonly #hellos = new SeenHellos()

  /** @param clockMs monotonic */
  constructor(clockMs: () => number) {
    this.#clockMs = clockMs
  }

  /** What one process may ask, for as long as it has not left. */
  verbs(user: object) {
    const store = (secret: string) => this.#stores.get(secret)!
    return {
      use: (secrets: readonly string[]) => this.#use(user, secrets),
      addOutbound: (secret: string, pair: Omit<OutboundPair, 'mesh'>) =>
        store(secret).addOutbound({
          ...pair,
          id: Buffer.from(pair.id),
          mesh: NO_MESH,
          chainKey: own(pair.chainKey),
        }),
      lease: (secret: string, peer: string, spent?: { pairId: string; messages: number }) => {
        const leased = store(secret).leaseBlock(peer, spent && { ...spent, pairId: bytes(spent.pairId) })
        if (!leased) return undefined
        const { mesh: _, pairId, endsAtMs, ...rest } = leased
        return { ...rest, pairId: pairId.toString('hex'), endsInMs: endsAtMs - this.#clockMs() }
      },
      dropOutbound: (secret: string, peer: string, id: string) => store(secret).dropOutbound(peer, bytes(id)),
      retire: (secret: string, peer: string) => store(secret).retire(peer, NO_MESH),
      addInbound: (secret: string, pair: TellablePair, ttlMs: number) => {
        const { id, chainKey } = pair
        const kept = { ...pair, id: bytes(id), mesh: NO_MESH, chainKey: own(chainKey) }
        return store(secret).addInbound(new ReceivingPair(kept), ttlMs)
      },
      find: (secret: string, id: string) => this.#find(store(secret), id),
      claim: (secret: string, id: string, block: number, index: number) =>
        this.#claim(store(secret), id, block, index),
      firstSight: (hash: Buffer) => this.#firstSight(hash),
      ageMs: (secret: string) => store(secret).ageMs(),
      list: (secret: string) => store(secret).list() as Promise<Omit<PairSummary, 'secret'>[]>,
      dropPeer: (secret: string, peer: string) => store(secret).dropPeer(peer),
    }
  }

  /** A process has ended. */
  leave(user: object): void {
    this.#secretsInUse.delete(user)
  }

  sweep(): void {
    for (const store of this.#stores.values()) store.sweep()
  }

  close(): void {
    for (const store of this.#stores.values()) void store.close()
    this.#stores.clear()
  }

  #use(user: object, secrets: readonly string[]): void {
    this.#secretsInUse.set(user, secrets)
    const inUse = new Set([...this.#secretsInUse.values()].flat())
    for (const [secret, store] of this.#stores) {
      if (inUse.has(secret)) continue
      void store.close()
      this.#stores.delete(secret)
    }
    for (const secret of secrets)
      if (!this.#stores.has(secret)) this.#stores.set(secret, new MemoryStore(this.#clockMs))
  }

  #find(store: MemoryStore, id: string) {
    const inbound = store.inbound(bytes(id))
    if (!inbound) return undefined
    const { pair, endsAtMs } = inbound
    const nowMs = this.#clockMs()
    pair.floor(nowMs)
    return {
      pair: tellable(pair),
      /** blocks of which a message has been claimed, and how many ms ago the first was */
      seen: [...pair.firstSeenMs].map(([block, atMs]) => [block, nowMs - atMs] as const),
      endsInMs: endsAtMs - nowMs,
    }
  }

  async #claim(
    store: MemoryStore,
    id: string,
    block: number,
    index: number,
  ): Promise<[outcome: Claim, seenMsAgo: number, floor: number, endsInMs: number]> {
    const inbound = store.inbound(bytes(id))
    if (!inbound) return ['gone', 0, 0, 0]
    const { pair } = inbound
    const outcome = await store.claim(pair, block, index)
    const nowMs = this.#clockMs()
    const seenMsAgo = nowMs - (pair.firstSeenMs.get(block) ?? nowMs)
    return [outcome, seenMsAgo, pair.floor(nowMs), inbound.endsAtMs - nowMs]
  }

  /** A pairing message is seen once by all, whichever secrets count where. */
  #firstSight(hash: Buffer): boolean {
    const nowMs = this.#clockMs()
    if (this.#hellos.has(hash, nowMs)) return false
    this.#hellos.add(hash, nowMs)
    return true
  }
}

export function tellable({ id, peer, chunkBytesMax, floorKey }: ReceivingPair): TellablePair {
  return { id: id.toString('hex'), peer, chunkBytesMax, ...floorKey }
}

/** A key of one's own: what came over a channel is a part of the memory that all of a message came in. */
export function own(key: Buffer): Buffer {
  const copied = Buffer.allocUnsafeSlow(key.length)
  key.copy(copied)
  key.fill(0)
  return copied
}

/** Each secret has a store of its own, which so needs to know none. */
const NO_MESH = {} as MeshSecret

function bytes(id: string): Buffer {
  return Buffer.from(id, 'hex')
}
