import { type Body, type Fields, NO_BODY } from './call.ts'
import { SidecarError } from './errors.ts'

/**
 * A body that can be read again from its start, as long as no more than `limit` bytes of it have come.
 *
 * Only the newest reader reads on. For older ones the body fails, wherever they are; what they were waiting for
 * is kept for the newest.
 */
export class Rewindable {
  readonly #source: Body
  readonly #limit: number
  /** what has come: all of it while that is kept, and then what the reader has not had yet */
  #pieces: Buffer[] = []
  /** which of the pieces the reader gets next */
  #next = 0
  #bytes = 0
  #kept = true
  #ended = false
  /** what the source failed with, in a box as anything can be thrown */
  #failure: { error: unknown } | undefined
  #pending: Promise<void> | undefined
  #reader: Reader | undefined

  /** @param limit in bytes */
  constructor(source: Body, limit: number) {
    this.#source = source
    this.#limit = limit
  }

  /**
   * Reads from the start; undefined when that is gone.
   * @throws what the source throws
   */
  reader(): Body | undefined {
    if (this.#source === NO_BODY) return NO_BODY
    if (!this.#reader) this.#takeWhole()
    if (this.#failure) throw this.#failure.error
    if (!this.#kept) return undefined
    this.#next = 0
    this.#reader = new Reader(this)
    return this.#reader
  }

  /** Can it be read again from its start? */
  get isKept(): boolean {
    return this.#kept
  }

  /** Keeps nothing any more: there will be no other reader. */
  forget(): void {
    if (!this.#kept) return
    this.#kept = false
    this.#pieces.splice(0, this.#next)
    this.#next = 0
  }

  get trailers(): Fields {
    return this.#source.trailers
  }

  /** @internal The next piece, for a reader. */
  async read(reader: Reader): Promise<Buffer | undefined> {
    for (;;) {
      if (reader !== this.#reader)
        throw new SidecarError('caller-gone', 'The body is read anew from its start.')
      if (this.#next < this.#pieces.length)
        return this.#kept ? this.#pieces[this.#next++] : this.#pieces.shift()
      if (this.#failure) throw this.#failure.error
      if (this.#ended) return undefined
      await (this.#pending ??= this.#pull())
    }
  }

  /** @internal All that is left for a reader, if it has come. */
  rest(reader: Reader, limit: number): Buffer | undefined {
    if (reader !== this.#reader || !this.#ended) return undefined
    const rest = this.#next === 0 ? this.#pieces : this.#pieces.slice(this.#next)
    let bytes = 0
    for (const piece of rest) bytes += piece.length
    if (bytes > limit) return undefined
    if (this.#kept) this.#next = this.#pieces.length
    else this.#pieces = []
    return rest.length === 1 ? rest[0] : Buffer.concat(rest, bytes)
  }

  #takeWhole(): void {
    try {
      const whole = this.#source.whole(this.#limit)
      if (whole === undefined) return
      if (whole.length > 0) this.#pieces.push(whole)
      this.#ended = true
    } catch (error) {
      this.#failure = { error }
    }
  }

  /** Waits for one more piece. Whatever comes of it is found by whoever is then the reader. */
  async #pull(): Promise<void> {
    try {
      const piece = await this.#source.read()
      if (piece === undefined) {
        this.#ended = true
        return
      }
      this.#bytes += piece.length
      if (this.#bytes > this.#limit) this.forget()
      this.#pieces.push(piece)
    } catch (error) {
      this.#failure = { error }
    } finally {
      this.#pending = undefined
    }
  }
}

class Reader implements Body {
  readonly #from: Rewindable

  constructor(from: Rewindable) {
    this.#from = from
  }

  get trailers(): Fields {
    return this.#from.trailers
  }

  read(): Promise<Buffer | undefined> {
    return this.#from.read(this)
  }

  whole(limit: number): Buffer | undefined {
    return this.#from.rest(this, limit)
  }
}
