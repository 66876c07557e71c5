/** The end of a tunnel that begins calls. */
import type { Socket } from 'node:net'
import type { Answer, Caller, Request, ResponseHead } from '../call.ts'
import { asSidecarError, SidecarError } from '../errors.ts'
import { checkResponseHead, contentLength, isBodyless } from '../http/fields.ts'
import { SendError } from '../http/send-error.ts'
import { TunnelError } from '../pair/tunnel-error.ts'
import { RESETS, readInterim, readResponse, requestFrame } from '../pair/tunnel-frames.ts'
import type { Coding } from '../telemetry/coding.ts'
import { Tunnel, type TunnelOptions } from './tunnel.ts'
import { codeOf, cutByReset, type Link, TunnelCall } from './tunnel-call.ts'

const INTERIM_MAX = 16
/** Without calls it is closed after so long without a word. */
const IDLE_MAX_MS = 20_000
/** It gets no new calls after so long, at random between these: a balancer's replicas share the load. */
const AGE_MIN_MS = 90_000
const AGE_SPREAD_MS = 60_000

/** A call that got no answer. */
export class CallLostError extends Error {
  /** Is it certain that not a byte of it went to the app? */
  readonly refused: boolean

  constructor(refused: boolean, message: string) {
    super(message)
    this.name = 'CallLostError'
    this.refused = refused
  }
}

export interface InitiatorOptions extends TunnelOptions {
  /** what the peer calls itself */
  peer: string
  /** the connection beneath */
  socket: Socket | undefined
  /** from the last byte of a request to the first of its answer, in ms */
  responseTimeoutMs: number
  /** May it get new calls? Asked every now and then: its secret may not count any more. */
  isWanted(): boolean
  /** told once, when the other end has shown that it has the keys */
  onReady(): void
  /** told once, when it gets no new calls: it is old, ends, or the other end wants none */
  onRetired(): void
  /** told once, when it is over; `broke`: in the middle of calls, and not announced */
  onClosed(broke: boolean): void
}

export class InitiatorTunnel extends Tunnel {
  readonly peer: string
  readonly socket: Socket | undefined
  readonly #options: InitiatorOptions
  readonly #retiresAtMs: number
  #retired = false
  #goaway = Number.POSITIVE_INFINITY

  constructor(options: InitiatorOptions) {
    super(options)
    this.peer = options.peer
    this.socket = options.socket
    this.#options = options
    this.#retiresAtMs = this.clockMs() + AGE_MIN_MS + AGE_SPREAD_MS * Math.random()
  }

  /** May another call begin? */
  get hasRoom(): boolean {
    return !this.#retired && !this.isOver && this.ready !== undefined && this.calls.size < this.ready.calls
  }

  /**
   * Sends a call, where there was room a moment ago.
   * @param encoding told of the sending of the request
   * @throws CallLostError, SendError response-timeout, SidecarError of what the other end refused, or what the request's body throws
   */
  send(request: Request, caller: Caller, encoding: Coding): Promise<TunnelAnswer> {
    if (this.isOver) return Promise.reject(new CallLostError(true, 'The tunnel is over.'))
    return new Promise((resolve, reject) => {
      const number = ++this.highest
      const call = new InitiatedCall(number, this.ready!.credit, this, { request, caller, resolve, reject })
      this.calls.set(number, call)
      call.encodedBy(encoding)
      call.begin(this.#options.responseTimeoutMs)
    })
  }

  /** It gets no new calls, and is closed when those that it has are over. */
  retire(): void {
    if (this.#retired) return
    this.#retired = true
    this.#options.onRetired()
    if (this.calls.size === 0) this.die(undefined)
  }

  override tick(): void {
    super.tick()
    if (this.isOver) return
    const nowMs = this.clockMs()
    if (this.calls.size === 0 && this.silentMs > IDLE_MAX_MS) {
      this.die(undefined)
      return
    }
    if (nowMs >= this.#retiresAtMs || !this.#options.isWanted()) this.retire()
    for (const call of this.calls.values()) (call as InitiatedCall).tick(nowMs)
  }

  override onReady(credit: number, calls: number): void {
    super.onReady(credit, calls)
    this.#options.onReady()
  }

  onOver(call: TunnelCall): void {
    this.calls.delete(call.number)
    if (this.#retired && this.calls.size === 0) this.die(undefined)
  }

  onHead(number: number, end: boolean, payload: Buffer): void {
    this.#open(number)?.answered(payload, end)
  }

  onInfo(number: number, payload: Buffer): void {
    this.#open(number)?.informed(payload)
  }

  onGoaway(highest: number): void {
    if (highest > this.#goaway) throw new TunnelError('GOAWAY is taken back')
    this.#goaway = highest
    for (const call of [...this.calls.values()] as InitiatedCall[])
      if (call.number > highest) call.refused('The peer takes no more calls on this tunnel.')
    this.retire()
  }

  protected onRecordRead(): void {}

  protected onDead(error: SidecarError): void {
    const broke = this.calls.size > 0 && this.#goaway === Number.POSITIVE_INFINITY
    this.#retired = true
    for (const call of [...this.calls.values()] as InitiatedCall[]) call.tunnelDied(error)
    this.#options.onClosed(broke)
  }

  #open(number: number): InitiatedCall | undefined {
    if (number > this.highest) throw new TunnelError('a call was never begun')
    return this.calls.get(number) as InitiatedCall | undefined
  }
}

/** An answer that comes by a tunnel. */
export interface TunnelAnswer extends Answer {
  /** @param coding told of the size of the answer, and of its end */
  decodedBy(coding: Coding): void
}

const NO_HEAD: ResponseHead = { status: 0, fields: [] }

interface Pending {
  request: Request
  caller: Caller
  resolve(answer: TunnelAnswer): void
  reject(error: unknown): void
}

class InitiatedCall extends TunnelCall implements TunnelAnswer {
  head: ResponseHead = NO_HEAD
  readonly #pending: Pending
  #informed = 0
  /** the promise of the answer is kept, or broken */
  #settled = false
  #responseTimeoutMs = 0
  #sentAtMs = 0

  constructor(number: number, credit: number, link: Link, pending: Pending) {
    super(number, credit, link)
    this.#pending = pending
  }

  begin(responseTimeoutMs: number): void {
    this.#responseTimeoutMs = responseTimeoutMs
    const { request, caller } = this.#pending
    caller.onGone((why) => this.#abort(RESETS.cancelled, why))
    if (this.isOver) return
    try {
      const { head, body } = request
      this.send(body, contentLength(head.fields))?.catch((error) => this.#abort(RESETS.cancelled, error))
    } catch (error) {
      this.#abort(RESETS.cancelled, error)
    }
  }

  protected headFrame(end: boolean): string {
    return requestFrame(this.number, this.#pending.request.head, end)
  }

  /** Looks whether the answer is late. */
  tick(nowMs: number): void {
    if (this.#settled || !this.hasSentAll) return
    if (this.#sentAtMs === 0) this.#sentAtMs = nowMs
    else if (nowMs - this.#sentAtMs >= this.#responseTimeoutMs)
      this.#abort(RESETS.timedOut, new SendError('response-timeout', true))
  }

  answered(payload: Buffer, end: boolean): void {
    if (this.headReceived) throw new TunnelError('a call is answered twice')
    const head = readResponse(payload)
    let length: number | undefined
    try {
      checkResponseHead(head, this.link.headBytesMax)
      length = isBodyless(this.#pending.request.head.method, head.status) ? 0 : contentLength(head.fields)
    } catch (error) {
      this.refuse(codeOf(error))
      return
    }
    this.receiveHead(payload.length, end, length)
    if (this.#settled) return
    this.#settled = true
    this.head = head
    this.#pending.resolve(this)
  }

  informed(payload: Buffer): void {
    if (this.headReceived || ++this.#informed > INTERIM_MAX)
      throw new TunnelError('an interim response comes too late, or too often')
    const head = readInterim(payload)
    try {
      checkResponseHead(head, this.link.headBytesMax)
    } catch (error) {
      this.refuse(codeOf(error))
      return
    }
    this.received.add(payload.length)
    this.#sentAtMs = 0
    this.#pending.caller.inform(head)
  }

  /** It is certain that not a byte of it went to the app. */
  refused(why: string): void {
    this.drop()
    this.#fail(new CallLostError(true, why))
  }

  tunnelDied(error: SidecarError): void {
    this.drop()
    this.#fail(new CallLostError(false, error.message))
  }

  protected touch(): void {}

  protected onReceivedAll(): void {}

  protected onReset(code: number): void {
    this.#fail(failureOf(code))
  }

  #abort(code: number, why: unknown): void {
    this.reset(code)
    this.#fail(why)
  }

  #fail(why: unknown): void {
    this.failBody(why instanceof CallLostError ? cutByReset() : asSidecarError(why))
    if (this.#settled) return
    this.#settled = true
    this.#pending.reject(why)
  }
}

function failureOf(code: number): Error {
  if (code === RESETS.refused) return new CallLostError(true, 'The peer refused the call on this tunnel.')
  if (code === RESETS.malformed)
    return new SidecarError(
      'message-refused',
      "The call, or its answer, is none that the peer's sidecar and this one pass on.",
    )
  if (code === RESETS.tooLarge)
    return new SidecarError(
      'headers-too-large',
      "The head or the trailers are larger than the peer's sidecar takes them.",
    )
  return new CallLostError(false, "The peer's sidecar broke the call off.")
}
