/**
 * Encodes calls as messages and decodes them: Binary HTTP inside of sealed chunks, as a stream both ways.
 *
 * Both directions are bodies around bodies: reading the encoded one pulls what it needs from the plain one, and
 * the other way round, so nothing is held here but the piece that is being worked on.
 */
import {
  type Answer,
  type Body,
  type Fields,
  type RequestHead,
  type ResponseHead,
  WholeBody,
} from './call.ts'
import { SidecarError } from './errors.ts'
import {
  beginRequest,
  beginResponse,
  contentChunkHeader,
  encodeRequest,
  encodeResponse,
  endOfBody,
  type RequestDecoder,
  type ResponseDecoder,
  responseHead,
} from './http/bhttp.ts'
import { HeadError } from './http/fields.ts'
import { WHOLE_BYTES_MAX } from './http/pump.ts'
import type { Opener, Sealer } from './pair/message.ts'
import { Reject } from './pair/reject.ts'
import type { Coding } from './telemetry/coding.ts'

const NO_FIELDS: Fields = []

/**
 * A request, encoded: in one chunk when the whole of it is at hand, else chunk by chunk as it comes.
 * @param coding told of the work, and of its end
 */
export function encodedRequest(head: RequestHead, body: Body, sealer: Sealer, coding: Coding): Body {
  const whole = body.whole(WHOLE_BYTES_MAX)
  if (whole !== undefined)
    return encodedWhole(() => sealer.end(encodeRequest(head, whole, body.trailers)), sealer, coding)
  return new EncodedBody(sealer, beginRequest(head), body, coding)
}

/** A response, encoded likewise. */
export function encodedResponse({ head, body }: Answer, sealer: Sealer, coding: Coding): Body {
  const whole = body.whole(WHOLE_BYTES_MAX)
  if (whole !== undefined)
    return encodedWhole(() => sealer.end(encodeResponse(head, whole, body.trailers)), sealer, coding)
  return new EncodedBody(sealer, Buffer.concat([beginResponse(), responseHead(head)]), body, coding)
}

function encodedWhole(encode: () => Buffer, sealer: Sealer, coding: Coding): Body {
  coding.of(sealer)
  const encoded = new WholeBody(coding.work(encode))
  coding.end()
  return encoded
}

/**
 * A response of which interim responses come before its answer is there.
 * @param next resolves with the interim responses that have come since, or with the answer
 */
export function encodedInterim(
  next: () => Promise<ResponseHead[] | Answer>,
  sealer: Sealer,
  coding: Coding,
): Body {
  return new InterimBody(sealer, next, coding)
}

class EncodedBody implements Body {
  readonly trailers = NO_FIELDS
  readonly #sealer: Sealer
  readonly #source: Body
  readonly #coding: Coding
  /** plaintext that goes before the body */
  #start: Buffer | undefined
  #ended = false

  constructor(sealer: Sealer, start: Buffer | undefined, source: Body, coding: Coding) {
    this.#sealer = sealer
    this.#start = start
    this.#source = source
    this.#coding = coding
    coding.of(sealer)
  }

  async read(): Promise<Buffer | undefined> {
    if (this.#ended) return undefined
    const start = this.#start
    if (start) {
      // It does not wait for the body: the other side may have to answer before that comes.
      this.#start = undefined
      return this.#coding.work(() => this.#sealer.seal(start))
    }
    let piece = await this.#source.read()
    // An empty piece would be written as the end of the body.
    while (piece?.length === 0) piece = await this.#source.read()
    if (piece) return this.#coding.work(() => this.#sealer.seal(contentChunkHeader(piece.length), piece))
    const last = this.#coding.work(() => this.#sealer.end(endOfBody(this.#source.trailers)))
    this.#ended = true
    this.#coding.end()
    return last
  }

  whole(): undefined {}
}

class InterimBody implements Body {
  readonly trailers = NO_FIELDS
  readonly #sealer: Sealer
  readonly #next: () => Promise<ResponseHead[] | Answer>
  readonly #coding: Coding
  #begun = false
  #final: Body | undefined

  constructor(sealer: Sealer, next: () => Promise<ResponseHead[] | Answer>, coding: Coding) {
    this.#sealer = sealer
    this.#next = next
    this.#coding = coding
    coding.of(sealer)
  }

  async read(): Promise<Buffer | undefined> {
    if (this.#final) return this.#final.read()
    const next = await this.#next()
    const heads = Array.isArray(next) ? next : [next.head]
    if (!Array.isArray(next)) this.#final = new EncodedBody(this.#sealer, undefined, next.body, this.#coding)
    const encoded = heads.map(responseHead)
    if (!this.#begun) encoded.unshift(beginResponse())
    this.#begun = true
    return this.#coding.work(() => this.#sealer.seal(Buffer.concat(encoded)))
  }

  whole(): undefined {}
}

/**
 * A message as it comes in: first its head, then it is the body of the call.
 *
 * Nothing of it comes out that did not authenticate and was not checked.
 */
export class Decoding<Head extends RequestHead | ResponseHead> implements Body {
  trailers: Fields = NO_FIELDS
  readonly #source: Body
  readonly #headerBytes: number
  readonly #decoder: Decoder<Head>
  readonly #open: (header: Buffer) => Opener | Promise<Opener>
  readonly #authenticated: (() => Promise<void>) | undefined
  readonly #coding: Coding
  #header: Buffer = Buffer.alloc(0)
  #opener: Opener | undefined
  #first = true
  #ended = false
  /** what it failed with, in a box as anything can be thrown */
  #failure: { error: unknown } | undefined

  /**
   * @param source the message as it was sent
   * @param decoder of the plaintext
   * @param message `headerBytes`, how long the header is; `open`, which makes an opener of it; `authenticated`,
   *   told once the first chunk has, before anything is made of it; `coding`, told of the work, and of its end
   */
  constructor(
    source: Body,
    decoder: Decoder<Head>,
    message: {
      headerBytes: number
      open(header: Buffer): Opener | Promise<Opener>
      authenticated?: () => Promise<void>
      coding: Coding
    },
  ) {
    this.#source = source
    this.#decoder = decoder
    this.#headerBytes = message.headerBytes
    this.#open = message.open
    this.#authenticated = message.authenticated
    this.#coding = message.coding
  }

  /** The bytes of the message's header that have come so far. */
  get header(): Buffer {
    return this.#header
  }

  /**
   * The head, as soon as it is complete; then the rest may be read as a body.
   * @param interim told of each interim response before it
   * @throws Reject when the message is refused, SidecarError when it was cut off
   */
  async head(interim?: (head: ResponseHead) => void): Promise<Head> {
    for (;;) {
      const { head, informational } = this.#decoder
      if (informational) for (const one of informational.splice(0)) interim?.(one)
      if (head) return head
      await this.#advance()
    }
  }

  async read(): Promise<Buffer | undefined> {
    for (;;) {
      const piece = this.#decoder.body.shift()
      if (piece) return piece
      if (this.#ended) return undefined
      try {
        await this.#advance()
      } catch (error) {
        if (!(error instanceof Reject)) throw error
        throw new SidecarError('message-truncated', 'The message is not valid to its end.', { cause: error })
      }
    }
  }

  whole(limit: number): Buffer | undefined {
    const { body } = this.#decoder
    if (!this.#ended) return undefined
    let bytes = 0
    for (const piece of body) bytes += piece.length
    if (bytes > limit) return undefined
    const pieces = body.splice(0)
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
  }

  /** Takes the next piece of the message. Once that has failed nothing comes out any more. */
  async #advance(): Promise<void> {
    if (this.#failure) throw this.#failure.error
    try {
      await this.#take()
    } catch (error) {
      this.#failure = { error: asReject(error) }
      this.#decoder.body.length = 0
      throw this.#failure.error
    }
  }

  async #take(): Promise<void> {
    const piece = await this.#source.read()
    let sealed: Buffer | undefined = piece
    if (piece && !this.#opener) {
      const bytes = this.#header.length === 0 ? piece : Buffer.concat([this.#header, piece])
      this.#header = bytes.subarray(0, this.#headerBytes)
      if (bytes.length < this.#headerBytes) return
      this.#opener = await this.#open(this.#header)
      this.#coding.of(this.#opener)
      sealed = bytes.subarray(this.#headerBytes)
    }
    const opener = this.#opener
    if (!opener) throw new Reject('malformed')
    const opened = this.#coding.work(() => (sealed ? opener.push(sealed) : [opener.end()]))
    if (this.#first && opened.length > 0) {
      await this.#authenticated?.()
      this.#first = false
    }
    this.#coding.work(() => {
      for (const plaintext of opened) this.#decoder.push(plaintext)
    })
    if (sealed) return
    this.trailers = this.#decoder.end()
    this.#ended = true
    this.#coding.end()
  }
}

function asReject(error: unknown): unknown {
  if (!(error instanceof HeadError)) return error
  return new Reject(error.kind === 'too-large' ? 'too_large' : 'malformed')
}

type Decoder<Head> = Pick<RequestDecoder | ResponseDecoder, 'push' | 'end' | 'body'> & {
  head: Head | undefined
  informational?: ResponseHead[]
}
