import type { Socket } from 'node:net'
import type { Fields } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { LEAVE_MS, type ServerOptions } from './exchange.ts'
import { type CallConnection, Http1Exchange, writeRefusal } from './http1-exchange.ts'
import { readHttp1Head } from './http1-head.ts'
import { Http1Error, type Http1RequestHead, Http1RequestReader, type Http1Sink } from './http1-reader.ts'
import { READ_AHEAD_BYTES_MAX } from './stream-body.ts'

/** For the head of a request, from its first byte to its last, in ms. */
const HEAD_TIMEOUT_MS = 60_000
/** The connections are looked at so often while a time-out passes: one is ended at most a quarter later than it says. */
const SWEEPS_PER_TIMEOUT = 4
/** What is read and dropped of a request whose answer is complete, so that its caller gets to read it, in bytes. */
const DROPPED_BYTES_MAX = 1024 * 1024

/** An HTTP/1.1 server over sockets that it is handed. */
export class Http1Server {
  readonly #options: ServerOptions
  readonly #connections = new Set<Connection>()
  #timer: NodeJS.Timeout | undefined
  #retiring = false

  constructor(options: ServerOptions) {
    this.#options = options
  }

  /** Is every answer that begins from now on the last of its connection? */
  get isRetiring(): boolean {
    return this.#retiring
  }

  /** Serves a connection, of which the first bytes may have been read. */
  serve(socket: Socket, seen: Buffer): void {
    const connection = new Connection(socket, this.#options, this)
    this.#connections.add(connection)
    socket.on('close', () => this.#connections.delete(connection))
    this.#timer ??= this.#sweeping()
    connection.read(seen)
  }

  /** Makes every answer that begins from now on the last of its connection, and closes those on which nothing comes. */
  retire(): void {
    this.#retiring = true
    clearInterval(this.#timer)
    this.#timer = this.#sweeping()
    for (const connection of this.#connections) connection.touch()
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy()
  }

  /** A clock for all connections costs less than a timer each. */
  #sweeping(): NodeJS.Timeout {
    const idleMs = this.#retiring ? LEAVE_MS : this.#options.idleTimeoutMs
    const sweepMs = Math.ceil(Math.min(idleMs, HEAD_TIMEOUT_MS) / SWEEPS_PER_TIMEOUT)
    const idleSweepsMax = Math.ceil(idleMs / sweepMs)
    const headSweepsMax = Math.ceil(Math.min(this.#options.idleTimeoutMs, HEAD_TIMEOUT_MS) / sweepMs)
    return setInterval(() => this.#sweep(idleSweepsMax, headSweepsMax), sweepMs).unref()
  }

  #sweep(idleSweepsMax: number, headSweepsMax: number): void {
    for (const connection of this.#connections) connection.sweep(idleSweepsMax, headSweepsMax)
    if (this.#connections.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

/** Where a connection is in what its client sends. */
type Stage =
  /** between two requests, or in the head of one */
  | 'head'
  /** in the body of a request */
  | 'body'
  /** behind a request whose answer is not complete: what has come already waits, unread */
  | 'behind'
  /** nothing more is read of it */
  | 'over'

/** A connection of a client: reads one request after the other, each once the one before has its answer. */
class Connection implements CallConnection, Http1Sink<Http1RequestHead> {
  readonly socket: Socket
  readonly options: ServerOptions
  readonly #server: Http1Server
  readonly #reader: Http1RequestReader
  #stage: Stage = 'head'
  /** the call whose answer is not complete */
  #call: Http1Exchange | undefined
  /** has that just been read, and not been handled yet? */
  #arrived = false
  #paused = false
  /** bytes of a request whose answer is complete, and of what comes behind the end */
  #dropped = 0
  /** sweeps since something came last, while there is no call */
  #idleSweeps = 0
  /** sweeps since a head began */
  #headSweeps = 0

  constructor(socket: Socket, options: ServerOptions, server: Http1Server) {
    this.socket = socket
    this.options = options
    this.#server = server
    this.#reader = new Http1RequestReader(this, options)
    socket.on('data', (bytes: Buffer) => this.read(bytes))
    socket.on('end', () => this.#onFin())
    socket.on('error', ignore)
    socket.on('close', () => this.#call?.closed())
  }

  /** Takes what came. */
  read(bytes: Buffer): void {
    if (this.#stage === 'over') {
      this.#drop(bytes)
      return
    }
    try {
      this.#reader.push(bytes)
      this.#afterRead()
    } catch (error) {
      this.#unreadable(error)
    }
  }

  onHead(read: Http1RequestHead): void {
    try {
      const { head, absoluteForm } = readHttp1Head(read, this.options.headBytesMax)
      this.#call = new Http1Exchange(this, read, head, absoluteForm)
    } catch (error) {
      if (!(error instanceof SidecarError)) throw error
      this.#refuse(error)
      return
    }
    this.#stage = 'body'
    this.#headSweeps = 0
    this.#arrived = true
  }

  onBody(piece: Buffer): void {
    if (!this.#call?.take(piece)) this.#drop(piece)
  }

  onEnd(trailers: Fields): void {
    this.#stage = 'behind'
    this.#call?.body?.end(trailers)
  }

  get isRetiring(): boolean {
    return this.#server.isRetiring
  }

  get inRequest(): boolean {
    return this.#stage === 'body'
  }

  readonly flow = (): void => {
    const isFull =
      this.#dropped > DROPPED_BYTES_MAX ||
      (this.#stage === 'behind' && this.#reader.buffered) ||
      (this.#stage === 'body' && this.#heldBytes >= READ_AHEAD_BYTES_MAX)
    if (isFull === this.#paused) return
    this.#paused = isFull
    if (isFull) this.socket.pause()
    else this.socket.resume()
  }

  get #heldBytes(): number {
    return this.#call?.body?.heldBytes ?? 0
  }

  answered(isLast: boolean): void {
    this.#call = undefined
    this.touch()
    if (isLast || this.#dropped > DROPPED_BYTES_MAX) this.end()
    else if (this.#stage === 'behind') this.#readNext()
  }

  /** Answers for the last time: nothing of what came can be handled, or nothing more. */
  #refuse(why: SidecarError): void {
    writeRefusal(this.socket, why)
    this.end()
  }

  /**
   * Ends the connection, and lets the other side read what it was sent: what still comes is dropped, unparsed, as closing
   * on it would reset the connection. Not without bound: then it is left unread, until it is closed as all that end are.
   */
  end(): void {
    if (this.#stage === 'over') return
    this.#stage = 'over'
    this.#dropped = 0
    this.#reader.stop()
    this.socket.end()
    this.flow()
  }

  destroy(): void {
    this.socket.destroy()
  }

  /** Something came, or is waited for from now on. */
  touch(): void {
    this.#idleSweeps = 0
  }

  /** Ends the connection if it has no call, and nothing came for too many sweeps, or no whole head. */
  sweep(idleSweepsMax: number, headSweepsMax: number): void {
    // How long calls may take is not told by their connection.
    if (this.#call || this.#stage === 'over') return
    if (this.#stage === 'head' && this.#reader.midMessage && ++this.#headSweeps > headSweepsMax)
      this.socket.destroy()
    else if (++this.#idleSweeps > idleSweepsMax) this.end()
  }

  #readNext(): void {
    this.#stage = 'head'
    this.#dropped = 0
    try {
      this.#reader.next()
      this.#afterRead()
    } catch (error) {
      this.#unreadable(error)
    }
  }

  #afterRead(): void {
    if (this.#arrived) {
      this.#arrived = false
      this.#call?.begin()
    } else if (!this.#call) {
      this.touch()
      // Of a request whose answer was complete before it was.
      if (this.#stage === 'behind') {
        this.#readNext()
        return
      }
    }
    this.flow()
  }

  #drop(bytes: Buffer): void {
    this.#dropped += bytes.length
    if (this.#dropped <= DROPPED_BYTES_MAX) return
    if (!this.#call) this.end()
    this.flow()
  }

  #unreadable(error: unknown): void {
    if (!(error instanceof Http1Error)) {
      this.options.onFault(error)
      this.socket.destroy()
      return
    }
    const why =
      error.kind === 'too-large'
        ? new SidecarError('headers-too-large', 'The head of the request is larger than MAX_HEADER_BYTES.')
        : new SidecarError('bad-request', 'This is no HTTP/1.1 request that can be read in one way only.')
    const call = this.#call
    // An answer that has begun is not to be mixed with another, one that is complete not to be followed by one.
    if (call?.unreadable(why) ?? this.#stage === 'head') this.#refuse(why)
    else if (!call) this.end()
  }

  /** The caller closed its side: as a rule the whole connection, and it does not wait for an answer any more. */
  #onFin(): void {
    if (this.#stage === 'over') return
    this.#call?.callerEnded()
    if (!this.#call && this.#reader.midMessage) this.socket.destroy()
    else this.end()
  }
}

function ignore(): void {}
