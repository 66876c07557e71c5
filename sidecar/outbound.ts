/** From the app: finds the way of a call, and sends it to a peer, or on in plain where that was configured. */
import { type Answer, Attempt, type Caller, type Request } from './call.ts'
import type { Cors } from './cors.ts'
import { asSidecarError, SidecarError } from './errors.ts'
import { baseUrl, hostAndPort, Mistake } from './formats.ts'
import { headProblem, limited } from './http/body-limits.ts'
import {
  checkRequestHead,
  checkResponseHead,
  field,
  HeadError,
  isForSidecar,
  isFromSidecar,
  withChanged,
  withoutFields,
} from './http/fields.ts'
import type { Arrival } from './http/listener.ts'
import { problem, problemCode } from './http/problem.ts'
import { SendError } from './http/send-error.ts'
import type { SendTo } from './message-carriage.ts'
import { type OutboundToken, PROXY_AUTHENTICATE } from './outbound-token.ts'
import { Peers, type PeersOptions } from './peers.ts'
import type { Route, Routes } from './routes.ts'
import type { CallRecord } from './telemetry/call-record.ts'

export interface OutboundOptions extends PeersOptions {
  routes: Routes
  /** to an authority that is passed through */
  toPlain: SendTo
  token: OutboundToken
  cors: Cors
  bodyBytesMax: number
}

const REQUEST_TRAILERS = { withoutTrailer: isForSidecar, refusal: headProblem }

/** Answers the app's outbound calls. */
export class Outbound {
  readonly #options: OutboundOptions
  readonly #peers: Peers

  constructor(options: OutboundOptions) {
    this.#options = options
    this.#peers = new Peers(options)
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
      record.answered(answer.head.status, problemCode(answer.head.fields))
    } catch (error) {
      const failure = asSidecarError(error instanceof HeadError ? headProblem(error) : error)
      record.answered(failure.status, failure.code)
      if (failure.status === 0 || failure.code === 'internal-error') throw failure
      answer = problem(failure, failure.status === 407 ? PROXY_AUTHENTICATE : [])
    }
    return { head: cors.decorate(answer.head, field(head.fields, 'origin')), body: answer.body }
  }

  #carried(arrival: Arrival, record: CallRecord): Promise<Answer> {
    const { headBytesMax } = this.#options
    const { caller, request } = arrival
    const { route, authority } = this.#way(arrival)
    const fields = withoutFields(request.head.fields, isForSidecar)
    const head = checkRequestHead(withChanged(request.head, authority, fields), headBytesMax)
    const body = limited(request.body, fields, this.#options, REQUEST_TRAILERS)
    if (route.kind === 'plain') return this.#plain(route.origin, { head, body }, caller, record)
    return this.#peers.send(route.url, { head, body }, caller, record)
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
