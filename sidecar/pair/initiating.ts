/** Pairing as an initiator does it. */
import { type AgreedPair, type Identity, initiate } from './handshake.ts'
import { echoOf, parseReject, Reject, type RejectName } from './reject.ts'
import type { MeshSecret } from './secrets.ts'

/** What a peer answered to a pairing. */
export interface CarriedAnswer {
  /** outer HTTP status */
  status: number
  /** the first KiBs of it are enough */
  body: Buffer
}

/** Why no pair could be made with a peer. */
export class PairingError extends Error {
  readonly reason: 'secret-mismatch' | 'refused' | 'not-a-relay' | 'unavailable'
  /** the reject that the peer gave, where it gave one */
  readonly reject: RejectName | undefined

  constructor(reason: PairingError['reason'], message: string, reject?: RejectName) {
    super(message)
    this.name = 'PairingError'
    this.reason = reason
    this.reject = reject
  }
}

/** What an initiator knows of a peer's clock. */
export interface PeerClock {
  /** what it is ahead of ours, in ms */
  clockOffsetMs: number
}

/**
 * Pairs, under the first of our secrets that the peer knows.
 * @param by fresh bytes, the wall clock in ms since 1970, and what is known of the peer's clock, which may change
 * @param carry brings a pairing message to the peer
 * @throws PairingError, or what `carry` throws
 */
export async function pairWith(
  identity: Identity,
  by: { random(length: number): Buffer; nowMs(): number; clock: PeerClock },
  carry: (hello: Buffer) => Promise<CarriedAnswer>,
): Promise<AgreedPair> {
  const { random, nowMs, clock } = by
  let adjusted = false
  for (let listed = 0; listed < identity.secrets.length; ) {
    const now = nowMs() + clock.clockOffsetMs
    const secret = identity.secrets[listed]!
    const { pair, refused, clockMs } = await pairOnce(identity, secret, { random, now }, carry)
    if (pair) return pair
    if (refused === 'clock_skew' && !adjusted) {
      adjusted = true
      clock.clockOffsetMs = clockMs - nowMs()
    } else if (refused === 'psk_unknown') listed++
    else if (refused === 'state_unavailable') {
      const why = "The peer's sidecar could not keep the pair, as its store is away."
      throw new PairingError('unavailable', why, refused)
    } else throw new PairingError('refused', `The peer refused to pair: ${refused}.`, refused)
  }
  throw new PairingError(
    'secret-mismatch',
    'The peer does not know our CLIENT_ID_SECRET: it must be the same on both sides.',
    'psk_unknown',
  )
}

/** What came of a pairing message (m1): a pair, or a reject and what the peer's clock said, in ms since 1970. */
type Outcome =
  | { pair: AgreedPair; refused?: never; clockMs?: never }
  | { pair?: never; refused: RejectName; clockMs: number }

/**
 * Sends a pairing message, once.
 * @param by random bytes, and now in ms since 1970 by the peer's clock as far as it is known
 * @param carry brings it to the peer
 * @throws PairingError, or what `carry` throws
 */
async function pairOnce(
  identity: Identity,
  secret: MeshSecret,
  by: { random(length: number): Buffer; now: number },
  carry: (hello: Buffer) => Promise<CarriedAnswer>,
): Promise<Outcome> {
  const { hello, finish } = initiate(identity, { secret, responderName: '', ...by })
  const { status, body } = await carry(hello)
  if (status === 200) {
    try {
      return { pair: finish(body) }
    } catch (error) {
      if (!(error instanceof Reject)) throw error
      throw new PairingError(
        'not-a-relay',
        'What answered the pairing did not prove that it is a relay with our secret.',
      )
    }
  }
  const reject = parseReject(body, identity.secrets, echoOf(hello, 'pairing'))
  if (!reject) {
    if (status === 502 || status === 503 || status === 504) {
      throw new PairingError('unavailable', `Something between us and the peer's sidecar answered ${status}.`)
    }
    throw new PairingError(
      'not-a-relay',
      `What answers there is no relay: it answered the pairing with status ${status}.`,
    )
  }
  if (reject.name !== 'psk_unknown' && !reject.authentic) {
    throw new PairingError(
      'refused',
      `The peer refused to pair, but could not prove who it is: ${reject.name}.`,
      reject.name,
    )
  }
  return { refused: reject.name, clockMs: reject.timeMs }
}
