import type { IncomingMessage } from 'node:http'
import type { Http2Stream } from 'node:http2'
import { Readable } from 'node:stream'
import type { Fields } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { PushedBody } from '../pushed-body.ts'
import { fieldsFromRaw } from './fields.ts'

/** How much is read ahead of whoever consumes before the stream is paused, in bytes. */
export const READ_AHEAD_BYTES_MAX = 128 * 1024

/** Times a body: `touch` after every sign of life. */
export interface Alive {
  touch(): void
}

/** The body of a call as it arrives on a stream of node:http or node:http2, which is paused while too much is held. */
export abstract class StreamBody extends PushedBody {
  readonly #stream: Readable
  readonly #alive: Alive | undefined
  #attached = false

  constructor(stream: Readable, alive?: Alive) {
    super()
    this.#stream = stream
    this.#alive = alive
    this.onTaken = () => {
      if (this.heldBytes < READ_AHEAD_BYTES_MAX && stream.isPaused()) stream.resume()
    }
  }

  /** Has everything arrived, up to the clean end? */
  protected abstract arrived(): boolean

  /** Asked once the stream has ended: was it the clean end, and no reset? */
  protected abstract endedCleanly(): boolean

  /** The trailers, once everything has arrived. */
  protected abstract arrivedTrailers(): Fields

  override read(): Promise<Buffer | undefined> {
    if (!this.#attached) this.#attach()
    return super.read()
  }

  override whole(limit: number): Buffer | undefined {
    const stream = this.#stream
    if (this.#attached || !this.isOpen || !this.arrived() || stream.readableLength > limit) return undefined
    this.#attached = true
    const pieces: Buffer[] = []
    // One read may give all of it or a piece, which differs between versions of Node.
    for (let piece = stream.read(); piece !== null; piece = stream.read()) pieces.push(piece)
    // Reading past the end lets the stream end, which gives its connection back.
    stream.resume()
    this.end(this.arrivedTrailers())
    return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces)
  }

  #attach(): void {
    this.#attached = true
    const stream = this.#stream
    stream.on('data', (piece: Buffer) => {
      this.#alive?.touch()
      this.push(piece)
      if (this.heldBytes >= READ_AHEAD_BYTES_MAX) stream.pause()
    })
    stream.on('end', () => {
      // HTTP/2 streams that were reset end too: only a complete one may end here.
      if (this.endedCleanly()) this.end(this.arrivedTrailers())
      else this.fail(cutOff())
    })
    const onOver = () => this.fail(cutOff())
    stream.on('error', onOver)
    stream.on('close', onOver)
    if (stream.readableEnded && this.endedCleanly()) this.end(this.arrivedTrailers())
    else if (stream.destroyed) this.fail(cutOff())
  }
}

/** What is told of a body that is over before its end. */
export function cutOff(): SidecarError {
  return new SidecarError('message-truncated', 'The body was cut off before its end.')
}

/** The body of a response of node:http. */
export function messageBody(message: IncomingMessage): StreamBody {
  return new MessageBody(message)
}

/** The body that arrives on a stream of node:http2, from before anything of it is read. */
export function http2Body(stream: Http2Stream, alive?: Alive): StreamBody {
  return new Http2Body(stream, alive)
}

class MessageBody extends StreamBody {
  readonly #message: IncomingMessage

  constructor(message: IncomingMessage) {
    super(message)
    this.#message = message
  }

  protected override arrived(): boolean {
    return this.#message.complete
  }

  protected override endedCleanly(): boolean {
    return this.#message.complete
  }

  protected override arrivedTrailers(): Fields {
    const { rawTrailers } = this.#message
    return rawTrailers.length === 0 ? this.trailers : fieldsFromRaw(rawTrailers)
  }
}

/**
 * A stream of node:http2 ends in the same way whether its end came (END_STREAM) or it was reset without an error
 * (RST_STREAM with NO_ERROR). Only the former is pushed while the stream is open.
 */
class Http2Body extends StreamBody {
  readonly #stream: Http2Stream
  #arrived: boolean
  #rawTrailers: string[] | undefined

  constructor(stream: Http2Stream, alive: Alive | undefined) {
    super(stream, alive)
    this.#stream = stream
    // All of it may have been there before this is. To ask for the state is slow.
    this.#arrived = stream.readableLength > 0 && !stream.closed && stream.state.remoteClose === 1
    stream.push = (piece: unknown, encoding?: BufferEncoding) => {
      if (piece === null && !stream.closed) this.#arrived = true
      return Readable.prototype.push.call(stream, piece, encoding)
    }
    stream.on('trailers', (_headers, _flags, raw: string[]) => {
      this.#rawTrailers = raw
    })
  }

  protected override arrived(): boolean {
    return this.#arrived
  }

  protected override endedCleanly(): boolean {
    return this.#arrived || !this.#stream.closed
  }

  protected override arrivedTrailers(): Fields {
    return this.#rawTrailers ? fieldsFromRaw(this.#rawTrailers) : this.trailers
  }
}
