/**
 * Binary HTTP (RFC 9292): requests and responses as bytes, of known or of indeterminate length.
 *
 *     message    = framing | informational* | control | fields | content | trailers | zero padding
 *     control    = lp(method) | lp(scheme) | lp(authority) | lp(path), or a status
 *     known      fields = length | line*      content = length | bytes
 *     indeterm.  fields = line* | 00          content = { length | bytes }* | 00        line = lp(name) | lp(value)
 *
 * Numbers and lengths are QUIC varints. A message may end before any section that would be empty, as would all after it.
 */
import type { Fields, RequestHead, ResponseHead } from '../call.ts'
import { readVarint, varintLength } from '../varint.ts'
import {
  checkRequestHead,
  checkResponseHead,
  checkTrailers,
  contentLength,
  FIELDS_MAX,
  HeadError,
  isBodyless,
} from './fields.ts'

/** Framing indicators (RFC 9292 section 3.3); INDETERMINATE is added to those of known length. */
const REQUEST = 0
const RESPONSE = 1
const INDETERMINATE = 2
const INFORMATIONAL_MAX = 16
/** What a field line may cost besides its name and value, in bytes: two lengths, which need not be minimal. */
const LINE_OVERHEAD_BYTES_MAX = 16
/** As many pieces are kept apart while more is waited for; tiny ones cost more than their bytes. */
const PIECES_MAX = 256
const TERMINATOR = '\0'
const NOTHING: Buffer = Buffer.alloc(0)

/** A request of known length: head, body and trailers in one. The head has passed `checkRequestHead`. */
export function encodeRequest(head: RequestHead, body: Buffer, trailers: Fields): Buffer {
  return knownLength(number(REQUEST) + requestControl(head), head.fields, body, trailers)
}

/** A response of known length. The head has passed `checkResponseHead`. */
export function encodeResponse(head: ResponseHead, body: Buffer, trailers: Fields): Buffer {
  return knownLength(number(RESPONSE) + number(head.status), head.fields, body, trailers)
}

/** The start of a request of indeterminate length, up to its body. */
export function beginRequest(head: RequestHead): Buffer {
  return latin1(number(REQUEST + INDETERMINATE) + requestControl(head) + lines(head.fields) + TERMINATOR)
}

/** The start of a response of indeterminate length: interim heads and the final one follow, by `responseHead`. */
export function beginResponse(): Buffer {
  return latin1(number(RESPONSE + INDETERMINATE))
}

/** An interim or the final head in a response of indeterminate length. */
export function responseHead(head: ResponseHead): Buffer {
  return latin1(number(head.status) + lines(head.fields) + TERMINATOR)
}

/** What goes before each piece of a body of indeterminate length; a piece has at least one byte. */
export function contentChunkHeader(length: number): Buffer {
  return latin1(number(length))
}

/** What ends a message of indeterminate length after its body. */
export function endOfBody(trailers: Fields): Buffer {
  return latin1(TERMINATOR + lines(trailers) + TERMINATOR)
}

function knownLength(start: string, fields: Fields, body: Buffer, trailers: Fields): Buffer {
  // Sections that are empty up to the end are left out.
  let before = start
  if (fields.length > 0 || body.length > 0 || trailers.length > 0) before += prefixed(lines(fields))
  if (body.length > 0 || trailers.length > 0) before += number(body.length)
  const after = trailers.length > 0 ? prefixed(lines(trailers)) : ''
  const message = Buffer.allocUnsafe(before.length + body.length + after.length)
  message.write(before, 0, 'latin1')
  message.set(body, before.length)
  message.write(after, before.length + body.length, 'latin1')
  return message
}

function requestControl({ method, scheme, authority, path }: RequestHead): string {
  return prefixed(method) + prefixed(scheme) + prefixed(authority) + prefixed(path)
}

function lines(fields: Fields): string {
  let text = ''
  for (const item of fields) text += prefixed(item)
  return text
}

function prefixed(text: string): string {
  return number(text.length) + text
}

/** A varint below 2^30 as Latin-1: a head is put together as text and written once, which costs no more than writing each string. */
function number(value: number): string {
  if (value < 1 << 6) return String.fromCharCode(value)
  if (value < 1 << 14) return String.fromCharCode(0x40 | (value >> 8), value & 0xff)
  return String.fromCharCode(0x80 | (value >> 24), (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff)
}

function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

/**
 * Reads one message from pieces that are cut anywhere.
 *
 * Nothing comes out that was not checked, and never more than a head or a trailer section is held: pieces of the body
 * are slices of what was pushed. After an error the decoder is of no more use.
 */
abstract class MessageDecoder<Head extends RequestHead | ResponseHead> {
  /** There as soon as it is complete; a head that ends the message without saying so only after `end`. */
  head: Head | undefined
  /** Pieces of the body, for the caller to shift. */
  readonly body: Buffer[] = []
  protected readonly headBytesMax: number
  /** What one section is let to take as it is encoded; its names and values are counted once they are read. */
  protected readonly sectionBytesMax: number
  protected readonly incoming = new Incoming()
  readonly #parser: Generator<void, Fields | undefined>

  constructor(kind: typeof REQUEST | typeof RESPONSE, headBytesMax: number) {
    this.headBytesMax = headBytesMax
    this.sectionBytesMax = headBytesMax + FIELDS_MAX * LINE_OVERHEAD_BYTES_MAX
    this.#parser = this.#message(kind)
  }

  /**
   * Takes the next bytes of the message.
   * @throws HeadError as soon as the message cannot become valid any more
   */
  push(piece: Buffer): void {
    if (this.incoming.add(piece) && this.#parser.next().done) throw malformed('There is more after an error.')
  }

  /**
   * Tells that these were all bytes of the message.
   * @returns its trailers
   * @throws HeadError malformed when something is missing
   */
  end(): Fields {
    this.incoming.end()
    const trailers = this.#parser.next().value
    if (!trailers) throw cutOff()
    return trailers
  }

  protected abstract readHead(known: boolean): Generator<void, Head>
  /** The length that the body must have, as far as the head tells. */
  protected abstract bodyLength(head: Head): number | undefined

  *#message(kind: number): Generator<void, Fields> {
    const { incoming } = this
    const framing = yield* incoming.item(() => incoming.number())
    if (framing !== kind && framing !== kind + INDETERMINATE)
      throw malformed('This is no message of the kind that is due.')
    const known = framing === kind
    const head = yield* this.readHead(known)
    this.head = head
    yield* this.#content(known, this.bodyLength(head))
    const trailers = yield* this.readFields(known)
    checkTrailers(trailers, this.headBytesMax)
    yield* this.#padding()
    return trailers
  }

  protected *readFields(known: boolean): Generator<void, Fields> {
    const { incoming } = this
    if (yield* incoming.isOver()) return []
    let left = this.sectionBytesMax
    if (known) {
      const section = yield* incoming.item(() => incoming.prefixed(1, left))
      return pairs(section, varintLength(section[0]!))
    }
    const fields: Fields = []
    for (;;) {
      const line = yield* incoming.item(() => incoming.lineOrTerminator(left))
      if (line.length === 0) return fields
      left -= line.length
      fields.push(...pairs(line, 0))
    }
  }

  *#content(known: boolean, announced: number | undefined): Generator<void, void> {
    const { incoming } = this
    let left = announced ?? Number.POSITIVE_INFINITY
    if (!(yield* incoming.isOver())) {
      let length: number
      do {
        length = yield* incoming.item(() => incoming.number())
        if (length > left) throw malformed('The body is longer than it should be.')
        left -= length
        yield* this.#pass(length)
      } while (!known && length > 0)
    }
    if (announced !== undefined && left > 0) throw malformed('The body is shorter than it should be.')
  }

  *#pass(length: number): Generator<void, void> {
    const { incoming } = this
    while (length > 0) {
      if (yield* incoming.isOver()) throw cutOff()
      const piece = incoming.some(length)
      length -= piece.length
      this.body.push(piece)
    }
  }

  *#padding(): Generator<void, void> {
    const { incoming } = this
    while (!(yield* incoming.isOver())) {
      for (const byte of incoming.some(Number.POSITIVE_INFINITY)) {
        if (byte !== 0) throw malformed('The padding is not zero.')
      }
    }
  }
}

/** Reads a request. */
export class RequestDecoder extends MessageDecoder<RequestHead> {
  /** @param headBytesMax for method, scheme, authority, path, names and values of the head, and for those of the trailers */
  constructor(headBytesMax: number) {
    super(REQUEST, headBytesMax)
  }

  protected *readHead(known: boolean): Generator<void, RequestHead> {
    const { incoming } = this
    const control = yield* incoming.item(() => incoming.prefixed(4, this.sectionBytesMax))
    const [method, scheme, authority, path] = strings(control, 0) as [string, string, string, string]
    const fields = yield* this.readFields(known)
    return checkRequestHead({ method, scheme, authority, path, fields }, this.headBytesMax)
  }

  protected bodyLength({ fields }: RequestHead): number | undefined {
    return contentLength(fields)
  }
}

/** Reads a response. */
export class ResponseDecoder extends MessageDecoder<ResponseHead> {
  /** Interim responses, for the caller to shift. */
  readonly informational: ResponseHead[] = []
  readonly #method: string

  /**
   * @param headBytesMax for the names and values of each head, and for those of the trailers
   * @param method of the request that is answered
   */
  constructor(headBytesMax: number, method: string) {
    super(RESPONSE, headBytesMax)
    this.#method = method
  }

  protected *readHead(known: boolean): Generator<void, ResponseHead> {
    const { incoming } = this
    for (let count = 0; ; count++) {
      const status = yield* incoming.item(() => incoming.number())
      const head = { status, fields: yield* this.readFields(known) }
      checkResponseHead(head, this.headBytesMax)
      if (status >= 200) return head
      if (count === INFORMATIONAL_MAX)
        throw malformed(`There are more than ${INFORMATIONAL_MAX} interim responses.`)
      this.informational.push(head)
    }
  }

  protected bodyLength({ status, fields }: ResponseHead): number | undefined {
    return isBodyless(this.#method, status) ? 0 : contentLength(fields)
  }
}

/** The bytes that have come and are not read yet. What waits for more of them is a generator that yields meanwhile. */
class Incoming {
  #bytes = NOTHING
  #at = 0
  #ended = false
  /** Pieces that came since, and would not be enough: so bytes are not copied anew with each. */
  #later: Buffer[] = []
  #laterBytes = 0
  /** How far into #bytes the next thing to read reaches at least. */
  #wanted = 1

  /** @returns whether there is now enough to go on */
  add(piece: Buffer): boolean {
    if (piece.length === 0) return false
    if (this.#later.length === PIECES_MAX) this.#later = [Buffer.concat(this.#later)]
    this.#later.push(piece)
    this.#laterBytes += piece.length
    if (this.#bytes.length + this.#laterBytes < this.#wanted) return false
    this.#join()
    return true
  }

  end(): void {
    this.#ended = true
    this.#join()
  }

  /** Waits for a byte, or for the end. */
  *isOver(): Generator<void, boolean> {
    while (this.#at === this.#bytes.length) {
      if (this.#ended) return true
      this.#lack(this.#at + 1)
      yield
    }
    return false
  }

  /** Waits, beyond the end if need be, until something can be read as a whole; `read` gives undefined until then. */
  *item<T>(read: () => T | undefined): Generator<void, T> {
    for (;;) {
      const item = read()
      if (item !== undefined) return item
      yield
    }
  }

  /** A varint, or undefined until it has come. */
  number(): number | undefined {
    const value = this.#numberAt(this.#at)
    if (value !== undefined) this.#at += varintLength(this.#bytes[this.#at]!)
    return value
  }

  /**
   * Some length-prefixed strings, prefixes and all.
   * @throws HeadError too-large as soon as they are seen to be more than `max` bytes
   */
  prefixed(count: number, max: number): Buffer | undefined {
    let end = this.#at
    for (let i = 0; i < count; i++) {
      const length = this.#numberAt(end)
      if (length === undefined) return undefined
      end += varintLength(this.#bytes[end]!) + length
      if (end - this.#at > max) throw new HeadError('too-large', 'The head or the trailers are too large.')
      if (end > this.#bytes.length) return this.#lack(end)
    }
    return this.#take(end)
  }

  /** A field line, or nothing for the terminator in its place. */
  lineOrTerminator(max: number): Buffer | undefined {
    if (this.#numberAt(this.#at) !== 0) return this.prefixed(2, max)
    this.number()
    return NOTHING
  }

  /** What has come, up to so many bytes. */
  some(max: number): Buffer {
    return this.#take(Math.min(this.#at + max, this.#bytes.length))
  }

  #numberAt(at: number): number | undefined {
    if (at >= this.#bytes.length) return this.#lack(at + 1)
    const end = at + varintLength(this.#bytes[at]!)
    return end > this.#bytes.length ? this.#lack(end) : readVarint(this.#bytes, at)
  }

  #take(end: number): Buffer {
    const taken = this.#bytes.subarray(this.#at, end)
    this.#at = end
    return taken
  }

  #lack(wanted: number): undefined {
    this.#wanted = wanted
  }

  #join(): void {
    const left = this.#bytes.subarray(this.#at)
    if (left.length > 0) this.#later.unshift(left)
    this.#bytes = this.#later.length === 1 ? this.#later[0]! : Buffer.concat(this.#later)
    this.#at = 0
    this.#later = []
    this.#laterBytes = 0
  }
}

/** The names and values of field lines, in turns. */
function pairs(section: Buffer, at: number): Fields {
  const fields = strings(section, at)
  if (fields.length % 2 !== 0) throw cutOff()
  return fields
}

/** Reads length-prefixed strings, as Latin-1; they are cut out of one text, which costs a quarter of reading each. */
function strings(bytes: Buffer, at: number): string[] {
  const text = bytes.toString('latin1')
  const found: string[] = []
  while (at < bytes.length) {
    const start = at + varintLength(bytes[at]!)
    if (start > bytes.length) throw cutOff()
    at = start + readVarint(bytes, at)
    if (at > bytes.length) throw cutOff()
    found.push(text.slice(start, at))
  }
  return found
}

function cutOff(): HeadError {
  return malformed('The message is cut off.')
}

function malformed(message: string): HeadError {
  return new HeadError('malformed', message)
}
