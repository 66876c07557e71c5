import type { Answer, Caller, Fields, Request, Send } from '../call.ts'
import { asSidecarError } from '../errors.ts'
import type { PushedBody } from '../pushed-body.ts'
import { repeatability } from '../repeatability.ts'
import { contentLength, field, fieldsFromRaw, HeadError, withoutFields } from './fields.ts'
import type { Carried, Http1Connection } from './http1-connection.ts'
import { type ClientOptions, Http1Pool } from './http1-pool.ts'
import { Http1Error, type Http1ResponseHead } from './http1-reader.ts'
import { fieldLines, lastChunk, writeChunk } from './http1-writer.ts'
import { expectEnd, lengthDiffers, pump, WHOLE_BYTES_MAX } from './pump.ts'
import { SendError } from './send-error.ts'
import type { Alive } from './stream-body.ts'

export type { ClientOptions }

/** A call of a `Send`, and what settles its promise. */
export interface Pending {
  request: Request
  caller: Caller
  resolve(answer: Answer): void
  reject(error: unknown): void
}

/**
 * Sends calls over HTTP/1.1 to one origin.
 *
 * Connections are kept for the next calls: as many as there were calls at once, up to a limit, for some seconds.
 */
export class Http1Client {
  readonly #origin: Origin

  /** @param origin `http://host:port` or `https://host:port` */
  constructor(origin: URL, options: ClientOptions) {
    this.#origin = {
      pool: new Http1Pool(origin, options),
      authority: origin.host,
      responseTimeoutMs: options.responseTimeoutMs,
    }
  }

  /**
   * A call that meets the end of a kept connection is sent once more, over a new one, if its method is idempotent
   * (RFC 9110 section 9.2.2) and its body was at hand.
   * @throws SendError when no answer came, or what the request's body throws; HeadError when a head or trailers hold
   * what `checkRequestHead` and `checkTrailers` would have refused because it could be read as something else
   */
  send: Send = (request, caller) =>
    new Promise((resolve, reject) => {
      new Http1Call(this.#origin, { request, caller, resolve, reject }).begin()
    })

  /** Closes the connections that are kept, and keeps no more; calls under way go on. */
  close(): void {
    this.#origin.pool.close()
  }
}

/** Where the calls of a client go, and what they share. */
interface Origin {
  pool: Http1Pool
  authority: string
  responseTimeoutMs: number
}

/** One call on its way to its answer. */
class Http1Call implements Carried, Alive {
  readonly #origin: Origin
  readonly #pending: Pending
  /** undefined before there is one, and when it is another call's */
  #connection: Http1Connection | undefined = undefined
  /** the whole body, where it was at hand */
  #whole: Buffer | undefined = undefined
  /** the first piece of a body that was not */
  #first: Buffer | undefined = undefined
  /** Would the end of the connection be no fault of this call? */
  #kept = false
  /** May a byte of the request have left, over whichever connection? */
  #sent = false
  #informed = false
  #failed = false
  #answered: PushedBody | undefined = undefined

  constructor(origin: Origin, pending: Pending) {
    this.#origin = origin
    this.#pending = pending
  }

  get method(): string {
    return this.#pending.request.head.method
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
    if (this.#connection && this.#connection.dueAt !== 0) this.#await()
  }

  onConnected(): void {
    this.#sent = true
    try {
      if (this.#whole === undefined) this.#writeStream().catch((error) => this.#stopped(error))
      else this.#writeWhole(this.#whole)
    } catch (error) {
      this.#abort(error)
    }
  }

  onWritten(): void {
    if (this.#answered) this.#connection!.dueAt = 0
    else if (this.#whole === undefined) this.#await()
  }

  onInterim({ status, raw }: Http1ResponseHead): void {
    this.#informed = true
    this.touch()
    this.#pending.caller.inform({ status, fields: fieldsFromRaw(raw) })
  }

  onAnswer({ status, raw }: Http1ResponseHead, body: PushedBody): void {
    // A body of a response is timed by the call that it belongs to.
    this.#answered = body
    const { socket } = this.#connection!
    this.#pending.resolve({ head: { status, fields: fieldsFromRaw(raw) }, body, socket })
  }

  /** Nobody may be left to time a request that goes on after its answer. */
  onEarlyEnd(): void {
    this.#await()
  }

  onReleased(): void {
    this.#connection = undefined
  }

  onBroken(cause: Error | undefined): void {
    if (this.#answered || this.#failed) return
    if (this.#maySendAgain(cause)) this.#over(this.#origin.pool.connect(), false)
    else this.#fail(new SendError(this.#connection!.connected ? 'reset' : 'connect', this.#sent, cause))
  }

  onOverdue(): void {
    const failure = this.#connection!.connected ? 'response-timeout' : 'connect-timeout'
    this.#abort(new SendError(failure, this.#sent))
  }

  /** In one piece: it costs one write. */
  #sendWhole(whole: Buffer): void {
    const length = contentLength(this.#pending.request.head.fields)
    if (length !== undefined && length !== whole.length) throw lengthDiffers()
    this.#whole = whole
    this.#connect()
  }

  async #sendStream(): Promise<void> {
    const { head, body } = this.#pending.request
    const length = contentLength(head.fields)
    if (length === 0) {
      await expectEnd(body)
      if (!this.#failed) this.#sendWhole(NOTHING)
      return
    }
    // Most of these have no body, and then go out without framing. Who expects 100 (Continue) has one, and waits.
    if (
      length === undefined &&
      hasNoBodyByDefault(head.method) &&
      field(head.fields, 'expect') === undefined
    ) {
      this.#first = await body.read()
      if (this.#failed) return
      if (this.#first === undefined) return this.#sendWhole(NOTHING)
    }
    this.#connect()
  }

  #connect(): void {
    const { pool } = this.#origin
    const kept = pool.take()
    this.#over(kept ?? pool.connect(), kept !== undefined)
  }

  #over(connection: Http1Connection, kept: boolean): void {
    this.#connection = connection
    this.#kept = kept
    connection.carry(this)
  }

  #writeWhole(whole: Buffer): void {
    const { head, body } = this.#pending.request
    const { trailers } = body
    const connection = this.#connection!
    this.#await()
    if (trailers.length > 0) {
      const size = whole.length > 0 ? `${whole.length.toString(16)}\r\n` : ''
      const before = this.#head(withoutLength(head.fields), CHUNKED) + size
      connection.end(before, whole, (size && '\r\n') + lastChunk(trailers))
      return
    }
    const bare = whole.length === 0 && hasNoBodyByDefault(head.method)
    const announced = bare || field(head.fields, 'content-length') !== undefined
    const framing = announced ? '' : `content-length: ${whole.length}\r\n`
    connection.end(this.#head(head.fields, framing), whole)
  }

  async #writeStream(): Promise<void> {
    const { head, body } = this.#pending.request
    const { fields } = head
    const connection = this.#connection!
    const { socket } = connection
    const length = contentLength(fields)
    // Trailers need chunks. A Trailer field announces them.
    const chunked = length === undefined || field(fields, 'trailer') !== undefined
    socket.write(chunked ? this.#head(withoutLength(fields), CHUNKED) : this.#head(fields, ''), 'latin1')
    if (this.#first) writeChunk(socket, this.#first)
    const last = await pump(body, socket, length, this, chunked ? writeChunk : undefined)
    if (!chunked) return connection.end('', last)
    if (last) writeChunk(socket, last)
    connection.end(lastChunk(body.trailers))
  }

  /**
   * @param framing a line that the fields lack
   * @throws HeadError malformed, for what would be read as something else than itself
   */
  #head(fields: Fields, framing: string): string {
    const { method, path, authority } = this.#pending.request.head
    const host = authority || this.#origin.authority
    if (UNFIT.test(method) || UNFIT.test(path) || UNFIT.test(host))
      throw new HeadError('malformed', 'The method, the path or the authority holds what none may hold.')
    return `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\n${fieldLines(fields)}${framing}Connection: keep-alive\r\n\r\n`
  }

  /** Waits for the first byte of the answer, from now on. */
  #await(): void {
    this.#connection!.wait(this.#origin.responseTimeoutMs)
  }

  #maySendAgain(cause: Error | undefined): boolean {
    return (
      this.#kept &&
      this.#whole !== undefined &&
      !this.#informed &&
      !(cause instanceof Http1Error) &&
      repeatability(this.method, false) !== 'unsafe'
    )
  }

  /** The request's body failed, or could not be written. */
  #stopped(error: unknown): void {
    // Where the connection is gone, that is told; and who answers early may close it: the answer stands.
    if (!this.#connection?.socket.destroyed) this.#abort(error)
  }

  /** Stops in the middle, such that the other side cannot take the request for complete. */
  #abort(why: unknown): void {
    this.#fail(why)
    this.#answered?.fail(asSidecarError(why))
    this.#connection?.abort()
    this.#connection = undefined
  }

  #fail(why: unknown): void {
    if (this.#failed) return
    this.#failed = true
    this.#pending.reject(why)
  }
}

const NOTHING = Buffer.alloc(0)
/** What no part of a request line may hold, nor an authority. */
const UNFIT = /[^\x21-\x7e\x80-\xff]/
const CHUNKED = 'transfer-encoding: chunked\r\n'

function withoutLength(fields: Fields): Fields {
  return withoutFields(fields, (name) => name === 'content-length')
}

function hasNoBodyByDefault(method: string): boolean {
  return (
    method === 'GET' || method === 'HEAD' || method === 'OPTIONS' || method === 'DELETE' || method === 'TRACE'
  )
}
