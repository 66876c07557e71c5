/** The other end of a tunnel in the hands of a test: it seals whatever frames it likes, and reads what comes. */
import { RecordOpener, RecordSealer } from '../../sidecar/pair/tunnel-records.ts'
import { type Frame, readBack, written } from '../pair/tunnel-frames.ts'
import type { Side } from '../pair/tunnel-vectors.ts'

/** What a test sends: a frame, or bytes that stand for some. */
export type Sent = Frame | Buffer

export const READY = { type: 'ready', credit: 65_536, calls: 256 } satisfies Frame

/** The head of a request without a body, unless more is said. */
export function request(
  call: number,
  more: { method?: string; end?: boolean; fields?: string[] } = {},
): Frame {
  const { method = 'GET', end = true, fields = [] } = more
  return { type: 'request', call, end, head: { method, scheme: 'http', authority: 'app', path: '/', fields } }
}

/** The head of an answer without a body, unless more is said. */
export function response(
  call: number,
  more: { status?: number; end?: boolean; fields?: string[] } = {},
): Frame {
  const { status = 200, end = true, fields = [] } = more
  return { type: 'response', call, end, head: { status, fields } }
}

export function data(call: number, piece: string, end = false): Frame {
  return { type: 'data', call, end, piece }
}

export class TunnelEnd {
  readonly #sealer: RecordSealer
  readonly #opener: RecordOpener
  readonly #write: (record: Buffer) => void
  #frames: Frame[] = []
  #over: unknown
  #wake: (() => void) | undefined

  /**
   * @param side the part that it plays
   * @param secrets of its own records, and of those that it gets; both are copied
   * @param write takes its records
   */
  constructor(side: Side, secrets: { out: Buffer; in: Buffer }, write: (record: Buffer) => void) {
    const other: Side = side === 'initiator' ? 'responder' : 'initiator'
    this.#sealer = new RecordSealer(Buffer.from(secrets.out), 0)
    this.#opener = new RecordOpener(Buffer.from(secrets.in), (plaintext) => {
      const { frames, rekey } = readBack(plaintext, other)
      this.#frames.push(...frames)
      return rekey
    })
    this.#write = write
  }

  /** A record of these frames, for the test to send. */
  sealed(...sent: Sent[]): Buffer {
    const plaintext = Buffer.concat(sent.map((frame) => (Buffer.isBuffer(frame) ? frame : written(frame))))
    return this.#sealer.seal(plaintext, 0)
  }

  /** Sends these frames in one record. */
  send(...sent: Sent[]): void {
    this.#write(this.sealed(...sent))
  }

  /** Takes what came, cut anywhere. */
  take(bytes: Buffer): void {
    this.#opener.push(bytes)
    this.#wake?.()
  }

  /** Nothing more comes. @param why how it ended */
  over(why: unknown): void {
    this.#over ??= why
    this.#wake?.()
  }

  /** The next frame. @throws when none comes any more */
  async next(): Promise<Frame> {
    for (;;) {
      const frame = this.#frames.shift()
      if (frame) return frame
      if (this.#over) throw new Error(`the tunnel is over: ${this.#over}`)
      await this.#waken()
    }
  }

  /** All frames up to the first of a kind, which is the last of them. */
  async until(type: Frame['type']): Promise<Frame[]> {
    for (const frames: Frame[] = []; ; ) {
      const frame = await this.next()
      frames.push(frame)
      if (frame.type === type) return frames
    }
  }

  /** All frames that come until there is nothing more to come for what was sent so far. */
  async settled(): Promise<Frame[]> {
    const frames: Frame[] = []
    // A PONG goes before whatever else is in its record, and what follows from a record is in the next.
    for (const payload of ['settle-1', 'settle-2', 'settle-3']) {
      this.send({ type: 'ping', payload })
      frames.push(...(await this.until('pong')).slice(0, -1))
    }
    return frames
  }

  /** How the tunnel ended, once it has. */
  async end(): Promise<unknown> {
    while (!this.#over) await this.#waken()
    return this.#over
  }

  #waken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}
