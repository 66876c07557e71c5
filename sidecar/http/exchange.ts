import type { Socket } from 'node:net'
import { type Answer, added, type Caller, type Request, type ResponseHead, type Watcher } from '../call.ts'
import { asSidecarError, SidecarError } from '../errors.ts'
import { FIELDS_MAX } from './fields.ts'
import { problem } from './problem.ts'
import type { Alive } from './stream-body.ts'

/** More interim responses of a call are not passed on: they are written whether the caller reads them or not. */
const INTERIM_MAX = 16

/** A caller of which the end of its call can be watched. */
export interface WatchedCaller extends Caller {
  watch(watcher: Watcher): void
  /**
   * The call carries others from here on: it is not counted, nor timed, as one.
   * @returns where those that it carries are to be counted; undefined where it cannot carry any, over HTTP/1.1
   */
  carryOthers(): OpenCalls | undefined
  /** Ends the call from our side, such that nobody takes it for complete; nothing happens if it is over. */
  abort(why: SidecarError): void
}

/** A call as it comes in at a port. */
export interface Arrival {
  request: Request
  caller: WatchedCaller
  /** Was the target a whole URL, as it is sent to a forward proxy? */
  absoluteForm: boolean
  /** the connection that the call came on */
  socket: Socket
}

/**
 * Answers a call. A SidecarError that it throws is answered as a problem, or resets the call where the code has no
 * status.
 */
export type Handler = (arrival: Arrival) => Promise<Answer>

/** What the servers of a listener share. */
export interface ServerOptions {
  handler: Handler
  /** names and values of one head, in bytes */
  headBytesMax: number
  /** of a connection or call on which nothing moves, in ms */
  idleTimeoutMs: number
  /**
   * told of what should not happen
   * @param ids of the call in which it did, if it was in one that is watched
   */
  onFault(error: unknown, ids?: object): void
  calls: OpenCalls
}

/** A call as whoever watches over all that are open sees it. */
export interface OpenCall {
  /** for how many sweeps of the open calls nothing has moved in it */
  readonly stillSweeps: number
  /** Ends it such that nobody takes it for complete. */
  abort(why: SidecarError): void
}

/** Before a connection that its client was asked to leave is closed, nothing must have come on it for so long, in ms. */
export const LEAVE_MS = 1000

/**
 * One call at a listener, from its head to the last byte of its answer: has it handled and its answer written,
 * and knows whether the caller is still there.
 */
export abstract class Exchange implements WatchedCaller, Alive, OpenCall {
  readonly #options: ServerOptions
  /** when something moved last, in sweeps of the open calls */
  #movedAt: number
  #informed = 0
  #over = false
  #gone: SidecarError | undefined
  #callbacks: ((why: SidecarError) => void)[] | undefined
  #watcher: Watcher | undefined

  constructor(options: ServerOptions) {
    this.#options = options
    this.#movedAt = options.calls.sweeps
    options.calls.add(this)
  }

  /** Has the head of the answer been written? */
  protected abstract get answering(): boolean

  /** Writes an interim response, if the caller takes one. */
  protected abstract writeInterim(head: ResponseHead): void

  /** Writes an answer. A promise where its body is still to come; it rejects as the body does. */
  protected abstract write(answer: Answer): Promise<void> | undefined

  /** Ends the call's stream such that what was written cannot be taken for complete. */
  protected abstract reset(): void

  /** Is there nobody any more to whom an answer could be written? */
  get over(): boolean {
    return this.#over
  }

  watch(watcher: Watcher): void {
    this.#watcher = watcher
  }

  carryOthers(): OpenCalls | undefined {
    return undefined
  }

  touch(): void {
    this.#movedAt = this.#options.calls.sweeps
  }

  inform(head: ResponseHead): void {
    this.touch()
    if (this.answering || this.#informed === INTERIM_MAX) return
    this.#informed++
    this.writeInterim(head)
  }

  get stillSweeps(): number {
    return this.#options.calls.sweeps - this.#movedAt
  }

  onGone(callback: (why: SidecarError) => void): void {
    if (this.#gone) callback(this.#gone)
    else if (!this.#over) this.#callbacks = added(this.#callbacks, callback)
  }

  /** Has the call handled, and writes its answer or a problem in its place, or resets it. */
  handle(arrival: Arrival): void {
    this.#options.handler(arrival).then(
      (answer) => this.#answer(answer),
      (error) => this.fail(error),
    )
  }

  /** Answers with a problem; resets the call where there is no status for it, or the answer has begun. */
  fail(error: unknown): void {
    const failure = asSidecarError(error)
    if (failure.code === 'internal-error') this.#options.onFault(failure.cause, this.#watcher?.ids)
    if (this.#over) return
    if (failure.status === 0 || this.answering) {
      this.abort(failure)
      return
    }
    try {
      this.write(problem(failure))
    } catch (fault) {
      this.#options.onFault(fault, this.#watcher?.ids)
      this.abort(failure)
    }
  }

  /** Ends the call from our side, such that its caller cannot take it for complete. */
  abort(why: SidecarError): void {
    if (this.#over) return
    this.gone(why)
    this.reset()
  }

  /** The caller went away before it had its whole answer. */
  gone(why: SidecarError): void {
    if (this.#over) return
    this.#gone = why
    const callbacks = this.#callbacks
    const watcher = this.#end()
    if (callbacks) for (const callback of callbacks) callback(why)
    watcher?.over(why)
  }

  /** The caller has its whole answer. */
  finish(): void {
    if (this.#over) return
    this.#end()?.over(undefined)
  }

  /** Lets go of all that knows of the call: node:http2 keeps a stream, and what its listeners hold, for long. */
  #end(): Watcher | undefined {
    const watcher = this.#watcher
    this.#over = true
    this.#callbacks = undefined
    this.#watcher = undefined
    this.#options.calls.remove(this)
    return watcher
  }

  #answer(answer: Answer): void {
    if (this.#over) return
    this.touch()
    try {
      this.write(answer)?.catch((error) => this.fail(error))
    } catch (error) {
      this.fail(error)
    }
  }
}

/** The idle time-out is looked at so often while it passes: a call is ended at most a quarter later than it says. */
const SWEEPS_PER_TIMEOUT = 4

/** The calls that are open at a listener; ends those in which nothing moves. */
export class OpenCalls {
  readonly #calls = new Set<OpenCall>()
  readonly #sweepMs: number
  #timer: NodeJS.Timeout | undefined
  #emptySinceMs = performance.now()
  #sweeps = 0

  /** @param idleTimeoutMs without a byte either way */
  constructor(idleTimeoutMs: number) {
    this.#sweepMs = Math.ceil(idleTimeoutMs / SWEEPS_PER_TIMEOUT)
  }

  /** How often the open calls were looked at: a clock for all of them costs less than a timer each. */
  get sweeps(): number {
    return this.#sweeps
  }

  get size(): number {
    return this.#calls.size
  }

  /** For how long none has been open, in ms. */
  get emptyMs(): number {
    return this.#calls.size > 0 ? 0 : performance.now() - this.#emptySinceMs
  }

  add(call: OpenCall): void {
    this.#calls.add(call)
    this.#timer ??= setInterval(() => this.#sweep(), this.#sweepMs).unref()
  }

  /** Does nothing if it is not among them. */
  remove(call: OpenCall): void {
    if (this.#calls.delete(call) && this.#calls.size === 0) this.#emptySinceMs = performance.now()
  }

  /** Ends every open call. */
  abort(why: SidecarError): void {
    for (const call of this.#calls) call.abort(why)
  }

  #sweep(): void {
    if (this.#calls.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
      return
    }
    this.#sweeps++
    for (const call of this.#calls) {
      if (call.stillSweeps <= SWEEPS_PER_TIMEOUT) continue
      call.abort(new SidecarError('idle-timeout', 'Nothing moved either way for IDLE_TIMEOUT_SECONDS.'))
    }
  }
}

/** What is told of a request that does not mean one thing only. */
export function badRequest(detail: string): SidecarError {
  return new SidecarError('bad-request', detail)
}

/** What is told of a head whose names and values are more than `headBytesMax` bytes, or whose fields are too many. */
export function headTooLarge(headBytesMax: number): SidecarError {
  const detail = `The names and values are more than ${headBytesMax} bytes, or the fields more than ${FIELDS_MAX}.`
  return new SidecarError('headers-too-large', detail)
}
