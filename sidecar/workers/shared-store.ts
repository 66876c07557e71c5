import { type Claimed, KnownPairs } from '../pair/known-pairs.ts'
import { BlockKeys } from '../pair/ratchet.ts'
import { ReceivingPair } from '../pair/receiving.ts'
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
import type { Channel } from './channel.ts'
import { own, type PairVerbs, tellable } from './pair-hub.ts'

/** Pairs that the first process keeps for all WORKERS; the keys of messages are derived here. */
export class SharedStore implements PairStore {
  readonly #hub: Pick<Channel<PairVerbs>, 'ask'>
  readonly #clockMs: () => number
  #secrets: readonly MeshSecret[] = []
  /** in the order of the secrets */
  #known: ReadonlyMap<MeshSecret, KnownPairs> = new Map()

  /** @param clockMs monotonic */
  constructor(hub: Pick<Channel<PairVerbs>, 'ask'>, clockMs: () => number) {
    this.#hub = hub
    this.#clockMs = clockMs
  }

  setSecrets(secrets: readonly MeshSecret[]): void {
    const before = this.#known
    this.#secrets = secrets
    this.#known = new Map(
      secrets.map((mesh) => [mesh, before.get(mesh) ?? new KnownPairs(this.#clockMs)] as const),
    )
    for (const [mesh, known] of before) if (!this.#known.has(mesh)) known.close()
    void this.#hub.ask('use', secrets.map(nameOf))
  }

  async addOutbound({ mesh, ...pair }: OutboundPair): Promise<void> {
    await this.#hub.ask('addOutbound', nameOf(mesh), pair)
    pair.chainKey.fill(0)
  }

  async lease(peer: string, spent?: Spent): Promise<Lease | undefined> {
    const told = spent && { pairId: spent.pairId.toString('hex'), messages: spent.messages }
    for (const mesh of this.#secrets) {
      const startedMs = this.#clockMs()
      const leased = await this.#hub.ask('lease', nameOf(mesh), peer, told)
      if (!leased) continue
      const { blockSecret, endsInMs, pairId, ...lease } = leased
      const keys = new BlockKeys(own(blockSecret))
      return { ...lease, pairId: Buffer.from(pairId, 'hex'), mesh, keys, endsAtMs: startedMs + endsInMs }
    }
    return undefined
  }

  async dropOutbound(peer: string, pairId: Buffer): Promise<void> {
    for (const mesh of this.#secrets)
      await this.#hub.ask('dropOutbound', nameOf(mesh), peer, pairId.toString('hex'))
  }

  async retire(peer: string, mesh: MeshSecret): Promise<void> {
    if (this.#secrets.includes(mesh)) await this.#hub.ask('retire', nameOf(mesh), peer)
  }

  async addInbound(pair: ReceivingPair, ttlMs: number): Promise<void> {
    await this.#hub.ask('addInbound', nameOf(pair.mesh), tellable(pair), ttlMs)
    // Its first message looks it up, as that may come to any process.
    pair.erase()
  }

  async findInbound(id: Buffer, block: number): Promise<ReceivingPair | undefined> {
    const hex = id.toString('hex')
    for (const pairs of this.#known.values()) {
      const known = pairs.find(hex, block)
      if (known) return known
    }
    const mesh = ownerOf(this.#secrets, id)
    return mesh && this.#known.get(mesh)!.lookUp(hex, () => this.#read(id, hex, mesh))
  }

  async claim({ id, mesh }: ReceivingPair, block: number, index: number): Promise<Claim> {
    const known = this.#known.get(mesh)
    if (!known) return 'gone'
    const hex = id.toString('hex')
    const [outcome, seenMsAgo, floor, endsInMs] = await this.#hub.ask(
      'claim',
      nameOf(mesh),
      hex,
      block,
      index,
    )
    if (outcome === 'gone') {
      known.forget(hex)
      return outcome
    }
    const claimed: Claimed = { isNew: outcome === 'new', seenMsAgo, floor, endsInMs }
    known.claimed(hex, block, claimed)
    return outcome
  }

  firstSight(hash: Buffer): Promise<boolean> {
    return this.#hub.ask('firstSight', hash)
  }

  ageMs(pairId: Buffer): Promise<number> {
    return this.#hub.ask('ageMs', nameOf(ownerOf(this.#secrets, pairId) ?? this.#secrets[0]!))
  }

  async list(): Promise<PairSummary[]> {
    const all: PairSummary[] = []
    for (const mesh of this.#secrets) {
      const secret = secretNamed(this.#secrets, mesh)
      for (const summary of await this.#hub.ask('list', nameOf(mesh))) all.push({ ...summary, secret })
    }
    return all
  }

  /** Never: it ends with the first process, and so does this one. */
  trouble(): undefined {}

  async dropPeer(peer: string): Promise<number> {
    let dropped = 0
    for (const mesh of this.#secrets) dropped += await this.#hub.ask('dropPeer', nameOf(mesh), peer)
    return dropped
  }

  sweep(): void {
    for (const pairs of this.#known.values()) pairs.sweep()
  }

  async close(): Promise<void> {
    for (const pairs of this.#known.values()) pairs.close()
  }

  async #read(id: Buffer, hex: string, mesh: MeshSecret): Promise<ReceivingPair | undefined> {
    const startedMs = this.#clockMs()
    const found = await this.#hub.ask('find', nameOf(mesh), hex)
    const pairs = this.#known.get(mesh)
    if (!found || !pairs) {
      pairs?.forget(hex)
      return undefined
    }
    const { pair: told, seen, endsInMs } = found
    const chainKey = own(told.chainKey)
    let pair = pairs.get(hex)
    if (pair) chainKey.fill(0)
    else pair = new ReceivingPair({ ...told, id: Buffer.from(id), mesh, chainKey })
    for (const [block, msAgo] of seen) pair.authenticated(block, startedMs - msAgo)
    pair.bury(told.block)
    pairs.keep(hex, pair, startedMs + endsInMs)
    return pair
  }
}

/** What the first process knows a secret by. */
function nameOf(mesh: MeshSecret): string {
  return mesh.pskId.toString('hex')
}
