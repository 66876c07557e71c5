/** A call to a peer as a message: encodes it, carries it to the peer's sidecar, and decodes what answers. */
import { setTimeout as delay } from 'node:timers/promises'
import { type Answer, Attempt, type Body, type Caller, type Request, type RequestHead } from './call.ts'
import { Decoding, encodedRequest } from './codec.ts'
import { asSidecarError, SidecarError } from './errors.ts'
import { ResponseDecoder } from './http/bhttp.ts'
import { readAtMost } from './http/body-limits.ts'
import { field } from './http/fields.ts'
import { problemCode } from './http/problem.ts'
import { SendError } from './http/send-error.ts'
import { MESSAGE_PATH, outerHead, withMore } from './outer.ts'
import { openResponse, RESPONSE_HEADER_BYTES, sealRequest } from './pair/message.ts'
import type { Pairs } from './pair/pairs.ts'
import { Reject, type RejectName } from './pair/reject.ts'
import { type FailedCopy, Resend, type Verdict } from './pair/resend.ts'
import type { SendingMessage } from './pair/sending.ts'
import { pairingProblem } from './pairing.ts'
import { type Repeatability, repeatability } from './repeatability.ts'
import { Rewindable } from './rewind.ts'
import type { CallRecord } from './telemetry/call-record.ts'
import type { Forward } from './telemetry/forward.ts'
import type { Telemetry } from './telemetry/telemetry.ts'

/** Sends a request to a base URL. @throws SendError, or what the request's body throws */
export type SendTo = (url: string, request: Request, caller: Caller) => Promise<Answer>

export interface MessageOptions {
  pairs: Pairs
  telemetry: Telemetry
  /** to a peer's sidecar */
  toPeer: SendTo
  /** names and values of one head, in bytes */
  headBytesMax: number
  random(length: number): Buffer
  /** monotonic, in ms */
  clockMs(): number
}

/** What is kept of a message and of its call so that they may be sent again, in bytes each. */
export const KEPT_BYTES_MAX = 256 * 1024
/** Longer than any reject record. */
const RECORD_BYTES_MAX = 1024
const MESSAGE_HEAD = outerHead(MESSAGE_PATH)

/** A call on its way to a peer. */
export interface PeerCall {
  /** base URL of the peer's sidecar */
  url: string
  head: RequestHead
  body: Rewindable
  caller: Caller
  /** undefined: it has not failed yet */
  resend?: Resend
  record: CallRecord
  /** how often it was sent before */
  resends: number
  /** how often it was lost by a tunnel */
  losses: number
}

/** What running it twice does. */
export function kindOf({ head }: PeerCall): Repeatability {
  return repeatability(head.method, field(head.fields, 'idempotency-key') !== undefined)
}

/** A copy of a message that got no response, and what to say if that is the end of it. */
interface Failure extends FailedCopy {
  timedOut: boolean
  detail: string
}

/** Sends calls as messages. */
export class MessageCarriage {
  readonly #options: MessageOptions

  constructor(options: MessageOptions) {
    this.#options = options
  }

  /**
   * Encodes a call as one message.
   * @param body of the call, from its start
   * @returns the answer, or the body from its start when the call is to be encoded anew
   * @throws SidecarError
   */
  async send(call: PeerCall, body: Body): Promise<Answer | Body> {
    const { pairs, telemetry, random, clockMs } = this.#options
    const { record } = call
    const message = await this.#begin(call)
    const { header, sealer } = sealRequest(message, random(12))
    const coding = record.coding('encode', 'request')
    let forward = forwardOf(call, message, telemetry)
    const head = { ...call.head, fields: record.fieldsInside(call.head.fields, forward) }
    const encoded = new Rewindable(encodedRequest(head, body, sealer, coding), KEPT_BYTES_MAX)
    let copy = encoded.reader()!
    for (;;) {
      const attempt = new Attempt(call.caller)
      if (attempt.abandoned) throw attempt.abandoned
      const outcome = await this.#copy(call, message, header, copy, attempt, forward).catch((error) => {
        forward.end(asSidecarError(error).code)
        throw error
      })
      if ('head' in outcome) {
        encoded.forget()
        call.body.forget()
        return outcome
      }
      if (isPairGone(outcome)) await pairs.lost(call.url, message.pairId)
      const kept = { same: encoded.isKept, anew: call.body.isKept }
      call.resend ??= new Resend(kindOf(call))
      const verdict = call.resend.judge(outcome, clockMs(), kept)
      if (verdict.again === 'no') {
        const failure = failed(outcome, verdict)
        forward.end(failure.code)
        throw failure
      }
      forward.end(outcome.timedOut || !outcome.authentic ? 'peer-unreachable' : 'message-refused')
      telemetry.resent(verdict.again)
      call.resends++
      // At once: what comes from here on may be too much to be kept, but not for a reader.
      if (verdict.again === 'anew') return call.body.reader()!
      copy = encoded.reader()!
      if (verdict.delayMs > 0) await delay(verdict.delayMs)
      forward = forwardOf(call, message, telemetry)
    }
  }

  async #begin({ url, record }: PeerCall): Promise<SendingMessage> {
    const { pairs, telemetry } = this.#options
    const beganMs = performance.now()
    try {
      return await record.within(() => pairs.begin(url, record))
    } catch (error) {
      throw pairingProblem(error, url)
    } finally {
      const handshake = telemetry.handshakeWith(url)
      if (handshake && handshake.cause !== record && (handshake.endMs ?? 0) >= beganMs)
        record.waitedFor(handshake.spanContext)
    }
  }

  async #copy(
    call: PeerCall,
    message: SendingMessage,
    header: Buffer,
    body: Body,
    attempt: Attempt,
    forward: Forward,
  ): Promise<Answer | Failure> {
    const { toPeer, pairs, telemetry, clockMs } = this.#options
    const head = withMore(MESSAGE_HEAD, call.record.fieldsOutside(call.head.fields, forward))
    const leftAtMs = clockMs()
    let answer: Answer
    try {
      answer = await toPeer(call.url, { head, body }, attempt)
    } catch (error) {
      if (!(error instanceof SendError)) throw error
      return {
        what: error.failure === 'response-timeout' ? 'timed-out' : 'broken',
        timedOut: error.timedOut,
        authentic: false,
        sent: error.sent,
        elapsedMs: clockMs() - leftAtMs,
        storeAgeMs: 0,
        detail: `The peer's sidecar at ${call.url} did not answer: ${error.message}.`,
      }
    }
    if (answer.head.status === 200) return this.#decoded(call, message, header, answer, attempt, forward)
    forward.answered(answer.head.status, answer.socket)
    const record = await readAtMost(answer.body, RECORD_BYTES_MAX).catch(() => Buffer.alloc(0))
    attempt.abandon(new SidecarError('caller-gone', 'The answer was a reject.'))
    const reject = pairs.readReject(record, header, 'message')
    if (reject) {
      forward.rejected(reject.name)
      telemetry.refusedBy(reject.name)
    }
    return {
      what: reject?.name ?? 'broken',
      timedOut: false,
      authentic: reject?.authentic ?? false,
      sent: true,
      elapsedMs: clockMs() - leftAtMs,
      storeAgeMs: reject?.storeAgeMs ?? 0,
      detail: reject
        ? `The peer's sidecar at ${call.url} ${REFUSALS[reject.name] ?? `refused the message: ${reject.name}`}.`
        : `Something at ${call.url} that is not the peer's sidecar answered with status ${answer.head.status}.`,
    }
  }

  /** Nothing is sent again once a response has begun. */
  async #decoded(
    call: PeerCall,
    message: SendingMessage,
    header: Buffer,
    answer: Answer,
    attempt: Attempt,
    forward: Forward,
  ): Promise<Answer> {
    const decoder = new ResponseDecoder(this.#options.headBytesMax, call.head.method)
    const coding = call.record.coding('decode', 'response')
    const response = new Decoding(answer.body, decoder, {
      headerBytes: RESPONSE_HEADER_BYTES,
      open: (responseHeader) => openResponse(message, header, responseHeader),
      coding,
    })
    try {
      const head = await response.head((interim) => attempt.inform(interim))
      forward.answered(head.status, answer.socket, problemCode(head.fields))
      forward.endWith(coding)
      return { head, body: response }
    } catch (error) {
      attempt.abandon(asSidecarError(error))
      const refused = error instanceof Reject
      if (!refused && !(error instanceof SidecarError && error.code === 'message-truncated')) throw error
      const what = refused ? 'is none that this sidecar can decode' : 'was cut off'
      const detail = `The response of the peer's sidecar at ${call.url} ${what}.`
      throw new SidecarError(kindOf(call) === 'safe' ? 'peer-unreachable' : 'outcome-unknown', detail, {
        cause: error,
      })
    }
  }
}

/** A copy of the call leaves. */
export function forwardOf(
  { url, record, resends }: PeerCall,
  { peer }: { peer: string },
  telemetry: Telemetry,
): Forward {
  telemetry.met(url, peer)
  return record.forward({ url, peer, resends })
}

/** What a reject means, where its name says too little. */
const REFUSALS: Partial<Record<RejectName, string>> = {
  state_unavailable: 'did not run the call, as its store, which knows what has run before, is away',
  state_lost: 'does not know the pair of the message any more: its store has lost it',
}

function isPairGone({ what }: Failure): boolean {
  return what === 'unknown_pair' || what === 'state_lost' || what === 'block_out_of_reach'
}

/** What the app gets when a call is given up. */
function failed(
  { what, timedOut, authentic, detail }: Failure,
  verdict: Verdict & { again: 'no' },
): SidecarError {
  if (verdict.outcome === 'unknown') {
    return new SidecarError('outcome-unknown', `${detail} The call may or may not have been executed.`)
  }
  if (timedOut) return new SidecarError('peer-unreachable', detail, { status: 504 })
  if (!authentic) return new SidecarError('peer-unreachable', detail)
  if (what === 'state_unavailable') return new SidecarError('state-unavailable', detail)
  if (what === 'too_large') return new SidecarError('body-too-large', detail)
  return new SidecarError('message-refused', detail)
}
