import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import https from 'node:https'
import { PassThrough, Readable } from 'node:stream'
import proxy from 'http2-proxy'
import { type Answer, type Body, type Caller, type Fields, NO_BODY, type Request } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { headProblem } from './body-limits.ts'
import { connectOptions } from './connect-options.ts'
import type { Arrival } from './exchange.ts'
import * as rules from './fields.ts'
import type { ClientOptions } from './http1-client.ts'
import { nodeHttp } from './node-http.ts'
import { SendError } from './send-error.ts'
import { messageBody } from './stream-body.ts'

export interface PassThroughOptions extends ClientOptions {
  upstream: URL
}

/** Idle connections are closed before the usual server's five seconds are over. */
const IDLE_CONNECTION_MS = 4000
/** What node:http counts besides names and values: the status line, and separators. */
const HEAD_SLACK_BYTES = 32 * 1024
/** http2-proxy would drop the body of these and keep its length: the app would take the next request for it. */
const WITHOUT_BODY: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/**
 * Forwards calls that are not encoded to the local app, by http2-proxy. Which ones is for the caller to decide.
 *
 * Trailers of requests are dropped, and `Forwarded` is added; what is for the sidecar goes no further.
 * @returns takes a call, and the fields that its answer gets besides: they replace the app's of the same names, and
 * add to its Vary. Throws SidecarError where there is no answer of the app to give.
 */
export function passThrough(
  options: PassThroughOptions,
): (arrival: Arrival, added: Fields) => Promise<Answer> {
  const { upstream, headBytesMax } = options
  const keep = { keepAlive: true, timeout: IDLE_CONNECTION_MS }
  const secure = upstream.protocol === 'https:'
  const agent = secure ? new https.Agent(keep) : new nodeHttp.Agent(keep)
  const connect = connectOptions(upstream, ['http/1.1'], options.ca)

  /** A request as node:http sends it: http2-proxy would join fields, and not tell where the body of a DELETE ends. */
  function outgoing({ head, body }: Request, forwarded: string): ClientRequest {
    const { method, path, authority } = head
    const headers = [
      'host',
      authority || upstream.host,
      ...rules.withField(head.fields, 'forwarded', forwarded),
    ]
    if (body !== NO_BODY && rules.contentLength(head.fields) === undefined)
      headers.push('transfer-encoding', 'chunked')
    const maxHeaderSize = headBytesMax + HEAD_SLACK_BYTES
    const client = (secure ? https : nodeHttp).request({
      ...connect,
      agent,
      method,
      path,
      headers,
      maxHeaderSize,
    })
    // Before a body that may be long in coming.
    if (body !== NO_BODY) client.flushHeaders()
    client.maxHeadersCount = 0 // else node:http would drop the fields beyond 2000 in silence
    return client
  }

  function inward({ head, body }: Request): Request {
    if (body !== NO_BODY && WITHOUT_BODY.has(head.method)) {
      throw new SidecarError('not-implemented', `A ${head.method} with a body is not passed through.`)
    }
    try {
      const path = rules.joinPath(upstream.pathname, head.path)
      const fields = rules.withoutFields(head.fields, rules.isForSidecar)
      return { head: rules.checkRequestHead({ ...head, path, fields }, headBytesMax), body }
    } catch (error) {
      throw error instanceof rules.HeadError ? headProblem(error) : error
    }
  }

  return async (arrival, added) => {
    const request = inward(arrival.request)
    const { head, body } = await new Forwarding(request, arrival, options).answer((forwarded) =>
      outgoing(request, forwarded),
    )
    return { head: { status: head.status, fields: withAdded(head.fields, added) }, body }
  }
}

/** One call on its way through http2-proxy. */
class Forwarding {
  readonly #request: IncomingRequest
  /** What http2-proxy holds for the response, and never writes to. */
  readonly #response = new PassThrough()
  readonly #caller: Caller
  readonly #options: PassThroughOptions
  readonly #answered = Promise.withResolvers<Answer>()
  #timer: NodeJS.Timeout | undefined
  #connected = false

  constructor(request: Request, arrival: Arrival, options: PassThroughOptions) {
    this.#request = new IncomingRequest(request, arrival, () => this.#timer?.refresh())
    this.#caller = arrival.caller
    this.#options = options
    this.#timer = this.#deadline('connect-timeout', options.connectTimeoutMs)
  }

  /** @param send gets the value of Forwarded */
  answer(send: (forwarded: string) => ClientRequest): Promise<Answer> {
    // http2-proxy stops listening when it is done with a call, and errors may come after.
    this.#request.on('error', () => {})
    this.#response.on('error', () => {})
    this.#caller.onGone((why) => this.#abort(why))
    const { hostname, port } = this.#options.upstream
    // Its types know the request and response of a server only.
    const forwarding = proxy.web(this.#request as never, this.#response as never, {
      hostname,
      port: Number(port),
      onReq: async (_request, { headers }) => this.#watched(send(forwardedOf(headers))),
      onRes: async (_request, _response, response) =>
        this.#onResponse(response as unknown as IncomingMessage),
    })
    Promise.resolve(forwarding).catch((error) => {
      this.#abort(error instanceof SidecarError ? error : this.#unreachable('reset', error))
    })
    return this.#answered.promise.finally(() => {
      clearTimeout(this.#timer)
      this.#timer = undefined
    })
  }

  #watched(client: ClientRequest): ClientRequest {
    client.on('socket', (socket) => {
      // A head that goes out before its body would be written in UTF-8, each byte above 0x7F as two.
      socket.setDefaultEncoding('latin1')
      const onConnect = () => {
        this.#connected = true
        clearTimeout(this.#timer)
        this.#timer = this.#deadline('response-timeout', this.#options.responseTimeoutMs)
      }
      const event = this.#options.upstream.protocol === 'https:' ? 'secureConnect' : 'connect'
      if (socket.connecting) socket.once(event, onConnect)
      else onConnect()
    })
    client.on('information', ({ statusCode, rawHeaders }) => {
      this.#caller.inform({ status: statusCode, fields: rules.fieldsFromRaw(rawHeaders) })
    })
    client.on('upgrade', (_response, socket) => {
      socket.destroy()
      this.#abort(
        new SidecarError('upstream-unreachable', 'The app switched protocols, which nobody asked it for.'),
      )
    })
    return client
  }

  #onResponse(response: IncomingMessage): void {
    const head = { status: response.statusCode!, fields: rules.fieldsFromRaw(response.rawHeaders) }
    try {
      rules.checkResponseHead(head, this.#options.headBytesMax)
    } catch (error) {
      if (!(error instanceof rules.HeadError)) throw error
      throw new SidecarError('upstream-unreachable', `The app's answer cannot be passed on: ${error.message}`)
    }
    const fields = rules.withoutFields(head.fields, rules.isFromSidecar)
    this.#answered.resolve({ head: { status: head.status, fields }, body: messageBody(response) })
  }

  #deadline(failure: 'connect-timeout' | 'response-timeout', ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#abort(this.#unreachable(failure)), ms)
  }

  #unreachable(failure: 'connect-timeout' | 'response-timeout' | 'reset', cause?: unknown): SidecarError {
    const error = new SendError(
      failure === 'reset' && !this.#connected ? 'connect' : failure,
      this.#connected,
      cause,
    )
    const detail = `The app did not answer: ${error.message}.`
    return new SidecarError(error.timedOut ? 'upstream-timeout' : 'upstream-unreachable', detail, {
      cause: error,
    })
  }

  /** There is no answer, or no end of it. http2-proxy aborts what is under way when the response closes. */
  #abort(why: SidecarError): void {
    this.#request.aborted = true
    this.#answered.reject(why)
    this.#response.destroy()
  }
}

/** A request as http2-proxy wants to see it. */
class IncomingRequest extends Readable {
  readonly method: string
  readonly url: string
  readonly headers: { host: string; forwarded?: string }
  readonly httpVersion = '1.1'
  readonly socket: unknown
  aborted = false
  readonly #body: Body
  readonly #touch: () => void

  constructor({ head, body }: Request, { socket }: Arrival, touch: () => void) {
    super()
    const forwarded = rules.field(head.fields, 'forwarded')
    this.method = head.method
    this.url = head.path
    this.headers = { host: head.authority, ...(forwarded === undefined ? {} : { forwarded }) }
    this.socket = socket
    this.#body = body
    this.#touch = touch
  }

  override _read(): void {
    this.#next().then(
      (piece) => this.push(piece ?? null),
      (error) => this.destroy(error),
    )
  }

  async #next(): Promise<Buffer | undefined> {
    let piece: Buffer | undefined
    do piece = await this.#body.read()
    while (piece?.length === 0)
    this.#touch()
    return piece
  }
}

function forwardedOf(headers: OutgoingHttpHeaders | readonly string[] | undefined): string {
  return String((headers as OutgoingHttpHeaders).forwarded)
}

function withAdded(fields: Fields, added: Fields): Fields {
  for (let i = 0; i < added.length; i += 2) {
    const name = added[i]!
    const value = added[i + 1]!
    fields = name === 'vary' ? [...fields, name, value] : rules.withField(fields, name, value)
  }
  return fields
}
