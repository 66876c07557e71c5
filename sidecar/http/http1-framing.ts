/** Where the messages of an HTTP/1.1 connection begin and end (RFC 9112 sections 6 and 7), for both directions. */
import type { Fields } from '../call.ts'
import { fieldsFromRaw } from './fields.ts'
import { Http1Error, malformed, readTrailers } from './http1-fields.ts'

/** What a reader tells; called from within `push`, `next` and `finish`, and may call `next` and `stop`. */
export interface Http1Sink<Head> {
  onHead(head: Head): void
  /** @param piece 1 byte or more, a part of what was pushed */
  onBody(piece: Buffer): void
  /** The message is complete. What came behind it waits for `next`. */
  onEnd(trailers: Fields): void
}

export interface Http1Limits {
  /** names and values that are taken by the caller, in bytes; a head may have HEAD_SLACK_BYTES more as it arrives */
  headBytesMax: number
}

/** What the heads of requests and responses have in common. */
export interface MessageHead {
  /** of HTTP/1.x */
  minor: 0 | 1
  /** names in lower case, values without white space around them, in turns; everything, in order */
  raw: string[]
  /** of names and values */
  bytes: number
  /** Content-Length */
  length: number | undefined
  chunked: boolean
  /** May the connection be used again, as far as this message says? If not, nothing behind it is read. */
  keepAlive: boolean
}

/** What a head or a trailer section may have besides names and values: start line, colons, white space; in bytes. */
const HEAD_SLACK_BYTES = 32 * 1024
/** Empty lines before a request line that are ignored (RFC 9112 section 2.2). */
const EMPTY_LINES_MAX = 4
/** A chunk size with its extensions, in bytes. */
const CHUNK_LINE_BYTES_MAX = 1024
/** Up to 15 digits, and extensions without white space (RFC 9112 section 7.1). */
const CHUNK_LINE =
  /^([0-9A-Fa-f]{1,15})(?:;[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:=(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|"[\t\x20\x21\x23-\x5b\x5d-\x7e]*"))?)*\r\n$/

/** Lengths of bodies that are no numbers of bytes. */
export const CHUNKED = -1
export const UNTIL_CLOSE = -2
export const INTERIM = -3

/** What is read next. */
const HEAD = 0
const BODY = 1
const CHUNK_LINE_NEXT = 2
const CHUNK_DATA = 3
const CHUNK_END = 4
const TRAILERS = 5
const TO_CLOSE = 6
const BETWEEN = 7
const OVER = 8

/** Where in its lines a section has been looked through. */
const LINE_START = 0
const IN_LINE = 1
const LINE_CR = 2
const EMPTY_CR = 3

const TAB = 0x09
const LF = 0x0a
const CR = 0x0d
const SPACE = 0x20
const DELETE = 0x7f
const NOTHING = Buffer.alloc(0)

/**
 * Reads messages from bytes that are pushed, whatever the pieces are.
 *
 * Never more than one head or trailer section is held, and what came behind a request while that waits for its turn.
 */
export abstract class Http1Reader<Head extends MessageHead> {
  readonly #sink: Http1Sink<Head>
  readonly #sectionBytesMax: number
  readonly #pipelined: boolean
  #state: number
  /** bytes that are left of a body, of a chunk, or of the CRLF behind it */
  #left = 0
  #emptyLines = 0
  /** Has an interim head been read, and the final one not yet? */
  #interim = false
  #keepAlive = true
  /** the beginning of a section, `#heldBytes` of it */
  #held: Buffer = NOTHING
  #heldBytes = 0
  #line = LINE_START
  /** the beginning of the line before a chunk */
  #chunkLine = ''
  /** what came behind the message */
  #behind: Buffer | undefined = undefined
  #running = false

  /** @param pipelined May messages come one behind the other, the first one unasked? */
  constructor(sink: Http1Sink<Head>, limits: Http1Limits, pipelined: boolean) {
    this.#sink = sink
    this.#sectionBytesMax = limits.headBytesMax + HEAD_SLACK_BYTES
    this.#pipelined = pipelined
    this.#state = pipelined ? HEAD : BETWEEN
  }

  /** @throws Http1Error */
  protected abstract readHead(text: string): Head

  /**
   * Looks at the first `size` bytes of a head of which more is to come: nobody waits for the rest of what is no HTTP.
   * @throws Http1Error
   */
  protected abstract checkBeginning(held: Buffer, size: number): void

  /** The length of the body in bytes, or CHUNKED, UNTIL_CLOSE or INTERIM. */
  protected abstract bodyLength(head: Head): number

  /** Has a message begun and not ended? */
  get midMessage(): boolean {
    return this.#state < BETWEEN && (this.#state !== HEAD || this.#heldBytes > 0 || this.#interim)
  }

  /** Do bytes wait behind the last message? Whoever reads the connection pauses it then: they are held as they came. */
  get buffered(): boolean {
    return this.#behind !== undefined
  }

  /**
   * Reads what arrived.
   * @throws Http1Error what arrived is refused: the reader is of no more use
   */
  push(bytes: Buffer): void {
    if (this.#state !== BETWEEN) this.#run(bytes)
    else if (!this.#pipelined) throw this.#refused(unasked())
    else this.#behind = this.#behind ? Buffer.concat([this.#behind, bytes]) : bytes
  }

  /**
   * The connection has ended: so has a body that lasts until then.
   * @throws Http1Error in the middle of a message
   */
  finish(): void {
    if (this.#state === TO_CLOSE) this.#end(NOTHING, 0, [])
    else if (this.midMessage)
      throw this.#refused(malformed('The connection ended in the middle of a message.'))
    this.#state = OVER
  }

  /** Reads no more, and drops what it holds. */
  stop(): void {
    this.#state = OVER
    this.#held = NOTHING
    this.#heldBytes = 0
    this.#behind = undefined
  }

  /** Goes on behind the last message. */
  protected goOn(): void {
    if (this.#state !== BETWEEN) return
    this.#state = HEAD
    const behind = this.#behind
    if (this.#running || behind === undefined) return
    this.#behind = undefined
    this.#run(behind)
  }

  #refused(error: unknown): unknown {
    this.stop()
    return error
  }

  #run(bytes: Buffer): void {
    this.#running = true
    try {
      let at = 0
      while (at < bytes.length && this.#state < BETWEEN) at = this.#step(bytes, at)
    } catch (error) {
      throw this.#refused(error)
    } finally {
      this.#running = false
    }
  }

  /** @returns how far the bytes have been read */
  #step(bytes: Buffer, at: number): number {
    switch (this.#state) {
      case HEAD:
      case TRAILERS:
        return this.#readSection(bytes, at)
      case CHUNK_LINE_NEXT:
        return this.#readChunkLine(bytes, at)
      case CHUNK_END:
        return this.#readChunkEnd(bytes, at)
      default:
        return this.#readData(bytes, at)
    }
  }

  #readSection(bytes: Buffer, at: number): number {
    const end = this.#sectionEnd(bytes, at)
    const upTo = end < 0 ? bytes.length : end
    const size = this.#heldBytes + upTo - at
    if (size > this.#sectionBytesMax)
      throw new Http1Error('too-large', 'The head or the trailers are too large.')
    let text: string
    if (end >= 0 && this.#heldBytes === 0) text = bytes.toString('latin1', at, end)
    else {
      this.#hold(bytes, at, upTo, size)
      if (end < 0) {
        if (this.#state === HEAD) this.checkBeginning(this.#held, size)
        return upTo
      }
      text = this.#held.toString('latin1', 0, size)
      this.#held = NOTHING
      this.#heldBytes = 0
    }
    this.#line = LINE_START
    if (this.#state === TRAILERS) this.#end(bytes, end, size === 2 ? [] : fieldsFromRaw(readTrailers(text)))
    else if (size > 2) this.#begin(text, bytes, end)
    else if (!this.#pipelined || this.#emptyLines++ === EMPTY_LINES_MAX)
      throw malformed('There is no start line.')
    return end
  }

  #hold(bytes: Buffer, at: number, upTo: number, size: number): void {
    if (size > this.#held.length) {
      const larger = Buffer.allocUnsafeSlow(Math.min(Math.max(2 * size, 256), this.#sectionBytesMax))
      this.#held.copy(larger, 0, 0, this.#heldBytes)
      this.#held = larger
    }
    bytes.copy(this.#held, this.#heldBytes, at, upTo)
    this.#heldBytes = size
  }

  /**
   * Looks for the empty line that ends a section.
   * @returns where what follows begins; -1 if the end has not come yet
   * @throws Http1Error malformed for control characters, which are in no section but as tabs and CRLF
   */
  #sectionEnd(bytes: Buffer, at: number): number {
    let line = this.#line
    for (let i = at; i < bytes.length; i++) {
      const byte = bytes[i]!
      if (byte >= SPACE || byte === TAB) {
        if (line >= LINE_CR || byte === DELETE) throw unfit()
        line = IN_LINE
      } else if (byte === CR) {
        if (line >= LINE_CR) throw unfit()
        line = line === LINE_START ? EMPTY_CR : LINE_CR
      } else if (byte === LF) {
        if (line === EMPTY_CR) return i + 1
        if (line !== LINE_CR) throw unfit()
        line = LINE_START
      } else throw unfit()
    }
    this.#line = line
    return -1
  }

  #begin(text: string, bytes: Buffer, at: number): void {
    const head = this.readHead(text)
    const length = this.bodyLength(head)
    this.#keepAlive = head.keepAlive
    this.#emptyLines = 0
    this.#interim = length === INTERIM
    this.#sink.onHead(head)
    if (this.#state === OVER || length === INTERIM) return
    if (length === 0) this.#end(bytes, at, [])
    else if (length > 0) {
      this.#left = length
      this.#state = BODY
    } else this.#state = length === CHUNKED ? CHUNK_LINE_NEXT : TO_CLOSE
  }

  #readData(bytes: Buffer, at: number): number {
    const available = bytes.length - at
    const size = this.#state === TO_CLOSE ? available : Math.min(this.#left, available)
    this.#left -= size
    this.#sink.onBody(size === bytes.length ? bytes : bytes.subarray(at, at + size))
    if (this.#left > 0 || this.#state === TO_CLOSE || this.#state === OVER) return at + size
    if (this.#state === BODY) this.#end(bytes, at + size, [])
    else {
      this.#left = 2
      this.#state = CHUNK_END
    }
    return at + size
  }

  #readChunkLine(bytes: Buffer, at: number): number {
    const lineFeed = bytes.indexOf(LF, at)
    const upTo = lineFeed < 0 ? bytes.length : lineFeed + 1
    if (this.#chunkLine.length + upTo - at > CHUNK_LINE_BYTES_MAX)
      throw malformed('The line before a chunk is too long.')
    this.#chunkLine += bytes.toString('latin1', at, upTo)
    if (lineFeed < 0) return upTo
    const match = CHUNK_LINE.exec(this.#chunkLine)
    const size = match ? Number.parseInt(match[1]!, 16) : Number.NaN
    if (!Number.isSafeInteger(size)) throw malformed('The line before a chunk is not a size in hexadecimal.')
    this.#chunkLine = ''
    this.#left = size
    this.#state = size === 0 ? TRAILERS : CHUNK_DATA
    return upTo
  }

  #readChunkEnd(bytes: Buffer, at: number): number {
    if (bytes[at] !== (this.#left === 2 ? CR : LF)) throw malformed('A chunk is not as long as its size.')
    if (--this.#left === 0) this.#state = CHUNK_LINE_NEXT
    return at + 1
  }

  #end(bytes: Buffer, at: number, trailers: Fields): void {
    // Before the sink hears of it: it may ask for what is behind, or go on.
    this.#state = this.#keepAlive ? BETWEEN : OVER
    if (at < bytes.length) {
      const behind = bytes.subarray(at)
      // Unless that begins another response, this one is longer than it said.
      if (!this.#pipelined) this.checkBeginning(behind, behind.length)
      if (this.#keepAlive) this.#behind = behind
    }
    this.#sink.onEnd(trailers)
    if (this.#state === HEAD) this.#behind = undefined
  }
}

export function unasked(): Http1Error {
  return malformed('There is a response that nobody asked for.')
}

function unfit(): Http1Error {
  return malformed('There is a control character, or a line that does not end with CRLF.')
}
