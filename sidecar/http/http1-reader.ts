/**
 * A strict reader of HTTP/1.1 messages (RFC 9112): bytes are pushed, heads and pieces of bodies come out.
 *
 * What it accepts is a subset of what the parser of node:http accepts, with the same meaning. Whatever two readers
 * could take for different things is refused.
 */
import { type FieldSection, Http1Error, malformed, readFields } from './http1-fields.ts'
import {
  CHUNKED,
  type Http1Limits,
  Http1Reader,
  type Http1Sink,
  INTERIM,
  type MessageHead,
  UNTIL_CLOSE,
  unasked,
} from './http1-framing.ts'
import { nodeHttp } from './node-http.ts'

export { Http1Error, type Http1Sink }

export interface Http1RequestHead extends MessageHead {
  method: string
  /** a path with its query, a whole URL, `*` for OPTIONS, or host:port for CONNECT */
  target: string
  hasBody: boolean
  /** the only Host field, which only HTTP/1.0 may lack */
  host: string | undefined
  expectsContinue: boolean
  /** the first Upgrade field */
  upgrade: string | undefined
}

export interface Http1ResponseHead extends MessageHead {
  /** 100 to 599, but not 101; below 200 it is an interim one, and another head follows */
  status: number
}

const METHODS: ReadonlySet<string> = new Set(nodeHttp.METHODS)
const PATH = /^\/[\x21\x22\x24-\x7e]*$/
const URL_FORM = /^https?:\/\/[A-Za-z0-9\-._~!$&'()*+,;=%:[\]]+(?:[/?][\x21\x22\x24-\x7e]*)?$/i
const AUTHORITY_FORM = /^[A-Za-z0-9\-._:[\]]+$/
const STATUS_LINE = /^HTTP\/1\.[01] [1-5][0-9][0-9](?: [\t\x20-\x7e\x80-\xff]*)?$/
const VERSION = Buffer.from('HTTP/1.')

/** Reads the requests of a connection. */
export class Http1RequestReader extends Http1Reader<Http1RequestHead> {
  constructor(sink: Http1Sink<Http1RequestHead>, limits: Http1Limits) {
    super(sink, limits, true)
  }

  /**
   * Goes on with what came behind the last request.
   * @throws Http1Error as `push`
   */
  next(): void {
    this.goOn()
  }

  protected readHead(text: string): Http1RequestHead {
    const lineEnd = text.indexOf('\r')
    const space = text.indexOf(' ')
    const method = text.substring(0, space)
    if (!METHODS.has(method)) throw malformed('The method is none that is known, in capitals.')
    const targetEnd = lineEnd - ' HTTP/1.x'.length
    const digit = text.charCodeAt(lineEnd - 1)
    if (!text.startsWith(' HTTP/1.', targetEnd) || (digit !== 0x30 && digit !== 0x31))
      throw malformed('The version is neither HTTP/1.1 nor HTTP/1.0.')
    const minor = digit === 0x31 ? 1 : 0
    const target = text.substring(space + 1, targetEnd)
    if (!isTarget(method, target))
      throw malformed('The target is neither a path nor an http:// or https:// URL.')
    const section = readFields(text, lineEnd + 2)
    if (section.chunked && minor === 0) throw malformed('Chunks are only in HTTP/1.1.')
    if (section.host === undefined && minor === 1) throw malformed('A request has one Host field.')
    const tunnel = method === 'CONNECT'
    return {
      method,
      target,
      minor,
      raw: section.raw,
      bytes: section.bytes,
      length: section.length,
      chunked: section.chunked,
      hasBody: !tunnel && (section.chunked || (section.length !== undefined && section.length > 0)),
      keepAlive: !tunnel && keepsAlive(section, minor),
      host: section.host,
      expectsContinue: section.expectsContinue && minor === 1,
      upgrade: section.upgrade,
    }
  }

  protected checkBeginning(held: Buffer): void {
    const first = held[0]!
    if ((first < 0x41 || first > 0x5a) && first !== 0x0d)
      throw malformed('The method is none that is known, in capitals.')
  }

  protected bodyLength(head: Http1RequestHead): number {
    if (!head.hasBody) return 0
    return head.chunked ? CHUNKED : head.length!
  }
}

/**
 * Reads the responses of a connection, each after `next` told for which request it comes.
 *
 * One with which more comes than belongs to it does not end, but is refused, unless that is another response: that is
 * nobody's, and the connection is of no more use.
 */
export class Http1ResponseReader extends Http1Reader<Http1ResponseHead> {
  #method = ''

  constructor(sink: Http1Sink<Http1ResponseHead>, limits: Http1Limits) {
    super(sink, limits, false)
  }

  /**
   * Waits for the response to a request, which has not been sent yet.
   * @throws Http1Error malformed if there are bytes already, which cannot be the answer
   */
  next(method: string): void {
    if (this.buffered) throw unasked()
    this.#method = method
    this.goOn()
  }

  protected readHead(text: string): Http1ResponseHead {
    const lineEnd = text.indexOf('\r')
    if (!STATUS_LINE.test(text.substring(0, lineEnd)))
      throw malformed('The status line is not one of HTTP/1.1 or HTTP/1.0.')
    const minor = text.charCodeAt(7) === 0x31 ? 1 : 0
    const status = Number(text.substring(9, 12))
    if (status === 101) throw malformed('The response switches protocols, and was not asked to.')
    const section = readFields(text, lineEnd + 2)
    if (section.chunked && minor === 0) throw malformed('Chunks are only in HTTP/1.1.')
    const { raw, bytes, length, chunked } = section
    if (status < 200 && !keepsAlive(section, minor))
      throw malformed('An interim response ends the connection.')
    const mayHaveBody = status >= 200 && status !== 204
    if (status === 204 && length !== undefined && length > 0)
      throw malformed('A response that has no body announces one.')
    const ends = !mayHaveBody || status === 304 || chunked || length !== undefined
    // What a server sends after a 204 that announces chunks is anybody's guess.
    const keepAlive = ends && (mayHaveBody || !chunked) && keepsAlive(section, minor)
    return { status, minor, raw, bytes, length, chunked, keepAlive }
  }

  protected checkBeginning(held: Buffer, size: number): void {
    const known = Math.min(size, VERSION.length)
    if (held.compare(VERSION, 0, known, 0, known) !== 0)
      throw malformed('The status line is not one of HTTP/1.1 or HTTP/1.0.')
  }

  protected bodyLength({ status, chunked, length }: Http1ResponseHead): number {
    if (status < 200) return INTERIM
    if (this.#isBodyless(status)) return 0
    return chunked ? CHUNKED : (length ?? UNTIL_CLOSE)
  }

  #isBodyless(status: number): boolean {
    return this.#method === 'HEAD' || status === 204 || status === 304
  }
}

function isTarget(method: string, target: string): boolean {
  if (method === 'CONNECT') return AUTHORITY_FORM.test(target)
  if (target.charCodeAt(0) === 0x2f) return PATH.test(target)
  return URL_FORM.test(target) || (target === '*' && method === 'OPTIONS')
}

function keepsAlive({ connection }: FieldSection, minor: 0 | 1): boolean {
  if (minor === 0) return connection === 'keep-alive'
  return connection === undefined || !connection.includes('close')
}
