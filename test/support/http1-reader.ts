import {
  type Http1RequestHead,
  Http1RequestReader,
  type Http1ResponseHead,
  Http1ResponseReader,
} from '../../sidecar/http/http1-reader.ts'

type Head = Http1RequestHead & Http1ResponseHead

/** A message as a reader told it. */
export interface Told {
  head: Head
  body: string
  /** undefined if it has not ended */
  trailers: string[] | undefined
}

/** Hears what a reader tells. */
export class Hearer {
  readonly told: Told[] = []
  readonly pieces: Buffer[] = []
  /** told of each event, after it has been noted */
  readonly #then: ((event: 'head' | 'body' | 'end') => void) | undefined

  constructor(then?: (event: 'head' | 'body' | 'end') => void) {
    this.#then = then
  }

  onHead(head: Http1RequestHead | Http1ResponseHead): void {
    this.told.push({ head: head as Head, body: '', trailers: undefined })
    this.#then?.('head')
  }

  onBody(piece: Buffer): void {
    this.pieces.push(piece)
    this.told.at(-1)!.body += piece.toString('latin1')
    this.#then?.('body')
  }

  onEnd(trailers: string[]): void {
    this.told.at(-1)!.trailers = trailers
    this.#then?.('end')
  }
}

export const HEAD_BYTES_MAX = 1000

/** Latin-1: one byte a character. */
export function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

/** Pushes the text in pieces of so many bytes. */
export function pushAll(reader: { push(bytes: Buffer): void }, text: string, pieceBytes = text.length): void {
  for (let at = 0; at < text.length; at += pieceBytes) reader.push(bytesOf(text.slice(at, at + pieceBytes)))
}

/** What is told of requests that come one behind the other, each handled at once, on a connection that then ends. */
export function readRequests(text: string, pieceBytes?: number, hearer?: Hearer): Told[] {
  const heard: Hearer = hearer ?? new Hearer((event) => event === 'end' && reader.next())
  const reader = new Http1RequestReader(heard, { headBytesMax: HEAD_BYTES_MAX })
  pushAll(reader, text, pieceBytes)
  reader.finish()
  return heard.told
}

/** What is told of the response to a request, on a connection that then ends. */
export function readResponse(
  method: string,
  text: string,
  pieceBytes?: number,
  heard = new Hearer(),
): Told[] {
  const reader = new Http1ResponseReader(heard, { headBytesMax: HEAD_BYTES_MAX })
  reader.next(method)
  pushAll(reader, text, pieceBytes)
  reader.finish()
  return heard.told
}
