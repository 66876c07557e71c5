/** The tunnels that peers opened to this sidecar. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Answer, Body, Request } from '../call.ts'
import type { OpenCalls, WatchedCaller } from '../http/exchange.ts'
import type { Pairs } from '../pair/pairs.ts'
import { Reject } from '../pair/reject.ts'
import {
  checkOpening,
  OPENING_BYTES,
  parseOpening,
  tunnelAnswer,
  tunnelSecrets,
} from '../pair/tunnel-keys.ts'
import { follow, OutgoingRecords, readStart } from './opening.ts'
import { type AcceptedCall, type ResponderOptions, ResponderTunnel } from './responder.ts'

/** Until all of what opens a tunnel has come, in ms. */
const OPENING_TIMEOUT_MS = 5_000
const TUNNELS_PER_PEER_MAX = 64
const SALT_BYTES = 32

export interface AcceptedOptions {
  pairs: Pairs
  /** `length` random bytes, for secrets */
  random(length: number): Buffer
  tunnel: Omit<ResponderOptions, 'secrets' | 'handler' | 'isWanted' | 'open' | 'onClosed'>
  /** Answers a call. @param peer what its sender calls itself */
  handler(request: Request, call: AcceptedCall, peer: string): Promise<Answer>
}

export class AcceptedTunnels {
  readonly #options: AcceptedOptions
  /** by what their initiators call themselves */
  readonly #tunnels = new Map<string, Set<ResponderTunnel>>()
  #retired = false

  constructor(options: AcceptedOptions) {
    this.#options = options
  }

  /** How many tunnels are open. */
  get size(): number {
    let size = 0
    for (const tunnels of this.#tunnels.values()) size += tunnels.size
    return size
  }

  /** How many are open from each peer that has some, by what it calls itself. */
  get counts(): ReadonlyMap<string, number> {
    return new Map([...this.#tunnels].map(([peer, { size }]) => [peer, size]))
  }

  /**
   * Accepts a tunnel.
   * @param opening what opens it, and its records
   * @param caller whose going away is the end of it, and who is cut off when it dies
   * @param open where its calls are counted
   * @param onRead told of what opens it, as far as it was read
   * @returns what is to be sent back: the answer, and records
   * @throws Reject
   */
  async accept(
    opening: Body,
    caller: WatchedCaller,
    open: OpenCalls,
    onRead: (start: Buffer) => void,
  ): Promise<Body> {
    const { pairs, random, tunnel: options, handler } = this.#options
    const late = new AbortController()
    const timedOut = delay(OPENING_TIMEOUT_MS, undefined, { signal: late.signal, ref: false })
    const read = await Promise.race([readStart(opening, OPENING_BYTES), timedOut.catch(() => undefined)])
    late.abort()
    if (!read) throw new Reject('malformed')
    onRead(read.start ?? read.rest)
    if (!read.start) throw new Reject('malformed')
    const received = await pairs.accept(parseOpening(read.start))
    checkOpening(received, read.start)
    const { peer, mesh } = received
    if (this.#isFull(peer)) throw new Reject('rate_limited')
    await received.claim()
    // Others may have been accepted meanwhile.
    if (this.#isFull(peer)) throw new Reject('rate_limited')
    const answer = tunnelAnswer(random(SALT_BYTES))
    const secrets = tunnelSecrets(received, read.start, answer)
    received.forgetKeys()
    const tunnel: ResponderTunnel = new ResponderTunnel({
      ...options,
      secrets: { out: secrets.inbound, in: secrets.outbound },
      open,
      handler: (request, call) => handler(request, call, peer),
      isWanted: () => pairs.isListed(mesh),
      onClosed: (why) => {
        this.#remove(peer, tunnel)
        // Whoever takes nothing would not get to see the end of its records.
        if (why) caller.abort(why)
      },
    })
    this.#add(peer, tunnel)
    caller.onGone((why) => tunnel.die(why))
    follow(opening, read.rest, tunnel)
    if (this.#retired) tunnel.retire()
    return new OutgoingRecords(answer, Promise.resolve(tunnel))
  }

  /** Has tunnels get no new calls, and end: those from a peer, or all, and all that are opened from here on. */
  retire(peer?: string): void {
    if (peer === undefined) this.#retired = true
    for (const [name, tunnels] of this.#tunnels)
      if (peer === undefined || name === peer) for (const tunnel of [...tunnels]) tunnel.retire()
  }

  /** To be called every now and then. */
  tick(): void {
    for (const tunnels of this.#tunnels.values()) for (const tunnel of [...tunnels]) tunnel.tick()
  }

  #isFull(peer: string): boolean {
    return (this.#tunnels.get(peer)?.size ?? 0) >= TUNNELS_PER_PEER_MAX
  }

  #add(peer: string, tunnel: ResponderTunnel): void {
    const tunnels = this.#tunnels.get(peer) ?? new Set()
    this.#tunnels.set(peer, tunnels.add(tunnel))
  }

  #remove(peer: string, tunnel: ResponderTunnel): void {
    const tunnels = this.#tunnels.get(peer)
    tunnels?.delete(tunnel)
    if (tunnels?.size === 0) this.#tunnels.delete(peer)
  }
}
