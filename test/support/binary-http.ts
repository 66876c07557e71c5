import assert from 'node:assert/strict'
import type { Fields, RequestHead, ResponseHead } from '../../sidecar/call.ts'
import { RequestDecoder, ResponseDecoder } from '../../sidecar/http/bhttp.ts'
import { HeadError } from '../../sidecar/http/fields.ts'

export const HEAD_BYTES_MAX = 65536

export type Decoder = RequestDecoder | ResponseDecoder

interface Message {
  head: RequestHead | ResponseHead
  informational: ResponseHead[]
  body: string
  trailers: Fields
}

/** All that a decoder makes of a message that comes in these pieces. */
export function decode(decoder: Decoder, ...pieces: Buffer[]): Message {
  const body: Buffer[] = []
  for (const piece of pieces) {
    decoder.push(piece)
    body.push(...decoder.body.splice(0))
  }
  const trailers = decoder.end()
  body.push(...decoder.body.splice(0))
  const informational = decoder instanceof ResponseDecoder ? decoder.informational : []
  return { head: decoder.head!, informational, body: Buffer.concat(body).toString('latin1'), trailers }
}

export const decodeRequest = (...pieces: Buffer[]) => decode(new RequestDecoder(HEAD_BYTES_MAX), ...pieces)
export const decodeResponse = (...pieces: Buffer[]) =>
  decode(new ResponseDecoder(HEAD_BYTES_MAX, 'GET'), ...pieces)

/** Checks that a message is refused in this way. */
export function refuses(body: () => unknown, kind: HeadError['kind'] = 'malformed', why?: string): void {
  assert.throws(body, (error) => error instanceof HeadError && error.kind === kind, why)
}

export type Item = string | number | Buffer | Item[]

/**
 * The form of RFC 9292, written down once more, and such that what is not valid can be written too: numbers, strings
 * after their lengths, sections after theirs, and bytes as they are.
 */
export function bytes(...items: Item[]): Buffer {
  return Buffer.concat(
    items.map((item) => {
      if (typeof item === 'number') return varint(item)
      if (typeof item === 'string') return bytes(item.length, Buffer.from(item, 'latin1'))
      if (Buffer.isBuffer(item)) return item
      const section = bytes(...item)
      return bytes(section.length, section)
    }),
  )
}

/** A varint of 1, 2, 4 or 8 bytes. */
export function varint(
  value: number,
  size = value < 64 ? 1 : value < 16384 ? 2 : value < 2 ** 30 ? 4 : 8,
): Buffer {
  const encoded = Buffer.alloc(8)
  encoded.writeBigUInt64BE(BigInt(value))
  const cut = Buffer.from(encoded.subarray(8 - size))
  cut[0]! |= Math.log2(size) << 6
  return cut
}

/** Method, scheme, authority and path of REQUEST. */
export const CONTROL = ['POST', 'https', 'example.com', '/a?b=c'] as const
export const REQUEST: RequestHead = {
  method: 'POST',
  scheme: 'https',
  authority: 'example.com',
  path: '/a?b=c',
  fields: [],
}
/** A request of known length, with the control data of REQUEST. */
export const known = (fields: Item[], ...rest: Item[]) => bytes(0, ...CONTROL, fields, ...rest)
/** A response of known length. */
export const response = (status: number, fields: Item[], ...rest: Item[]) => bytes(1, status, fields, ...rest)
