/**
 * One end of a tunnel: many calls in sealed records over one stream (relay1 tunnels).
 *
 * It is a body each way to whoever carries it: `records` is what goes out, `take` gets what comes in. Whatever has to
 * go out is collected until the end of a turn of the event loop, and sealed as one record when the stream asks for it.
 */
import type { Body, Fields } from '../call.ts'
import { asSidecarError, SidecarError } from '../errors.ts'
import { TunnelError } from '../pair/tunnel-error.ts'
import {
  CREDIT_MAX,
  DATA_BYTES_MAX,
  type FrameSink,
  pingFrame,
  pongFrame,
  readFrames,
  readyFrame,
  startsWithReady,
} from '../pair/tunnel-frames.ts'
import { PLAINTEXT_BYTES_MAX, RecordOpener, RecordSealer } from '../pair/tunnel-records.ts'
import type { Budget } from './budget.ts'
import { CREDIT_BYTES, type Link, TURN_BYTES, type TunnelCall } from './tunnel-call.ts'

/** What a record holds at most, unless one frame is longer, in bytes. */
const RECORD_BYTES = 128 * 1024
/** Of frames that are neither heads nor DATA: a tunnel on which more of them wait is dead. */
const CONTROL_BYTES_MAX = 1024 * 1024
/** Calls open at once that are offered, at most. */
const CALLS_MAX = 256
/** Of what is left of the budget, one tunnel is offered so much. */
const OFFERED_PART = 4
/** With calls open, the other end is asked whether it lives after so long without a word, and given up later. */
const PING_AFTER_MS = 10_000
const DEAD_AFTER_MS = 30_000
const PING = '\0\0\0\0ping'
/** A piece that is so much smaller than its record is copied: it would keep all of it. */
const COPIED_PART = 16

export interface TunnelOptions {
  /** of the records that go out, and of those that come in; owned by the tunnel */
  secrets: { out: Buffer; in: Buffer }
  headBytesMax: number
  /** for what comes in and waits for apps */
  budget: Budget
  clockMs(): number
  /** told of each record, and of the work that it was to seal it, or to open and read it */
  onRecord(direction: 'sent' | 'received', workMs: number): void
}

export abstract class Tunnel implements Link, FrameSink {
  readonly budget: Budget
  readonly headBytesMax: number
  readonly clockMs: () => number
  /** what goes out; it ends when the tunnel has come to its end, and throws when it is dead */
  readonly records: Body
  protected readonly calls = new Map<number, TunnelCall>()
  /** the highest call that was begun */
  protected highest = 0
  /** what the other end has told by READY; undefined before */
  protected ready: { credit: number; calls: number } | undefined
  /** how many calls we let be open at once */
  protected readonly callsOffered: number
  readonly #sealer: RecordSealer
  readonly #opener: RecordOpener
  readonly #onRecord: TunnelOptions['onRecord']
  readonly #flush = () => this.#sealNext()
  /** frames that wait, those of one record in one text; the last one is put together still */
  #texts: { text: string; controlBytes: number }[] = []
  #text = ''
  /** of control frames: in the text that is put together, and in all that wait */
  #textControlBytes = 0
  #controlBytes = 0
  #pong = ''
  /** calls that have something of a body to send, in turns */
  #queue: TunnelCall[] = []
  #taker: { resolve(record: Buffer | undefined): void; reject(error: unknown): void } | undefined
  #scheduled = false
  /** it comes to its end, and tells so */
  #onEnded: (() => void) | undefined
  #over = false
  #failure: SidecarError | undefined
  #heardMs: number
  /** since when the record that is read next has been worked on, in ms of performance.now() */
  #workedSinceMs = 0
  #asked = false
  /** of the record that is being read */
  #recordBytes = 0

  constructor({ secrets, headBytesMax, budget, clockMs, onRecord }: TunnelOptions) {
    this.headBytesMax = headBytesMax
    this.budget = budget
    this.clockMs = clockMs
    this.#heardMs = clockMs()
    this.#sealer = new RecordSealer(secrets.out, this.#heardMs)
    this.#opener = new RecordOpener(secrets.in, (plaintext) => this.#read(plaintext))
    this.#onRecord = onRecord
    this.records = new Records(() => this.#next())
    const affordable = Math.floor(budget.leftBytes / OFFERED_PART / CREDIT_BYTES)
    this.callsOffered = Math.max(1, Math.min(CALLS_MAX, affordable))
    budget.take(this.callsOffered * CREDIT_BYTES)
    this.writeControl(readyFrame(CREDIT_BYTES, this.callsOffered))
  }

  /** How many calls are open. */
  get openCalls(): number {
    return this.calls.size
  }

  /** Is it dead, or has it come to its end? */
  get isOver(): boolean {
    return this.#over
  }

  /** Does it seal a record at the end of this turn of the event loop? */
  get isAboutToSeal(): boolean {
    return this.#scheduled
  }

  /** Has the other end been heard? */
  get isReady(): boolean {
    return this.ready !== undefined
  }

  /** How long the other end has not been heard, in ms. */
  protected get silentMs(): number {
    return this.clockMs() - this.#heardMs
  }

  /** All records of the other end have been read that came at once: what they began may go on. */
  protected abstract onRecordRead(): void
  /** The tunnel died, or came to its end with calls open: every call is to be reset. */
  protected abstract onDead(error: SidecarError): void
  abstract onOver(call: TunnelCall): void
  abstract onHead(call: number, end: boolean, payload: Buffer): void
  abstract onInfo(call: number, payload: Buffer): void
  abstract onGoaway(highest: number): void

  write(frame: string): void {
    if (this.#over || this.#onEnded) return
    if (this.#text.length + frame.length > RECORD_BYTES && this.#text !== '') {
      this.#texts.push({ text: this.#text, controlBytes: this.#textControlBytes })
      this.#text = ''
      this.#textControlBytes = 0
    }
    this.#text += frame
    this.#schedule()
  }

  writeControl(frame: string): void {
    this.#controlBytes += frame.length
    if (this.#controlBytes > CONTROL_BYTES_MAX) this.die(new TunnelError('it does not take what it is told'))
    else {
      this.write(frame)
      this.#textControlBytes += frame.length
    }
  }

  queue(call: TunnelCall): void {
    this.#queue.push(call)
    this.#schedule()
  }

  /**
   * Takes what came from the other end.
   * @param bytes cut anywhere; undefined: its end
   */
  take(bytes: Buffer | undefined): void {
    if (this.#over) return
    if (bytes === undefined) {
      this.die(undefined)
      return
    }
    this.#workedSinceMs = performance.now()
    try {
      this.#opener.push(bytes)
    } catch (error) {
      this.die(error)
    }
  }

  /** To be called every now and then: looks whether the other end is alive. */
  tick(): void {
    if (this.calls.size === 0 || this.#over) return
    const { silentMs } = this
    if (silentMs > DEAD_AFTER_MS) this.die(new TunnelError('it is not heard any more'))
    else if (silentMs > PING_AFTER_MS && !this.#asked) {
      this.#asked = true
      this.writeControl(pingFrame(PING))
    }
  }

  /**
   * Ends the tunnel in the middle, and resets what is open.
   * @param cause undefined: the other end ended it
   */
  die(cause: unknown): void {
    if (this.#over) return
    const detail = cause instanceof TunnelError ? `The tunnel broke: ${cause.message}.` : 'The tunnel broke.'
    this.#failure =
      cause === undefined || cause instanceof TunnelError
        ? new SidecarError('message-truncated', detail, { cause })
        : asSidecarError(cause)
    this.#close()
    this.#taker?.reject(this.#failure)
    this.#taker = undefined
    this.onDead(this.#failure)
    this.calls.clear()
  }

  /**
   * Comes to its end, once what waits has gone out: no call may be open.
   * @param onEnded told then; not if it dies before
   */
  protected end(onEnded: () => void): void {
    this.#onEnded = onEnded
    this.#schedule()
  }

  onData(call: number, end: boolean, piece: Buffer): void {
    this.#open(call)?.receiveData(this.#kept(piece), end)
  }

  onTrailers(call: number, payload: Buffer): void {
    this.#open(call)?.receiveTrailers(payload)
  }

  onReset(call: number, code: number): void {
    this.#open(call)?.receiveReset(code)
  }

  onCredit(call: number, more: number): void {
    this.#open(call)?.receiveCredit(more)
  }

  onReady(credit: number, calls: number): void {
    if (this.ready) throw new TunnelError('it is ready twice')
    this.ready = { credit: Math.min(credit, CREDIT_MAX), calls: Math.min(calls, this.callsOffered) }
  }

  onPing(payload: string): void {
    this.#pong = payload
    this.#schedule()
  }

  onPong(): void {}

  /** The call, if it is open; undefined if it is over. @throws TunnelError if it was never begun */
  #open(number: number): TunnelCall | undefined {
    if (number > this.highest) throw new TunnelError('a call was never begun')
    return this.calls.get(number)
  }

  #kept(piece: Buffer): Buffer {
    return piece.length * COPIED_PART < this.#recordBytes ? Buffer.from(piece) : piece
  }

  #read(plaintext: Buffer): boolean {
    this.#heardMs = this.clockMs()
    this.#asked = false
    this.#recordBytes = plaintext.length
    if (!this.ready && !startsWithReady(plaintext)) throw new TunnelError('it does not begin with READY')
    const rekeyed = readFrames(plaintext, this)
    this.#onRecord('received', performance.now() - this.#workedSinceMs)
    this.onRecordRead()
    this.#workedSinceMs = performance.now()
    return rekeyed
  }

  #next(): Promise<Buffer | undefined> {
    if (this.#failure) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => {
      this.#taker = { resolve, reject }
      this.#schedule()
    })
  }

  #schedule(): void {
    if (this.#scheduled || !this.#taker) return
    const waits = this.#text !== '' || this.#queue.length > 0 || this.#pong !== '' || this.#onEnded
    if (!waits) return
    this.#scheduled = true
    setImmediate(this.#flush)
  }

  #sealNext(): void {
    this.#scheduled = false
    const taker = this.#taker
    if (!taker) return
    const beganMs = performance.now()
    const bytes = this.#fill()
    const onEnded = this.#onEnded
    if (bytes === 0 && !onEnded) return
    this.#taker = undefined
    if (bytes === 0) {
      this.#close()
      taker.resolve(undefined)
      onEnded?.()
      return
    }
    const record = this.#sealer.seal(plaintext().subarray(0, bytes), this.clockMs())
    this.#onRecord('sent', performance.now() - beganMs)
    taker.resolve(record)
  }

  /** Puts together what waits, as far as it goes into one record. */
  #fill(): number {
    const into = plaintext()
    let at = 0
    if (this.#pong !== '') {
      at = into.write(pongFrame(this.#pong), 0, 'latin1')
      this.#pong = ''
    }
    const full = this.#texts.shift()
    if (full) {
      // No DATA behind it: its head may be in the next one.
      this.#controlBytes -= full.controlBytes
      return at + into.write(full.text, at, 'latin1')
    }
    if (this.#text !== '') at += into.write(this.#text, at, 'latin1')
    this.#text = ''
    this.#textControlBytes = 0
    this.#controlBytes = 0
    while (this.#queue.length > 0 && at < RECORD_BYTES) {
      const call = this.#queue.shift()!
      // Turns that would follow one another anyway are one.
      at = call.writeTurn(into, at, this.#queue.length === 0 ? DATA_BYTES_MAX : TURN_BYTES)
    }
    return at
  }

  #close(): void {
    this.#over = true
    this.#sealer.erase()
    this.#opener.erase()
    this.#texts = []
    this.#text = ''
    this.#queue = []
    this.budget.give(this.callsOffered * CREDIT_BYTES)
  }
}

let scratch: Buffer | undefined

/** Where records are put together, one at a time in the whole process: tunnels that are idle hold no memory. */
function plaintext(): Buffer {
  scratch ??= Buffer.allocUnsafeSlow(PLAINTEXT_BYTES_MAX)
  return scratch
}

class Records implements Body {
  readonly trailers: Fields = []
  readonly read: () => Promise<Buffer | undefined>

  constructor(read: () => Promise<Buffer | undefined>) {
    this.read = read
  }

  whole(): undefined {}
}
