import http2, { type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { type Answer, type Body, type Fields, NO_BODY, type RequestHead, type ResponseHead } from '../call.ts'
import { SidecarError } from '../errors.ts'
import {
  badRequest,
  Exchange,
  headTooLarge,
  LEAVE_MS,
  type OpenCalls,
  type ServerOptions,
} from './exchange.ts'
import { contentLength, FIELDS_MAX, fieldsFromRaw, isBodyless } from './fields.ts'
import { CONNECTION_WINDOW_BYTES, sessionOptions } from './http2-settings.ts'
import { letGo } from './let-go.ts'
import { expectEnd, lengthDiffers, pump, WHOLE_BYTES_MAX } from './pump.ts'
import { http2Body, type StreamBody } from './stream-body.ts'

/**
 * The first of two GOAWAY (RFC 9113 section 6.8): open no more streams; those that are on their way, whatever their
 * ids, are still taken. From the first of its own on node:http2 ignores new streams, so this one goes past it.
 */
const LEAVE = Buffer.from('0000080700000000007fffffff00000000', 'hex')
/** The second one follows once the other end has answered a ping, or has not for so long, in ms. */
const PING_TIMEOUT_MS = 2000

/** An HTTP/2 server over sockets that it is handed. */
export class Http2Server {
  readonly #server: http2.Http2Server
  readonly #options: ServerOptions
  readonly #connections = new Set<Connection>()
  #retiring = false

  constructor(options: ServerOptions) {
    this.#options = options
    this.#server = http2.createServer(sessionOptions(options.headBytesMax))
  }

  /** Serves a connection of which nothing has been read, or what has been was put back. */
  serve(socket: Socket): void {
    // There is no call over half a connection of HTTP/2: else the other side's end would not be noticed.
    socket.allowHalfOpen = false
    this.#server.once('session', (session) => {
      const connection = new Connection(session, socket, this.#options)
      this.#connections.add(connection)
      session.on('close', () => this.#connections.delete(connection))
      if (this.#retiring) connection.retireAfterCall()
    })
    this.#server.emit('connection', socket)
  }

  /** Tells every connection to take no more calls; it closes when those under way are over. */
  retire(): void {
    this.#retiring = true
    for (const connection of this.#connections) connection.retire()
  }

  close(): void {
    for (const connection of this.#connections) connection.close()
  }
}

/** A connection of a client, with what node:http2 leaves to its users. */
class Connection {
  readonly #session: ServerHttp2Session
  readonly #socket: Socket
  readonly #options: ServerOptions
  #calls = 0
  /** is the next call the one to retire at? */
  #retiresAtCall = false
  #retired = false

  constructor(session: ServerHttp2Session, socket: Socket, options: ServerOptions) {
    this.#session = session
    this.#socket = socket
    this.#options = options
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES)
    session.on('error', ignore)
    session.on('timeout', () => this.retire())
    session.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _flags, raw: string[]) =>
      this.#onStream(stream, headers, raw),
    )
    session.setTimeout(this.#options.idleTimeoutMs)
  }

  /** Has its client open no more streams; closes when those that it has opened are over. */
  retire(): void {
    if (this.#retired || this.#session.destroyed || !this.#socket.writable) return
    this.#retired = true
    this.#socket.write(LEAVE)
    const close = () => {
      clearTimeout(timer)
      this.#session.close()
    }
    const timer = setTimeout(close, PING_TIMEOUT_MS)
    this.#session.ping(close)
  }

  /** Who has just connected has something to send: it is retired then, or when nothing comes for LEAVE_MS. */
  retireAfterCall(): void {
    this.#retiresAtCall = true
    this.#session.setTimeout(LEAVE_MS)
  }

  close(): void {
    this.#session.destroy()
  }

  #onStream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: string[]): void {
    // A timer on the connection costs with every frame, and calls have time-outs of their own.
    if (++this.#calls === 1) this.#session.setTimeout(0)
    const onClose = () => {
      if (--this.#calls === 0) this.#session.setTimeout(this.#options.idleTimeoutMs)
    }
    new Http2Exchange(stream, this.#socket, this.#options, onClose).begin(headers, raw)
    if (this.#retiresAtCall) this.retire()
  }
}

/** A call over HTTP/2. */
class Http2Exchange extends Exchange {
  readonly #stream: ServerHttp2Stream
  readonly #socket: Socket
  readonly #options: ServerOptions
  #body: StreamBody | undefined
  #method = ''
  /** has the end of the answer been handed to the stream? */
  #ended = false

  constructor(stream: ServerHttp2Stream, socket: Socket, options: ServerOptions, onClose: () => void) {
    super(options)
    this.#stream = stream
    this.#socket = socket
    this.#options = options
    stream.on('error', ignore)
    stream.on('close', () => {
      letGo(stream)
      // By then all of the app's answer has been read: there is nothing left to abort.
      if (this.#ended) this.finish()
      else this.gone(new SidecarError('caller-gone', 'The caller reset the stream.'))
      onClose()
    })
  }

  begin(headers: IncomingHttpHeaders, raw: string[]): void {
    const stream = this.#stream
    this.#method = headers[':method'] ?? ''
    if (!stream.endAfterHeaders) this.#body = http2Body(stream, this)
    let head: RequestHead
    try {
      head = readHead(headers, raw, this.#options.headBytesMax)
    } catch (error) {
      this.fail(error)
      return
    }
    const body: Body = this.#body ?? NO_BODY
    const arrival = { request: { head, body }, caller: this, absoluteForm: false, socket: this.#socket }
    // Trailers that came with the head are heard of in a moment.
    if (this.#body) process.nextTick(() => this.handle(arrival))
    else this.handle(arrival)
  }

  override carryOthers(): OpenCalls {
    this.#options.calls.remove(this)
    return this.#options.calls
  }

  protected writeInterim({ status, fields }: ResponseHead): void {
    const stream = this.#stream
    if (stream.destroyed || stream.closed) return
    stream.additionalHeaders({ ...toObject(fields), ':status': status })
  }

  protected get answering(): boolean {
    return this.#stream.headersSent
  }

  protected reset(): void {
    // close(code) would send END_STREAM first: the end of a complete answer.
    this.#stream.destroy(new Error('The call was aborted.'))
  }

  protected write({ head, body }: Answer): Promise<void> | undefined {
    const { status, fields } = head
    const bodyless = isBodyless(this.#method, status)
    const length = contentLength(fields)
    const whole = body.whole(WHOLE_BYTES_MAX)
    if (whole === undefined) {
      // node:http2 sends no body with 205 either.
      if (bodyless || length === 0 || status === 205) return this.#writeEmpty(head, body)
      return this.#writeStream(head, length, body)
    }
    if (bodyless) this.#writeWhole(head, undefined, NO_FIELDS)
    else if (length !== undefined && length !== whole.length) throw lengthDiffers()
    else this.#writeWhole(head, whole.length > 0 ? whole : undefined, body.trailers)
    return undefined
  }

  async #writeEmpty(head: ResponseHead, body: Body): Promise<void> {
    await expectEnd(body)
    if (!this.over) this.#writeWhole(head, undefined, body.trailers)
  }

  #writeWhole(head: ResponseHead, whole: Buffer | undefined, trailers: Fields): void {
    const waitForTrailers = trailers.length > 0
    this.#respond(head, { endStream: whole === undefined && !waitForTrailers, waitForTrailers })
    if (waitForTrailers) this.#end(whole, trailers)
    else this.#end(whole)
  }

  async #writeStream(head: ResponseHead, length: number | undefined, body: Body): Promise<void> {
    this.#respond(head, { waitForTrailers: true })
    const last = await pump(body, this.#stream, length, this)
    if (!this.over) this.#end(last, body.trailers)
  }

  #respond({ status, fields }: ResponseHead, options: http2.ServerStreamResponseOptions): void {
    const headers = [':status', String(status), ...fields] as unknown as http2.OutgoingHttpHeaders
    this.#stream.respond(headers, options)
  }

  /** @param trailers where the stream waits for them; empty ones end it as well */
  #end(last: Buffer | undefined, trailers?: Fields): void {
    const stream = this.#stream
    this.#ended = true
    const early = this.#body?.isOpen
    if (early)
      this.#body?.fail(new SidecarError('caller-gone', 'The answer was complete before the request was.'))
    if (trailers) {
      stream.once('wantTrailers', () => {
        stream.sendTrailers(toObject(trailers))
        // It sends them a moment later: to reset the stream now would be no end, but a cut.
        if (early) setImmediate(() => this.#dropRest())
      })
    } else if (early) stream.once('finish', () => this.#dropRest())
    if (!stream.writableEnded) stream.end(last)
  }

  /** The answer is complete: nothing more of the request is wanted, and what is unread would keep the stream. */
  #dropRest(): void {
    const stream = this.#stream
    if (stream.readableEnded || stream.destroyed) return
    stream.close(http2.constants.NGHTTP2_NO_ERROR)
    stream.resume()
  }
}

/**
 * The head of a request that node:http2 let through, if it means one thing only.
 * @throws SidecarError headers-too-large, bad-request, or not-implemented for CONNECT
 */
function readHead(headers: IncomingHttpHeaders, raw: string[], headBytesMax: number): RequestHead {
  const method = headers[':method'] ?? ''
  if (method === 'CONNECT') {
    throw new SidecarError(
      'not-implemented',
      'CONNECT is not carried: call http:// URLs through the sidecar.',
    )
  }
  let authority = headers[':authority']
  let bytes = 0
  let count = 0
  let cookies = 0
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    const value = raw[i + 1]!
    if (name.startsWith(':')) continue
    bytes += name.length + value.length
    count++
    if (name === 'cookie') cookies++
    else if (name === 'host') {
      if (authority !== undefined && authority !== value) throw badRequest('Host and :authority differ.')
      authority = value
    }
  }
  if (bytes > headBytesMax || count > FIELDS_MAX) throw headTooLarge(headBytesMax)
  const fields = fieldsFromRaw(raw)
  return {
    method,
    scheme: headers[':scheme'] ?? 'http',
    authority: authority ?? '',
    path: headers[':path'] ?? '/',
    fields: cookies > 1 ? joinCookies(fields) : fields,
  }
}

/** HTTP/2 splits Cookie for compression; outside of it there is one (RFC 9113 section 8.2.3). */
function joinCookies(fields: Fields): Fields {
  const crumbs: string[] = []
  const rest: Fields = []
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === 'cookie') crumbs.push(fields[i + 1]!)
    else rest.push(fields[i]!, fields[i + 1]!)
  }
  return [...rest, 'cookie', crumbs.join('; ')]
}

/** Fields as node:http2 takes them where it takes no arrays. */
export function toObject(fields: Fields): Record<string, string | string[]> {
  const object: Record<string, string | string[]> = { __proto__: null } as never
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    const before = object[name]
    const value = fields[i + 1]!
    object[name] = before === undefined ? value : Array.isArray(before) ? [...before, value] : [before, value]
  }
  return object
}

const NO_FIELDS: Fields = []

function ignore(): void {}
