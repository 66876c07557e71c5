/** Memory that several parties may fill, and how much of it is left. */
export class Budget {
  #leftBytes: number

  constructor(bytes: number) {
    this.#leftBytes = bytes
  }

  get leftBytes(): number {
    return this.#leftBytes
  }

  /** @returns whether there was so much left; if not, nothing is taken */
  take(bytes: number): boolean {
    if (bytes > this.#leftBytes) return false
    this.#leftBytes -= bytes
    return true
  }

  give(bytes: number): void {
    this.#leftBytes += bytes
  }
}
