import assert from 'node:assert/strict'
import { type Identity, initiate } from '../../sidecar/pair/handshake.ts'
import type { CarriedAnswer } from '../../sidecar/pair/initiating.ts'
import { MemoryStore } from '../../sidecar/pair/memory-store.ts'
import { parseHeader, sealRequest } from '../../sidecar/pair/message.ts'
import { type Pairing, Pairs, type PairsOptions } from '../../sidecar/pair/pairs.ts'
import { echoOf, Reject, type RejectName, rejectRecord } from '../../sidecar/pair/reject.ts'
import type { SendingMessage } from '../../sidecar/pair/sending.ts'
import { type Lease, type PairStore, StoreUnavailableError } from '../../sidecar/pair/store.ts'
import { FakeClock, seeded } from './fakes.ts'
import { identity } from './vectors.ts'

export const PEER = 'http://payments:8080'
export const HOUR_MS = 3_600_000
/** wall clock, in ms since 1970 */
export const NOW = 1_700_000_000_000
export const OLD = 'the old secret 0123456789 0123456789'
export const NEW = 'the new secret 0123456789 0123456789'
export const orders = await identity('orders')
export const payments = await identity('payments')
export const random = seeded('pairs test')

/** An initiator and a responder, and what is carried between them. */
export class World {
  readonly clock = new FakeClock()
  readonly responderClock = new FakeClock()
  /** that the initiator made, or could not make */
  readonly pairings: (Pairing & { name: string; error?: unknown })[] = []
  readonly hellos: Buffer[] = []
  readonly leases: Lease[] = []
  /** how long the initiator waited before it paired once more */
  readonly delays: number[] = []
  /** what the carrying of a pairing message may fail with for a moment */
  readonly passing = new Error('the connection broke')
  readonly store = new MemoryStore(this.clock.now)
  readonly initiator: Pairs
  responder: Pairs
  /** what becomes of a pairing message; unless changed, the responder answers it */
  carry = (hello: Buffer): Promise<CarriedAnswer> => answered(this.responder, hello)

  constructor(options: { initiator?: Identity; responder?: Identity; aheadMs?: number } = {}) {
    const { aheadMs = 0 } = options
    const store: PairStore = spying(this.store, (lease) => this.leases.push(lease))
    this.initiator = pairsOf({
      identity: options.initiator ?? orders,
      store,
      carry: (_peer, hello) => {
        this.hellos.push(hello)
        return this.carry(hello)
      },
      mayPass: (error) => error === this.passing,
      delay: async (ms) => {
        this.delays.push(ms)
      },
      nowMs: this.nowMs,
      clockMs: this.clock.now,
      onPairing: (pairing) => (name, failure) => this.pairings.push({ ...pairing, name, ...failure }),
    })
    this.responder = pairsOf({
      identity: options.responder ?? payments,
      store: new MemoryStore(this.responderClock.now),
      nowMs: () => this.nowMs() + aheadMs,
      clockMs: this.responderClock.now,
    })
  }

  readonly nowMs = (): number => NOW + this.clock.ms

  begin(peer = PEER): Promise<SendingMessage> {
    return this.initiator.begin(peer)
  }

  advance(ms: number): void {
    this.clock.advance(ms)
    this.responderClock.advance(ms)
  }

  /** Has the responder take a message: it has the same keys, and may run it. */
  async run(message: SendingMessage): Promise<void> {
    const received = await this.responder.accept(headerOf(message))
    assert.ok(received.requestKey.equals(message.requestKey))
    assert.ok(received.responseKey.equals(message.responseKey))
    await received.claim()
  }
}

/** The store, which tells what it leases. */
export function spying(store: MemoryStore, onLease: (lease: Lease) => void): PairStore {
  return new Proxy(store, {
    get(target, name: keyof MemoryStore) {
      if (name !== 'lease') return target[name].bind(target as never)
      return async (...args: Parameters<MemoryStore['lease']>) => {
        const lease = await target.lease(...args)
        if (lease) onLease(lease)
        return lease
      }
    },
  }) as PairStore
}

/** A store that is away, wholly or but for some verbs. */
export function awayStore(rest: Partial<PairStore> = {}): PairStore {
  return new Proxy(rest, {
    get: (target, name: keyof PairStore) =>
      target[name] ??
      (name === 'sweep' || name === 'setSecrets'
        ? () => {}
        : () => Promise.reject(new StoreUnavailableError())),
  }) as PairStore
}

export function headerOf(message: SendingMessage): ReturnType<typeof parseHeader> {
  return parseHeader(sealRequest(message, random(12)).header)
}

/** A pairing message as an initiator makes it. */
export const helloOf = (from: Identity, now = NOW, by = random) =>
  initiate(from, { secret: from.secrets[0]!, responderName: '', random: by, now })

export const place = ({ pairId, block, index }: SendingMessage) =>
  `${pairId.toString('hex')} ${block} ${index}`

export const secretOf = new Map(
  await Promise.all(
    [OLD, NEW].map(async (text) => [text, (await identity('payments', text)).secrets[0]!] as const),
  ),
)

/** A reject record for these bytes, by default under the secret that both sides have. */
export function record(
  name: RejectName,
  bytes: Buffer,
  changed: { secret?: string; timeMs?: number; storeAgeMs?: number; kind?: 'message' | 'pairing' } = {},
): Buffer {
  const { secret, timeMs = NOW, storeAgeMs = 0, kind = 'pairing' } = changed
  const mesh = secret ? secretOf.get(secret)! : payments.secrets[0]!
  return rejectRecord({ name, secret: mesh, echo: echoOf(bytes, kind), timeMs, storeAgeMs })
}

/** What a responder's port does with a pairing. */
export async function answered(responder: Pairs, hello: Buffer): Promise<CarriedAnswer> {
  try {
    return { status: 200, body: await responder.answer(hello) }
  } catch (error) {
    if (!(error instanceof Reject)) throw error
    return responder.rejectRecord(error, hello, 'pairing')
  }
}

/** Pairs with everything given that a test does not care for; it can carry nothing unless told how. */
export function pairsOf(options: Pick<PairsOptions, 'identity' | 'store'> & Partial<PairsOptions>): Pairs {
  return new Pairs({
    carry: () => Promise.reject(new Error('nobody is to be paired with here')),
    mayPass: () => false,
    delay: async () => {},
    random: seeded(options.identity.name),
    nowMs: () => 1_700_000_000_000,
    clockMs: () => 0,
    onPairing: () => () => {},
    ...options,
  })
}
