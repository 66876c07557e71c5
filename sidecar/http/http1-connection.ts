import net, { type Socket } from 'node:net'
import tls, { type ConnectionOptions } from 'node:tls'
import type { Fields } from '../call.ts'
import { PushedBody } from '../pushed-body.ts'
import { type Http1ResponseHead, Http1ResponseReader, type Http1Sink } from './http1-reader.ts'
import { writeTogether } from './http1-writer.ts'
import { cutOff } from './stream-body.ts'

/** What a connection carries, one at a time: a request, and the answer to it. */
export interface Carried {
  readonly method: string
  /** The request may be written, from now on. */
  onConnected(): void
  /** Every byte of the request has left. */
  onWritten(): void
  onInterim(head: Http1ResponseHead): void
  onAnswer(head: Http1ResponseHead, body: PushedBody): void
  /** The answer is complete, before every byte of the request has left. */
  onEarlyEnd(): void
  /** Request and answer are complete: the connection is another's now. */
  onReleased(): void
  /**
   * The connection broke, or closed, before the end of the answer or of the request. Of an answer that has begun
   * the body has failed already.
   * @param cause Http1Error where the answer is none that can be read
   */
  onBroken(cause: Error | undefined): void
  /** It has waited for longer than it said. */
  onOverdue(): void
}

/** Whoever looks after connections from time to time, and keeps them from one call to the next. */
export interface Keeper {
  /** @returns the sweep by which as many milliseconds have passed */
  sweepAfter(ms: number): number
  /** The connection is idle, and may be taken for another call. */
  keep(connection: Http1Connection): void
  /** The connection has closed. */
  closed(connection: Http1Connection): void
}

/** Idle connections are closed before the usual server's five seconds are over, so that few calls meet a closing one. */
const IDLE_MS_MAX = 4000
/** So much earlier than a server says that it closes an idle connection it is closed from here, in ms. */
const IDLE_MARGIN_MS = 1000
/** How much of an answer is held for whoever reads it before the connection is paused, in bytes. */
const HELD_BYTES_MAX = 128 * 1024

/** All connections read into this one: what is read has been dealt with, or copied, before the next read. */
const READ_BUFFER = Buffer.allocUnsafeSlow(64 * 1024)

/** A connection to an origin over which calls are carried, one after the other (RFC 9112 section 9.3). */
export class Http1Connection implements Http1Sink<Http1ResponseHead> {
  readonly socket: Socket
  /** the sweep of its keeper in which it has waited for too long; 0: it waits for nothing */
  dueAt = 0
  readonly #keeper: Keeper
  readonly #secure: boolean
  readonly #reader: Http1ResponseReader
  readonly #onWritten: () => void
  readonly #onTaken: () => void
  #carried: Carried | undefined = undefined
  #body: PushedBody | undefined = undefined
  #connected = false
  /** Has every byte of the request left? */
  #written = false
  /** Has all of the answer arrived? */
  #ended = false
  #paused = false
  /** may it be kept, as far as the answer says */
  #keepAlive = false
  /** what the last answer's Keep-Alive said, and for how long it is kept idle by that */
  #promise = ''
  #idleMs = IDLE_MS_MAX
  #cause: Error | undefined = undefined

  /**
   * Connects at once.
   * @param to for node:tls where it is secure, else for node:net
   */
  constructor(keeper: Keeper, to: ConnectionOptions, secure: boolean, headBytesMax: number) {
    this.#keeper = keeper
    this.#secure = secure
    this.#reader = new Http1ResponseReader(this, { headBytesMax })
    this.#onWritten = () => this.#requestWritten()
    this.#onTaken = () => this.#resume()
    const options = {
      ...to,
      onread: { buffer: READ_BUFFER, callback: (bytes: number) => this.#onBytes(bytes) },
    }
    const socket = secure ? tls.connect(options) : net.connect(options as net.TcpNetConnectOpts)
    this.socket = socket
    socket.on(secure ? 'secureConnect' : 'connect', () => this.#onConnect())
    socket.on('end', () => this.#onFin())
    socket.on('error', (error) => {
      this.#cause = error
    })
    socket.on('close', () => {
      keeper.closed(this)
      this.#break(this.#cause)
    })
  }

  get connected(): boolean {
    return this.#connected
  }

  /** Carries a call, which waits until it is connected. Nothing may be carried already. */
  carry(carried: Carried): void {
    this.#carried = carried
    this.#written = false
    this.#ended = false
    this.#reader.next(carried.method)
    if (this.#connected) {
      this.dueAt = 0
      carried.onConnected()
    }
  }

  /** The call waits from now on for something that must happen within a time. */
  wait(ms: number): void {
    this.dueAt = this.#keeper.sweepAfter(ms)
  }

  /** Writes the end of the request: bytes, and the text around them, which is in Latin-1. */
  end(before: string, bytes?: Buffer, after = ''): void {
    if (bytes) writeTogether(this.socket, before, bytes, after, this.#onWritten)
    else this.socket.write(before + after, 'latin1', this.#onWritten)
  }

  /** Gives up the call that is carried, such that the other side cannot take its request for complete. */
  abort(): void {
    this.#carried = undefined
    this.#body = undefined
    this.#reader.stop()
    // Over TLS whatever is not ended stays incomplete.
    if (this.#connected && !this.#written && !this.#secure && !this.socket.destroyed) {
      this.socket.resetAndDestroy()
    } else this.socket.destroy()
  }

  /** It has waited for too long: for its call, or for one. */
  overdue(): void {
    this.dueAt = 0
    if (this.#carried) this.#carried.onOverdue()
    else this.socket.destroy()
  }

  onHead(head: Http1ResponseHead): void {
    const carried = this.#carried!
    if (head.status < 200) {
      carried.onInterim(head)
      return
    }
    this.dueAt = 0
    this.#keepAlive = head.keepAlive && this.#mayIdle(head.raw)
    this.#body = new PushedBody()
    carried.onAnswer(head, this.#body)
  }

  onBody(piece: Buffer): void {
    const body = this.#body!
    body.push(Buffer.from(piece))
    if (body.heldBytes < HELD_BYTES_MAX || this.#paused) return
    this.#paused = true
    body.onTaken = this.#onTaken
    this.socket.pause()
  }

  onEnd(trailers: Fields): void {
    this.#ended = true
    this.#body!.end(trailers)
    if (!this.#written) this.#carried!.onEarlyEnd()
  }

  #onConnect(): void {
    this.#connected = true
    this.dueAt = 0
    this.socket.setNoDelay(true)
    this.#carried?.onConnected()
  }

  /** @returns go on reading; what paused it has said so itself */
  #onBytes(bytes: number): boolean {
    try {
      // It throws for what comes unasked, too: that is nobody's answer.
      this.#reader.push(READ_BUFFER.subarray(0, bytes))
    } catch (error) {
      this.#break(error as Error)
    }
    if (this.#ended) this.#release()
    return true
  }

  /** Nothing more will come. */
  #onFin(): void {
    if (this.#carried && !this.#ended) {
      try {
        this.#reader.finish()
      } catch {
        // It ended before its answer did, like a connection that breaks.
        this.#break(undefined)
      }
    }
    this.socket.destroy()
    if (this.#ended) this.#release()
  }

  #requestWritten(): void {
    if (!this.#carried || this.socket.destroyed) return
    this.#written = true
    this.#carried.onWritten()
    if (this.#ended) this.#release()
  }

  /** The answer is complete; once the request is too, another call may have the connection. */
  #release(): void {
    const carried = this.#carried
    if (!carried || !this.#written) return
    this.#carried = undefined
    this.#body = undefined
    carried.onReleased()
    if (!this.#keepAlive || this.#reader.buffered || this.socket.destroyed) this.socket.destroy()
    else {
      this.#resume()
      this.wait(this.#idleMs)
      this.#keeper.keep(this)
    }
  }

  #break(cause: Error | undefined): void {
    const carried = this.#carried
    const body = this.#body
    this.#carried = undefined
    this.#body = undefined
    this.socket.destroy()
    body?.fail(cutOff())
    carried?.onBroken(cause)
  }

  #resume(): void {
    if (!this.#paused || (this.#body && this.#body.heldBytes >= HELD_BYTES_MAX)) return
    this.#paused = false
    this.socket.resume()
  }

  /** Takes from Keep-Alive for how long the server keeps the connection. @returns may it be idle at all? */
  #mayIdle(raw: readonly string[]): boolean {
    let promise = ''
    for (let i = 0; i < raw.length; i += 2) {
      if (raw[i] !== 'keep-alive') continue
      promise = raw[i + 1]!
      break
    }
    if (promise !== this.#promise) {
      const seconds = /^timeout=([0-9]+)/.exec(promise)?.[1]
      this.#promise = promise
      this.#idleMs =
        seconds === undefined ? IDLE_MS_MAX : Math.min(IDLE_MS_MAX, Number(seconds) * 1000 - IDLE_MARGIN_MS)
    }
    return this.#idleMs > 0
  }
}
