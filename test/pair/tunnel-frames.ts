/** Frames in one form for writing and for reading, so that both can be compared. */
import type { Fields, RequestHead, ResponseHead } from '../../sidecar/call.ts'
import {
  creditFrame,
  FRAME_HEADER_BYTES,
  type FrameSink,
  goawayFrame,
  infoFrame,
  pingFrame,
  pongFrame,
  readFrames,
  readInterim,
  readRequest,
  readResponse,
  readTrailers,
  readyFrame,
  requestFrame,
  resetFrame,
  responseFrame,
  trailersFrame,
  writeData,
} from '../../sidecar/pair/tunnel-frames.ts'
import type { Side } from './tunnel-vectors.ts'

export type Frame =
  | { type: 'request'; call: number; end: boolean; head: RequestHead }
  | { type: 'response'; call: number; end: boolean; head: ResponseHead }
  | { type: 'info'; call: number; head: ResponseHead }
  | { type: 'data'; call: number; end: boolean /** Latin-1 */; piece: string }
  | { type: 'trailers'; call: number; fields: Fields }
  | { type: 'reset'; call: number; code: number }
  | { type: 'credit'; call: number; more: number }
  | { type: 'ready'; credit: number; calls: number }
  | { type: 'ping' | 'pong'; payload: string }
  | { type: 'goaway'; highest: number }

export function written(frame: Frame): Buffer {
  if (frame.type !== 'data') return Buffer.from(writtenText(frame), 'latin1')
  const { call, end, piece } = frame
  const into = Buffer.alloc(FRAME_HEADER_BYTES + piece.length + 3, 0xee)
  const at = writeData(into, 2, call, Buffer.from(piece, 'latin1'), end)
  return into.subarray(2, at)
}

function writtenText(frame: Exclude<Frame, { type: 'data' }>): string {
  switch (frame.type) {
    case 'request':
      return requestFrame(frame.call, frame.head, frame.end)
    case 'response':
      return responseFrame(frame.call, frame.head, frame.end)
    case 'info':
      return infoFrame(frame.call, frame.head)
    case 'trailers':
      return trailersFrame(frame.call, frame.fields)
    case 'reset':
      return resetFrame(frame.call, frame.code)
    case 'credit':
      return creditFrame(frame.call, frame.more)
    case 'ready':
      return readyFrame(frame.credit, frame.calls)
    case 'ping':
      return pingFrame(frame.payload)
    case 'pong':
      return pongFrame(frame.payload)
    case 'goaway':
      return goawayFrame(frame.highest)
  }
}

/** Keeps what it is told, with every payload read. */
export class Frames implements FrameSink {
  readonly frames: Frame[] = []
  readonly #from: Side

  /** @param from who sent the records: the head of an initiator is that of a request */
  constructor(from: Side) {
    this.#from = from
  }

  onHead(call: number, end: boolean, payload: Buffer): void {
    if (this.#from === 'initiator')
      this.frames.push({ type: 'request', call, end, head: readRequest(payload) })
    else this.frames.push({ type: 'response', call, end, head: readResponse(payload) })
  }

  onInfo(call: number, payload: Buffer): void {
    this.frames.push({ type: 'info', call, head: readInterim(payload) })
  }

  onData(call: number, end: boolean, piece: Buffer): void {
    this.frames.push({ type: 'data', call, end, piece: piece.toString('latin1') })
  }

  onTrailers(call: number, payload: Buffer): void {
    this.frames.push({ type: 'trailers', call, fields: readTrailers(payload) })
  }

  onReset(call: number, code: number): void {
    this.frames.push({ type: 'reset', call, code })
  }

  onCredit(call: number, more: number): void {
    this.frames.push({ type: 'credit', call, more })
  }

  onReady(credit: number, calls: number): void {
    this.frames.push({ type: 'ready', credit, calls })
  }

  onPing(payload: string): void {
    this.frames.push({ type: 'ping', payload })
  }

  onPong(): void {
    this.frames.push({ type: 'pong', payload: '' })
  }

  onGoaway(highest: number): void {
    this.frames.push({ type: 'goaway', highest })
  }
}

/** The frames of a record, and whether it ended with REKEY. */
export function readBack(record: Buffer, from: Side): { frames: Frame[]; rekey: boolean } {
  const sink = new Frames(from)
  const rekey = readFrames(record, sink)
  return { frames: sink.frames, rekey }
}
