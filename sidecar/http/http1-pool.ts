import type { ConnectionOptions } from 'node:tls'
import { connectOptions } from './connect-options.ts'
import { Http1Connection, type Keeper } from './http1-connection.ts'

export interface ClientOptions {
  /** names and values of one head, in bytes */
  headBytesMax: number
  /** for the name, the connection and TLS together, in ms */
  connectTimeoutMs: number
  /** from the last byte of the request to the first of the response, in ms */
  responseTimeoutMs: number
  /** PEM certificates that are trusted for https besides the system's */
  ca?: string[]
}

const IDLE_MAX = 256
/** A time-out is looked at so often while it passes: it takes at most a quarter longer than it says. */
const SWEEPS_PER_TIMEOUT = 4
const SWEEP_MS_MAX = 250

/** The connections to one origin: as many as there were calls at once, and those kept for the next ones. */
export class Http1Pool implements Keeper {
  readonly #secure: boolean
  readonly #to: ConnectionOptions
  readonly #headBytesMax: number
  readonly #connectTimeoutMs: number
  readonly #sweepMs: number
  readonly #open = new Set<Http1Connection>()
  /** the last used last */
  readonly #idle: Http1Connection[] = []
  /** of TLS, for the next handshake */
  #session: Buffer | undefined
  #sweeps = 0
  #timer: NodeJS.Timeout | undefined
  #closed = false

  /** @param origin `http://host:port` or `https://host:port` */
  constructor(origin: URL, options: ClientOptions) {
    const { connectTimeoutMs, responseTimeoutMs } = options
    this.#secure = origin.protocol === 'https:'
    this.#to = connectOptions(origin, ['http/1.1'], options.ca)
    this.#headBytesMax = options.headBytesMax
    this.#connectTimeoutMs = connectTimeoutMs
    const shortestMs = Math.min(connectTimeoutMs, responseTimeoutMs)
    this.#sweepMs = Math.max(1, Math.min(SWEEP_MS_MAX, Math.floor(shortestMs / SWEEPS_PER_TIMEOUT)))
  }

  /** An idle connection, which is the caller's from now on: the one that was used last. */
  take(): Http1Connection | undefined {
    for (let connection = this.#idle.pop(); connection; connection = this.#idle.pop()) {
      if (!connection.socket.destroyed) return connection
    }
    return undefined
  }

  /** A new connection, which waits for the origin to accept it. */
  connect(): Http1Connection {
    const to = this.#session ? { ...this.#to, session: this.#session } : this.#to
    const connection = new Http1Connection(this, to, this.#secure, this.#headBytesMax)
    if (this.#secure) {
      connection.socket.on('session', (session: Buffer) => {
        this.#session = session
      })
    }
    connection.wait(this.#connectTimeoutMs)
    this.#open.add(connection)
    this.#timer ??= setInterval(() => this.#sweep(), this.#sweepMs).unref()
    return connection
  }

  /** Closes what is idle, and from now on whatever becomes it. */
  close(): void {
    this.#closed = true
    for (const connection of this.#idle.splice(0)) connection.socket.destroy()
  }

  sweepAfter(ms: number): number {
    return this.#sweeps + 1 + Math.ceil(ms / this.#sweepMs)
  }

  keep(connection: Http1Connection): void {
    if (this.#closed || this.#idle.length >= IDLE_MAX) connection.socket.destroy()
    else this.#idle.push(connection)
  }

  closed(connection: Http1Connection): void {
    this.#open.delete(connection)
    const index = this.#idle.indexOf(connection)
    if (index >= 0) this.#idle.splice(index, 1)
    // It may be the session that the server did not like.
    if (!connection.connected) this.#session = undefined
  }

  #sweep(): void {
    if (this.#open.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
      return
    }
    this.#sweeps++
    for (const connection of this.#open) {
      if (connection.dueAt !== 0 && connection.dueAt <= this.#sweeps) connection.overdue()
    }
  }
}
