/** App to peer: finds the way of a call, encodes it, carries it to the peer's sidecar and decodes what answers. */
import { setTimeout as delay } from 'node:timers/promises'
import {
  type Answer,
  Attempt,
  type Body,
  type Caller,
  type Fields,
  type Request,
  type RequestHead,
} from './call.ts'
import { Decoding, encodedRequest } from './codec.ts'
import type { Cors } from './cors.ts'
import { asSidecarError, ERRORS, type ErrorCode, SidecarError } from './errors.ts'
import { baseUrl, hostAndPort, Mistake } from './formats.ts'
import { ResponseDecoder } from './http/bhttp.ts'
import { headProblem, LimitedBody, readAtMost } from './http/body-limits.ts'
import {
  checkRequestHead,
  checkResponseHead,
  field,
  HeadError,
  isForSidecar,
  isFromSidecar,
  withoutFields,
} from './http/fields.ts'
import type { Arrival } from './http/listener.ts'
import { problem } from './http/problem.ts'
import { SendError } from './http/send-error.ts'
import { type OutboundToken, PROXY_AUTHENTICATE } from './outbound-token.ts'
import { MESSAGE_PATH, outerHead, withMore } from './outer.ts'
import { openResponse, RESPONSE_HEADER_BYTES, sealRequest } from './pair/message.ts'
import type { Pairs } from './pair/pairs.ts'
import { Reject, type RejectName } from './pair/reject.ts'
import { type FailedCopy, Resend, type Verdict } from './pair/resend.ts'
import type { SendingMessage } from './pair/sending.ts'
import { pairingProblem } from './pairing.ts'
import { type Repeatability, repeatability } from './repeatability.ts'
import { Rewindable } from './rewind.ts'
import type { Route, Routes } from './routes.ts'
import type { CallRecord } from './telemetry/call-record.ts'
import type { Forward } from './telemetry/forward.ts'
import type { Telemetry } from './telemetry/telemetry.ts'

/** Sends a request to a base URL. @throws SendError, or what the request's body throws */
export type SendTo = (url: string, request: Request, caller: Caller) => Promise<Answer>

export interface OutboundOptions {
  routes: Routes
  pairs: Pairs
  telemetry: Telemetry
  /** to a peer's sidecar */
  toPeer: SendTo
  /** to an authority that is passed through */
  toPlain: SendTo
  token: OutboundToken
  cors: Cors
  /** names and values of one head, in bytes */
  headBytesMax: number
  bodyBytesMax: number
  random(length: number): Buffer
  /** monotonic, in ms */
  clockMs(): number
}

/** What is kept of a message and of its call so that they may be sent again, in bytes each. */
const KEPT_BYTES_MAX = 256 * 1024
/** Longer than any reject record. */
const RECORD_BYTES_MAX = 1024

const MESSAGE_HEAD = outerHead(MESSAGE_PATH)

const REQUEST_TRAILERS = { withoutTrailer: isForSidecar, refusal: headProblem }

/** A call on its way to a peer. */
interface Call {
  /** base URL of the peer's sidecar */
  url: string
  head: RequestHead
  body: Rewindable
  caller: Caller
  kind: Repeatability
  resend: Resend
  record: CallRecord
  /** how often it was sent before */
  resends: number
}

/** A copy of a message that got no response, and what to say if that is the end of it. */
interface Failure extends FailedCopy {
  timedOut: boolean
  detail: string
}

/** Answers the app's outbound calls. */
export class Outbound {
  readonly #options: OutboundOptions

  constructor(options: OutboundOptions) {
    this.#options = options
  }

  /** @throws SidecarError where the call can only be reset, or the sidecar failed */
  async answer(arrival: Arrival): Promise<Answer> {
    const { token, cors, telemetry } = this.#options
    const { head } = arrival.request
    const preflight = cors.preflight(head)
    if (preflight) return preflight
    const record = telemetry.call()
    arrival.caller.watch(record)
    record.outbound(head)
    let answer: Answer
    try {
      token.check(head.fields, arrival.absoluteForm)
      answer = await this.#carried(arrival, record)
      record.answered(answer.head.status, sidecarError(answer.head.fields))
    } catch (error) {
      const failure = asSidecarError(error instanceof HeadError ? headProblem(error) : error)
      record.answered(failure.status, failure.code)
      if (failure.status === 0 || failure.code === 'internal-error') throw failure
      answer = problem(failure, failure.status === 407 ? PROXY_AUTHENTICATE : [])
    }
    return { head: cors.decorate(answer.head, field(head.fields, 'origin')), body: answer.body }
  }

  async #carried(arrival: Arrival, record: CallRecord): Promise<Answer> {
    const { headBytesMax } = this.#options
    const { caller, request } = arrival
    const { route, authority } = this.#way(arrival)
    const fields = withoutFields(request.head.fields, isForSidecar)
    const head = checkRequestHead({ ...request.head, authority, fields }, headBytesMax)
    const body = new LimitedBody(request.body, fields, this.#options, REQUEST_TRAILERS)
    if (route.kind === 'plain') return this.#plain(route.origin, { head, body }, caller, record)
    return this.#encoded(route.url, { head, body }, caller, record)
  }

  /** Where a call goes, and which authority its app sees: none where the call named no other than this sidecar. */
  #way({ request: { head }, absoluteForm, socket }: Arrival): { route: Route; authority: string } {
    const { authority, scheme, fields } = head
    const upstream = field(fields, 'x-mte-upstream')
    if (upstream !== undefined) {
      const namesUs = !absoluteForm && namesSidecar(authority, socket?.localPort)
      return { route: { kind: 'peer', url: upstreamUrl(upstream) }, authority: namesUs ? '' : authority }
    }
    const route = this.#options.routes.find(authority, scheme)
    if (route) return { route, authority }
    const named = hostAndPort(authority)
      ? `PEERS names no peer for "${authority}".`
      : 'The call names no host[:port].'
    throw new SidecarError(
      'no-peer',
      `${named} Call an authority of PEERS, by Host or through this port as HTTP_PROXY, or send the base URL of the peer's sidecar as x-mte-upstream.`,
    )
  }

  async #plain(origin: string, request: Request, caller: Caller, record: CallRecord): Promise<Answer> {
    const { toPlain, headBytesMax } = this.#options
    const attempt = new Attempt(caller)
    record.towards(origin)
    const forward = record.forward({ url: origin })
    const fields = record.fieldsInside(request.head.fields, forward)
    try {
      const sent = { head: { ...request.head, fields }, body: request.body }
      const { head, body, socket } = await toPlain(origin, sent, attempt)
      forward.answered(head.status, socket)
      checkResponseHead(head, headBytesMax)
      return { head: { status: head.status, fields: withoutFields(head.fields, isFromSidecar) }, body }
    } catch (error) {
      const failure = plainFailure(error)
      attempt.abandon(failure)
      forward.end(failure.code)
      throw failure
    }
  }

  async #encoded(url: string, { head, body }: Request, caller: Caller, record: CallRecord): Promise<Answer> {
    record.towards(url)
    const kind = repeatability(head.method, field(head.fields, 'idempotency-key') !== undefined)
    const resend = new Resend(kind)
    const kept = new Rewindable(body, KEPT_BYTES_MAX)
    const call: Call = { url, head, body: kept, caller, kind, resend, record, resends: 0 }
    let start = call.body.reader()!
    for (;;) {
      const outcome = await this.#message(call, start)
      if ('head' in outcome) return outcome
      start = outcome
    }
  }

  /** Encodes the call as one message; the body from its start when it is to be encoded anew. */
  async #message(call: Call, body: Body): Promise<Answer | Body> {
    const { pairs, telemetry, random, clockMs } = this.#options
    const { record } = call
    const message = await this.#begin(call)
    const { header, sealer } = sealRequest(message, random(12))
    const coding = record.coding('encode', 'request')
    let forward = this.#forward(call, message)
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
      forward = this.#forward(call, message)
    }
  }

  async #begin({ url, record }: Call): Promise<SendingMessage> {
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

  #forward({ url, record, resends }: Call, { peer }: SendingMessage): Forward {
    this.#options.telemetry.met(url, peer)
    return record.forward({ url, peer, resends })
  }

  async #copy(
    call: Call,
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
    call: Call,
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
      forward.answered(head.status, answer.socket, sidecarError(head.fields))
      forward.endWith(coding)
      return { head, body: response }
    } catch (error) {
      attempt.abandon(asSidecarError(error))
      const refused = error instanceof Reject
      if (!refused && !(error instanceof SidecarError && error.code === 'message-truncated')) throw error
      const what = refused ? 'is none that this sidecar can decode' : 'was cut off'
      const detail = `The response of the peer's sidecar at ${call.url} ${what}.`
      throw new SidecarError(call.kind === 'safe' ? 'peer-unreachable' : 'outcome-unknown', detail, {
        cause: error,
      })
    }
  }
}

/** What a reject means, where its name says too little. */
const REFUSALS: Partial<Record<RejectName, string>> = {
  state_unavailable: 'did not run the call, as its store, which knows what has run before, is away',
  state_lost: 'does not know the pair of the message any more: its store has lost it',
}

/** What the app is told of a call to a host that is passed through. */
function plainFailure(error: unknown): SidecarError {
  if (error instanceof SendError) {
    const detail = `The host that is passed through did not answer: ${error.message}.`
    const code = error.timedOut ? 'upstream-timeout' : 'upstream-unreachable'
    return new SidecarError(code, detail, { cause: error })
  }
  if (!(error instanceof HeadError)) return asSidecarError(error)
  const detail = `The answer of the host that is passed through cannot be passed on: ${error.message}`
  return new SidecarError('upstream-unreachable', detail)
}

/** The code of an answer that the peer's sidecar made itself; empty for one of its app. */
function sidecarError(fields: Fields): ErrorCode | '' {
  const code = field(fields, 'mte-error')
  return code !== undefined && Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : ''
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

function upstreamUrl(value: string): string {
  try {
    return baseUrl(value)
  } catch (error) {
    if (!(error instanceof Mistake)) throw error
    throw new SidecarError('bad-request', `x-mte-upstream ${error.message}`)
  }
}

/** Does a Host field name the port that the call came in on, and so no app? */
function namesSidecar(authority: string, localPort: number | undefined): boolean {
  const parsed = hostAndPort(authority)
  if (!parsed) return authority === ''
  const { host, port } = parsed
  return port === localPort || host === 'localhost' || host === '[::1]' || /^127\./.test(host)
}
