import type { Agent, ClientRequest, IncomingMessage } from 'node:http'
import https from 'node:https'
import type { Socket } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import type { Answer, Caller, Fields, Request, Send } from '../call.ts'
import { asSidecarError } from '../errors.ts'
import { repeatability } from '../repeatability.ts'
import { connectOptions } from './connect-options.ts'
import { asNodeWritesThem, contentLength, field, fieldsFromRaw, withoutFields } from './fields.ts'
import { letGo } from './let-go.ts'
import { nodeHttp } from './node-http.ts'
import { expectEnd, lengthDiffers, pump, WHOLE_BYTES_MAX } from './pump.ts'
import { SendError } from './send-error.ts'
import { type Alive, cutOff, messageBody, type StreamBody } from './stream-body.ts'

export interface ClientOptions {
  /** names and values of one head, in bytes */
  headBytesMax: number
  /** for the name, the connection and TLS together, in ms */
  connectTimeoutMs: number
  /** from the last byte of the request to the first of the response, in ms */
  responseTimeoutMs: number
  /** PEM certificates that are trusted for https besides the system's */
  ca?: string[]
}

/** A call of a `Send`, and what settles its promise. */
export interface Pending {
  request: Request
  caller: Caller
  resolve(answer: Answer): void
  reject(error: unknown): void
}

/** Idle connections are closed before the usual server's five seconds are over, so that few calls meet a closing one. */
const IDLE_CONNECTION_MS = 4000
const IDLE_CONNECTIONS_MAX = 256
/** What node:http counts besides names and values: the status line, and separators. */
const HEAD_SLACK_BYTES = 32 * 1024

/**
 * Sends calls over HTTP/1.1 to one origin.
 *
 * Connections are kept for the next calls: as many as there were calls at once, up to a limit, for some seconds.
 */
export class Http1Client {
  readonly #origin: Origin

  /** @param origin `http://host:port` or `https://host:port` */
  constructor(origin: URL, options: ClientOptions) {
    const secure = origin.protocol === 'https:'
    const connect = connectOptions(origin, ['http/1.1'], options.ca)
    const keep = { keepAlive: true, maxFreeSockets: IDLE_CONNECTIONS_MAX, timeout: IDLE_CONNECTION_MS }
    this.#origin = {
      agent: secure ? new https.Agent(keep) : new nodeHttp.Agent(keep),
      authority: origin.host,
      secure,
      connect,
      maxHeaderSize: options.headBytesMax + HEAD_SLACK_BYTES,
      connectTimeoutMs: options.connectTimeoutMs,
      responseTimeoutMs: options.responseTimeoutMs,
    }
  }

  /**
   * A call that meets the end of a kept connection is sent once more, over a new one, if its method is idempotent
   * (RFC 9110 section 9.2.2) and its body was at hand.
   * @throws SendError when no answer came, or what the request's body throws
   */
  send: Send = (request, caller) =>
    new Promise((resolve, reject) => {
      new Http1Call(this.#origin, { request, caller, resolve, reject }).begin()
    })

  /** Closes the connections that are kept; calls under way go on. */
  close(): void {
    for (const sockets of Object.values(this.#origin.agent.freeSockets)) {
      for (const socket of [...(sockets ?? [])]) socket.destroy()
    }
  }
}

/** Where the calls of a client go, and what they share. */
interface Origin {
  agent: Agent
  authority: string
  secure: boolean
  connect: ConnectionOptions
  maxHeaderSize: number
  connectTimeoutMs: number
  responseTimeoutMs: number
}

/** One call on its way to its answer. */
class Http1Call implements Alive {
  readonly #origin: Origin
  readonly #pending: Pending
  #client: ClientRequest | undefined
  #timer: NodeJS.Timeout | undefined
  /** the whole body, where it was at hand */
  #whole: Buffer | undefined
  #connected = false
  /** May a byte of the request have left, over whichever connection? */
  #sent = false
  /** Has every byte of the request been handed to the connection? */
  #complete = false
  #informed = false
  #again = false
  #failed = false
  #answered: StreamBody | undefined

  constructor(origin: Origin, pending: Pending) {
    this.#origin = origin
    this.#pending = pending
  }

  begin(): void {
    this.#pending.caller.onGone((why) => this.#abort(why))
    if (this.#failed) return
    const whole = this.#pending.request.body.whole(WHOLE_BYTES_MAX)
    if (whole !== undefined) this.#sendWhole(whole)
    else this.#sendStream().catch((error) => this.#stopped(error))
  }

  /** A piece of the request left. */
  touch(): void {
    this.#timer?.refresh()
  }

  /** In one piece: it costs one write. */
  #sendWhole(whole: Buffer): void {
    const length = contentLength(this.#pending.request.head.fields)
    if (length !== undefined && length !== whole.length) throw lengthDiffers()
    this.#whole = whole
    this.#complete = true
    this.#write(whole, this.#origin.agent)
  }

  /** @param agent false: over a new connection */
  #write(whole: Buffer, agent: Agent | false): void {
    const { head, body } = this.#pending.request
    const { fields, trailers } = framed(head.method, head.fields, whole.length, body.trailers)
    const client = this.#open(fields, agent)
    if (trailers) client.addTrailers(pairs(body.trailers))
    // node:http would make another write of an empty piece.
    if (whole.length > 0) client.end(whole)
    else client.end()
  }

  async #sendStream(): Promise<void> {
    const { head, body } = this.#pending.request
    const length = contentLength(head.fields)
    let first: Buffer | undefined
    if (length === 0) {
      await expectEnd(body)
      return this.#sendWhole(NOTHING)
    }
    // Most of these have no body, and then go out without framing. Who expects 100 (Continue) has one, and waits.
    if (
      length === undefined &&
      hasNoBodyByDefault(head.method) &&
      field(head.fields, 'expect') === undefined
    ) {
      first = await body.read()
      if (first === undefined) return this.#sendWhole(NOTHING)
    }
    if (this.#failed) return
    const { fields, trailers } = framed(head.method, head.fields, undefined, body.trailers)
    const client = this.#open(fields, this.#origin.agent)
    client.flushHeaders()
    if (first) client.write(first)
    const last = await pump(body, client, length, this)
    if (trailers && body.trailers.length > 0) client.addTrailers(pairs(body.trailers))
    client.end(last, () => {
      this.#complete = true
      if (this.#answered) clearTimeout(this.#timer)
      else this.#await()
    })
  }

  #open(fields: Fields, agent: Agent | false): ClientRequest {
    const { head } = this.#pending.request
    const { secure, connect, authority, maxHeaderSize, connectTimeoutMs } = this.#origin
    clearTimeout(this.#timer)
    const client = (secure ? https : nodeHttp).request({
      ...connect,
      agent,
      method: head.method,
      path: head.path,
      headers: ['host', head.authority || authority, ...asNodeWritesThem(fields)],
      maxHeaderSize,
    })
    this.#client = client
    // node:http would drop what is above the limit in silence; bytes are limited already.
    client.maxHeadersCount = 0
    client.on('information', ({ statusCode, rawHeaders }) => {
      this.#informed = true
      this.touch()
      this.#pending.caller.inform({ status: statusCode, fields: fieldsFromRaw(rawHeaders) })
    })
    client.on('response', (response) => this.#onResponse(response))
    client.on('error', (error) => this.#broken(client, error))
    client.on('close', () => {
      letGo(client)
      this.#broken(client, undefined)
    })
    if (client.reusedSocket) this.#onConnected()
    else {
      this.#timer = setTimeout(
        () => this.#abort(new SendError('connect-timeout', this.#sent)),
        connectTimeoutMs,
      )
      client.once('socket', (socket) => this.#onSocket(socket))
    }
    return client
  }

  #onSocket(socket: Socket): void {
    // A head that goes before its body would be written as UTF-8.
    socket.setDefaultEncoding('latin1')
    socket.once(this.#origin.secure ? 'secureConnect' : 'connect', () => {
      // An agent does that for plain connections alone.
      socket.setNoDelay(true)
      clearTimeout(this.#timer)
      this.#onConnected()
    })
  }

  #onConnected(): void {
    this.#connected = true
    this.#sent = true
    if (this.#complete) this.#await()
  }

  /** Waits for the first byte of the answer, from now on. */
  #await(): void {
    if (this.#failed) return
    const { responseTimeoutMs } = this.#origin
    this.#timer = setTimeout(() => this.#abort(new SendError('response-timeout', true)), responseTimeoutMs)
  }

  #onResponse(response: IncomingMessage): void {
    if (this.#failed) return
    clearTimeout(this.#timer)
    // A body of a response is timed by the call that it belongs to.
    this.#answered = messageBody(response)
    // Nobody may be left to time a request that goes on after its answer.
    if (!this.#complete) response.once('end', () => !this.#complete && this.#await())
    const head = { status: response.statusCode!, fields: fieldsFromRaw(response.rawHeaders) }
    this.#pending.resolve({ head, body: this.#answered, socket: response.socket })
  }

  /** The connection broke, or closed: before or in the middle of the answer, or behind it. */
  #broken(client: ClientRequest, cause: Error | undefined): void {
    if (client !== this.#client) return
    // A body that lasts until its connection closes would end cleanly here for node:http, whatever closed it.
    if (this.#answered) {
      clearTimeout(this.#timer)
      if (cause) this.#answered.fail(cutOff())
    } else if (client.reusedSocket && this.#maySendAgain()) {
      this.#again = true
      this.#connected = false
      this.#write(this.#whole!, false)
    } else this.#fail(new SendError(this.#connected ? 'reset' : 'connect', this.#sent, cause))
  }

  #maySendAgain(): boolean {
    return (
      this.#whole !== undefined &&
      !this.#again &&
      !this.#failed &&
      !this.#informed &&
      repeatability(this.#pending.request.head.method, false) !== 'unsafe'
    )
  }

  /** The request's body failed, or could not be written. */
  #stopped(error: unknown): void {
    // Where the connection is gone, that is told; and who answers early may close it: the answer stands.
    if (!this.#client?.destroyed) this.#abort(error)
  }

  /** Stops in the middle, such that the other side cannot take the request for complete. */
  #abort(why: unknown): void {
    this.#fail(why)
    // Before node:http drops what it has buffered and lets the response end short.
    this.#answered?.fail(asSidecarError(why))
    const client = this.#client
    if (!client) return
    const { socket } = client
    // Over TLS whatever is not ended stays incomplete.
    const reset = this.#connected && !client.writableFinished && !this.#origin.secure
    if (reset && socket && !socket.destroyed) socket.resetAndDestroy()
    client.destroy()
  }

  #fail(why: unknown): void {
    clearTimeout(this.#timer)
    if (this.#failed) return
    this.#failed = true
    this.#pending.reject(why)
  }
}

const NOTHING = Buffer.alloc(0)

/**
 * The fields with the framing of the request: its length where that is known, else chunked.
 *
 * Trailers need chunks. They are known with a whole body; before that a Trailer field announces them.
 * @param wholeBytes length of the body, where that is at hand
 * @returns and whether trailers may follow
 */
function framed(
  method: string,
  fields: Fields,
  wholeBytes: number | undefined,
  trailers: Fields,
): { fields: Fields; trailers: boolean } {
  const announced = wholeBytes === undefined ? field(fields, 'trailer') !== undefined : trailers.length > 0
  const hasLength = field(fields, 'content-length') !== undefined
  if (announced && hasLength) fields = withoutFields(fields, (name) => name === 'content-length')
  else if (hasLength) return { fields, trailers: false }
  else if (wholeBytes === 0 && !announced && hasNoBodyByDefault(method)) return { fields, trailers: false }
  else if (wholeBytes !== undefined && !announced) {
    return { fields: [...fields, 'content-length', String(wholeBytes)], trailers: false }
  }
  return { fields: [...fields, 'transfer-encoding', 'chunked'], trailers: true }
}

function hasNoBodyByDefault(method: string): boolean {
  return (
    method === 'GET' || method === 'HEAD' || method === 'OPTIONS' || method === 'DELETE' || method === 'TRACE'
  )
}

function pairs(fields: Fields): [string, string][] {
  const all: [string, string][] = []
  for (let i = 0; i < fields.length; i += 2) all.push([fields[i]!, fields[i + 1]!])
  return all
}
