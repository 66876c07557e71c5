/** How many bytes went in and out of a message, so far. */
export interface Counts {
  readonly plaintextBytes: number
  /** with its header */
  readonly messageBytes: number
  readonly chunks: number
}

/** One message as it is encoded or decoded: however long that takes, how much of it was work, and how much it was. */
export class Coding implements Counts {
  readonly operation: 'encode' | 'decode'
  readonly what: 'request' | 'response'
  readonly startMs = performance.now()
  /** what was spent on it, without the waiting for what came and went */
  workMs = 0
  #counts: Counts = NOTHING
  #endMs: number | undefined
  readonly #onEnd: (() => void)[] = []

  constructor(operation: 'encode' | 'decode', what: 'request' | 'response') {
    this.operation = operation
    this.what = what
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

  /** Calls back once the message is complete: at once if it is already. */
  onEnd(callback: () => void): void {
    if (this.#endMs === undefined) this.#onEnd.push(callback)
    else callback()
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
    for (const callback of this.#onEnd) callback()
  }
}

const NOTHING: Counts = { plaintextBytes: 0, messageBytes: 0, chunks: 0 }
