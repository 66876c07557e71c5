import { createSecretKey } from 'node:crypto'
import {
  type Body,
  type Fields,
  NO_BODY,
  type RequestHead,
  type ResponseHead,
  WholeBody,
} from '../../sidecar/call.ts'
import { Decoding, encodedRequest } from '../../sidecar/codec.ts'
import { SidecarError } from '../../sidecar/errors.ts'
import { RequestDecoder, ResponseDecoder } from '../../sidecar/http/bhttp.ts'
import {
  HEADER_BYTES,
  openRequest,
  openResponse,
  RESPONSE_HEADER_BYTES,
  type Sealer,
  sealRequest,
  sealResponse,
} from '../../sidecar/pair/message.ts'
import { Reject, type RejectName } from '../../sidecar/pair/reject.ts'
import { Coding } from '../../sidecar/telemetry/coding.ts'
import { Pieces, readAll } from './pieces.ts'

export const HEAD_BYTES_MAX = 65536
/** The keys of the one message that is sealed and opened here. */
export const MESSAGE = {
  pairId: Buffer.alloc(24, 1),
  block: 2,
  index: 3,
  requestKey: createSecretKey(Buffer.alloc(32, 4)),
  responseKey: createSecretKey(Buffer.alloc(32, 5)),
  chunkBytesMax: 65536,
}
export const REQUEST_HEADER = sealRequest(MESSAGE, Buffer.alloc(12, 6)).header
export const REQUEST: RequestHead = {
  method: 'POST',
  scheme: 'http',
  authority: 'billing',
  path: '/v1/charges',
  fields: ['x-a', '1'],
}
export const RESPONSE: ResponseHead = { status: 201, fields: ['x-b', '2'] }

export const requestSealer = (message = MESSAGE) => sealRequest(message, Buffer.alloc(12, 6)).sealer
export const responseSealer = (message = MESSAGE) =>
  sealResponse(message, REQUEST_HEADER, Buffer.alloc(12, 7))

export function decodingRequest(source: Body, authenticated?: () => Promise<void>): Decoding<RequestHead> {
  return new Decoding(source, new RequestDecoder(HEAD_BYTES_MAX), {
    headerBytes: HEADER_BYTES,
    open: (header) => openRequest(MESSAGE, header),
    coding: new Coding('decode', 'request'),
    ...(authenticated && { authenticated }),
  })
}

export function decodingResponse(source: Body, method = 'POST'): Decoding<ResponseHead> {
  return new Decoding(source, new ResponseDecoder(HEAD_BYTES_MAX, method), {
    headerBytes: RESPONSE_HEADER_BYTES,
    open: (header) => openResponse(MESSAGE, REQUEST_HEADER, header),
    coding: new Coding('decode', 'response'),
  })
}

interface Decoded {
  head: RequestHead | ResponseHead
  body: string
  trailers: Fields
}

/** All that a message decodes to. */
export async function decoded(decoding: Decoding<RequestHead> | Decoding<ResponseHead>): Promise<Decoded> {
  const head = await decoding.head()
  const body = Buffer.concat(await readAll(decoding)).toString('latin1')
  return { head, body, trailers: decoding.trailers }
}

export const isReject = (code: RejectName) => (error: unknown) =>
  error instanceof Reject && error.code === code
export const isTruncated = (error: unknown) =>
  error instanceof SidecarError && error.code === 'message-truncated'

/** The pieces of a request that is encoded, as they leave. */
export async function encodedPieces(body: Body, sealer: Sealer = requestSealer()): Promise<Buffer[]> {
  return readAll(encodedRequest(REQUEST, body, sealer, new Coding('encode', 'request')))
}

/** Requests of each form, as they are on the wire. */
export async function messages(): Promise<Record<string, Buffer>> {
  return {
    whole: Buffer.concat(await encodedPieces(new WholeBody(Buffer.from('a body'), ['t', '1']))),
    'without body': Buffer.concat(await encodedPieces(NO_BODY)),
    stream: Buffer.concat(await encodedPieces(new Pieces(['one', 'two', 'x'.repeat(100)], ['t', '1']))),
  }
}

/** A message that is sealed as it should be and holds this plaintext. */
export function sealed(...chunks: Buffer[]): Body {
  const sealer = requestSealer()
  return new Pieces(
    chunks.map((chunk, i) => (i === chunks.length - 1 ? sealer.end(chunk) : sealer.seal(chunk))),
  )
}
