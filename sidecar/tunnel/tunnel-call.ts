import { type Body, type Fields, NO_BODY } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { checkTrailers, HeadError } from '../http/fields.ts'
import { lengthDiffers, WHOLE_BYTES_MAX } from '../http/pump.ts'
import { TunnelError } from '../pair/tunnel-error.ts'
import {
  CREDIT_MAX,
  creditFrame,
  FRAME_HEADER_BYTES,
  RESETS,
  readTrailers,
  resetFrame,
  trailersFrame,
  writeData,
} from '../pair/tunnel-frames.ts'
import { PushedBody } from '../pushed-body.ts'
import type { Coding, Counts } from '../telemetry/coding.ts'
import type { Budget } from './budget.ts'

/** What a call may send before it gets more credit, and what it may have under way while its app keeps up, in bytes. */
export const CREDIT_BYTES = 64 * 1024
const CREDIT_BYTES_MAX = 1024 * 1024
/** Of one call, before others have their turn, in bytes. */
export const TURN_BYTES = 16 * 1024

/** What a call sends by. */
export interface Link {
  readonly budget: Budget
  readonly headBytesMax: number
  /** A head, or trailers, to go out with the next record. */
  write(frame: string): void
  /** Any other frame but DATA, likewise. */
  writeControl(frame: string): void
  /** The call has something for `writeTurn` to write. */
  queue(call: TunnelCall): void
  /** Both directions of the call have ended, or it was reset. */
  onOver(call: TunnelCall): void
}

/** What went one way of a call. */
class FrameCounts implements Counts {
  plaintextBytes = 0
  messageBytes = 0
  chunks = 0

  add(payloadBytes: number): void {
    this.plaintextBytes += payloadBytes
    this.messageBytes += payloadBytes + FRAME_HEADER_BYTES
    this.chunks++
  }
}

/** One call in a tunnel, as one of its ends sees it: what it sends, and what it gets. */
export abstract class TunnelCall {
  readonly number: number
  readonly sent = new FrameCounts()
  readonly received = new FrameCounts()
  protected readonly link: Link
  /** what comes in behind a head; undefined where its head was all */
  protected incoming: PushedBody | undefined
  /** reset, or ended both ways */
  #over = false
  #encoding: Coding | undefined
  #decoding: Coding | undefined

  #sentHead = false
  #sentAll = false
  #credit: number
  /** what is to be sent next, and how much of it has been */
  #piece: Buffer | undefined
  #pieceAt = 0
  #pieceEnds = false
  #queued = false
  /** told that the piece has been sent, or never will be */
  #onSent: (() => void) | undefined
  #wantsNoMore = false

  /** Has the other end's head come, and has all come? */
  protected headReceived = false
  #receivedAll = false
  /** of the body that is announced, where it is */
  #leftBytes = Number.POSITIVE_INFINITY
  /** what the other end may still send */
  #granted = CREDIT_BYTES
  /** what it may have under way */
  #window = CREDIT_BYTES
  #taken = 0

  /** @param credit that the call may send without being given more, in bytes */
  constructor(number: number, credit: number, link: Link) {
    this.number = number
    this.#credit = credit
    this.link = link
  }

  get isOver(): boolean {
    return this.#over
  }

  get hasReceivedAll(): boolean {
    return this.#receivedAll
  }

  protected get hasSentHead(): boolean {
    return this.#sentHead
  }

  get hasSentAll(): boolean {
    return this.#sentAll
  }

  /** @param coding told of the size of what is sent, and of its end */
  encodedBy(coding: Coding): void {
    coding.of(this.sent)
    if (this.#sentAll) coding.end()
    else this.#encoding = coding
  }

  /** @param coding told of the size of what is received, and of its end */
  decodedBy(coding: Coding): void {
    coding.of(this.received)
    if (this.#receivedAll) coding.end()
    else this.#decoding = coding
  }

  /** Makes the frame of the head. @param end is there nothing behind it? */
  protected abstract headFrame(end: boolean): string
  /** Something of the call went one way or the other. */
  protected abstract touch(): void
  /**
   * The call is over before its end: by the other end, or by what it sent.
   * @param code of RESETS
   */
  protected abstract onReset(code: number): void
  /** The request or the answer has come to its end. */
  protected abstract onReceivedAll(): void

  /**
   * Sends a head, and then a body.
   * @param length that the head announces
   * @returns a promise where the body is still to come; it rejects as the body does, or if that is none to be sent
   */
  protected send(body: Body, length: number | undefined): Promise<void> | undefined {
    const whole = body.whole(WHOLE_BYTES_MAX)
    if (whole === undefined) {
      this.#sendHead(this.headFrame(false))
      return this.#sendStream(body, length)
    }
    if (length !== undefined && whole.length !== length) throw lengthDiffers()
    const { trailers } = body
    const isAll = whole.length === 0 && trailers.length === 0
    this.#sendHead(this.headFrame(isAll))
    if (isAll) this.#onSentAll()
    else if (whole.length === 0) this.#sendTrailers(trailers)
    else if (trailers.length === 0) this.#sendPiece(whole, true)
    else this.#sendPiece(whole, false, () => this.#sendTrailers(trailers))
    return undefined
  }

  #sendHead(frame: string): void {
    this.#sentHead = true
    this.sent.add(frame.length - FRAME_HEADER_BYTES)
    this.link.write(frame)
  }

  async #sendStream(body: Body, length: number | undefined): Promise<void> {
    let left = length ?? Number.POSITIVE_INFINITY
    for (;;) {
      const piece = await body.read()
      if (this.#over) return
      if (piece === undefined) {
        if (length !== undefined && left > 0) throw lengthDiffers()
        if (this.#sentAll) return
        if (body.trailers.length > 0) this.#sendTrailers(body.trailers)
        else this.#sendPiece(NOTHING, true)
        return
      }
      if (piece.length === 0) continue
      left -= piece.length
      if (left < 0) throw lengthDiffers()
      if (left === 0) {
        // What completes the message is held back until its end is certain.
        if ((await body.read()) !== undefined) throw lengthDiffers()
        if (this.#over) return
        if (body.trailers.length === 0) return this.#sendPiece(piece, true)
      }
      await new Promise<void>((resolve) => this.#sendPiece(piece, false, resolve))
      if (this.#over) return
      if (left === 0) return this.#sendTrailers(body.trailers)
    }
  }

  #sendTrailers(trailers: Fields): void {
    if (this.#over) return
    const frame = trailersFrame(this.number, trailers)
    this.sent.add(frame.length - FRAME_HEADER_BYTES)
    this.link.write(frame)
    this.#onSentAll()
  }

  #sendPiece(piece: Buffer, ends: boolean, onSent?: () => void): void {
    this.#piece = piece
    this.#pieceAt = 0
    this.#pieceEnds = ends
    this.#onSent = onSent
    this.#queue()
  }

  #queue(): void {
    if (this.#queued || !this.#piece || (this.#credit === 0 && this.#piece.length > 0)) return
    this.#queued = true
    this.link.queue(this)
  }

  /**
   * Writes as much of the body as may go out now, and queues the call again if there is more.
   * @param max in bytes, at most DATA_BYTES_MAX
   * @returns where it ends
   */
  writeTurn(into: Buffer, at: number, max: number): number {
    this.#queued = false
    const piece = this.#piece
    if (!piece) return at
    const left = piece.length - this.#pieceAt
    const bytes = Math.min(left, this.#credit, max)
    const isLast = bytes === left
    const ends = isLast && this.#pieceEnds
    const part = bytes === piece.length ? piece : piece.subarray(this.#pieceAt, this.#pieceAt + bytes)
    const end = writeData(into, at, this.number, part, ends)
    this.sent.add(bytes)
    this.#credit -= bytes
    this.#pieceAt += bytes
    this.touch()
    if (isLast) {
      this.#piece = undefined
      if (ends) this.#onSentAll()
      this.#settleSent()
    } else this.#queue()
    return end
  }

  #settleSent(): void {
    const onSent = this.#onSent
    this.#onSent = undefined
    onSent?.()
  }

  #onSentAll(): void {
    this.#sentAll = true
    this.#encoding?.end()
    this.#encoding = undefined
    if (this.#receivedAll) this.#end()
    else if (this.#wantsNoMore) this.reset(RESETS.cancelled)
  }

  /** Whatever still comes is not wanted: resets the call as soon as all of it has been sent. */
  protected wantNoMore(): void {
    if (this.#sentAll) this.reset(RESETS.cancelled)
    else this.#wantsNoMore = true
  }

  /** The call is over, in the middle if it has not ended; tells the other end. */
  reset(code: number): void {
    if (this.#over) return
    this.link.writeControl(resetFrame(this.number, code))
    this.#end()
  }

  /** The call is over, and nobody is told. */
  drop(): void {
    if (!this.#over) this.#end()
  }

  #end(): void {
    this.#over = true
    this.#piece = undefined
    if (this.#window > CREDIT_BYTES) this.link.budget.give(this.#window - CREDIT_BYTES)
    this.#window = CREDIT_BYTES
    this.#settleSent()
    this.link.onOver(this)
  }

  /**
   * A head has come; a body follows, unless `end`.
   * @param payloadBytes of its frame
   * @param length that it announces; 0 where there may be no body
   */
  protected receiveHead(payloadBytes: number, end: boolean, length: number | undefined): void {
    this.headReceived = true
    this.received.add(payloadBytes)
    this.#leftBytes = length ?? Number.POSITIVE_INFINITY
    if (end) this.#receiveEnd(length, NO_FIELDS)
    else this.incoming = new PushedBody()
  }

  /** The body that comes behind a head that was received. */
  get body(): Body {
    return this.incoming ?? NO_BODY
  }

  /** @throws TunnelError for what may not come now, or is more than was granted */
  receiveData(piece: Buffer, end: boolean): void {
    this.#expectBody()
    const body = this.incoming!
    this.#granted -= piece.length
    if (this.#granted < 0) throw new TunnelError('there is more of a body than was granted')
    this.received.add(piece.length)
    this.touch()
    this.#leftBytes -= piece.length
    if (this.#leftBytes < 0) {
      this.refuse(RESETS.malformed)
      return
    }
    if (!end) body.onTaken ??= (bytes) => this.#onTaken(bytes)
    if (piece.length > 0) body.push(piece)
    if (end)
      this.#receiveEnd(this.#leftBytes === Number.POSITIVE_INFINITY ? undefined : this.#leftBytes, NO_FIELDS)
  }

  /** @throws TunnelError for what may not come now, or is broken */
  receiveTrailers(payload: Buffer): void {
    this.#expectBody()
    const trailers = readTrailers(payload)
    this.received.add(payload.length)
    this.touch()
    try {
      checkTrailers(trailers, this.link.headBytesMax)
    } catch (error) {
      this.refuse(codeOf(error))
      return
    }
    this.#receiveEnd(this.#leftBytes === Number.POSITIVE_INFINITY ? undefined : this.#leftBytes, trailers)
  }

  /** @throws TunnelError when there is then more than there may be */
  receiveCredit(more: number): void {
    this.#credit += more
    if (this.#credit > CREDIT_MAX) throw new TunnelError('there is more credit than there may be')
    this.#queue()
  }

  receiveReset(code: number): void {
    this.onReset(code)
    this.drop()
  }

  /** What came is not valid: the call is over. */
  protected refuse(code: number): void {
    this.reset(code)
    this.onReset(code)
  }

  /** What has come of the body is of no use any more. */
  failBody(error: SidecarError): void {
    this.incoming?.fail(error)
  }

  #expectBody(): void {
    if (!this.headReceived || this.#receivedAll) throw new TunnelError('a body comes where none may')
  }

  #receiveEnd(left: number | undefined, trailers: Fields): void {
    if (left !== undefined && left > 0) {
      this.refuse(RESETS.malformed)
      return
    }
    this.#receivedAll = true
    this.#decoding?.end()
    this.#decoding = undefined
    this.incoming?.end(trailers)
    this.onReceivedAll()
    if (this.#sentAll && !this.#over) this.#end()
  }

  /** Gives credit anew once half of it is taken; twice as much as before where the app has taken all there was. */
  #onTaken(bytes: number): void {
    this.#taken += bytes
    if (this.#receivedAll || this.#over || 2 * this.#taken < this.#window) return
    const wider = Math.min(2 * this.#window, CREDIT_BYTES_MAX)
    const more = wider - this.#window
    const keepsUp = this.incoming!.heldBytes === 0
    const grown = keepsUp && more > 0 && this.link.budget.take(more)
    if (grown) this.#window = wider
    const credit = this.#taken + (grown ? more : 0)
    this.#taken = 0
    this.#granted += credit
    this.link.writeControl(creditFrame(this.number, credit))
  }
}

/** The code of a reset for a head or trailers that are refused. */
export function codeOf(error: unknown): number {
  if (!(error instanceof HeadError)) throw error
  return error.kind === 'too-large' ? RESETS.tooLarge : RESETS.malformed
}

/** What is told of a body of which the rest will not come. */
export function cutByReset(): SidecarError {
  return new SidecarError('message-truncated', "The peer's sidecar broke the call off.")
}

const NOTHING = Buffer.alloc(0)
const NO_FIELDS: Fields = []
