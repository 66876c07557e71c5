/**
 * Frames, of which the records of a tunnel are made:
 *
 *     frame = type u8 | call u32 | length u24 | payload           lp16(x) = u16 length | x
 *
 * All but DATA are written as Latin-1 text, one character a byte: what waits for a record is put together as text and
 * written once, which costs less than writing each of its strings. What is read is checked here as far as a frame by
 * itself tells; the order of frames, and what heads say, is for whoever keeps the calls.
 */
import type { Fields, RequestHead, ResponseHead } from '../call.ts'
import { TunnelError } from './tunnel-error.ts'

const HEAD = 0x01
const INFO = 0x02
const DATA = 0x03
const TRAILERS = 0x04
const RESET = 0x05
const CREDIT = 0x06
const READY = 0x10
const PING = 0x11
const PONG = 0x12
const GOAWAY = 0x13
const REKEY = 0x14
const PAD = 0x1f
/** On HEAD and DATA: this direction of the call ends here. */
const END = 0x80

export const FRAME_HEADER_BYTES = 8
/** Names and values of a head that every frame has room for, in bytes; their lengths have two bytes each. */
export const TUNNEL_HEAD_BYTES_MAX = 65_536
/** Of one DATA frame. */
export const DATA_BYTES_MAX = 65_536
export const CREDIT_MAX = 2 ** 31

/** Why a call is over, where it did not come to its end. */
export const RESETS = {
  cancelled: 0,
  upstreamFailed: 2,
  timedOut: 3,
  refused: 4,
  malformed: 5,
  tooLarge: 6,
} as const

/** The head of a request that begins a call; names in lower case. `end`: the call has no body. */
export function requestFrame(call: number, head: RequestHead, end: boolean): string {
  const { method, scheme, authority, path, fields } = head
  const payload = prefixed(method) + prefixed(scheme) + prefixed(authority) + prefixed(path) + lines(fields)
  return frame(end ? HEAD | END : HEAD, call, payload)
}

/** The head of an answer. `end`: it has no body. */
export function responseFrame(call: number, { status, fields }: ResponseHead, end: boolean): string {
  return frame(end ? HEAD | END : HEAD, call, u16(status) + lines(fields))
}

/** An interim response. */
export function infoFrame(call: number, { status, fields }: ResponseHead): string {
  return frame(INFO, call, u16(status) + lines(fields))
}

/** Trailers, which end a direction of a call. */
export function trailersFrame(call: number, trailers: Fields): string {
  return frame(TRAILERS, call, lines(trailers))
}

/** @param code of RESETS */
export function resetFrame(call: number, code: number): string {
  return frame(RESET, call, String.fromCharCode(code))
}

/** @param more so many more bytes of DATA may be sent on this call; 1 to CREDIT_MAX */
export function creditFrame(call: number, more: number): string {
  return frame(CREDIT, call, u32(more))
}

/** @param credit what a call starts with, in bytes, at most CREDIT_MAX  @param calls open at once */
export function readyFrame(credit: number, calls: number): string {
  return frame(READY, 0, u32(credit) + u32(calls))
}

/** @param payload 8 bytes */
export function pingFrame(payload: string): string {
  return frame(PING, 0, payload)
}

/** @param payload of the ping that it answers */
export function pongFrame(payload: string): string {
  return frame(PONG, 0, payload)
}

/** @param highest call that was or will be handled */
export function goawayFrame(highest: number): string {
  return frame(GOAWAY, 0, u32(highest))
}

/**
 * Writes a piece of a body.
 * @param end is it the last one? Only then may it be empty.
 * @returns where it ends
 */
export function writeData(into: Buffer, at: number, call: number, piece: Buffer, end: boolean): number {
  const { length } = piece
  into[at] = end ? DATA | END : DATA
  into.writeUInt32BE(call, at + 1)
  into.writeUIntBE(length, at + 5, 3)
  into.set(piece, at + FRAME_HEADER_BYTES)
  return at + FRAME_HEADER_BYTES + length
}

/** Told of the frames of a record, in their order. Payloads are slices of the record, and not looked at yet. */
export interface FrameSink {
  /** @param payload for `readRequest` or `readResponse` */
  onHead(call: number, end: boolean, payload: Buffer): void
  /** @param payload for `readInterim` */
  onInfo(call: number, payload: Buffer): void
  onData(call: number, end: boolean, piece: Buffer): void
  /** @param payload for `readTrailers` */
  onTrailers(call: number, payload: Buffer): void
  onReset(call: number, code: number): void
  onCredit(call: number, more: number): void
  onReady(credit: number, calls: number): void
  /** @param payload 8 bytes, as Latin-1 */
  onPing(payload: string): void
  onPong(): void
  onGoaway(highest: number): void
}

/** Is READY the first frame of a record? */
export function startsWithReady(record: Buffer): boolean {
  return record[0] === READY
}

/**
 * Reads the frames of a record.
 * @returns whether it ended with REKEY, so that the next record is of the next generation of keys
 * @throws TunnelError
 */
export function readFrames(record: Buffer, sink: FrameSink): boolean {
  let at = 0
  while (at < record.length) {
    const begin = at + FRAME_HEADER_BYTES
    if (begin > record.length) throw new TunnelError('a frame is cut off')
    const type = record[at]!
    const call = record.readUInt32BE(at + 1)
    at = begin + record.readUIntBE(at + 5, 3)
    if (at > record.length) throw new TunnelError('a frame runs beyond its record')
    const kind = type & ~END
    if (kind >= READY !== (call === 0))
      throw new TunnelError('a frame belongs to no call, or to one and may not')
    if (type !== kind && kind !== HEAD && kind !== DATA)
      throw new TunnelError('a frame has an end that cannot end')
    if (kind === REKEY) {
      if (at !== begin || at !== record.length) throw new TunnelError('REKEY is not the end of its record')
      return true
    }
    readFrame(kind, call, type !== kind, record.subarray(begin, at), sink)
  }
  return false
}

function readFrame(kind: number, call: number, end: boolean, payload: Buffer, sink: FrameSink): void {
  switch (kind) {
    case HEAD:
      sink.onHead(call, end, payload)
      return
    case INFO:
      sink.onInfo(call, payload)
      return
    case DATA:
      if (payload.length > DATA_BYTES_MAX || (payload.length === 0 && !end))
        throw new TunnelError('a piece of a body is too long, or empty')
      sink.onData(call, end, payload)
      return
    case TRAILERS:
      sink.onTrailers(call, payload)
      return
    case RESET:
      expectLength(payload, 1)
      sink.onReset(call, payload[0]!)
      return
    case CREDIT: {
      expectLength(payload, 4)
      const more = payload.readUInt32BE()
      if (more === 0) throw new TunnelError('a credit is empty')
      sink.onCredit(call, more)
      return
    }
    case READY: {
      expectLength(payload, 8)
      const credit = payload.readUInt32BE()
      if (credit > CREDIT_MAX) throw new TunnelError('a credit is too large')
      sink.onReady(credit, payload.readUInt32BE(4))
      return
    }
    case PING:
      expectLength(payload, 8)
      sink.onPing(payload.toString('latin1'))
      return
    case PONG:
      expectLength(payload, 8)
      sink.onPong()
      return
    case GOAWAY:
      expectLength(payload, 4)
      sink.onGoaway(payload.readUInt32BE())
      return
    case PAD:
      return
    default:
      throw new TunnelError('a frame is of a type that is not known')
  }
}

/** @throws TunnelError where its structure is broken; what it says is not checked */
export function readRequest(payload: Buffer): RequestHead {
  const strings = readStrings(payload.toString('latin1'), 0)
  if (strings.length < 4) throw new TunnelError('the head of a request is cut off')
  const [method, scheme, authority, path, ...fields] = strings as [
    string,
    string,
    string,
    string,
    ...string[],
  ]
  return { method, scheme, authority, path, fields: inPairs(fields) }
}

/** @throws TunnelError where its structure is broken or its status is not 200 to 599; its fields are not checked */
export function readResponse(payload: Buffer): ResponseHead {
  return readStatus(payload, 200, 599)
}

/** @throws TunnelError where its structure is broken or its status is not 100 to 199, or 101; its fields are not checked */
export function readInterim(payload: Buffer): ResponseHead {
  const head = readStatus(payload, 100, 199)
  if (head.status === 101) throw new TunnelError('101 is no interim response of a call')
  return head
}

/** @throws TunnelError where its structure is broken; what it says is not checked */
export function readTrailers(payload: Buffer): Fields {
  return inPairs(readStrings(payload.toString('latin1'), 0))
}

function readStatus(payload: Buffer, min: number, max: number): ResponseHead {
  if (payload.length < 2) throw new TunnelError('a response has no status')
  const status = payload.readUInt16BE()
  if (status < min || status > max) throw new TunnelError('a status is out of its range')
  return { status, fields: inPairs(readStrings(payload.toString('latin1'), 2)) }
}

/** They are cut out of one text, which costs a quarter of reading each. */
function readStrings(text: string, at: number): string[] {
  const strings: string[] = []
  while (at < text.length) {
    const begin = at + 2
    if (begin > text.length) throw new TunnelError('a string is cut off')
    at = begin + (text.charCodeAt(at) << 8) + text.charCodeAt(at + 1)
    if (at > text.length) throw new TunnelError('a string runs beyond its frame')
    strings.push(text.slice(begin, at))
  }
  return strings
}

function inPairs(strings: string[]): Fields {
  if (strings.length % 2 !== 0) throw new TunnelError('a field has no value')
  return strings
}

function expectLength(payload: Buffer, length: number): void {
  if (payload.length !== length) throw new TunnelError('a frame is not as long as its kind is')
}

function frame(type: number, call: number, payload: string): string {
  const { length } = payload
  return (
    String.fromCharCode(type, call >>> 24, (call >> 16) & 0xff, (call >> 8) & 0xff, call & 0xff) +
    String.fromCharCode(length >> 16, (length >> 8) & 0xff, length & 0xff) +
    payload
  )
}

function lines(fields: Fields): string {
  let text = ''
  for (const item of fields) text += prefixed(item)
  return text
}

function prefixed(text: string): string {
  const { length } = text
  return (length < SHORT.length ? SHORT[length]! : u16(length)) + text
}

function u16(value: number): string {
  return String.fromCharCode(value >> 8, value & 0xff)
}

function u32(value: number): string {
  return u16(value >>> 16) + u16(value & 0xffff)
}

/** The prefixes of short strings, which nearly all are. */
const SHORT = Array.from({ length: 128 }, (_, length) => u16(length))
