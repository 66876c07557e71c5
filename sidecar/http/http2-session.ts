import http2, {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  type OutgoingHttpHeaders,
} from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'
import { connectOptions } from './connect-options.ts'
import type { ClientOptions } from './http1-client.ts'
import { CONNECTION_WINDOW_BYTES, sessionOptions } from './http2-settings.ts'
import { SendError } from './send-error.ts'
import type { Alive } from './stream-body.ts'

/** Connections are replaced after so long, so that a balancer's replicas share the load, in ms. */
const AGE_MAX_MS = 10 * 60_000
const IDLE_MAX_MS = 60_000
/** How often a connection is looked after. One with calls on which nothing came since is asked whether it lives. */
const CHECK_INTERVAL_MS = 10_000
const PING_TIMEOUT_MS = 5_000

/** The other end was reached, but does not speak HTTP/2. */
export class NoHttp2Error extends Error {
  constructor() {
    super('it does not speak HTTP/2')
    this.name = 'NoHttp2Error'
  }
}

/** A connection, with what node:http2 leaves to its users: age, idleness, pings, GOAWAY, and how many calls it carries. */
export class Http2Session implements Alive {
  /** told once, when it takes no more calls */
  onRetired: (() => void) | undefined
  readonly socket: net.Socket
  /** Is it closed as soon as it has no calls? */
  #closesUnused = false
  #calls = 0
  readonly #session: ClientHttp2Session
  readonly #check: NodeJS.Timeout
  readonly #bornMs = performance.now()
  readonly #ageMaxMs = AGE_MAX_MS * (0.75 + 0.5 * Math.random())
  #callsMax: number
  #retired = false
  #heard = false
  #idleMs = 0

  constructor(session: ClientHttp2Session, socket: net.Socket) {
    this.#session = session
    this.socket = socket
    this.#callsMax = session.remoteSettings.maxConcurrentStreams ?? Number.POSITIVE_INFINITY
    session.on('remoteSettings', ({ maxConcurrentStreams }) => {
      this.#callsMax = maxConcurrentStreams ?? Number.POSITIVE_INFINITY
    })
    this.#check = setInterval(() => this.#lookAfter(), CHECK_INTERVAL_MS).unref()
    // Its streams fail with it.
    session.on('error', () => {})
    session.on('goaway', () => this.retire())
    session.on('close', () => {
      clearInterval(this.#check)
      this.retire()
    })
  }

  /** Calls that are under way. */
  get calls(): number {
    return this.#calls
  }

  get usable(): boolean {
    return !this.#retired && !this.#session.closed && !this.#session.destroyed
  }

  /** Does the other end take one more call at once? */
  get hasRoom(): boolean {
    return this.#calls < this.#callsMax
  }

  /** Begins a call; `ended` is to be called when its stream has closed. */
  request(headers: OutgoingHttpHeaders, options: ClientSessionRequestOptions): ClientHttp2Stream {
    const stream = this.#session.request(headers, options)
    this.#calls++
    return stream
  }

  ended(): void {
    this.#calls--
    if ((this.#retired || this.#closesUnused) && this.#calls === 0) this.#session.close()
  }

  /** It is for the calls that it has, and is closed with the last of them. */
  closeUnused(): void {
    this.#closesUnused = true
  }

  /** Something came from the other end. */
  touch(): void {
    this.#heard = true
  }

  /** No new calls; closes when those under way are over. */
  retire(): void {
    if (this.#retired) return
    this.#retired = true
    // A session that is closed sends no pings, and its calls may last.
    if (this.#calls === 0) this.#session.close()
    this.onRetired?.()
  }

  #lookAfter(): void {
    const heard = this.#heard
    this.#heard = false
    if (performance.now() - this.#bornMs > this.#ageMaxMs) this.retire()
    if (this.#calls === 0) {
      this.#idleMs += CHECK_INTERVAL_MS
      if (this.#idleMs >= IDLE_MAX_MS) this.retire()
      return
    }
    this.#idleMs = 0
    if (!heard) this.#ping()
  }

  #ping(): void {
    if (this.#session.destroyed) return
    const timer = setTimeout(() => this.#session.destroy(new Error('no answer to a ping')), PING_TIMEOUT_MS)
    this.#session.ping(() => clearTimeout(timer))
  }
}

/**
 * Connects to an origin, until its other end has shown, by its SETTINGS, that it speaks HTTP/2.
 * @throws SendError connect or connect-timeout
 * @throws NoHttp2Error
 */
export function connectHttp2(origin: URL, options: ClientOptions): Promise<Http2Session> {
  const { promise, resolve, reject } = Promise.withResolvers<Http2Session>()
  const secure = origin.protocol === 'https:'
  const to = connectOptions(origin, ['h2', 'http/1.1'], options.ca)
  const socket = secure ? tls.connect(to) : net.connect(to as net.TcpNetConnectOpts)
  const fail = (error: Error) => {
    clearTimeout(timer)
    socket.destroy()
    reject(error)
  }
  const timer = setTimeout(() => fail(new SendError('connect-timeout', false)), options.connectTimeoutMs)
  const onError = (error: Error) => fail(new SendError('connect', false, error))
  socket.once('error', onError)
  socket.once(secure ? 'secureConnect' : 'connect', () => {
    socket.off('error', onError)
    if (secure && (socket as tls.TLSSocket).alpnProtocol !== 'h2') return fail(new NoHttp2Error())
    const session = http2.connect(origin, {
      ...sessionOptions(options.headBytesMax),
      createConnection: () => socket,
    })
    const refused = () => fail(new NoHttp2Error())
    session.on('error', refused)
    session.once('close', refused)
    session.once('remoteSettings', () => {
      clearTimeout(timer)
      session.off('close', refused)
      session.setLocalWindowSize(CONNECTION_WINDOW_BYTES)
      resolve(new Http2Session(session, socket))
      session.off('error', refused)
    })
  })
  return promise
}
