/** The last minute, as the status page shows it: calls, latency and failures by peer, and rejects by code. */
import type { CallLabels, Direction } from './metrics.ts'

const SLOT_MS = 5000
const SLOTS = 12
/** Peers of a direction, and codes of a peer, that are told apart. */
const PEERS_MAX = 100
const CODES_MAX = 50
/** What those are counted as that come later. */
export const OTHER = 'other'
/** Those of the latency begin at 2^-14 s (61 us), each 9 % above the one before, and end at 2^10 s (17 min). */
const BUCKETS_PER_OCTAVE = 8
const OCTAVE_MIN = -14
const BUCKETS = 24 * BUCKETS_PER_OCTAVE
/** A rate that is of less time says nothing. */
const RATE_SECONDS_MIN = 1

/** Calls that ended in the last minute. */
export interface Figures {
  calls: number
  callsPerSecond: number
  /** of all calls, failed ones too, to within 5 %; undefined where there was none */
  p50Seconds: number | undefined
  p99Seconds: number | undefined
  /** by error code, the most frequent first */
  failures: { code: string; count: number }[]
}

export interface PeerFigures extends Figures {
  direction: Direction
  /** as its calls were labelled: the base URL of its sidecar or, inbound, what it calls itself; empty: not known */
  peer: string
  /** how long ago, at any time before; undefined: never */
  lastSuccessSeconds: number | undefined
  lastFailure: { code: string; secondsAgo: number } | undefined
}

export interface RejectFigures {
  direction: 'sent' | 'received'
  code: string
  lastMinute: number
  /** since the start */
  total: number
}

export interface RecentSnapshot {
  /** of every peer together */
  all: Record<Direction, Figures>
  /** in the order in which they were first met */
  peers: PeerFigures[]
  rejects: RejectFigures[]
}

/** What one process counted: what several did makes one snapshot. May be cloned. */
export interface RecentTally {
  /** how much of the last minute it has seen */
  seconds: number
  calls: Record<Direction, Map<string, PeerTally>>
  rejects: RejectFigures[]
}

interface PeerTally extends Pick<PeerFigures, 'lastSuccessSeconds' | 'lastFailure'> {
  /** calls by bucket */
  latency: Float64Array
  failures: Map<string, number>
}

interface PeerCalls {
  latency: Ring
  failures: Map<string, Ring>
  lastSuccessMs: number | undefined
  lastFailure: { code: string; atMs: number } | undefined
}

/** Remembers the calls and rejects of about the last minute, in bounded memory. */
export class Recent {
  readonly #clockMs: () => number
  readonly #startMs: number
  readonly #peers: Record<Direction, Map<string, PeerCalls>> = { outbound: new Map(), inbound: new Map() }
  readonly #rejects = { sent: new Map<string, Rejects>(), received: new Map<string, Rejects>() }

  /** @param clockMs monotonic */
  constructor(clockMs: () => number) {
    this.#clockMs = clockMs
    this.#startMs = clockMs()
  }

  /** A call is over. */
  served({ direction, peer, error }: CallLabels, seconds: number): void {
    const nowMs = this.#clockMs()
    const slot = slotOf(nowMs)
    const calls = entry(this.#peers[direction], peer, PEERS_MAX, newPeer)
    calls.latency.add(slot, bucketOf(seconds))
    if (error === '') {
      calls.lastSuccessMs = nowMs
      return
    }
    entry(calls.failures, error, CODES_MAX, newCounter).add(slot)
    calls.lastFailure = { code: error, atMs: nowMs }
  }

  /** A message or a pairing was refused: by this sidecar, or by a peer's. */
  rejected(direction: 'sent' | 'received', code: string): void {
    const rejects = entry(this.#rejects[direction], code, CODES_MAX, newRejects)
    rejects.counter.add(slotOf(this.#clockMs()))
    rejects.total++
  }

  /** What it counted in the last minute. */
  tally(): RecentTally {
    const nowMs = this.#clockMs()
    const slot = slotOf(nowMs)
    const beganMs = Math.max(this.#startMs, (slot - SLOTS + 1) * SLOT_MS)
    const secondsAgo = (ms: number) => (nowMs - ms) / 1000
    const count = ({ latency, failures, lastSuccessMs, lastFailure }: PeerCalls): PeerTally => ({
      latency: latency.sums(slot),
      failures: new Map([...failures].map(([code, counter]) => [code, counter.sums(slot)[0]!])),
      lastSuccessSeconds: lastSuccessMs === undefined ? undefined : secondsAgo(lastSuccessMs),
      lastFailure: lastFailure && { code: lastFailure.code, secondsAgo: secondsAgo(lastFailure.atMs) },
    })
    const calls = (direction: Direction) =>
      new Map([...this.#peers[direction]].map(([peer, calls]) => [peer, count(calls)]))
    const rejects = (direction: 'sent' | 'received') =>
      [...this.#rejects[direction]].map(([code, { counter, total }]) => ({
        direction,
        code,
        lastMinute: counter.sums(slot)[0]!,
        total,
      }))
    return {
      seconds: secondsAgo(beganMs),
      calls: { outbound: calls('outbound'), inbound: calls('inbound') },
      rejects: [...rejects('sent'), ...rejects('received')],
    }
  }
}

/** What processes counted, added up. */
export function snapshotOf(tallies: readonly RecentTally[]): RecentSnapshot {
  const seconds = Math.max(RATE_SECONDS_MIN, ...tallies.map((tally) => tally.seconds))
  const all = (direction: Direction) =>
    figures(
      tallies.flatMap(({ calls }) => [...calls[direction].values()]),
      seconds,
    )
  const peers = (direction: Direction) => {
    const byPeer = Map.groupBy(
      tallies.flatMap(({ calls }) => [...calls[direction]]),
      ([peer]) => peer,
    )
    return [...byPeer].map(([peer, entries]) => {
      const counted = entries.map(([, tally]) => tally)
      return {
        direction,
        peer,
        ...figures(counted, seconds),
        lastSuccessSeconds: latest(
          counted.map((one) => one.lastSuccessSeconds),
          (seconds) => seconds,
        ),
        lastFailure: latest(
          counted.map((one) => one.lastFailure),
          (failure) => failure.secondsAgo,
        ),
      }
    })
  }
  const rejects = Map.groupBy(
    tallies.flatMap((tally) => tally.rejects),
    ({ direction, code }) => `${direction} ${code}`,
  )
  return {
    all: { outbound: all('outbound'), inbound: all('inbound') },
    peers: [...peers('outbound'), ...peers('inbound')],
    rejects: [...rejects.values()].map((same) => ({
      ...same[0]!,
      lastMinute: sum(same.map(({ lastMinute }) => lastMinute)),
      total: sum(same.map(({ total }) => total)),
    })),
  }
}

interface Rejects {
  counter: Ring
  total: number
}

/** Counts of the last SLOTS slots, in cells: each slot has its own, and they are used again when it is forgotten. */
class Ring {
  readonly #width: number
  readonly #counts: Uint32Array
  #newest = 0

  /** @param width how many cells */
  constructor(width: number) {
    this.#width = width
    this.#counts = new Uint32Array(SLOTS * width)
  }

  add(slot: number, cell = 0): void {
    this.#forget(slot)
    this.#counts[(slot % SLOTS) * this.#width + cell]!++
  }

  /** What each cell has counted in the slots up to this one. */
  sums(slot: number): Float64Array {
    this.#forget(slot)
    const sums = new Float64Array(this.#width)
    for (let at = 0; at < this.#counts.length; at += this.#width)
      for (let cell = 0; cell < this.#width; cell++) sums[cell]! += this.#counts[at + cell]!
    return sums
  }

  /** Empties the slots that have begun since. */
  #forget(slot: number): void {
    if (slot <= this.#newest) return
    for (let one = Math.max(this.#newest + 1, slot - SLOTS + 1); one <= slot; one++) {
      const at = (one % SLOTS) * this.#width
      this.#counts.fill(0, at, at + this.#width)
    }
    this.#newest = slot
  }
}

function figures(all: readonly PeerTally[], seconds: number): Figures {
  const latency = new Float64Array(BUCKETS)
  const failures = new Map<string, number>()
  for (const one of all) {
    one.latency.forEach((count, i) => {
      latency[i]! += count
    })
    for (const [code, count] of one.failures)
      if (count > 0) failures.set(code, (failures.get(code) ?? 0) + count)
  }
  const calls = sum(latency)
  return {
    calls,
    callsPerSecond: calls / seconds,
    p50Seconds: quantile(latency, calls * 0.5),
    p99Seconds: quantile(latency, calls * 0.99),
    failures: [...failures].map(([code, count]) => ({ code, count })).sort((a, b) => b.count - a.count),
  }
}

/** What was the least time ago; undefined where there is none. */
function latest<T>(all: readonly (T | undefined)[], secondsAgo: (one: T) => number): T | undefined {
  return all
    .filter((one) => one !== undefined)
    .reduce<T | undefined>((a, b) => (a === undefined || secondsAgo(b) < secondsAgo(a) ? b : a), undefined)
}

function sum(numbers: Iterable<number>): number {
  let total = 0
  for (const number of numbers) total += number
  return total
}

/** The middle of the bucket in which the call of this rank is; undefined where there is none. */
function quantile(buckets: Float64Array, rank: number): number | undefined {
  let seen = 0
  for (let i = 0; i < BUCKETS; i++) {
    seen += buckets[i]!
    if (seen > 0 && seen >= rank) return 2 ** (OCTAVE_MIN + (i + 0.5) / BUCKETS_PER_OCTAVE)
  }
  return undefined
}

function bucketOf(seconds: number): number {
  const bucket = Math.floor((Math.log2(seconds) - OCTAVE_MIN) * BUCKETS_PER_OCTAVE)
  return Math.min(Math.max(bucket, 0), BUCKETS - 1)
}

function slotOf(ms: number): number {
  return Math.floor(ms / SLOT_MS)
}

/** What a map holds for a key, made where it is new; beyond `max` keys that of OTHER. */
function entry<T>(map: Map<string, T>, key: string, max: number, make: () => T): T {
  const found = map.get(key)
  if (found !== undefined) return found
  if (map.size >= max && key !== OTHER) return entry(map, OTHER, max, make)
  const made = make()
  map.set(key, made)
  return made
}

const newCounter = () => new Ring(1)
const newRejects = (): Rejects => ({ counter: newCounter(), total: 0 })
const newPeer = (): PeerCalls => ({
  latency: new Ring(BUCKETS),
  failures: new Map(),
  lastSuccessMs: undefined,
  lastFailure: undefined,
})
