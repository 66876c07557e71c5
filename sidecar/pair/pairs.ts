/**
 * The pairs of this sidecar, in both roles: gets one or makes one, once however many calls wait for it; makes
 * the next before the last one ends; answers pairings; says which keys a message has.
 *
 * Does no I/O of its own: `carry` brings a pairing to a peer, the store keeps what must be kept, and time and
 * randomness are given.
 */
import { type AgreedPair, type Identity, type OpenedHello, openHello } from './handshake.ts'
import { type CarriedAnswer, PairingError, type PeerClock, pairWith } from './initiating.ts'
import { PairingLimits, SeenHellos } from './limits.ts'
import type { MessageHeader } from './message.ts'
import { firstChainKey } from './ratchet.ts'
import { ReceivingPair } from './receiving.ts'
import { ReceivingMessage } from './receiving-message.ts'
import { echoOf, parseReject, REJECTS, Reject, rejectRecord } from './reject.ts'
import { type MeshSecret, Owners, PAIR_ID_BYTES } from './secrets.ts'
import { Sending, type SendingMessage } from './sending.ts'
import { available, type PairStore, type Spent, StoreUnavailableError } from './store.ts'

export interface PairsOptions {
  identity: Identity
  store: PairStore
  /** Posts a pairing message to a peer. What it throws reaches those who wait for the pair. */
  carry(peer: string, hello: Buffer): Promise<CarriedAnswer>
  /** May what `carry` threw be over in a moment? Then another pairing message is sent. */
  mayPass(error: unknown): boolean
  delay(ms: number): Promise<void>
  /** `length` random bytes */
  random(length: number): Buffer
  /** wall clock, in ms since 1970 */
  nowMs(): number
  /** monotonic clock, in ms */
  clockMs(): number
  /** told of every pairing that begins */
  onPairing(pairing: Pairing): OnPaired
}

/** A pairing that begins. */
export interface Pairing {
  role: 'initiator' | 'responder'
  /** base URL of the responder's sidecar; undefined for a responder */
  url?: string
  /** what needs it, as it was given */
  cause: unknown
}

/**
 * Told of the end of a pairing.
 * @param name what the peer calls itself; empty as long as nobody has proven to have one
 * @param failure why there is no pair, in a box as anything can be thrown
 */
export type OnPaired = (name: string, failure?: { error: unknown }) => void

/** What a responder grants to a pair. */
const GRANT = { leaseMs: 60_000, pairTtlS: 3600, chunkLog2: 16 }
/** Before the second, and the third, attempt to pair, in ms. */
const PAIRING_DELAYS_MS = [50, 500]
const PEERS_MAX = 1000

/** An initiator's state with one peer. */
interface Peer extends PeerClock {
  sending: Sending | undefined
  /** the lease that all wait for, and the pairing that it may need */
  opening: Promise<void> | undefined
  /** the one pairing that is under way: calls wait for it, or it is made ahead of need */
  pairing: Promise<void> | undefined
  /** how often its pairs were dropped, or the secrets changed under which they may be made */
  drops: number
  /** the current secret when it was last paired with, be it under another one, which the peer knew */
  pairedFor: MeshSecret | undefined
}

export class Pairs {
  readonly #options: PairsOptions
  #identity: Identity
  /** the secret that was the current one before, while it is accepted */
  #retired: MeshSecret | undefined
  readonly #peers = new Map<string, Peer>()
  readonly #limits: PairingLimits
  readonly #seen = new SeenHellos()
  #owners: Owners

  constructor(options: PairsOptions) {
    this.#options = options
    this.#identity = options.identity
    this.#owners = new Owners(options.identity.secrets)
    options.store.setSecrets(options.identity.secrets)
    this.#limits = new PairingLimits(options.clockMs())
  }

  /**
   * Has other secrets count from here on, the first of them for pairings that this relay makes. A pair that was made
   * under a secret which is no more among them is not used again, in either role; messages that have begun go on. Those
   * that this relay made under the one that was the first are replaced with the next message to their peer.
   * @param secrets those that stay are the same objects
   */
  setSecrets(secrets: readonly MeshSecret[]): void {
    const [current] = this.#identity.secrets
    const retired = secrets[0] === current ? this.#retired : current
    this.#retired = secrets.find((secret) => secret === retired)
    this.#identity = { ...this.#identity, secrets }
    this.#owners = new Owners(secrets)
    this.#options.store.setSecrets(secrets)
    for (const state of this.#peers.values()) {
      state.drops++
      state.sending?.end()
    }
  }

  /**
   * Is this the secret for what begins with a peer? Not if it does not count any more, nor if it was the current one
   * and no pair has been made since with the one that is now: a tunnel of such a pair gives way to another.
   * @param peer base URL of the peer's sidecar
   */
  isUsedFor(peer: string, mesh: MeshSecret): boolean {
    return this.isListed(mesh) && !this.#isOutdated(mesh, this.#peers.get(peer))
  }

  /** Does a secret still count? A tunnel of a pair that was made under one that does not gets no new calls. */
  isListed(mesh: MeshSecret): boolean {
    return this.#identity.secrets.includes(mesh)
  }

  /**
   * Begins a message to a peer, or a tunnel, pairing with it first where there is no pair.
   * @param peer base URL of the peer's sidecar
   * @param cause what it is for: given to `onPairing` if it takes one
   * @throws PairingError, StoreUnavailableError, or what `carry` throws
   */
  async begin(peer: string, cause?: unknown): Promise<SendingMessage> {
    const state = this.#peer(peer)
    for (;;) {
      const message = state.sending?.next(this.#options.clockMs())
      if (message) return message
      state.opening ??= this.#open(peer, state, cause).finally(() => {
        state.opening = undefined
      })
      await state.opening
    }
  }

  /** The peer does not know this pair any more: the next message is of another one. */
  async lost(peer: string, pairId: Buffer): Promise<void> {
    const state = this.#peers.get(peer)
    if (state?.sending?.lease.pairId.equals(pairId)) state.sending.end()
    try {
      await this.#options.store.dropOutbound(peer, pairId)
    } catch (error) {
      // The next message is told that, if it still is so.
      if (!(error instanceof StoreUnavailableError)) throw error
    }
  }

  /**
   * Forgets all pairs with a peer, in both roles: the next message is of a new one. Another process that shares the
   * store may go on with its lease until that ends.
   * @param peer as the store lists it
   * @returns how many they were
   * @throws StoreUnavailableError
   */
  async drop(peer: string): Promise<number> {
    try {
      return await this.#options.store.dropPeer(peer)
    } finally {
      // Though the store has not said so, it may have dropped them.
      const state = this.#peers.get(peer)
      if (state) state.drops++
      state?.sending?.end()
    }
  }

  /** Erases the keys of what has ended: to be called every few seconds, as there may be no call for long. */
  sweep(): void {
    const { store, clockMs } = this.#options
    for (const { sending } of this.#peers.values())
      if (sending && sending.lease.endsAtMs <= clockMs()) sending.end()
    store.sweep()
  }

  /**
   * Finds the keys of a message, or of a tunnel, that came in.
   * @throws Reject unknown_pair, state_lost, block_out_of_reach or state_unavailable
   */
  async accept(header: MessageHeader): Promise<ReceivingMessage> {
    const { store, clockMs } = this.#options
    // Forged ids die here, without a look-up.
    if (!this.#owners.find(header.pairId)) throw new Reject('unknown_pair')
    const pair = await available(store.findInbound(header.pairId, header.block))
    if (!pair) throw new Reject('state_lost')
    return new ReceivingMessage(store, pair, header, clockMs())
  }

  /**
   * Answers a pairing (m1) with m2, once the store has acknowledged the pair.
   * @param cause what brought it: given to `onPairing`
   * @throws Reject
   */
  async answer(hello: Buffer, cause?: unknown): Promise<Buffer> {
    const { nowMs, clockMs, onPairing } = this.#options
    const onPaired = onPairing({ role: 'responder', cause })
    let peer = ''
    try {
      const seen = (hash: Buffer) => this.#seen.has(hash, clockMs())
      const opened = openHello(this.#identity, hello, { now: nowMs(), seen })
      peer = opened.initiatorName
      const answer = await this.#accepted(opened)
      onPaired(peer)
      return answer
    } catch (error) {
      onPaired(peer, { error })
      throw error
    }
  }

  async #accepted(opened: OpenedHello): Promise<Buffer> {
    const { store, random, clockMs } = this.#options
    if (!this.#limits.take(opened.initiatorName, clockMs())) throw new Reject('rate_limited')
    this.#seen.add(opened.hash, clockMs())
    if (!(await available(store.firstSight(opened.hash)))) throw new Reject('replayed')
    const { answer, pair } = opened.accept({ random, ...GRANT })
    // It may have been dropped meanwhile.
    if (!this.isListed(pair.mesh)) throw new Reject('psk_unknown')
    await available(store.addInbound(receivingPair(pair), 1000 * pair.ttlS))
    return answer
  }

  /**
   * The record that tells a reject to the initiator.
   * @param bytes the message, opening of a tunnel or m1 that it answers, as far as it was read
   * @param kind what it answers: an opening is like a message
   */
  async rejectRecord(
    reject: Reject,
    bytes: Buffer,
    kind: 'message' | 'pairing',
  ): Promise<{ status: number; body: Buffer }> {
    const { store, nowMs } = this.#options
    const secret = this.#namedSecret(bytes, kind) ?? this.#identity.secrets[0]!
    // Nothing but this reject is judged by it.
    const storeAgeMs = reject.code === 'state_lost' ? await store.ageMs(namedPair(bytes)).catch(() => 0) : 0
    const body = rejectRecord({
      name: reject.code,
      secret,
      echo: echoOf(bytes, kind),
      timeMs: nowMs(),
      storeAgeMs,
    })
    return { status: REJECTS[reject.code].status, body }
  }

  /** Reads what answered a message instead of a response; undefined when it is no reject record. */
  readReject(body: Buffer, sent: Buffer, kind: 'message' | 'pairing'): ReturnType<typeof parseReject> {
    return parseReject(body, this.#identity.secrets, echoOf(sent, kind))
  }

  /** The secret that the sender named: by psk_id in a pairing, by the tag of the pair's id in a message. */
  #namedSecret(bytes: Buffer, kind: 'message' | 'pairing'): MeshSecret | undefined {
    if (kind === 'message') return this.#owners.find(namedPair(bytes))
    const { secrets } = this.#identity
    return secrets.find((secret) => bytes.length >= 12 && secret.pskId.equals(bytes.subarray(4, 12)))
  }

  async #open(peer: string, state: Peer, cause: unknown): Promise<void> {
    const { store } = this.#options
    const { drops } = state
    let lease = await store.lease(peer, this.#stopSending(state))
    if (!lease) {
      await this.#paired(peer, state, cause)
      lease = await store.lease(peer)
    }
    const dropped = state.drops !== drops
    // It has lost what it acknowledged a moment ago.
    if (!lease && !dropped)
      throw new StoreUnavailableError('the store of the pairs has lost a pair that it had acknowledged')
    if (!lease) return
    state.sending = new Sending(lease)
    // It may be of a pair that was dropped meanwhile.
    if (dropped) return state.sending.end()
    if ((lease.pairEnds || this.#isOutdated(lease.mesh, state)) && !state.pairing)
      this.#renew(peer, state, cause)
  }

  #isOutdated(mesh: MeshSecret, state: Peer | undefined): boolean {
    return mesh === this.#retired && state?.pairedFor !== this.#identity.secrets[0]
  }

  /** Make before break: the next pair is made while the last one still serves, and taken into use at once. */
  #renew(peer: string, state: Peer, cause: unknown): void {
    this.#paired(peer, state, cause).then(
      // A pair that nobody uses would die at its responder within 30 s.
      () => state.sending?.end(),
      () => {}, // it has been told, and the next lease tries again
    )
  }

  /** Resolves when a new pair is kept. Whoever asks meanwhile gets the same one. */
  #paired(peer: string, state: Peer, cause: unknown): Promise<void> {
    state.pairing ??= this.#watchedPairing(peer, state, cause).finally(() => {
      state.pairing = undefined
    })
    return state.pairing
  }

  async #watchedPairing(peer: string, state: Peer, cause: unknown): Promise<void> {
    const onPaired = this.#options.onPairing({ role: 'initiator', url: peer, cause })
    try {
      onPaired(await this.#pairAtLast(peer, state))
    } catch (error) {
      onPaired('', { error })
      throw error
    }
  }

  /**
   * Pairs, and tries again when the peer restarts, say: many calls may wait for it.
   * @returns what the peer calls itself
   */
  async #pairAtLast(peer: string, state: Peer): Promise<string> {
    const { mayPass, delay } = this.#options
    for (const delayMs of PAIRING_DELAYS_MS) {
      try {
        return await this.#pair(peer, state)
      } catch (error) {
        const passes = error instanceof PairingError ? error.reason === 'unavailable' : mayPass(error)
        if (!passes) throw error
      }
      await delay(delayMs)
    }
    return this.#pair(peer, state)
  }

  async #pair(peer: string, state: Peer): Promise<string> {
    const { store, carry, random, nowMs } = this.#options
    const identity = this.#identity
    const [current] = identity.secrets
    const pair = await pairWith(identity, { random, nowMs, clock: state }, (hello) => carry(peer, hello))
    if (!this.isListed(pair.mesh)) {
      // The secret has been dropped meanwhile.
      pair.secret.fill(0)
      return this.#pair(peer, state)
    }
    await store.addOutbound({
      id: pair.id,
      peer,
      name: pair.peerName,
      mesh: pair.mesh,
      chainKey: firstChainKey(pair.secret),
      chunkBytesMax: pair.chunkBytesMax,
      leaseMs: pair.leaseMs,
      ttlMs: 1000 * pair.ttlS,
    })
    state.pairedFor = current
    if (pair.mesh === current && this.#retired) await store.retire(peer, this.#retired)
    return pair.peerName
  }

  #stopSending(state: Peer): Spent | undefined {
    const { sending } = state
    state.sending = undefined
    if (!sending) return undefined
    sending.end()
    return { pairId: sending.lease.pairId, messages: sending.messages }
  }

  #peer(peer: string): Peer {
    let state = this.#peers.get(peer)
    if (state) return state
    if (this.#peers.size >= PEERS_MAX) {
      const [oldest, gone] = this.#peers.entries().next().value!
      this.#stopSending(gone)
      this.#peers.delete(oldest)
    }
    state = {
      sending: undefined,
      opening: undefined,
      pairing: undefined,
      clockOffsetMs: 0,
      drops: 0,
      pairedFor: undefined,
    }
    this.#peers.set(peer, state)
    return state
  }
}

function receivingPair(pair: AgreedPair): ReceivingPair {
  const { id, peerName, mesh, chunkBytesMax, secret } = pair
  return new ReceivingPair({ id, peer: peerName, mesh, chunkBytesMax, chainKey: firstChainKey(secret) })
}

/** The id of a message's pair; shorter when not all of it was read. */
function namedPair(message: Buffer): Buffer {
  return message.subarray(2, 2 + PAIR_ID_BYTES)
}
