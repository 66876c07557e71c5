import type { Socket } from 'node:net'
import { type Answer, type Body, type Fields, NO_BODY, type RequestHead, type ResponseHead } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { PushedBody } from '../pushed-body.ts'
import { type Arrival, Exchange, type ServerOptions } from './exchange.ts'
import { contentLength, field, isBodyless, withoutFields } from './fields.ts'
import type { Http1RequestHead } from './http1-reader.ts'
import { fieldLines, lastChunk, writeChunk, writeTogether } from './http1-writer.ts'
import { nodeHttp } from './node-http.ts'
import { problem } from './problem.ts'
import { expectEnd, lengthDiffers, pump, WHOLE_BYTES_MAX } from './pump.ts'
import { cutOff } from './stream-body.ts'

/** What a call knows of the connection that it came on. */
export interface CallConnection {
  readonly socket: Socket
  readonly options: ServerOptions
  /** Is the answer that begins now the last one, whatever its call says? */
  readonly isRetiring: boolean
  /** Has the end of the request not come yet? */
  readonly inRequest: boolean
  /** Reads on or stops reading, as there is room for what comes. */
  readonly flow: () => void
  /** The connection has taken the whole answer. @param isLast is it the last one? */
  answered(isLast: boolean): void
}

/** A call over HTTP/1.1. */
export class Http1Exchange extends Exchange {
  /** the request's, as it comes; undefined where there is none */
  readonly body: PushedBody | undefined
  readonly #connection: CallConnection
  readonly #read: Http1RequestHead
  readonly #arrival: Arrival
  #continued = false
  #answering = false
  #answered = false
  #isChunked = false
  #isLast = false

  constructor(connection: CallConnection, read: Http1RequestHead, head: RequestHead, absoluteForm: boolean) {
    super(connection.options)
    this.#connection = connection
    this.#read = read
    this.body = undefined
    if (read.hasBody) {
      this.body = new PushedBody()
      this.body.onTaken = connection.flow
    }
    const request = { head, body: this.body ?? NO_BODY }
    this.#arrival = { request, caller: this, absoluteForm, socket: connection.socket }
  }

  begin(): void {
    this.handle(this.#arrival)
  }

  /** @returns is this piece of the request's body still wanted? */
  take(piece: Buffer): boolean {
    if (!this.body?.isOpen) return false
    this.touch()
    this.body.push(piece)
    return true
  }

  /**
   * What came in cannot be read.
   * @returns may the connection be answered with that? Not when that would get in between an answer.
   */
  unreadable(why: SidecarError): boolean {
    const isAnswerable = !this.#answering
    if (isAnswerable) this.gone(why)
    else this.abort(why)
    this.body?.fail(cutOff())
    return isAnswerable
  }

  /** The caller closed its side: as a rule the whole connection, and it does not wait for an answer any more. */
  callerEnded(): void {
    if (!this.#answered) this.abort(callerGone())
  }

  /** The connection is closed. */
  closed(): void {
    this.gone(callerGone())
    this.body?.fail(cutOff())
  }

  protected get answering(): boolean {
    return this.#answering
  }

  protected writeInterim({ status, fields }: ResponseHead): void {
    const { socket } = this.#connection
    if (!socket.writable || this.#read.minor === 0) return
    if (status === 100) this.#continued = true
    socket.write(`${statusLine(status)}${fieldLines(fields)}\r\n`, 'latin1')
  }

  protected reset(): void {
    // A FIN would be a clean end of a body that lasts until the connection ends.
    this.#connection.socket.resetAndDestroy()
  }

  protected write({ head, body }: Answer): Promise<void> | undefined {
    const isBare = isBodyless(this.#read.method, head.status)
    const length = contentLength(head.fields)
    const whole = body.whole(WHOLE_BYTES_MAX)
    if (whole === undefined) {
      if (isBare || length === 0) return this.#writeEmpty(head, isBare, body)
      return this.#writeStream(head, length, body)
    }
    if (!isBare && length !== undefined && length !== whole.length) throw lengthDiffers()
    this.#writeWhole(head, isBare, whole, body.trailers)
    return undefined
  }

  async #writeEmpty(head: ResponseHead, isBare: boolean, body: Body): Promise<void> {
    await expectEnd(body)
    if (!this.over) this.#writeWhole(head, isBare, NOTHING, body.trailers)
  }

  #writeWhole(head: ResponseHead, isBare: boolean, whole: Buffer, trailers: Fields): void {
    const { socket } = this.#connection
    let before = this.#head(head, isBare, whole.length, trailers.length > 0)
    let after = ''
    if (this.#isChunked) {
      if (whole.length > 0) {
        before += `${whole.length.toString(16)}\r\n`
        after = '\r\n'
      }
      after += lastChunk(trailers)
    }
    this.#answering = true
    writeTogether(socket, before, isBare ? NOTHING : whole, after)
    this.#complete()
  }

  async #writeStream(head: ResponseHead, length: number | undefined, body: Body): Promise<void> {
    const { socket } = this.#connection
    const text = this.#head(head, false, undefined, false)
    this.#answering = true
    // Now, and not with the first piece: that of an event stream may be long in coming.
    socket.write(text, 'latin1')
    const last = await pump(body, socket, length, this, this.#isChunked ? writeChunk : undefined)
    if (this.over) return
    if (this.#isChunked) {
      const end = lastChunk(body.trailers)
      if (last) writeChunk(socket, last)
      socket.write(end, 'latin1')
    } else if (last) socket.write(last)
    this.#complete()
  }

  /**
   * The head of the answer as it is written; decides on its framing, and on what becomes of the connection.
   * @param isBare does the answer end with its head?
   * @param wholeBytes length of the body, where that is at hand
   */
  #head(head: ResponseHead, isBare: boolean, wholeBytes: number | undefined, hasTrailers: boolean): string {
    const { minor, keepAlive, expectsContinue } = this.#read
    const connection = this.#connection
    const isOld = minor === 0
    let { fields } = head
    let own = ''
    let isChunked = false
    let isLast = !keepAlive || connection.isRetiring
    if (hasTrailers || field(fields, 'trailer') !== undefined) {
      // Trailers need chunks: where there are none they are not announced.
      isChunked = !isBare && !isOld
      fields = withoutFields(fields, (name) => name === (isChunked ? 'content-length' : 'trailer'))
    }
    if (!isBare && !isChunked && field(fields, 'content-length') === undefined) {
      if (wholeBytes !== undefined) own = `content-length: ${wholeBytes}\r\n`
      else if (isOld) isLast = true
      else isChunked = true
    }
    // Whether the body comes that the caller waited to send, nobody knows.
    if (expectsContinue && !this.#continued && connection.inRequest) isLast = true
    if (isLast) own += 'connection: close\r\n'
    else if (isOld) own += 'connection: keep-alive\r\n'
    if (field(fields, 'date') === undefined) own += dateLine()
    if (isChunked) own += 'transfer-encoding: chunked\r\n'
    this.#isChunked = isChunked
    this.#isLast = isLast
    return `${statusLine(head.status)}${fieldLines(fields)}${own}\r\n`
  }

  /** The whole answer has been written. */
  #complete(): void {
    const connection = this.#connection
    const { socket } = connection
    this.#answered = true
    if (connection.inRequest) {
      this.body?.fail(new SidecarError('caller-gone', 'The answer was complete before the request was.'))
      connection.flow()
    }
    if (socket.writableLength === 0 && !socket.errored) this.#taken()
    // Behind what waits, as a call-back for each write would cost even those that do not wait.
    else socket.write(NOTHING, (error) => error ?? this.#taken())
  }

  #taken(): void {
    this.finish()
    this.#connection.answered(this.#isLast)
  }
}

const NOTHING = Buffer.alloc(0)

/**
 * Answers a connection for the last time.
 * @param why what is told; there is no call that it would be the answer to
 */
export function writeRefusal(socket: Socket, why: SidecarError): void {
  const { head, body } = problem(why)
  const before = `${statusLine(head.status)}connection: close\r\n${fieldLines(head.fields)}${dateLine()}\r\n`
  writeTogether(socket, before, body.whole(WHOLE_BYTES_MAX)!)
}

/** @throws RangeError for what is no status */
function statusLine(status: number): string {
  if (!Number.isInteger(status) || status < 100 || status > 999)
    throw new RangeError('A status has three digits.')
  return `HTTP/1.1 ${status} ${nodeHttp.STATUS_CODES[status] ?? 'Unknown'}\r\n`
}

let date: string | undefined

/** Made once a second. */
function dateLine(): string {
  if (date === undefined) {
    const now = new Date()
    date = `date: ${now.toUTCString()}\r\n`
    setTimeout(() => {
      date = undefined
    }, 1000 - now.getMilliseconds()).unref()
  }
  return date
}

function callerGone(): SidecarError {
  return new SidecarError('caller-gone', 'The caller closed its connection.')
}
