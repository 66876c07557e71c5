import { termsOf } from '../pair/lives.ts'
import { BlockKeys, nextBlock } from '../pair/ratchet.ts'
import type { Lease, OutboundPair, PairSummary, Spent } from '../pair/store.ts'
import { type RedisConnection, unlessAway } from './connection.ts'
import { ADD, DROP, DROP_PEER, LEASE, PEERS, RAISE, SUMMARIES } from './outbound-scripts.ts'
import type { Place } from './place.ts'
import { portions } from './portions.ts'

/** What LEASE gives: id, block, base, chain key, bytes of a chunk, age, ttl and lease in ms, messages, open leases. */
type Given = [string, number, number, string, number, number, number, number, number, number, string]

/** The pairs that this relay made, in one place of Redis: its replicas lease blocks of the same ones. */
export class OutboundPairs {
  readonly #connection: RedisConnection
  readonly #place: Place
  readonly #clockMs: () => number

  constructor(connection: RedisConnection, place: Place, clockMs: () => number) {
    this.#connection = connection
    this.#place = place
    this.#clockMs = clockMs
  }

  async add({ id, peer, name, chainKey, chunkBytesMax, leaseMs, ttlMs }: OutboundPair): Promise<void> {
    const key = this.#place.wrap(chainKey, { role: 'initiator', pairId: id, block: 0 })
    chainKey.fill(0)
    const tooMany = (await this.#connection.run(
      ADD,
      [this.#place.peer(peer), this.#place.peers],
      [peer, id.toString('hex'), name, chunkBytesMax, leaseMs, ttlMs, key],
    )) as string[]
    for (const other of tooMany) await this.dropPeer(other)
  }

  async lease(peer: string, spent?: Spent): Promise<Lease | undefined> {
    const told = [spent?.pairId.toString('hex') ?? '', spent?.messages ?? 0]
    for (;;) {
      const startedMs = this.#clockMs()
      const given = await this.#connection.run(LEASE, [this.#place.peer(peer)], told)
      if ((given as unknown[]).length === 0) return undefined
      const lease = this.#leaseOf(peer, given as Given, startedMs)
      if (lease) return lease
      await this.drop(peer, Buffer.from((given as Given)[0], 'hex'))
    }
  }

  async drop(peer: string, pairId: Buffer): Promise<void> {
    await this.#connection.run(DROP, [this.#place.peer(peer)], [pairId.toString('hex')])
  }

  async dropPeer(peer: string): Promise<number> {
    const keys = [this.#place.peer(peer), this.#place.peers]
    return (await this.#connection.run(DROP_PEER, keys, [peer])) as number
  }

  async list(): Promise<Omit<PairSummary, 'secret'>[]> {
    const peers = (await this.#connection.run(PEERS, [this.#place.peers], [])) as string[]
    const all: Omit<PairSummary, 'secret'>[] = []
    for (const some of portions(peers)) {
      const keys = some.map((peer) => this.#place.peer(peer))
      const summaries = await this.#connection.run(SUMMARIES, keys, [])
      for (const [at, ageMs, next, messages] of summaries as [number, number, number, number][])
        all.push({
          role: 'initiator',
          peer: some[at - 1]!,
          ageMs,
          block: Math.max(0, next - 1),
          messages,
        })
    }
    return all
  }

  /** @returns undefined when what Redis holds was not wrapped by us for this */
  #leaseOf(peer: string, given: Given, startedMs: number): Lease | undefined {
    const [id, block, base, key, chunkBytesMax, ageMs, ttlMs, leaseMs, messages, openLeases, name] = given
    const pairId = Buffer.from(id, 'hex')
    let chainKey = this.#place.unwrap(key, { role: 'initiator', pairId, block: base })
    if (!chainKey) return undefined
    let blockSecret = Buffer.alloc(0)
    for (let at = base; at <= block; at++) {
      const step = nextBlock(chainKey, at)
      chainKey.fill(0)
      blockSecret.fill(0)
      chainKey = step.nextChainKey
      blockSecret = step.blockSecret as Buffer<ArrayBuffer>
    }
    const raised = this.#place.wrap(chainKey, { role: 'initiator', pairId, block: block + 1 })
    chainKey.fill(0)
    // Nobody waits for it: the block is leased already, and the next lease finds its way from what is kept.
    unlessAway(this.#connection.run(RAISE, [this.#place.peer(peer)], [id, block + 1, raised]))
    const { endsInMs, pairEnds } = termsOf({ madeAtMs: -ageMs, ttlMs, leaseMs, messages, openLeases }, 0)
    const keys = new BlockKeys(blockSecret)
    const { mesh } = this.#place
    return { pairId, name, block, keys, chunkBytesMax, mesh, endsAtMs: startedMs + endsInMs, pairEnds }
  }
}
