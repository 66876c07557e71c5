import type { Body, Fields } from '../../sidecar/call.ts'

/** A body that comes in these pieces, and knows how often it was asked. */
export class Pieces implements Body {
  reads = 0
  readonly trailers: Fields
  readonly #pieces: (Buffer | Error)[]

  /** @param pieces an error is thrown when its turn comes */
  constructor(pieces: readonly (Buffer | string | Error)[], trailers: Fields = []) {
    this.#pieces = pieces.map((piece) => (typeof piece === 'string' ? Buffer.from(piece) : piece))
    this.trailers = trailers
  }

  async read(): Promise<Buffer | undefined> {
    this.reads++
    const piece = this.#pieces.shift()
    if (piece instanceof Error) throw piece
    return piece
  }

  whole(): undefined {}
}

/** The pieces of a body up to its end. */
export async function readAll(body: Body): Promise<Buffer[]> {
  const pieces: Buffer[] = []
  for (let piece = await body.read(); piece; piece = await body.read()) pieces.push(piece)
  return pieces
}
