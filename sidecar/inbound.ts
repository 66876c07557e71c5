/** Peer to app: decodes messages, forwards them to the app and encodes what it answers; pairs; and the other ways in of PORT. */
import { randomBytes } from 'node:crypto'
import {
  type Answer,
  Attempt,
  type Caller,
  type Fields,
  type Request,
  type ResponseHead,
  type Send,
  WholeBody,
} from './call.ts'
import { Decoding, encodedInterim, encodedResponse } from './codec.ts'
import type { Cors } from './cors.ts'
import { asSidecarError, ERRORS, SidecarError } from './errors.ts'
import { RequestDecoder } from './http/bhttp.ts'
import { headProblem, limited, readAtMost } from './http/body-limits.ts'
import {
  checkResponseHead,
  field,
  HeadError,
  hasDotSegment,
  isFromSidecar,
  isValidResponse,
  withField,
  withoutFields,
} from './http/fields.ts'
import type { Arrival } from './http/listener.ts'
import { json, problem } from './http/problem.ts'
import { SendError } from './http/send-error.ts'
import type { Outbound } from './outbound.ts'
import type { OutboundToken } from './outbound-token.ts'
import { MESSAGE_PATH, OUTER_FIELDS, PAIRING_PATH, TUNNEL_PATH } from './outer.ts'
import { HELLO_BYTES } from './pair/handshake.ts'
import { HEADER_BYTES, openRequest, parseHeader, type Sealer, sealResponse } from './pair/message.ts'
import type { Pairs } from './pair/pairs.ts'
import type { ReceivingMessage } from './pair/receiving-message.ts'
import { Reject } from './pair/reject.ts'
import { TUNNEL_HEAD_BYTES_MAX } from './pair/tunnel-frames.ts'
import { ReplayBrake } from './replay-brake.ts'
import type { CallRecord } from './telemetry/call-record.ts'
import type { Forward } from './telemetry/forward.ts'
import type { Telemetry } from './telemetry/telemetry.ts'
import { type AcceptedOptions, AcceptedTunnels } from './tunnel/accepting.ts'
import type { AcceptedCall } from './tunnel/responder.ts'

export interface InboundOptions {
  pairs: Pairs
  outbound: Outbound
  telemetry: Telemetry
  token: OutboundToken
  cors: Cors
  /** to the local app, and its base URL; undefined: this sidecar is for outbound calls only */
  toApp: { url: string; send: Send } | undefined
  /** forwards what was not encoded, to those routes alone */
  passThrough: ((arrival: Arrival, added: Fields) => Promise<Answer>) | undefined
  passThroughRoutes: readonly string[]
  /** added to requests to the app and to its answers */
  headers: Fields
  /** names and values of one head, in bytes */
  headBytesMax: number
  bodyBytesMax: number
  random(length: number): Buffer
  tunnel: AcceptedOptions['tunnel']
  /** monotonic */
  clockMs(): number
}

const SIDECAR_PATHS: ReadonlySet<string> = new Set([MESSAGE_PATH, PAIRING_PATH, TUNNEL_PATH])
const NOTHING = Buffer.alloc(0)
/** As many interim responses as a message may hold; more are not passed on. */
const INTERIM_MAX = 16

const REQUEST_TRAILERS = { withoutTrailer: () => false, refusal: headProblem }
const ANSWER_TRAILERS = { withoutTrailer: isFromSidecar, refusal: notPassedOn }

/** Answers what comes in at PORT. */
export class Inbound {
  readonly #options: InboundOptions
  readonly #answerLimits: { bodyBytesMax: number; headBytesMax: number }
  readonly #brake: ReplayBrake
  /** those that peers opened */
  readonly tunnels: AcceptedTunnels

  constructor(options: InboundOptions) {
    this.#options = options
    this.#answerLimits = { bodyBytesMax: Number.POSITIVE_INFINITY, headBytesMax: options.headBytesMax }
    this.#brake = new ReplayBrake(options.clockMs)
    this.tunnels = new AcceptedTunnels({
      pairs: options.pairs,
      random: randomBytes,
      tunnel: options.tunnel,
      handler: (request, call, peer) => this.#tunnelled(request, call, peer),
    })
  }

  /**
   * @throws SidecarError where the call can only be reset, or as its answer
   */
  async answer(arrival: Arrival): Promise<Answer> {
    const { outbound, token, cors, passThrough, headers } = this.#options
    const { head } = arrival.request
    const { pathname, search } = splitPath(head.path)
    if (token.required && field(head.fields, 'x-mte-outbound-token') !== undefined)
      return outbound.answer(arrival)
    if (head.method === 'POST' && pathname === MESSAGE_PATH) return this.#message(arrival)
    if (head.method === 'POST' && pathname === TUNNEL_PATH) return this.#tunnel(arrival)
    if (head.method === 'POST' && pathname === PAIRING_PATH) return this.#pairing(arrival)
    // What sidecars say to each other is not for the pages of browsers.
    const preflight = SIDECAR_PATHS.has(pathname) ? undefined : cors.preflight(head)
    if (preflight) return preflight
    const origin = field(head.fields, 'origin')
    if (passThrough && this.#isPassedThrough(head.path, pathname)) {
      return passThrough(arrival, [...headers, ...cors.fields(origin)])
    }
    const own = head.method === 'GET' || head.method === 'HEAD' ? this.#own(pathname, search) : undefined
    if (own) return { head: cors.decorate(own.head, origin), body: own.body }
    throw new SidecarError(
      'not-found',
      'This port takes encoded messages of paired sidecars; nothing else reaches the app.',
    )
  }

  #isPassedThrough(path: string, pathname: string): boolean {
    const { passThroughRoutes } = this.#options
    if (hasDotSegment(path)) return false
    return passThroughRoutes.some((prefix) => {
      const folder = prefix.endsWith('/') ? prefix : `${prefix}/`
      return pathname === prefix || pathname.startsWith(folder)
    })
  }

  /** What is answered here: the relay's own routes. */
  #own(pathname: string, search: string): Answer | undefined {
    if (pathname === '/api/mte-relay') {
      return {
        head: { status: 200, fields: ['mte-relay', 'relay1', 'content-length', '0'] },
        body: new WholeBody(),
      }
    }
    if (pathname === '/api/mte-errors') {
      const rows = Object.entries(ERRORS)
      return json(
        rows.map(([code, { status, title, proxyStatus }]) => ({ code, status, title, proxyStatus })),
      )
    }
    if (pathname === '/api/mte-echo') return echo(new URLSearchParams(search).get('msg') ?? '')
    if (pathname.startsWith('/api/mte-echo/')) return echo(decoded(pathname.slice('/api/mte-echo/'.length)))
    return undefined
  }

  async #pairing({ request: { head, body }, caller }: Arrival): Promise<Answer> {
    const { pairs, telemetry } = this.#options
    const record = telemetry.call()
    caller.watch(record)
    record.pairing(head.fields)
    const hello = await readAtMost(body, HELLO_BYTES)
    try {
      const answer = await record.within(() => pairs.answer(hello, record))
      record.answered(200, '')
      return octets(200, new WholeBody(answer))
    } catch (error) {
      return this.#refused(error, hello, 'pairing', record)
    }
  }

  async #message({ request, caller }: Arrival): Promise<Answer> {
    const { pairs, telemetry, random, headBytesMax } = this.#options
    const record = telemetry.call()
    caller.watch(record)
    record.carried(request.head.fields)
    let received: ReceivingMessage | undefined
    const message = new Decoding(request.body, new RequestDecoder(headBytesMax), {
      headerBytes: HEADER_BYTES,
      open: async (header) => {
        received = await pairs.accept(parseHeader(header))
        return openRequest(received, header)
      },
      authenticated: () => received!.claim(),
      coding: record.coding('decode', 'request'),
    })
    try {
      const head = await message.head()
      record.inbound(head, received!.peer)
      const sealer = sealResponse(received!, message.header, random(12))
      return await this.#answered({ head, body: message }, caller, sealer, record)
    } catch (error) {
      return this.#refused(error, message.header, 'message', record)
    }
  }

  /** Accepts a tunnel, over HTTP/2 alone. */
  async #tunnel({ request: { body }, caller }: Arrival): Promise<Answer> {
    const open = this.#options.headBytesMax <= TUNNEL_HEAD_BYTES_MAX ? caller.carryOthers() : undefined
    let read: Buffer = NOTHING
    try {
      if (!open) throw new Reject('unsupported')
      const records = await this.tunnels.accept(body, caller, open, (start) => {
        read = start
      })
      return octets(200, records)
    } catch (error) {
      // Only what is refused is told: a span would last as long as the tunnel.
      const record = this.#options.telemetry.call()
      const answer = await this.#refused(error, read, 'message', record)
      record.over(undefined)
      return answer
    }
  }

  /** Answers a call that came by a tunnel. */
  #tunnelled(request: Request, call: AcceptedCall, peer: string): Promise<Answer> {
    const record = this.#options.telemetry.call()
    call.watch(record)
    record.by('tunnel')
    record.inbound(request.head, peer)
    call.decodedBy(record.coding('decode', 'request'))
    const { forward, answering } = this.#forwarded(request, call, record)
    call.onAnswering = () => {
      const coding = record.coding('encode', 'response')
      call.encodedBy(coding)
      forward?.endWith(coding)
    }
    return answering
  }

  /** Calls the app, and encodes its answer; interim responses begin the answer before it is there. */
  async #answered(request: Request, caller: Caller, sealer: Sealer, record: CallRecord): Promise<Answer> {
    const progress = new Progress(caller, this.#options.headBytesMax)
    const { forward, answering } = this.#forwarded(request, progress, record)
    progress.follow(answering)
    const first = await progress.next()
    const coding = record.coding('encode', 'response')
    forward?.endWith(coding)
    if (Array.isArray(first)) {
      let next: Promise<ResponseHead[] | Answer> | undefined = Promise.resolve(first)
      return octets(
        200,
        encodedInterim(
          () => {
            const due = next ?? progress.next()
            next = undefined
            return due
          },
          sealer,
          coding,
        ),
      )
    }
    try {
      return octets(200, encodedResponse(first, sealer, coding))
    } catch (error) {
      // Its trailers cannot be passed on; nothing has been sealed.
      const failure = asSidecarError(error)
      record.answered(failure.status, failure.code)
      return octets(200, encodedResponse(problem(failure), sealer, coding))
    }
  }

  /** Calls the app. */
  #forwarded(
    request: Request,
    caller: Caller,
    record: CallRecord,
  ): { forward?: Forward; answering: Promise<Answer> } {
    const { toApp } = this.#options
    if (!toApp) {
      const why = "The peer's sidecar has no UPSTREAM: it is for outbound calls only."
      const failure = new SidecarError('upstream-unreachable', why)
      record.answered(failure.status, failure.code)
      return { answering: Promise.resolve(problem(failure)) }
    }
    const forward = record.forward({ url: toApp.url })
    return { forward, answering: this.#appAnswer(toApp.send, request, caller, record, forward) }
  }

  /**
   * The app's answer, or the problem that there is none.
   * @throws SidecarError when the message or its caller is to blame
   */
  async #appAnswer(
    toApp: Send,
    { head, body }: Request,
    caller: Caller,
    record: CallRecord,
    forward: Forward,
  ): Promise<Answer> {
    const { headers, headBytesMax } = this.#options
    const attempt = new Attempt(caller)
    try {
      const fields = added(record.fieldsInside(head.fields, forward), headers)
      const sent = limited(body, head.fields, this.#options, REQUEST_TRAILERS)
      const answer = await toApp({ head: { ...head, fields }, body: sent }, attempt)
      forward.answered(answer.head.status, answer.socket)
      const checked = this.#checked(answer, headBytesMax)
      record.answered(checked.head.status, '')
      return checked
    } catch (error) {
      const failure = upstreamFailure(error)
      attempt.abandon(failure)
      record.answered(failure.status, failure.code)
      forward.end(failure.code)
      if (failure.status === 0 || failure.code === 'internal-error' || failure.cause instanceof Reject)
        throw failure
      return problem(failure)
    }
  }

  #checked({ head, body }: Answer, headBytesMax: number): Answer {
    try {
      checkResponseHead(head, headBytesMax)
    } catch (error) {
      throw error instanceof HeadError ? notPassedOn(error) : error
    }
    const fields = added(withoutFields(head.fields, isFromSidecar), this.#options.headers)
    return {
      head: { status: head.status, fields },
      body: limited(body, fields, this.#answerLimits, ANSWER_TRAILERS),
    }
  }

  /** The record that tells a reject; whatever else went wrong is thrown on. */
  async #refused(
    error: unknown,
    bytes: Buffer,
    kind: 'message' | 'pairing',
    record: CallRecord,
  ): Promise<Answer> {
    const reject = error instanceof SidecarError ? error.cause : error
    if (!(reject instanceof Reject)) {
      const { status, code } = asSidecarError(error)
      record.answered(status, code)
      throw error
    }
    if (reject.code === 'replayed') await this.#brake.take()
    const { status, body } = await this.#options.pairs.rejectRecord(reject, bytes, kind)
    record.refused(reject.code, status)
    return octets(status, new WholeBody(body))
  }
}

/** What comes of a call to the app: interim responses as they come, then the answer. */
class Progress implements Caller {
  readonly #caller: Caller
  readonly #headBytesMax: number
  #answering: Promise<Answer> | undefined
  #interim: ResponseHead[] = []
  #informed = 0
  #wake: (() => void) | undefined

  constructor(caller: Caller, headBytesMax: number) {
    this.#caller = caller
    this.#headBytesMax = headBytesMax
  }

  /** @param answering the answer of the call that informs this */
  follow(answering: Promise<Answer>): void {
    this.#answering = answering
    // It may fail while nobody waits for what comes next.
    answering.catch(() => {})
  }

  inform({ status, fields }: ResponseHead): void {
    const head = { status, fields: withoutFields(fields, isFromSidecar) }
    // For one that is not valid the peer's sidecar would refuse the answer too.
    if (this.#informed === INTERIM_MAX || !isValidResponse(head, this.#headBytesMax)) return
    this.#informed++
    this.#interim.push(head)
    this.#wake?.()
  }

  onGone(callback: (why: SidecarError) => void): void {
    this.#caller.onGone(callback)
  }

  /** The interim responses that have come since; or, if there are none, what comes first: more of them, or the answer. */
  next(): Promise<ResponseHead[] | Answer> {
    return new Promise((resolve, reject) => {
      this.#wake = () => {
        this.#wake = undefined
        resolve(this.#interim.splice(0))
      }
      if (this.#interim.length > 0) this.#wake()
      else this.#answering?.then(resolve, reject)
    })
  }
}

/** What the caller is told of an answer of the app that is not valid. */
function notPassedOn(error: HeadError): SidecarError {
  return new SidecarError('upstream-unreachable', `The app's answer cannot be passed on: ${error.message}`)
}

/** What the caller is told of a call to the app that gave no answer. */
function upstreamFailure(error: unknown): SidecarError {
  if (error instanceof HeadError) return headProblem(error)
  if (!(error instanceof SendError)) return asSidecarError(error)
  const detail = `The peer's app did not answer: ${error.message}.`
  if (error.timedOut) return new SidecarError('upstream-timeout', detail, { cause: error })
  return new SidecarError(error.sent ? 'outcome-unknown' : 'upstream-unreachable', detail, { cause: error })
}

/** The fields with those of HEADERS, which replace others of their names. */
function added(fields: Fields, headers: Fields): Fields {
  for (let i = 0; i < headers.length; i += 2) fields = withField(fields, headers[i]!, headers[i + 1]!)
  return fields
}

function octets(status: number, body: Answer['body']): Answer {
  return { head: { status, fields: OUTER_FIELDS }, body }
}

function echo(message: string): Answer {
  return json({ message: message === '' ? 'pong' : message, timestamp: new Date().toISOString() })
}

function splitPath(path: string): { pathname: string; search: string } {
  const query = path.indexOf('?')
  return query < 0
    ? { pathname: path, search: '' }
    : { pathname: path.slice(0, query), search: path.slice(query) }
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}
