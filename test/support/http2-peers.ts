/** Peers that speak HTTP/2: those of node:http2, and some that are written by hand, frame by frame. */
import http2, { type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { type Listening, listening, rawServer } from './sending.ts'

/** A peer of node:http2. */
export function peer(
  handler: (stream: ServerHttp2Stream, headers: http2.IncomingHttpHeaders, raw: string[]) => void,
  settings: http2.Settings = {},
  onSession: (session: ServerHttp2Session) => void = () => {},
): Promise<Listening> {
  const server = http2.createServer({ settings })
  server.on('sessionError', () => {})
  server.on('session', onSession)
  server.on('stream', (stream: ServerHttp2Stream, headers, _flags, raw: string[]) => {
    stream.on('error', () => {})
    handler(stream, headers, raw)
  })
  return listening(server as never)
}

/** A frame of RFC 9113 section 4.1. */
export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

export const DATA = 0
export const HEADERS = 1
export const RST_STREAM = 3
export const SETTINGS = 4
export const GOAWAY = 7
export const END_HEADERS = 4
/** `:status: 200`, from the static table of HPACK */
export const STATUS_200 = Buffer.from([0x88])

export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value, 4 * i)
  return bytes
}

/** A peer that is written by hand: it sends its SETTINGS, and some frames for the first request on each connection. */
export function rawPeer(onRequest: (socket: Socket, nth: number) => void): Promise<Listening> {
  return rawServer((socket, nth) => {
    socket.write(frame(SETTINGS, 0, 0))
    let seen = Buffer.alloc(24)
    let requests = 0
    socket.on('data', (bytes: Buffer) => {
      seen = Buffer.concat([seen, bytes])
      let at = 48
      for (; at + 9 <= seen.length; at += 9 + seen.readUIntBE(at, 3)) {
        if (seen[at + 3] === HEADERS && at >= 48 && requests++ === 0) onRequest(socket, nth)
      }
      seen = Buffer.concat([Buffer.alloc(48), seen.subarray(Math.min(at, seen.length))])
    })
  })
}
