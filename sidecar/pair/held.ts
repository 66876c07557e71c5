const NOTHING = Buffer.alloc(0)

/** Bytes that wait for the rest of what they belong to: as they came when they came at once, else copied together. */
export class Held {
  /** how many there are */
  bytes = 0
  #buffer: Buffer = NOTHING

  /** @param max how many there will be in the end, at most */
  add(piece: Buffer, max: number): void {
    const total = this.bytes + piece.length
    if (this.bytes === 0) {
      this.#buffer = piece
    } else {
      if (total > this.#buffer.length) this.#grow(Math.min(Math.max(2 * this.#buffer.length, total), max))
      this.#buffer.set(piece, this.bytes)
    }
    this.bytes = total
  }

  get firstByte(): number {
    return this.#buffer[0]!
  }

  take(): Buffer {
    const taken = this.#buffer.subarray(0, this.bytes)
    this.#buffer = NOTHING
    this.bytes = 0
    return taken
  }

  #grow(size: number): void {
    const grown = Buffer.allocUnsafe(size)
    grown.set(this.#buffer.subarray(0, this.bytes))
    this.#buffer = grown
  }
}
