import type { Logger } from '../log.ts'
import type { ReceivingPair } from '../pair/receiving.ts'
import { type MeshSecret, ownerOf } from '../pair/secrets.ts'
import {
  type Claim,
  type Lease,
  type OutboundPair,
  type PairStore,
  type PairSummary,
  type Spent,
  secretNamed,
} from '../pair/store.ts'
import type { RedisConnection } from './connection.ts'
import { InboundPairs } from './inbound-pairs.ts'
import { OutboundPairs } from './outbound-pairs.ts'
import { Place } from './place.ts'

export interface RedisStoreOptions {
  connection: RedisConnection
  log: Logger
  /** monotonic */
  clockMs(): number
}

/**
 * Pairs in Redis, where all processes with this NAME and secret share them.
 *
 * A chain key is there only wrapped, and every key of Redis has a lifetime.
 */
export class RedisStore implements PairStore {
  readonly #options: RedisStoreOptions
  #secrets: readonly MeshSecret[] = []
  /** in the order of the secrets, and so are the others */
  #inbound: ReadonlyMap<MeshSecret, InboundPairs> = new Map()
  #outbound: ReadonlyMap<MeshSecret, OutboundPairs> = new Map()

  constructor(options: RedisStoreOptions) {
    this.#options = options
  }

  /** What Redis holds under other secrets is left to whoever still has those, and to its lifetime. */
  setSecrets(secrets: readonly MeshSecret[]): void {
    const { connection, log, clockMs } = this.#options
    const known = { inbound: this.#inbound, outbound: this.#outbound }
    const places = secrets.map((mesh) => new Place(mesh, log))
    this.#secrets = secrets
    this.#inbound = new Map(
      places.map((place) => [
        place.mesh,
        known.inbound.get(place.mesh) ?? new InboundPairs(connection, place, clockMs),
      ]),
    )
    this.#outbound = new Map(
      places.map((place) => [
        place.mesh,
        known.outbound.get(place.mesh) ?? new OutboundPairs(connection, place, clockMs),
      ]),
    )
    for (const [mesh, pairs] of known.inbound) if (!this.#inbound.has(mesh)) pairs.close()
  }

  async addOutbound(pair: OutboundPair): Promise<void> {
    await this.#outbound.get(pair.mesh)!.add(pair)
  }

  async lease(peer: string, spent?: Spent): Promise<Lease | undefined> {
    for (const pairs of this.#outbound.values()) {
      const lease = await pairs.lease(peer, spent)
      if (lease) return lease
    }
    return undefined
  }

  async dropOutbound(peer: string, pairId: Buffer): Promise<void> {
    for (const pairs of this.#outbound.values()) await pairs.drop(peer, pairId)
  }

  async retire(peer: string, mesh: MeshSecret): Promise<void> {
    await this.#outbound.get(mesh)?.dropPeer(peer)
  }

  async addInbound(pair: ReceivingPair, ttlMs: number): Promise<void> {
    await this.#inbound.get(pair.mesh)!.add(pair, ttlMs)
  }

  async findInbound(id: Buffer, block: number): Promise<ReceivingPair | undefined> {
    for (const pairs of this.#inbound.values()) {
      const known = pairs.known(id, block)
      if (known) return known
    }
    const mesh = ownerOf(this.#secrets, id)
    return mesh && this.#inbound.get(mesh)!.lookUp(id)
  }

  async claim({ id, mesh }: ReceivingPair, block: number, index: number): Promise<Claim> {
    return (await this.#inbound.get(mesh)?.claim(id, block, index)) ?? 'gone'
  }

  firstSight(hash: Buffer): Promise<boolean> {
    return this.#inbound.get(this.#secrets[0]!)!.firstSight(hash)
  }

  ageMs(pairId: Buffer): Promise<number> {
    return this.#inbound.get(ownerOf(this.#secrets, pairId) ?? this.#secrets[0]!)!.ageMs(pairId)
  }

  trouble(): string | undefined {
    return this.#options.connection.trouble()
  }

  async list(): Promise<PairSummary[]> {
    const all: PairSummary[] = []
    for (const [mesh, pairs] of [...this.#outbound, ...this.#inbound]) {
      const secret = secretNamed(this.#secrets, mesh)
      for (const summary of await pairs.list()) all.push({ ...summary, secret })
    }
    return all
  }

  async dropPeer(peer: string): Promise<number> {
    let dropped = 0
    for (const pairs of [...this.#outbound.values(), ...this.#inbound.values()])
      dropped += await pairs.dropPeer(peer)
    return dropped
  }

  sweep(): void {
    for (const pairs of this.#inbound.values()) pairs.sweep()
  }

  async close(): Promise<void> {
    for (const pairs of this.#inbound.values()) pairs.close()
    this.#options.connection.close()
  }
}
