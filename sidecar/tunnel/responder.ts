/** The end of a tunnel that answers calls. */
import {
  type Answer,
  added,
  type Caller,
  type Request,
  type RequestHead,
  type ResponseHead,
  type Watcher,
} from '../call.ts'
import { asSidecarError, SidecarError } from '../errors.ts'
import type { OpenCall, OpenCalls } from '../http/exchange.ts'
import {
  checkRequestHead,
  contentLength,
  isBodyless,
  isFromSidecar,
  isValidResponse,
  withoutFields,
} from '../http/fields.ts'
import { problem } from '../http/problem.ts'
import { Reject } from '../pair/reject.ts'
import { TunnelError } from '../pair/tunnel-error.ts'
import {
  FRAME_HEADER_BYTES,
  goawayFrame,
  infoFrame,
  RESETS,
  readRequest,
  resetFrame,
  responseFrame,
} from '../pair/tunnel-frames.ts'
import { Tunnel, type TunnelOptions } from './tunnel.ts'
import { codeOf, cutByReset, type Link, TunnelCall } from './tunnel-call.ts'

const INTERIM_MAX = 16
/** Without calls it is ended after so long without a word. */
const IDLE_MAX_MS = 30_000
/** Until the other end's first record. */
const READY_TIMEOUT_MS = 5_000
/** No call begins later: whoever holds records back cannot deliver one hours later. */
const AGE_MAX_MS = 180_000

export interface ResponderOptions extends TunnelOptions {
  /** Answers a call; what it throws resets the call. */
  handler(request: Request, call: AcceptedCall): Promise<Answer>
  /** told of what should not happen, and of the ids of the call in which it did */
  onFault(error: unknown, ids?: object): void
  /** May new calls come? Asked every now and then: its secret may not count any more. */
  isWanted(): boolean
  /** the calls that are open at the port, which the tunnel's are among */
  open: OpenCalls
  /** told once, when it is over. @param why it died; undefined where it came to its end */
  onClosed(why: SidecarError | undefined): void
}

export class ResponderTunnel extends Tunnel {
  readonly #options: ResponderOptions
  readonly #bornMs: number
  /** those that were begun by the record that is being read */
  #begun: AcceptedCall[] = []
  /** calls that are open, or of which the app has not let go yet: who resets many gets nothing for it */
  #busy = 0
  #goaway = Number.POSITIVE_INFINITY

  constructor(options: ResponderOptions) {
    super(options)
    this.#options = options
    this.#bornMs = this.clockMs()
  }

  /** Takes no more calls, and ends when those that were begun are over. */
  retire(): void {
    if (this.#goaway <= this.highest || this.isOver) return
    this.#goaway = this.highest
    this.writeControl(goawayFrame(this.highest))
    this.#endIfDone()
  }

  override tick(): void {
    super.tick()
    if (!this.#options.isWanted()) this.retire()
    if (this.isOver || this.calls.size > 0) return
    if (this.silentMs > (this.isReady ? IDLE_MAX_MS : READY_TIMEOUT_MS)) this.die(undefined)
  }

  onOver(call: TunnelCall): void {
    this.calls.delete(call.number)
    const accepted = call as AcceptedCall
    this.#options.open.remove(accepted)
    accepted.closed()
    if (accepted.isSettled) this.#done()
  }

  onHead(number: number, end: boolean, payload: Buffer): void {
    if (number !== this.highest + 1) throw new TunnelError('a call is not the next one')
    this.highest = number
    // Of what is told after GOAWAY only the number counts; it may have died of an earlier frame of the record.
    if (number > this.#goaway || this.isOver) return
    // Whatever it is, it must be a head.
    const head = readRequest(payload)
    if (this.#busy >= this.ready!.calls || this.clockMs() - this.#bornMs > AGE_MAX_MS) {
      this.writeControl(resetFrame(number, RESETS.refused))
      return
    }
    let checked: RequestHead
    let length: number | undefined
    try {
      checked = checkRequestHead(head, this.headBytesMax)
      length = contentLength(checked.fields)
    } catch (error) {
      this.writeControl(resetFrame(number, codeOf(error)))
      return
    }
    const { open } = this.#options
    const call = new AcceptedCall(number, this.ready!.credit, this, checked, open)
    this.calls.set(number, call)
    open.add(call)
    this.#busy++
    this.#begun.push(call)
    call.begin(payload.length, end, length)
  }

  onInfo(): void {
    throw new TunnelError('an interim response comes from where calls begin')
  }

  onGoaway(): void {
    throw new TunnelError('GOAWAY comes from where calls begin')
  }

  protected onRecordRead(): void {
    if (this.#begun.length === 0) return
    for (const call of this.#begun.splice(0)) {
      if (call.isOver) this.#settled(call)
      else this.#answer(call)
    }
  }

  protected onDead(error: SidecarError): void {
    for (const call of [...this.calls.values()] as AcceptedCall[]) call.abandoned(error)
    this.#options.onClosed(error)
  }

  async #answer(call: AcceptedCall): Promise<void> {
    try {
      const sending = call.answer(await this.#options.handler(call.request, call))
      if (sending) await sending
    } catch (error) {
      this.#failed(call, error)
    } finally {
      this.#settled(call)
    }
  }

  #failed(call: AcceptedCall, error: unknown): void {
    const failure = asSidecarError(error)
    if (failure.code === 'internal-error') this.#options.onFault(failure.cause, call.ids)
    call.fail(failure)
  }

  #settled(call: AcceptedCall): void {
    call.isSettled = true
    if (call.isOver) this.#done()
  }

  #done(): void {
    this.#busy--
    this.#endIfDone()
  }

  #endIfDone(): void {
    if (this.#goaway === Number.POSITIVE_INFINITY || this.calls.size > 0 || this.#busy > 0 || this.isOver)
      return
    this.end(() => this.#options.onClosed(undefined))
  }
}

/** A call that came in by a tunnel. */
export class AcceptedCall extends TunnelCall implements Caller, OpenCall {
  /** told once, when it begins to be answered */
  onAnswering: (() => void) | undefined
  /** Is there nothing more to do for it here but to send? */
  isSettled = false
  readonly #head: RequestHead
  readonly #open: OpenCalls
  #movedAt: number
  #informed = 0
  #gone: SidecarError | undefined
  #callbacks: ((why: SidecarError) => void)[] | undefined
  #watcher: Watcher | undefined
  #answering = false
  #answerHead: ResponseHead | undefined

  constructor(number: number, credit: number, link: Link, head: RequestHead, open: OpenCalls) {
    super(number, credit, link)
    this.#head = head
    this.#open = open
    this.#movedAt = open.sweeps
  }

  get request(): Request {
    return { head: this.#head, body: this.body }
  }

  get stillSweeps(): number {
    return this.#open.sweeps - this.#movedAt
  }

  watch(watcher: Watcher): void {
    this.#watcher = watcher
  }

  get ids(): object | undefined {
    return this.#watcher?.ids
  }

  begin(payloadBytes: number, end: boolean, length: number | undefined): void {
    this.receiveHead(payloadBytes, end, length)
  }

  inform(head: ResponseHead): void {
    if (this.isOver || this.#answering || this.#informed === INTERIM_MAX) return
    const { status, fields } = head
    const passed = { status, fields: withoutFields(fields, isFromSidecar) }
    // One that is not valid would be refused at the other end, and the answer with it.
    if (!isValidResponse(passed, this.link.headBytesMax)) return
    this.#informed++
    this.touch()
    const frame = infoFrame(this.number, passed)
    this.sent.add(frame.length - FRAME_HEADER_BYTES)
    this.link.writeControl(frame)
  }

  onGone(callback: (why: SidecarError) => void): void {
    if (this.#gone) callback(this.#gone)
    else if (!this.isOver) this.#callbacks = added(this.#callbacks, callback)
  }

  /** Sends the answer. @returns a promise where its body is still to come; it rejects as that does */
  answer({ head, body }: Answer): Promise<void> | undefined {
    if (this.isOver) return undefined
    this.touch()
    this.#answering = true
    this.#answerHead = head
    this.onAnswering?.()
    const length = isBodyless(this.#head.method, head.status) ? 0 : contentLength(head.fields)
    const sending = this.send(body, length)
    if (sending) return sending.then(() => this.#answered())
    this.#answered()
    return undefined
  }

  #answered(): void {
    if (this.hasReceivedAll) return
    this.failBody(new SidecarError('caller-gone', 'The answer was complete before the request was.'))
    this.wantNoMore()
  }

  protected headFrame(end: boolean): string {
    return responseFrame(this.number, this.#answerHead!, end)
  }

  /** There is no answer, or no end of it: a problem is sent in its place, or the call is reset. */
  fail(failure: SidecarError): void {
    if (this.isOver) return
    if (failure.status > 0 && !this.hasSentHead) {
      this.answer(problem(failure))
      return
    }
    this.abort(failure)
  }

  abort(why: SidecarError): void {
    if (this.isOver) return
    this.#goneFor(why)
    this.reset(codeOfFailure(why))
  }

  /** The tunnel is dead. */
  abandoned(error: SidecarError): void {
    this.#goneFor(error)
    this.drop()
  }

  /** The call is over for the other end: whoever watches is told whether it has all of the answer. */
  closed(): void {
    if (!this.hasSentAll) this.#goneFor(cutByReset())
    const watcher = this.#watcher
    this.#watcher = undefined
    this.#callbacks = undefined
    watcher?.over(this.hasSentAll ? undefined : this.#gone)
  }

  protected touch(): void {
    this.#movedAt = this.#open.sweeps
  }

  protected onReceivedAll(): void {}

  protected onReset(): void {
    this.#goneFor(new SidecarError('caller-gone', "The caller's sidecar broke the call off."))
  }

  #goneFor(why: SidecarError): void {
    if (this.#gone) return
    this.#gone = why
    this.failBody(why)
    const callbacks = this.#callbacks
    this.#callbacks = undefined
    if (callbacks) for (const callback of callbacks) callback(why)
  }
}

/** The code of the reset that tells the other end of a failure. */
function codeOfFailure({ code, cause }: SidecarError): number {
  if (cause instanceof Reject) return cause.code === 'too_large' ? RESETS.tooLarge : RESETS.malformed
  if (code === 'caller-gone') return RESETS.cancelled
  return code === 'idle-timeout' || code === 'upstream-timeout' ? RESETS.timedOut : RESETS.upstreamFailed
}
