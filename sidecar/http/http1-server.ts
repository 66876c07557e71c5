import type http from 'node:http'
import type { Socket } from 'node:net'
import { type Answer, type Body, type Fields, NO_BODY, type ResponseHead } from '../call.ts'
import { asSidecarError, SidecarError } from '../errors.ts'
import { Exchange, LEAVE_MS, type ServerOptions } from './exchange.ts'
import { asNodeWritesThem, contentLength, field, isBodyless, withoutFields } from './fields.ts'
import { type Http1Head, readHttp1Head } from './http1-head.ts'
import { letGo } from './let-go.ts'
import { nodeHttp } from './node-http.ts'
import { problem } from './problem.ts'
import { expectEnd, lengthDiffers, pump, WHOLE_BYTES_MAX } from './pump.ts'
import { messageBody, type StreamBody } from './stream-body.ts'

/** What node:http counts besides names and values: the request target. More is not even read. */
const HEAD_SLACK_BYTES = 32 * 1024
/** For the head of a request, from its first byte to its last, in ms. */
const HEAD_TIMEOUT_MS = 60_000
/** Requests that may wait for their turn on a connection. */
const PIPELINED_MAX = 1000
/** What is read and dropped of a request whose answer is complete, so that its caller gets to read it, in bytes. */
const DROPPED_BYTES_MAX = 1024 * 1024
/** A body up to this size costs less as a string, which node:http writes together with the head, in bytes. */
const SHORT_BYTES_MAX = 8 * 1024

/** What is known of a connection besides what node:http knows. */
interface Connection {
  /** the call that is open on it; others wait for their turn */
  call: Http1Exchange | undefined
  waiting: number
}

const CONNECTION = Symbol('connection')

type Http1Socket = Socket & { [CONNECTION]: Connection }

/** An HTTP/1.1 server over sockets that it is handed. */
export class Http1Server {
  readonly #server: http.Server
  readonly #options: ServerOptions
  readonly #sockets = new Set<Http1Socket>()
  #retiring = false

  constructor(options: ServerOptions) {
    this.#options = options
    const headersTimeout = Math.min(HEAD_TIMEOUT_MS, options.idleTimeoutMs)
    const server = nodeHttp.createServer({
      maxHeaderSize: options.headBytesMax + HEAD_SLACK_BYTES,
      requireHostHeader: false, // it is checked here, and answered with a problem
      optimizeEmptyRequests: true,
      keepAliveTimeout: options.idleTimeoutMs,
      headersTimeout,
      connectionsCheckingInterval: Math.ceil(headersTimeout / 4),
      requestTimeout: 0, // a body may take as long as it moves
    })
    // node:http would drop what is above the limit in silence; bytes and fields are limited already.
    server.maxHeadersCount = 0
    const onRequest = (request: http.IncomingMessage, response: http.ServerResponse) =>
      this.#onRequest(request, response)
    server.on('request', onRequest)
    // Without these node:http would answer Expect itself.
    server.on('checkContinue', onRequest)
    server.on('checkExpectation', onRequest)
    server.on('connect', (request) => this.#onConnect(request.socket as Http1Socket))
    server.on('clientError', (error, socket) => this.#onUnreadable(error, socket as Http1Socket))
    server.on('timeout', (socket) => onTimeout(socket as Http1Socket))
    // Only a server that listens watches how long heads take.
    server.emit('listening')
    this.#server = server
  }

  /** Serves a connection of which nothing has been read, or what has been was put back. */
  serve(connected: Socket): void {
    const socket = connected as Http1Socket
    const connection: Connection = { call: undefined, waiting: 0 }
    socket[CONNECTION] = connection
    this.#sockets.add(socket)
    // A head that goes out before its body would be written in UTF-8, each byte above 0x7F as two.
    socket.setDefaultEncoding('latin1')
    // With bytes that are unread, node:http's way of closing would reset the connection under the last answer.
    socket.destroySoon = () => linger(socket)
    // Before node:http hears of it, which would end the connection, and with it an answer that lasts as long.
    socket.on('end', () => connection.call?.callerEnded())
    socket.on('close', () => this.#sockets.delete(socket))
    this.#server.emit('connection', socket)
    socket.resume()
  }

  /** Makes every answer that begins from now on the last of its connection, and closes those on which nothing comes. */
  retire(): void {
    this.#retiring = true
    for (const socket of this.#sockets) if (!socket[CONNECTION].call) socket.setTimeout(LEAVE_MS)
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
  }

  #onRequest(request: http.IncomingMessage, response: http.ServerResponse): void {
    // What comes after the last answer of a connection is not even looked at.
    if (!request.socket.writable) return
    if (response.socket) this.#begin(request, response)
    else this.#wait(request, response)
  }

  /** Requests that were sent without waiting are handled one after the other: they may build on each other. */
  #wait(request: http.IncomingMessage, response: http.ServerResponse): void {
    const { socket } = request
    const connection = (socket as Http1Socket)[CONNECTION]
    if (++connection.waiting > PIPELINED_MAX) {
      socket.resetAndDestroy()
      return
    }
    response.once('socket', () => {
      connection.waiting--
      this.#begin(request, response)
    })
  }

  #begin(request: http.IncomingMessage, response: http.ServerResponse): void {
    const socket = request.socket as Http1Socket
    const connection = socket[CONNECTION]
    const call = new Http1Exchange(request, response, this.#options, () => this.#retiring)
    connection.call = call
    response.on('close', () => {
      letGo(response)
      if (connection.call === call) connection.call = undefined
      call.closed()
      // Its head may have left before: who does not know that it was the last answer may be sending a call just now.
      if (this.#retiring && socket.writable) socket.setTimeout(LEAVE_MS)
    })
    call.begin()
  }

  #onConnect(socket: Http1Socket): void {
    socket.on('error', () => {})
    const { call } = socket[CONNECTION]
    const why = new SidecarError(
      'not-implemented',
      'CONNECT is not carried: call http:// URLs through the sidecar.',
    )
    if (call) call.abort(why)
    else refuse(socket, why)
  }

  /** What came in cannot be read, or did not come in time, or the connection broke. */
  #onUnreadable(error: NodeJS.ErrnoException, socket: Http1Socket): void {
    if (!socket.writable || !error.code?.startsWith('HPE_') || error.code === 'HPE_INVALID_EOF_STATE') {
      socket.destroy()
      return
    }
    const why =
      error.code === 'HPE_HEADER_OVERFLOW'
        ? new SidecarError('headers-too-large', 'The head of the request is larger than MAX_HEADER_BYTES.')
        : new SidecarError('bad-request', 'This is no HTTP/1.1 request that can be read in one way only.')
    const { call } = socket[CONNECTION]
    // What comes after the last request of a connection is ignored.
    if (call && error.code === 'HPE_CLOSED_CONNECTION') return
    if (!call) refuse(socket, why)
    else if (call.unreadable(why)) refuse(socket, why)
  }
}

/** What tells the end of an answer. */
interface Framing {
  /** does it end with its head? */
  bodyless: boolean
  /** are there trailers? */
  trailers: boolean
  /** in bytes, where it is known */
  length: number | undefined
}

/** A call over HTTP/1.1. */
class Http1Exchange extends Exchange {
  readonly #request: http.IncomingMessage
  readonly #response: http.ServerResponse
  readonly #options: ServerOptions
  readonly #retiring: () => boolean
  #body: StreamBody | undefined

  constructor(
    request: http.IncomingMessage,
    response: http.ServerResponse,
    options: ServerOptions,
    retiring: () => boolean,
  ) {
    super(options)
    this.#request = request
    this.#response = response
    this.#options = options
    this.#retiring = retiring
  }

  begin(): void {
    const request = this.#request
    const { socket } = request
    let read: Http1Head
    try {
      read = readHttp1Head(request, this.#options.headBytesMax)
    } catch (error) {
      this.finish()
      // Once the parser is done with what it has at hand.
      process.nextTick(() => refuse(socket, asSidecarError(error)))
      return
    }
    const { head, hasBody, absoluteForm } = read
    if (hasBody) this.#body = messageBody(request, this)
    const arrival = { request: { head, body: this.#body ?? NO_BODY }, caller: this, absoluteForm, socket }
    // A short body that came with its head is there in a moment, and can be taken as a whole.
    if (hasBody) process.nextTick(() => this.handle(arrival))
    else this.handle(arrival)
  }

  protected writeInterim({ status, fields }: ResponseHead): void {
    const response = this.#response
    const { socket } = response
    if (!socket?.writable || this.#request.httpVersionMinor === 0) return
    // node:http has to know of this one: else it would close the connection after the answer.
    if (status === 100) {
      response.writeContinue()
      return
    }
    let text = `HTTP/1.1 ${status} ${nodeHttp.STATUS_CODES[status] ?? 'Interim'}\r\n`
    for (let i = 0; i < fields.length; i += 2) text += `${fields[i]}: ${fields[i + 1]}\r\n`
    socket.write(`${text}\r\n`, 'latin1')
  }

  /**
   * What came in cannot be read.
   * @returns may the connection be answered with that? Not when that would get in between an answer.
   */
  unreadable(why: SidecarError): boolean {
    const answerable = !this.#request.complete && !this.answering
    if (answerable) this.gone(why)
    else this.abort(why)
    return answerable
  }

  /** The caller closed its side: as a rule the whole connection, and it does not wait for an answer any more. */
  callerEnded(): void {
    if (!this.#response.writableEnded) this.abort(callerGone())
  }

  closed(): void {
    if (this.#response.writableFinished) this.finish()
    else this.gone(callerGone())
  }

  protected get answering(): boolean {
    return this.#response.headersSent
  }

  protected reset(): void {
    // A FIN would be a clean end of a body that lasts until the connection ends.
    this.#request.socket.resetAndDestroy()
  }

  protected write({ head, body }: Answer): Promise<void> | undefined {
    const { status } = head
    const bodyless = isBodyless(this.#request.method!, status)
    const length = contentLength(head.fields)
    const whole = body.whole(WHOLE_BYTES_MAX)
    if (whole === undefined) {
      if (bodyless || length === 0) return this.#writeEmpty(head, bodyless, body)
      return this.#writeStream(head, length, body)
    }
    if (!bodyless && length !== undefined && length !== whole.length) throw lengthDiffers()
    this.#writeHead(head, { bodyless, trailers: body.trailers.length > 0, length: whole.length })
    this.#end(whole, body.trailers)
    return undefined
  }

  async #writeEmpty(head: ResponseHead, bodyless: boolean, body: Body): Promise<void> {
    await expectEnd(body)
    if (this.over) return
    this.#writeHead(head, { bodyless, trailers: body.trailers.length > 0, length: 0 })
    this.#end(undefined, body.trailers)
  }

  async #writeStream(head: ResponseHead, length: number | undefined, body: Body): Promise<void> {
    this.#writeHead(head, { bodyless: false, trailers: false, length: undefined })
    // Now, and not with the first piece: that of an event stream may be long in coming.
    this.#response.flushHeaders()
    const last = await pump(body, this.#response, length, this)
    if (!this.over) this.#end(last, body.trailers)
  }

  #writeHead({ status, fields }: ResponseHead, { bodyless, trailers, length }: Framing): void {
    if (trailers || field(fields, 'trailer') !== undefined) {
      // Trailers need chunks: node:http refuses to announce them where there are none.
      const chunked = !bodyless && this.#request.httpVersionMinor > 0
      fields = withoutFields(fields, (name) => name === (chunked ? 'content-length' : 'trailer'))
    } else if (length !== undefined && !bodyless && field(fields, 'content-length') === undefined) {
      fields = [...fields, 'content-length', String(length)]
    }
    fields = asNodeWritesThem(fields)
    if (this.#retiring()) fields = [...fields, 'connection', 'close']
    this.#response.writeHead(status, fields)
  }

  #end(last: Buffer | undefined, trailers: Fields): void {
    if (trailers.length > 0) {
      const pairs: [string, string][] = []
      for (let i = 0; i < trailers.length; i += 2) pairs.push([trailers[i]!, trailers[i + 1]!])
      this.#response.addTrailers(pairs)
    }
    if (this.#body && !this.#request.complete) this.#dropRest(this.#body)
    // In one write with the head, and one system call less than with two.
    if (last && last.length <= SHORT_BYTES_MAX) this.#response.end(last.toString('latin1'), 'latin1')
    else this.#response.end(last)
  }

  /**
   * The answer is complete before the request is. Reads on, so that the caller gets to read the answer and the
   * connection can be used again; not for long, and then ends the connection.
   */
  #dropRest(body: StreamBody): void {
    const request = this.#request
    body.fail(new SidecarError('caller-gone', 'The answer was complete before the request was.'))
    const end = () => linger(request.socket)
    let left = DROPPED_BYTES_MAX
    request.on('data', (piece: Buffer) => {
      left -= piece.length
      if (left > 0) return
      request.pause()
      if (this.over) end()
      else this.#response.once('close', end)
    })
    request.resume()
  }
}

function callerGone(): SidecarError {
  return new SidecarError('caller-gone', 'The caller closed its connection.')
}

/** Answers a connection for the last time. */
function refuse(socket: Socket, error: SidecarError): void {
  if (!socket.writable) return
  const { head, body } = problem(error)
  let text = `HTTP/1.1 ${head.status} ${nodeHttp.STATUS_CODES[head.status]}\r\nconnection: close\r\n`
  for (let i = 0; i < head.fields.length; i += 2) text += `${head.fields[i]}: ${head.fields[i + 1]}\r\n`
  socket.write(Buffer.concat([Buffer.from(`${text}\r\n`, 'latin1'), body.whole(WHOLE_BYTES_MAX)!]))
  linger(socket)
}

/** Nothing came on a connection for long. */
function onTimeout(socket: Http1Socket): void {
  if (!socket.writable) socket.destroy()
  // How long calls may take is not told by their connection.
  else if (!socket[CONNECTION].call) linger(socket)
}

/**
 * Ends a connection, and lets the other side read what it was sent: what still comes is dropped, unparsed, as closing
 * on it would reset the connection. Not without bound: then it is left unread, until it is closed as all that end are.
 */
function linger(socket: Socket): void {
  if (!socket.writable) return
  socket.end()
  socket.removeAllListeners('data')
  let left = DROPPED_BYTES_MAX
  socket.on('data', (bytes: Buffer) => {
    left -= bytes.length
    if (left < 0) socket.pause()
  })
  socket.resume()
}
