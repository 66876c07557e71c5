import type { Body, Fields } from './call.ts'
import type { SidecarError } from './errors.ts'

/**
 * A body as it arrives: its pieces are pushed, held, and read when somebody asks for them.
 *
 * It holds whatever it is pushed. Whoever pushes bounds that, by `heldBytes` and by what `onTaken` tells.
 */
export class PushedBody implements Body {
  trailers: Fields = NO_FIELDS
  /** bytes that were pushed and not read */
  heldBytes = 0
  /** told how many bytes were read, each time; not of those that are dropped by `fail` */
  onTaken: ((bytes: number) => void) | undefined
  #pieces: Buffer[] = []
  /** how many of the last pieces are tiny */
  #tiny = 0
  #ended = false
  #failure: SidecarError | undefined
  #waiting: { resolve(piece: Buffer | undefined): void; reject(error: SidecarError): void } | undefined

  /** May there be more of it to push? */
  get isOpen(): boolean {
    return !this.#ended && !this.#failure
  }

  /** @param piece of one byte or more; ignored once the body has failed */
  push(piece: Buffer): void {
    if (!this.isOpen) return
    const waiting = this.#waiting
    if (waiting) {
      this.#waiting = undefined
      waiting.resolve(piece)
      this.onTaken?.(piece.length)
      return
    }
    this.#pieces.push(piece)
    this.heldBytes += piece.length
    this.#tiny = piece.length < TINY_BYTES ? this.#tiny + 1 : 0
    if (this.#tiny === TINY_MAX) this.#join()
  }

  /** The clean end. */
  end(trailers: Fields): void {
    if (!this.isOpen) return
    this.trailers = trailers
    this.#ended = true
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.resolve(undefined)
  }

  /** The body is over, now: reading it from here on throws. Nothing happens if it has ended before. */
  fail(error: SidecarError): void {
    if (!this.isOpen) return
    this.#failure = error
    this.#pieces = []
    this.heldBytes = 0
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.reject(error)
  }

  read(): Promise<Buffer | undefined> {
    const piece = this.#pieces.shift()
    if (piece) {
      if (this.#tiny > this.#pieces.length) this.#tiny = this.#pieces.length
      this.heldBytes -= piece.length
      this.onTaken?.(piece.length)
      return Promise.resolve(piece)
    }
    if (this.#failure) return Promise.reject(this.#failure)
    if (this.#ended) return Promise.resolve(undefined)
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
  }

  whole(limit: number): Buffer | undefined {
    if (!this.#ended || this.heldBytes > limit) return undefined
    const pieces = this.#pieces
    const bytes = this.heldBytes
    this.#pieces = []
    this.heldBytes = 0
    if (bytes > 0) this.onTaken?.(bytes)
    return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces, bytes)
  }

  #join(): void {
    const tiny = this.#pieces.splice(-this.#tiny)
    // In memory of its own: a part of Node's pool would keep all of that part.
    const joined = Buffer.allocUnsafeSlow(tiny.reduce((bytes, piece) => bytes + piece.length, 0))
    let at = 0
    for (const piece of tiny) at += piece.copy(joined, at)
    this.#pieces.push(joined)
    this.#tiny = joined.length < TINY_BYTES ? 1 : 0
  }
}

/** So many pieces of less than so many bytes are joined: as an object, each costs more than it holds. */
const TINY_MAX = 64
const TINY_BYTES = 1024

const NO_FIELDS: Fields = []
Object.freeze(NO_FIELDS)
