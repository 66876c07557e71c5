/**
 * The one shape of a call: a head, pieces of body, trailers, then an end or a reset.
 *
 * A listener hands a call to a `Send`, and a `Send` carries it on: the client of the local app is one, each
 * carriage to a peer is one, and so is everything that is composed of them. Bodies are pulled: whoever
 * consumes asks for the next piece when it has room, so backpressure goes from end to end by itself.
 */
import type { Socket } from 'node:net'
import type { SidecarError } from './errors.ts'

/** Header or trailer fields in order: name, value, name, value, … Names in lower case, values as Latin-1 (one character a byte). */
export type Fields = string[]

export interface RequestHead {
  method: string
  /** `http` or `https` */
  scheme: string
  /** host[:port]; empty when the caller named none */
  authority: string
  /** path and query, or `*` */
  path: string
  /** without Host, which is the authority */
  fields: Fields
}

export interface ResponseHead {
  status: number
  fields: Fields
}

/** What follows a head. One reader; it calls `read` again only after the last `read` settled. */
export interface Body {
  /**
   * The next piece, or undefined at a clean end.
   * @throws SidecarError when the body was cut off, reset or timed out: never an end
   */
  read(): Promise<Buffer | undefined>
  /**
   * All that is left of the body, if it has arrived to its clean end and is at most `limit` bytes; otherwise
   * undefined, and nothing is consumed. Never waits.
   */
  whole(limit: number): Buffer | undefined
  /** Complete once `read` gave undefined or `whole` gave a buffer. */
  readonly trailers: Fields
}

export interface Request {
  head: RequestHead
  body: Body
}

export interface Answer {
  head: ResponseHead
  body: Body
  /** the connection that it came on, if it came on one */
  socket?: Socket
}

/** Whoever waits for an answer. */
export interface Caller {
  /** Takes an interim (1xx) response; may be called until the answer is there. */
  inform(head: ResponseHead): void
  /** Registers what to do, once, if the caller goes away before it has the whole answer; at once if it already has. */
  onGone(callback: (why: SidecarError) => void): void
}

/** Whoever watches a call at a port of this sidecar. */
export interface Watcher {
  /**
   * The call is over.
   * @param why its caller did not get the whole of an answer; undefined when it did
   */
  over(why: SidecarError | undefined): void
  /** what log lines about the call carry */
  readonly ids: object
}

/**
 * Sends a request on and gives its answer, as soon as the answer's head is there.
 *
 * The request's body may go on being read after that. When the caller goes away, everything of the call is
 * aborted. A body that ends in an error makes a reset, never an end, on the other side.
 * @throws SidecarError when there is no answer to give
 */
export type Send = (request: Request, caller: Caller) => Promise<Answer>

const NO_FIELDS: Fields = []
Object.freeze(NO_FIELDS)

/** A body that is at hand as a whole. */
export class WholeBody implements Body {
  readonly trailers: Fields
  #piece: Buffer | undefined

  constructor(piece?: Buffer, trailers: Fields = NO_FIELDS) {
    this.#piece = piece && piece.length > 0 ? piece : undefined
    this.trailers = trailers
  }

  async read(): Promise<Buffer | undefined> {
    const piece = this.#piece
    this.#piece = undefined
    return piece
  }

  whole(limit: number): Buffer | undefined {
    const piece = this.#piece ?? EMPTY
    if (piece.length > limit) return undefined
    this.#piece = undefined
    return piece
  }
}

const EMPTY = Buffer.alloc(0)

/** The body of a call that has none. */
export const NO_BODY: Body = new WholeBody()

/** A caller on behalf of another one, or of nobody, that can give up what it waits for. */
export class Attempt implements Caller {
  readonly #caller: Caller | undefined
  #abandoned: SidecarError | undefined
  /** undefined: none */
  #callbacks: ((why: SidecarError) => void)[] | undefined

  constructor(caller?: Caller) {
    this.#caller = caller
    caller?.onGone((why) => this.abandon(why))
  }

  /** Why it was given up, if it was. */
  get abandoned(): SidecarError | undefined {
    return this.#abandoned
  }

  inform(head: ResponseHead): void {
    this.#caller?.inform(head)
  }

  onGone(callback: (why: SidecarError) => void): void {
    if (this.#abandoned) callback(this.#abandoned)
    else this.#callbacks = added(this.#callbacks, callback)
  }

  /** Aborts everything of the attempt; the caller may still get an answer from elsewhere. */
  abandon(why: SidecarError): void {
    if (this.#abandoned) return
    this.#abandoned = why
    const callbacks = this.#callbacks
    this.#callbacks = undefined
    if (callbacks) for (const callback of callbacks) callback(why)
  }
}

/** A list with one more; that of one, which most are, is made no larger than that. */
export function added<T>(list: T[] | undefined, item: T): T[] {
  if (!list) return [item]
  list.push(item)
  return list
}
