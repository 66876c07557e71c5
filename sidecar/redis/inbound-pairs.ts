import { KnownPairs } from '../pair/known-pairs.ts'
import { ReceivingPair } from '../pair/receiving.ts'
import type { Claim, PairSummary } from '../pair/store.ts'
import { Claims } from './claims.ts'
import { type RedisConnection, unlessAway } from './connection.ts'
import { ADD, AGE, FIND, FIRST_SIGHT, FORGET, IDS, RAISE, SUMMARIES } from './inbound-scripts.ts'
import type { Place } from './place.ts'
import { portions } from './portions.ts'

/** What FIND gives: name, bytes of a chunk, ms to its end, base, chain key, floor, blocks and how many ms ago each. */
type Found = [string, number, number, number, string, number, ...(string | number)[]]

/** Which secret it is is known by who gave the place. */
type Summary = Omit<PairSummary, 'secret'>

/**
 * The pairs that peers made with this relay, in one place of Redis. Each message is claimed there; the keys of those
 * that this process has seen stay in its memory.
 */
export class InboundPairs {
  readonly #connection: RedisConnection
  readonly #place: Place
  readonly #clockMs: () => number
  readonly #claims: Claims
  readonly #known: KnownPairs
  /** the block of the chain key that Redis holds, as far as is known here */
  readonly #bases = new WeakMap<ReceivingPair, number>()

  constructor(connection: RedisConnection, place: Place, clockMs: () => number) {
    this.#connection = connection
    this.#place = place
    this.#clockMs = clockMs
    this.#claims = new Claims(connection, place)
    this.#known = new KnownPairs(clockMs)
  }

  async add(pair: ReceivingPair, ttlMs: number): Promise<void> {
    const { id, peer, chunkBytesMax, floorKey } = pair
    const { chainKey, block } = floorKey
    const hex = id.toString('hex')
    const key = this.#place.wrap(chainKey, { role: 'responder', pairId: id, block })
    // Its first message looks it up, as that may come to any process.
    pair.erase()
    const keys = [this.#place.pair(hex), this.#place.used, this.#place.fresh]
    const tooMany = await this.#connection.run(ADD, keys, [hex, ttlMs, peer, chunkBytesMax, key])
    await this.#forget(tooMany as string[])
  }

  /** The pair, if it need not be looked up for a message of this block. */
  known(id: Buffer, block: number): ReceivingPair | undefined {
    return this.#known.find(id.toString('hex'), block)
  }

  lookUp(id: Buffer): Promise<ReceivingPair | undefined> {
    const hex = id.toString('hex')
    return this.#known.lookUp(hex, () => this.#read(id, hex))
  }

  async claim(pairId: Buffer, block: number, index: number): Promise<Claim> {
    const hex = pairId.toString('hex')
    const { outcome, ...state } = await this.#claims.claim(hex, block, index)
    if (outcome === 'damaged') this.#place.complain('responder')
    if (outcome === 'damaged' || outcome === 'gone') {
      this.#known.forget(hex)
      return 'gone'
    }
    this.#known.claimed(hex, block, { isNew: outcome === 'new', ...state })
    return outcome
  }

  async firstSight(hash: Buffer): Promise<boolean> {
    return (await this.#connection.run(FIRST_SIGHT, [this.#place.hello(hash.toString('hex'))], [])) === 1
  }

  async ageMs(pairId: Buffer): Promise<number> {
    const hex = pairId.toString('hex')
    return (await this.#connection.run(AGE, [this.#place.pair(hex), this.#place.used], [hex])) as number
  }

  async list(): Promise<Summary[]> {
    return (await this.#summaries()).map(({ id, ...summary }) => summary)
  }

  async dropPeer(peer: string): Promise<number> {
    const theirs = (await this.#summaries()).filter((pair) => pair.peer === peer)
    await this.#forget(theirs.map(({ id }) => id))
    return theirs.length
  }

  sweep(): void {
    for (const pair of this.#known.sweep())
      if (pair.floorKey.block > this.#bases.get(pair)!) this.#raise(pair)
  }

  close(): void {
    this.#known.close()
  }

  async #read(id: Buffer, hex: string): Promise<ReceivingPair | undefined> {
    const startedMs = this.#clockMs()
    const keys = [this.#place.pair(hex), this.#place.used, this.#place.fresh]
    const found = (await this.#connection.run(FIND, keys, [hex])) as Found | string[]
    if (found.length <= 1) {
      if (found.length === 1) this.#place.complain('responder')
      this.#known.forget(hex)
      return undefined
    }
    const [peer, chunkBytesMax, endsInMs, base, key, floor, ...seen] = found as Found
    let pair = this.#known.get(hex)
    if (!pair) {
      const chainKey = this.#place.unwrap(key, { role: 'responder', pairId: id, block: base })
      if (!chainKey) {
        await this.#forget([hex])
        return undefined
      }
      const { mesh } = this.#place
      pair = new ReceivingPair({ id, peer, mesh, chunkBytesMax, chainKey, block: base })
    }
    for (let i = 0; i < seen.length; i += 2)
      pair.authenticated(Number(seen[i]), startedMs - Number(seen[i + 1]))
    pair.bury(floor)
    this.#known.keep(hex, pair, startedMs + endsInMs)
    this.#bases.set(pair, base)
    return pair
  }

  /** Keeps the chain key of the lowest block that lives, so that Redis gives nothing of those that are dead. */
  #raise(pair: ReceivingPair): void {
    const { id, floorKey } = pair
    const { chainKey, block } = floorKey
    this.#bases.set(pair, block)
    const key = this.#place.wrap(chainKey, { role: 'responder', pairId: id, block })
    unlessAway(this.#connection.run(RAISE, [this.#place.pair(id.toString('hex'))], [block, key]))
  }

  async #summaries(): Promise<(Summary & { id: string })[]> {
    const ids = (await this.#connection.run(IDS, [this.#place.fresh, this.#place.used], [])) as string[]
    const all: (Summary & { id: string })[] = []
    for (const some of portions(ids)) {
      const keys = some.map((id) => this.#place.pair(id))
      const summaries = await this.#connection.run(SUMMARIES, keys, [])
      for (const [at, peer, ageMs, block, messages] of summaries as [
        number,
        string,
        number,
        number,
        number,
      ][])
        all.push({ id: some[at - 1]!, role: 'responder', peer, ageMs, block, messages })
    }
    return all
  }

  async #forget(ids: readonly string[]): Promise<void> {
    for (const some of portions(ids)) {
      for (const hex of some) this.#known.forget(hex)
      const pairs = some.map((hex) => this.#place.pair(hex))
      await this.#connection.run(FORGET, [this.#place.used, this.#place.fresh, ...pairs], some)
    }
  }
}
