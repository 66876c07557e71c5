import type { ClientHttp2Stream, IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http2'
import type { Answer, Caller, Request, Send } from '../call.ts'
import { asSidecarError } from '../errors.ts'
import { fieldsFromRaw } from './fields.ts'
import type { ClientOptions, Pending } from './http1-client.ts'
import { connectHttp2, type Http2Session } from './http2-session.ts'
import { letGo } from './let-go.ts'
import { pump, WHOLE_BYTES_MAX } from './pump.ts'
import { SendError } from './send-error.ts'
import { type Alive, http2Body, type StreamBody } from './stream-body.ts'

const SESSIONS_MAX = 8
/** Another connection is opened when every one has this many calls. */
const CALLS_PER_SESSION = 128

/** Sends requests over HTTP/2 to one origin, over a small pool of connections. */
export class Http2Client {
  readonly #origin: URL
  readonly #options: ClientOptions
  /** those that take calls, the oldest first */
  readonly #sessions: Http2Session[] = []
  #connecting: Promise<Http2Session> | undefined
  #closed = false

  /** @param origin `http://` for h2c with prior knowledge, `https://` for ALPN */
  constructor(origin: URL, options: ClientOptions) {
    this.#origin = origin
    this.#options = options
  }

  /**
   * Requests have no trailers here, and nobody is informed of interim responses: those of a call are inside of its
   * messages, and others are nobody's.
   * @throws NoHttp2Error before anything of the request was taken
   * @throws SendError when no answer came, or what the request's body throws
   */
  send: Send = (request, caller) => {
    const session = this.#session()
    return session ? this.#over(session, request, caller) : this.#connected(request, caller)
  }

  /** Takes no more requests; those under way go on. */
  close(): void {
    this.#closed = true
    for (const session of [...this.#sessions]) session.retire()
  }

  /**
   * Sends a request over a connection of its own, which is closed with it.
   * @param onLeave told when the other end wants no more calls on the connection, or it is old
   * @throws as `send`
   */
  async sendAlone(request: Request, caller: Caller, onLeave: () => void): Promise<Answer> {
    const gone = new Promise<never>((_resolve, reject) => caller.onGone(reject))
    const connecting = connectHttp2(this.#origin, this.#options)
    const session = await Promise.race([connecting, gone]).catch((error) => {
      connecting.then((unused) => unused.retire()).catch(() => {})
      throw error
    })
    session.onRetired = onLeave
    session.closeUnused()
    return this.#over(session, request, caller)
  }

  #over(session: Http2Session, request: Request, caller: Caller): Promise<Answer> {
    return new Promise((resolve, reject) => {
      new Http2Call(session, this.#origin, this.#options, { request, caller, resolve, reject }).begin()
    })
  }

  /** One caller's going away leaves the connection to the others who wait for it. */
  async #connected(request: Request, caller: Caller): Promise<Answer> {
    const gone = new Promise<never>((_resolve, reject) => caller.onGone(reject))
    // Where each connection ends before it takes a call, this would go on for ever.
    for (let opened = 0; opened < SESSIONS_MAX; opened++) {
      const { usable } = await Promise.race([this.#connect(), gone])
      const session = this.#session()
      if (session) return this.#over(session, request, caller)
      if (!usable) break
    }
    throw new SendError('connect', false)
  }

  /** The session for the next call: the first that is not busy, else the least busy; undefined: connect first. */
  #session(): Http2Session | undefined {
    let best: Http2Session | undefined
    for (const session of this.#sessions) {
      if (!session.usable) continue
      if (session.calls < CALLS_PER_SESSION && session.hasRoom) return session
      if (!best || isBetter(session, best)) best = session
    }
    if (this.#sessions.length >= SESSIONS_MAX) return best
    if (!best?.hasRoom) return undefined
    // In the background: this call need not wait for it.
    this.#connect().catch(() => {})
    return best
  }

  #connect(): Promise<Http2Session> {
    this.#connecting ??= this.#open().finally(() => {
      this.#connecting = undefined
    })
    return this.#connecting
  }

  async #open(): Promise<Http2Session> {
    const session = await connectHttp2(this.#origin, this.#options)
    if (this.#closed) session.retire()
    if (!session.usable) return session
    this.#sessions.push(session)
    session.onRetired = () => this.#sessions.splice(this.#sessions.indexOf(session), 1)
    return session
  }
}

function isBetter(session: Http2Session, best: Http2Session): boolean {
  return session.hasRoom === best.hasRoom ? session.calls < best.calls : session.hasRoom
}

/** One request on its way to its answer. */
class Http2Call implements Alive {
  readonly #session: Http2Session
  readonly #origin: URL
  readonly #options: ClientOptions
  readonly #pending: Pending
  #stream: ClientHttp2Stream | undefined
  #body: StreamBody | undefined
  #timer: NodeJS.Timeout | undefined
  #cause: Error | undefined
  /** Has every byte of the request been handed to the connection? */
  #complete = false
  #answered = false
  #failed = false

  constructor(session: Http2Session, origin: URL, options: ClientOptions, pending: Pending) {
    this.#session = session
    this.#origin = origin
    this.#options = options
    this.#pending = pending
  }

  begin(): void {
    this.#pending.caller.onGone((why) => this.#abort(why))
    if (this.#failed) return
    const { head, body } = this.#pending.request
    const whole = body.whole(WHOLE_BYTES_MAX)
    const headers = [
      ':method',
      head.method,
      ':path',
      head.path,
      ':scheme',
      this.#origin.protocol.slice(0, -1),
      ':authority',
      head.authority || this.#origin.host,
      ...head.fields,
    ]
    const stream = this.#session.request(
      headers as unknown as OutgoingHttpHeaders,
      whole?.length === 0 ? WITHOUT_BODY : WITH_BODY,
    )
    this.#stream = stream
    this.#body = http2Body(stream, this.#session)
    stream.on('response', (headers, _flags, raw: string[]) => this.#onResponse(headers, raw))
    stream.on('error', (error) => {
      this.#cause = error
    })
    stream.on('close', () => this.#onClose(stream))
    if (whole === undefined) this.#pump(stream).catch((error) => this.#stopped(error))
    else {
      if (whole.length > 0) stream.end(whole)
      this.#onComplete()
    }
  }

  /** A piece of the request left. */
  touch(): void {
    this.#timer?.refresh()
  }

  async #pump(stream: ClientHttp2Stream): Promise<void> {
    const last = await pump(this.#pending.request.body, stream, undefined, this)
    stream.end(last, () => this.#onComplete())
  }

  #onComplete(): void {
    this.#complete = true
    if (this.#answered) clearTimeout(this.#timer)
    else this.#await()
  }

  /** Waits for the first byte of the answer, from now on. */
  #await(): void {
    if (this.#failed) return
    const { responseTimeoutMs } = this.#options
    this.#timer = setTimeout(() => this.#abort(new SendError('response-timeout', true)), responseTimeoutMs)
  }

  #onResponse(headers: IncomingHttpHeaders, raw: string[]): void {
    if (this.#failed) return
    this.#session.touch()
    clearTimeout(this.#timer)
    this.#answered = true
    // Nobody may be left to time a request that goes on after its answer.
    if (!this.#complete) this.#stream!.once('end', () => !this.#complete && this.#await())
    const head = { status: Number(headers[':status']), fields: fieldsFromRaw(raw) }
    this.#pending.resolve({ head, body: this.#body!, socket: this.#session.socket })
  }

  #onClose(stream: ClientHttp2Stream): void {
    letGo(stream)
    this.#session.ended()
    if (this.#answered) clearTimeout(this.#timer)
    else this.#fail(new SendError('reset', !stream.pending, this.#cause))
  }

  /** The request's body failed, or could not be written. */
  #stopped(error: unknown): void {
    // Where the stream is gone, that is told; and who answers early may reset it: the answer stands.
    if (!this.#stream?.destroyed) this.#abort(error)
  }

  /** Stops in the middle, such that the other side cannot take the request for complete. */
  #abort(why: unknown): void {
    this.#fail(why)
    this.#body?.fail(asSidecarError(why))
    // close(code) would send a clean END_STREAM in the middle of a body.
    this.#stream?.destroy(new Error('the call was given up'))
  }

  #fail(why: unknown): void {
    clearTimeout(this.#timer)
    if (this.#failed) return
    this.#failed = true
    this.#pending.reject(why)
  }
}

const WITH_BODY = { endStream: false }
const WITHOUT_BODY = { endStream: true }
