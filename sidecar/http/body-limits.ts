/** Bodies that may not grow as they like. */
import { type Body, type Fields, NO_BODY } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { checkTrailers, contentLength, HeadError, withoutFields } from './fields.ts'

/** What a HeadError makes of a call that comes from an app. */
export function headProblem(error: HeadError): SidecarError {
  return new SidecarError(error.kind === 'too-large' ? 'headers-too-large' : 'bad-request', error.message)
}

/** What becomes of trailers. */
export interface TrailerRules {
  /** is it by its name one that goes no further? */
  withoutTrailer(name: string): boolean
  /** what trailers make that are not valid */
  refusal(error: HeadError): SidecarError
}

/**
 * A body with a limit, and with trailers that were checked.
 *
 * Reading it throws body-too-large, or what `refusal` makes of its trailers, where the other side would see too much.
 */
export class LimitedBody implements Body {
  trailers: Fields = []
  readonly #body: Body
  readonly #limits: { bodyBytesMax: number; headBytesMax: number }
  readonly #rules: TrailerRules
  #left: number

  /**
   * @param fields of the head: a length that they announce is held to the limit at once
   * @throws SidecarError body-too-large
   */
  constructor(
    body: Body,
    fields: Fields,
    limits: { bodyBytesMax: number; headBytesMax: number },
    rules: TrailerRules,
  ) {
    this.#body = body
    this.#limits = limits
    this.#rules = rules
    this.#left = limits.bodyBytesMax
    if ((contentLength(fields) ?? 0) > limits.bodyBytesMax) throw tooLarge(limits.bodyBytesMax)
  }

  async read(): Promise<Buffer | undefined> {
    const piece = await this.#body.read()
    if (piece) this.#count(piece)
    else this.#takeTrailers()
    return piece
  }

  whole(limit: number): Buffer | undefined {
    const piece = this.#body.whole(limit)
    if (piece) {
      this.#count(piece)
      this.#takeTrailers()
    }
    return piece
  }

  #count(piece: Buffer): void {
    this.#left -= piece.length
    if (this.#left < 0) throw tooLarge(this.#limits.bodyBytesMax)
  }

  #takeTrailers(): void {
    const { trailers } = this.#body
    if (trailers.length === 0) return
    this.trailers = withoutFields(trailers, this.#rules.withoutTrailer)
    try {
      checkTrailers(this.trailers, this.#limits.headBytesMax)
    } catch (error) {
      throw error instanceof HeadError ? this.#rules.refusal(error) : error
    }
  }
}

/** A body with these limits; where there is none, which most calls have, there is nothing to limit. */
export function limited(
  body: Body,
  fields: Fields,
  limits: { bodyBytesMax: number; headBytesMax: number },
  rules: TrailerRules,
): Body {
  return body === NO_BODY ? NO_BODY : new LimitedBody(body, fields, limits, rules)
}

/**
 * Reads a whole body that must be short.
 * @returns its bytes, or what came of it up to one byte over `limit`, so that whoever looks at it sees it is too long
 * @throws SidecarError as the body does
 */
export async function readAtMost(body: Body, limit: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let bytes = 0
  while (bytes <= limit) {
    const piece = await body.read()
    if (!piece) break
    pieces.push(piece)
    bytes += piece.length
  }
  return Buffer.concat(pieces, Math.min(bytes, limit + 1))
}

function tooLarge(bodyBytesMax: number): SidecarError {
  return new SidecarError(
    'body-too-large',
    `The body is more than ${bodyBytesMax} bytes, which MAX_BODY_BYTES allows.`,
  )
}
