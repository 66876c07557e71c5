import { BLOCK_LIFE_MS, ReceivingPair } from '../pair/receiving.ts'
import type { Claim, PairSummary } from '../pair/store.ts'
import { Claims } from './claims.ts'
import { type RedisConnection, unlessAway } from './connection.ts'
import { ADD, AGE, FIND, FIRST_SIGHT, FORGET, IDS, RAISE, SUMMARIES } from './inbound-scripts.ts'
import type { Place } from './place.ts'
import { portions } from './portions.ts'

/** A pair that no message uses here is read anew when one does: its blocks died, and its key was raised, before. */
const UNUSED_MS = 2 * BLOCK_LIFE_MS

/** What FIND gives: name, bytes of a chunk, ms to its end, base, chain key, floor, blocks and how many ms ago each. */
type Found = [string, number, number, number, string, number, ...(string | number)[]]

/** Which secret it is is known by who gave the place. */
type Summary = Omit<PairSummary, 'secret'>

/** A pair as this process knows it. */
interface Known {
  pair: ReceivingPair
  /** until when it need not be looked up, monotonic */
  endsAtMs: number
  usedAtMs: number
  /** the block of the chain key that Redis holds, as far as is known here */
  base: number
}

/**
 * The pairs that peers made with this relay, in one place of Redis. Each message is claimed there; the keys of those
 * that this process has seen stay in its memory.
 */
export class InboundPairs {
  readonly #connection: RedisConnection
  readonly #place: Place
  readonly #clockMs: () => number
  readonly #claims: Claims
  /** by pair id in hex, and so are the others */
  readonly #known = new Map<string, Known>()
  readonly #lookups = new Map<string, Promise<ReceivingPair | undefined>>()

  constructor(connection: RedisConnection, place: Place, clockMs: () => number) {
    this.#connection = connection
    this.#place = place
    this.#clockMs = clockMs
    this.#claims = new Claims(connection, place)
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
    const known = this.#known.get(id.toString('hex'))
    const nowMs = this.#clockMs()
    if (!known || nowMs >= known.endsAtMs || !known.pair.reaches(block)) return undefined
    known.usedAtMs = nowMs
    return known.pair
  }

  lookUp(id: Buffer): Promise<ReceivingPair | undefined> {
    const hex = id.toString('hex')
    let lookup = this.#lookups.get(hex)
    if (!lookup) {
      lookup = this.#read(id, hex).finally(() => this.#lookups.delete(hex))
      this.#lookups.set(hex, lookup)
    }
    return lookup
  }

  async claim(pairId: Buffer, block: number, index: number): Promise<Claim> {
    const hex = pairId.toString('hex')
    const { outcome, seenMsAgo, floor, endsInMs } = await this.#claims.claim(hex, block, index)
    const known = this.#known.get(hex)
    if (outcome === 'damaged') this.#place.complain('responder')
    if (outcome === 'damaged' || outcome === 'gone') {
      this.#forgetHere(hex)
      return 'gone'
    }
    if (!known) return outcome
    const nowMs = this.#clockMs()
    known.endsAtMs = nowMs + endsInMs
    if (outcome === 'new') known.pair.authenticated(block, nowMs - seenMsAgo)
    known.pair.bury(floor)
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
    const nowMs = this.#clockMs()
    for (const [hex, known] of this.#known) {
      if (known.endsAtMs <= nowMs || known.usedAtMs + UNUSED_MS <= nowMs) this.#forgetHere(hex)
      else if (known.pair.floor(nowMs) > known.base) this.#raise(hex, known)
    }
  }

  close(): void {
    for (const hex of this.#known.keys()) this.#forgetHere(hex)
  }

  async #read(id: Buffer, hex: string): Promise<ReceivingPair | undefined> {
    const startedMs = this.#clockMs()
    const keys = [this.#place.pair(hex), this.#place.used, this.#place.fresh]
    const found = (await this.#connection.run(FIND, keys, [hex])) as Found | string[]
    if (found.length <= 1) {
      if (found.length === 1) this.#place.complain('responder')
      this.#forgetHere(hex)
      return undefined
    }
    const [peer, chunkBytesMax, endsInMs, base, key, floor, ...seen] = found as Found
    let pair = this.#known.get(hex)?.pair
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
    this.#known.set(hex, { pair, endsAtMs: startedMs + endsInMs, usedAtMs: startedMs, base })
    return pair
  }

  /** Keeps the chain key of the lowest block that lives, so that Redis gives nothing of those that are dead. */
  #raise(hex: string, known: Known): void {
    const { id, floorKey } = known.pair
    const { chainKey, block } = floorKey
    known.base = block
    const key = this.#place.wrap(chainKey, { role: 'responder', pairId: id, block })
    unlessAway(this.#connection.run(RAISE, [this.#place.pair(hex)], [block, key]))
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
      for (const hex of some) this.#forgetHere(hex)
      const pairs = some.map((hex) => this.#place.pair(hex))
      await this.#connection.run(FORGET, [this.#place.used, this.#place.fresh, ...pairs], some)
    }
  }

  #forgetHere(hex: string): void {
    this.#known.get(hex)?.pair.erase()
    this.#known.delete(hex)
  }
}
