/** The tunnels to peers: when they are opened, which one a call takes, and when calls are messages instead. */
import { NoHttp2Error } from '../http/http2-session.ts'
import { SendError } from '../http/send-error.ts'
import type { InitiatorTunnel } from './initiator.ts'
import { OpeningError, type TunnelEvents } from './opening.ts'

/** `auto`: messages, and tunnels to those peers that get many calls; the others: that alone */
export type Carriage = 'auto' | 'message' | 'tunnel'

/** A peer gets tunnels once it got so many calls in so many ms. */
const BUSY_CALLS = 100
const BUSY_MS = 1_000
/** So many tunnels at once, so that a balancer's replicas share the load; and more, up to a limit. */
const TUNNELS_MIN = 2
const TUNNELS_MAX = 16
/** For as many calls in the fullest of them, there is one more. */
const CALLS_PER_TUNNEL = 64
/** Where there must be one, it is tried so much later again. */
const OPENING_DELAYS_MS = [50, 200, 500]
/** When none could be opened, it is tried again after so long. */
const TRIED_AGAIN_MS = 60_000
/** And after so long when one took no calls from the start: a sidecar that drains opens them, and sends them away. */
const TAKES_NONE_MS = 1_000
/** Tunnels that broke in the middle of calls: where two did within so long, there is none for a while. */
const BREAKS_MS = 10 * 60_000
const PAUSE_MS = 10 * 60_000
const PAUSE_MAX_MS = 6 * 60 * 60_000
const PEERS_MAX = 1000

/** What is known of a peer. */
interface Peer {
  /** those that take calls */
  tunnels: InitiatorTunnel[]
  /** those that take no more, but have some */
  retired: Set<InitiatorTunnel>
  opening: Promise<void> | undefined
  /** of the calls that are counted to see whether there are many */
  countedSinceMs: number
  counted: number
  /** no tunnel is opened before */
  notBeforeMs: number
  brokeAtMs: number
  pauseMs: number
}

export interface TunnelsOptions {
  carriage: Carriage
  /** @param url base URL of the peer's sidecar */
  open(url: string, events: TunnelEvents): Promise<InitiatorTunnel>
  /** told why there is no tunnel to a peer, which is no fault as long as messages reach it */
  onFailure(url: string, error: unknown): void
  delay(ms: number): Promise<void>
  /** monotonic */
  clockMs(): number
}

export class Tunnels {
  readonly #options: TunnelsOptions
  /** by base URL of the peer's sidecar, the one that was met first comes first */
  readonly #peers = new Map<string, Peer>()

  constructor(options: TunnelsOptions) {
    this.#options = options
  }

  /** How many tunnels are open. */
  get size(): number {
    let size = 0
    for (const { tunnels, retired } of this.#peers.values()) size += tunnels.length + retired.size
    return size
  }

  /** How many are open to each peer that has some, by the base URL of its sidecar. */
  get counts(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>()
    for (const [url, { tunnels, retired }] of this.#peers) {
      const count = tunnels.length + retired.size
      if (count > 0) counts.set(url, count)
    }
    return counts
  }

  /**
   * The tunnel for the next call to a peer; undefined: it is to be sent as a message.
   * @param lost was the call lost by a tunnel before?
   * @throws what opening a tunnel throws, where there must be one
   */
  find(url: string, lost: boolean): InitiatorTunnel | Promise<InitiatorTunnel> | undefined {
    const { carriage, clockMs } = this.#options
    if (carriage === 'message' || (lost && carriage === 'auto')) return undefined
    const peer = this.#peers.get(url) ?? this.#newPeer(url)
    const best = bestOf(peer.tunnels)
    if (best) {
      this.#widen(url, peer)
      return best
    }
    if (carriage === 'tunnel') return this.#opened(url, peer)
    const nowMs = clockMs()
    if (nowMs - peer.countedSinceMs > BUSY_MS) {
      peer.countedSinceMs = nowMs
      peer.counted = 0
    }
    if (++peer.counted >= BUSY_CALLS) this.#widen(url, peer)
    return undefined
  }

  /** Has tunnels get no new calls: those to a peer, or all. */
  retire(url?: string): void {
    for (const [key, { tunnels }] of this.#peers)
      if (url === undefined || key === url) for (const tunnel of [...tunnels]) tunnel.retire()
  }

  /** To be called every now and then. */
  tick(): void {
    for (const { tunnels, retired } of this.#peers.values()) {
      for (const tunnel of [...tunnels]) tunnel.tick()
      for (const tunnel of [...retired]) tunnel.tick()
    }
  }

  /** Ends all tunnels. */
  close(): void {
    for (const { tunnels, retired } of this.#peers.values())
      for (const tunnel of [...tunnels, ...retired]) tunnel.die(undefined)
    this.#peers.clear()
  }

  async #opened(url: string, peer: Peer): Promise<InitiatorTunnel> {
    const { delay } = this.#options
    for (let tries = 0; peer.tunnels.length < TUNNELS_MAX; tries++) {
      try {
        await this.#open(url, peer)
      } catch (error) {
        if (tries >= OPENING_DELAYS_MS.length || !mayPass(error)) throw error
      }
      const best = bestOf(peer.tunnels)
      if (best) return best
      // A replica that restarts, say, takes no calls, or is not there.
      if (tries >= OPENING_DELAYS_MS.length) break
      await delay(OPENING_DELAYS_MS[tries]!)
    }
    throw new OpeningError('No tunnel takes another call.')
  }

  /** Opens another tunnel in the background, if there should be one. */
  #widen(url: string, peer: Peer): void {
    const { tunnels, opening, notBeforeMs } = peer
    if (opening || tunnels.length >= TUNNELS_MAX) return
    const fullest = tunnels.reduce((most, { openCalls }) => Math.max(most, openCalls), 0)
    if (tunnels.length >= TUNNELS_MIN + Math.floor(fullest / CALLS_PER_TUNNEL)) return
    if (this.#options.clockMs() < notBeforeMs) return
    this.#open(url, peer).catch(() => {})
  }

  #open(url: string, peer: Peer): Promise<void> {
    peer.opening ??= this.#openOne(url, peer).finally(() => {
      peer.opening = undefined
    })
    return peer.opening
  }

  async #openOne(url: string, peer: Peer): Promise<void> {
    const { open, onFailure, clockMs } = this.#options
    let tunnel: InitiatorTunnel | undefined
    const leave = () => {
      if (!tunnel) return
      remove(peer.tunnels, tunnel)
      peer.retired.add(tunnel)
      // The next one first: its calls need not go back to being messages.
      if (peer.tunnels.length < TUNNELS_MIN && tunnel.openCalls > 0) this.#widen(url, peer)
    }
    try {
      tunnel = await open(url, {
        onRetired: leave,
        onClosed: (broke) => {
          if (!tunnel) return
          remove(peer.tunnels, tunnel)
          peer.retired.delete(tunnel)
          if (broke) this.#broke(peer)
        },
      })
    } catch (error) {
      peer.notBeforeMs = clockMs() + TRIED_AGAIN_MS
      onFailure(url, error)
      throw error
    }
    if (tunnel.hasRoom) {
      peer.tunnels.push(tunnel)
      return
    }
    peer.notBeforeMs = clockMs() + TAKES_NONE_MS
    if (!tunnel.isOver) peer.retired.add(tunnel)
  }

  #broke(peer: Peer): void {
    const nowMs = this.#options.clockMs()
    if (nowMs - peer.brokeAtMs < BREAKS_MS) {
      peer.notBeforeMs = nowMs + peer.pauseMs
      peer.pauseMs = Math.min(2 * peer.pauseMs, PAUSE_MAX_MS)
      peer.brokeAtMs = Number.NEGATIVE_INFINITY
    } else peer.brokeAtMs = nowMs
  }

  /** The first peer that no call is open to, if there is one. */
  #forgetOne(): void {
    const all = [...this.#peers]
    const [url, { tunnels, retired }] = all.find(([, peer]) => isIdle(peer)) ?? all[0]!
    this.#peers.delete(url)
    for (const tunnel of [...tunnels, ...retired]) tunnel.die(undefined)
  }

  #newPeer(url: string): Peer {
    if (this.#peers.size >= PEERS_MAX) this.#forgetOne()
    const peer: Peer = {
      tunnels: [],
      retired: new Set(),
      opening: undefined,
      countedSinceMs: Number.NEGATIVE_INFINITY,
      counted: 0,
      notBeforeMs: Number.NEGATIVE_INFINITY,
      brokeAtMs: Number.NEGATIVE_INFINITY,
      pauseMs: PAUSE_MS,
    }
    this.#peers.set(url, peer)
    return peer
  }
}

function isIdle({ tunnels, retired }: Peer): boolean {
  return [...tunnels, ...retired].every(({ openCalls }) => openCalls === 0)
}

/** The one that seals a record in this turn of the event loop anyway, as records are what costs; else the least busy. */
function bestOf(tunnels: readonly InitiatorTunnel[]): InitiatorTunnel | undefined {
  let best: InitiatorTunnel | undefined
  for (const tunnel of tunnels) {
    if (!tunnel.hasRoom) continue
    if (tunnel.isAboutToSeal) return tunnel
    if (!best || tunnel.openCalls < best.openCalls) best = tunnel
  }
  return best
}

/**
 * May it be otherwise a moment later? That there is no pair is no matter of moments. A connection that broke as it began
 * looks as if its other end did not speak HTTP/2. What timed out has had its time.
 */
function mayPass(error: unknown): boolean {
  if (error instanceof SendError) return !error.timedOut
  return error instanceof OpeningError || error instanceof NoHttp2Error
}

function remove(tunnels: InitiatorTunnel[], tunnel: InitiatorTunnel): void {
  const at = tunnels.indexOf(tunnel)
  if (at >= 0) tunnels.splice(at, 1)
}
