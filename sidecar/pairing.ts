/** Pairing as this sidecar does it: over its client for peers, and with what it tells an app that has to wait in vain. */
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { Attempt, type Fields, WholeBody } from './call.ts'
import type { Config } from './config.ts'
import { asSidecarError, SidecarError } from './errors.ts'
import { readAtMost } from './http/body-limits.ts'
import { Http1Error } from './http/http1-reader.ts'
import { NoHttp2Error } from './http/http2-session.ts'
import type { PeerClient } from './http/peer-client.ts'
import { SendError } from './http/send-error.ts'
import type { Logger } from './log.ts'
import { outerHead, PAIRING_PATH, withMore } from './outer.ts'
import type { Identity } from './pair/handshake.ts'
import { type CarriedAnswer, PairingError } from './pair/initiating.ts'
import { type Pairing, Pairs } from './pair/pairs.ts'
import { Reject } from './pair/reject.ts'
import { type MeshSecret, meshSecret } from './pair/secrets.ts'
import { type PairStore, StoreUnavailableError } from './pair/store.ts'
import type { CallRecord } from './telemetry/call-record.ts'
import type { Telemetry } from './telemetry/telemetry.ts'
import { OpeningError } from './tunnel/opening.ts'

const PAIRING_HEAD = outerHead(PAIRING_PATH)
/** More than any answer to a pairing. */
const ANSWER_BYTES_MAX = 4096

/** What a sidecar with this configuration is to its peers. */
export async function identityOf(config: Pick<Config, 'name' | 'clientIdSecrets'>): Promise<Identity> {
  const { name, clientIdSecrets } = config
  return { name, secrets: await meshSecrets(clientIdSecrets, name) }
}

/**
 * What follows from some secrets.
 * @param known what followed from secrets before: those that stay are the same objects
 */
export async function meshSecrets(
  clientIdSecrets: readonly string[],
  name: string,
  known: readonly MeshSecret[] = [],
): Promise<MeshSecret[]> {
  const derived = await Promise.all(clientIdSecrets.map((secret) => meshSecret(secret, name)))
  return derived.map((mesh) => known.find(({ pskId }) => pskId.equals(mesh.pskId)) ?? mesh)
}

/** A pairing that was made, or that failed. */
export interface PairingEvent {
  role: Pairing['role']
  /** base URL of the responder's sidecar, or what the initiator calls itself; empty as long as that is not proven */
  peer: string
  failure?: { error: unknown }
  /** of the call that needed it, for the log */
  ids: object
}

/** The pairs of a sidecar, which makes them over its client for peers. */
export function createPairs(parts: {
  identity: Identity
  store: PairStore
  client: Pick<PeerClient, 'send'>
  responseTimeoutMs: number
  clockMs(): number
  /** causes of pairings are records of calls */
  telemetry?: Telemetry
  onEvent?(event: PairingEvent): void
}): Pairs {
  const { client, responseTimeoutMs, telemetry, onEvent, ...rest } = parts
  return new Pairs({
    ...rest,
    carry: (peer, hello) => carry(client, telemetry, peer, hello, responseTimeoutMs),
    onPairing: ({ role, url, cause }) => {
      const record = cause as CallRecord | undefined
      const handshake = telemetry?.handshake(record, url)
      return (name, failure) => {
        handshake?.ended(name, failure ? errorType(failure.error, url) : '')
        onEvent?.({ role, peer: url ?? name, ids: record?.ids ?? {}, ...(failure ? { failure } : {}) })
      }
    },
    mayPass: (error) => error instanceof SendError && !error.timedOut && !(error.cause instanceof Http1Error),
    delay: (ms) => delay(ms),
    random: randomBytes,
    nowMs: Date.now,
  })
}

/** What an app is told where there is no pair to send with; an error of another kind is given back as it is. */
export function pairingProblem(error: unknown, url: string): unknown {
  if (error instanceof StoreUnavailableError) {
    return new SidecarError('state-unavailable', `No pair can be had: ${error.message}.`, { cause: error })
  }
  if (error instanceof SendError) {
    if (error.cause instanceof Http1Error) {
      return new SidecarError('not-a-relay', `What answers at ${url} speaks no HTTP.`, { cause: error })
    }
    const detail = `The peer's sidecar at ${url} did not answer: ${error.message}.`
    return new SidecarError('peer-unreachable', detail, {
      cause: error,
      ...(error.timedOut ? { status: 504 } : {}),
    })
  }
  if (!(error instanceof PairingError)) return error
  const code = error.reject === 'state_unavailable' ? 'state-unavailable' : CODES[error.reason]
  return new SidecarError(code, `${url}: ${error.message}`, { cause: error })
}

/** What an app is told where there must be a tunnel, and is none. */
export function tunnelProblem(error: unknown, url: string): unknown {
  const why =
    error instanceof OpeningError
      ? error.message
      : error instanceof NoHttp2Error
        ? 'It does not speak HTTP/2, which a tunnel needs.'
        : undefined
  if (why === undefined) return pairingProblem(error, url)
  return new SidecarError('peer-unreachable', `There is no tunnel to the peer's sidecar at ${url}. ${why}`, {
    cause: error,
  })
}

/** What traces and metrics call the reason why there is no pair. */
function errorType(error: unknown, url = ''): string {
  if (error instanceof Reject)
    return error.code === 'state_unavailable' ? 'state-unavailable' : 'pairing-refused'
  return asSidecarError(pairingProblem(error, url)).code
}

const CODES = {
  'secret-mismatch': 'secret-mismatch',
  'not-a-relay': 'not-a-relay',
  refused: 'pairing-refused',
  unavailable: 'peer-unreachable',
} as const satisfies Record<PairingError['reason'], string>

/** Posts a pairing message; many calls may wait for it, so that one of them goes away does not end it. */
async function carry(
  client: Pick<PeerClient, 'send'>,
  telemetry: Telemetry | undefined,
  peer: string,
  hello: Buffer,
  answerTimeoutMs: number,
): Promise<CarriedAnswer> {
  const handshake = telemetry?.handshakeWith(peer)
  const forward = handshake?.forward(peer)
  const fields = forward ? handshake!.fieldsOutside(forward) : []
  try {
    const answer = await post(client, peer, hello, fields, answerTimeoutMs)
    forward?.answered(answer.status)
    forward?.end('')
    return answer
  } catch (error) {
    forward?.end(errorType(error, peer))
    throw error
  }
}

async function post(
  client: Pick<PeerClient, 'send'>,
  peer: string,
  hello: Buffer,
  fields: Fields,
  answerTimeoutMs: number,
): Promise<CarriedAnswer> {
  const attempt = new Attempt()
  const request = { head: withMore(PAIRING_HEAD, fields), body: new WholeBody(hello) }
  const { head, body } = await client.send(peer, request, attempt)
  const late = new SendError('response-timeout', true)
  const timer = setTimeout(
    () => attempt.abandon(new SidecarError('idle-timeout', late.message)),
    answerTimeoutMs,
  )
  try {
    const answer = await readAtMost(body, ANSWER_BYTES_MAX)
    if (answer.length > ANSWER_BYTES_MAX)
      attempt.abandon(new SidecarError('not-a-relay', 'The answer is too long.'))
    return { status: head.status, body: answer }
  } catch (error) {
    // No call is cut off by that: nothing of it has been sent.
    throw attempt.abandoned ? late : new SendError('reset', true, error)
  } finally {
    clearTimeout(timer)
  }
}

const LOGGED_AGAIN_MS = 60_000
const LOGGED_MAX = 1000

/** Logs pairings: each that was made, and of those that fail for the same reason with the same peer one a minute. */
export function pairingLog(log: Logger, clockMs: () => number): (event: PairingEvent) => void {
  const logged = new Map<string, number>()
  return ({ role, peer, failure, ids }) => {
    if (!failure) return log.info({ role, peer, ...ids }, 'paired')
    const reason = failure.error instanceof Error ? failure.error.message : 'unknown'
    const key = `${role} ${peer} ${reason}`
    if ((logged.get(key) ?? Number.NEGATIVE_INFINITY) + LOGGED_AGAIN_MS > clockMs()) return
    if (logged.size >= LOGGED_MAX) logged.clear()
    logged.set(key, clockMs())
    log.warn({ role, peer, reason, ...ids }, 'could not pair')
  }
}
