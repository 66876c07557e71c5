/** Makes messages that nobody would send of those that somebody would. */
import { REQUEST_SEEDS, RESPONSE_SEEDS, type ResponseSeed } from './http1-seeds.ts'

/** What parsers have stumbled over, or what makes another message of one. */
const TOKENS = [
  '\r\n',
  '\r\n\r\n',
  '\r',
  '\n',
  '\n\n',
  ' ',
  '\t',
  '\0',
  '\x0b',
  '\x0c',
  '\x7f',
  '\x80',
  '\xa0',
  '\xff',
  ':',
  ': ',
  ';',
  ';a=b',
  ';a="b"',
  ',',
  ', ',
  '"',
  '\\',
  '#',
  '?',
  '/',
  '//',
  '*',
  '@',
  '%0d%0a',
  '0',
  '1',
  '5',
  '+',
  '-',
  '_',
  'a',
  'f',
  '0x',
  'ffffffffffffffff',
  '0\r\n\r\n',
  '5\r\nhello\r\n',
  'chunked',
  'Chunked',
  'close',
  'keep-alive',
  'upgrade',
  'http://a/',
  ' HTTP/1.1',
  ' HTTP/1.0',
  'HTTP/1.1 200 OK\r\n',
  'GET / HTTP/1.1\r\nHost: c\r\n\r\n',
  'Host: a\r\n',
  'Content-Length: 0\r\n',
  'Content-Length: 5\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Connection: close\r\n',
  'Connection: keep-alive\r\n',
  'Connection: upgrade\r\n',
  'Upgrade: x\r\n',
  'Expect: 100-continue\r\n',
  'Trailer: x\r\n',
  'X: y\r\n',
  'X:\r\n',
  ' folded\r\n',
]
const MUTATIONS_MAX = 4

/** Seeded inputs, the same for the same seed. */
export class Mutations {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  request(): string {
    return this.#mutated(this.#pick(REQUEST_SEEDS), () => this.#pick(REQUEST_SEEDS))
  }

  response(): ResponseSeed {
    const { method, text } = this.#pick(RESPONSE_SEEDS)
    return { method, text: this.#mutated(text, () => this.#pick(RESPONSE_SEEDS).text) }
  }

  #mutated(text: string, another: () => string): string {
    // Rather few: of what is mutated often, little is taken.
    for (let left = 1 + this.#below(1 + this.#below(MUTATIONS_MAX)); left > 0; left--)
      text = this.#mutate(text, another)
    return text
  }

  #mutate(text: string, another: () => string): string {
    const at = this.#below(text.length + 1)
    const end = Math.min(text.length, at + 1 + this.#below(this.#below(4) === 0 ? 40 : 3))
    switch (this.#below(11)) {
      case 0:
      case 1:
        return text.slice(0, at) + this.#pick(TOKENS) + text.slice(at)
      case 2:
        return text.slice(0, at) + this.#pick(TOKENS) + text.slice(end)
      case 3:
        return text.slice(0, at) + text.slice(end)
      case 4:
        return text.slice(0, end) + text.slice(at)
      case 5:
        return (
          text.slice(0, at) +
          String.fromCharCode((text.charCodeAt(at) || 0) ^ (1 << this.#below(8))) +
          text.slice(at + 1)
        )
      case 6: {
        const piece = text.slice(at, end)
        const upper = piece.toUpperCase()
        return text.slice(0, at) + (piece === upper ? piece.toLowerCase() : upper) + text.slice(end)
      }
      case 7:
        return this.#mutateLines(text)
      case 8: {
        const other = another()
        return text.slice(0, at) + other.slice(this.#below(other.length + 1))
      }
      case 9:
        return text + another()
      default:
        return this.#inChunks(text)
    }
  }

  /** Inserts a token at a place that means something, or doubles, drops or swaps a line. */
  #mutateLines(text: string): string {
    const lines = text.split('\r\n')
    const i = this.#below(lines.length)
    const line = lines[i]!
    switch (this.#below(5)) {
      case 0:
        lines.splice(i, 0, line)
        break
      case 1:
        lines.splice(i, 1)
        break
      case 2:
        lines[i] = this.#pick(lines)
        break
      case 3:
        lines[i] = line.replace(':', `${this.#pick(TOKENS)}:`)
        break
      default:
        lines[i] = this.#below(2) === 0 ? this.#pick(TOKENS) + line : line + this.#pick(TOKENS)
    }
    return lines.join('\r\n')
  }

  /** Puts what follows the first head in chunks, some of them with sizes that are off. */
  #inChunks(text: string): string {
    const headEnd = text.indexOf('\r\n\r\n')
    if (headEnd < 0) return text
    let body = text.slice(headEnd + 4)
    let chunked = `${text.slice(0, headEnd)}\r\nTransfer-Encoding: chunked\r\n\r\n`
    while (body.length > 0) {
      const size = 1 + this.#below(body.length)
      const told = this.#below(20) === 0 ? size + this.#below(3) - 1 : size
      chunked += `${'0'.repeat(this.#below(3))}${told.toString(16)}\r\n${body.slice(0, size)}\r\n`
      body = body.slice(size)
    }
    return `${chunked}0\r\n${this.#below(3) === 0 ? 'X: y\r\n' : ''}\r\n`
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#below(from.length)]!
  }

  /** mulberry32 */
  #below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit
  }
}
