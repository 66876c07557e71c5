/** How many bytes went in and out of a message, so far. */
export interface Counts {
  readonly plaintextBytes: number
  /** with its header */
  readonly messageBytes: number
  readonly chunks: number
}

/** Told that a message is complete. */
export interface CodingListener {
  onCoded(coding: Coding): void
}

/** One message as it is encoded or decoded: however long that takes, how much of it was work, and how much it was. */
export class Coding implements Counts {
  readonly operation: 'encode' | 'decode'
  readonly what: 'request' | 'response'
  readonly startMs = performance.now()
  /** what was spent on it, without the waiting for what came and went */
  workMs = 0
  /** the one of the same call that began before it */
  readonly earlier: Coding | undefined
  #counts: Counts = NOTHING
  #endMs: number | undefined
  readonly #listener: CodingListener | undefined
  #follower: CodingListener | undefined

  /** @param listener told once the message is complete */
  constructor(
    operation: 'encode' | 'decode',
    what: 'request' | 'response',
    listener?: CodingListener,
    earlier?: Coding,
  ) {
    this.operation = operation
    this.what = what
    this.#listener = listener
    this.earlier = earlier
  }

  get plaintextBytes(): number {
    return this.#counts.plaintextBytes
  }

  get messageBytes(): number {
    return this.#counts.messageBytes
  }

  get chunks(): number {
    return this.#counts.chunks
  }

  /** When the message was complete; undefined if it is not. */
  get endMs(): number | undefined {
    return this.#endMs
  }

  /** Tells one more, once the message is complete: at once if it is already. */
  alsoTell(follower: CodingListener): void {
    if (this.#endMs === undefined) this.#follower = follower
    else follower.onCoded(this)
  }

  /** @param counts of whatever seals or opens the message; they are read when it is over */
  of(counts: Counts): void {
    this.#counts = counts
  }

  /** Does a piece of the work. */
  work<T>(piece: () => T): T {
    const beganMs = performance.now()
    try {
      return piece()
    } finally {
      this.workMs += performance.now() - beganMs
    }
  }

  /** The message is complete. */
  end(): void {
    this.#endMs = performance.now()
    this.#listener?.onCoded(this)
    this.#follower?.onCoded(this)
  }
}

const NOTHING: Counts = { plaintextBytes: 0, messageBytes: 0, chunks: 0 }
