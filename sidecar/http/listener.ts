import net, { type AddressInfo, type Socket } from 'node:net'
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import { SidecarError } from '../errors.ts'
import { LEAVE_MS, OpenCalls, type ServerOptions } from './exchange.ts'
import { Http1Server } from './http1-server.ts'
import { Http2Server } from './http2-server.ts'

export type { Arrival, Handler } from './exchange.ts'

export type ListenerOptions = Omit<ServerOptions, 'calls'>

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const CONNECTIONS_MAX = 20_000
/** A port is closed when no connection came to it for so long, in ms: one that waits to be accepted would be reset. */
const UNSOUGHT_MS = 500
/** Where they come without end, it is closed after so many turns of the event loop, each of which accepts one. */
const ACCEPTING_TURNS_MAX = 1000
/** How long the other end of a connection may take to close its side after this one, in ms. */
const LINGER_MS = 2000

/** One port that speaks HTTP/1.1 and, with prior knowledge, HTTP/2. */
export class Listener {
  readonly #listening: net.Server[] = []
  readonly #sockets = new Set<Socket>()
  #onNoSocket: (() => void) | undefined
  #retiring = false
  /** when a connection came last, monotonic */
  #soughtAtMs = 0
  /** connections that have not shown yet which protocol they speak */
  readonly #undecided = new Set<Socket>()
  readonly #calls: OpenCalls
  readonly #http1: Http1Server
  readonly #http2: Http2Server
  readonly #idleTimeoutMs: number
  readonly #onFault: (error: unknown) => void

  constructor(options: ListenerOptions) {
    this.#idleTimeoutMs = options.idleTimeoutMs
    this.#onFault = options.onFault
    this.#calls = new OpenCalls(options.idleTimeoutMs)
    this.#http1 = new Http1Server({ ...options, calls: this.#calls })
    this.#http2 = new Http2Server({ ...options, calls: this.#calls })
  }

  /**
   * Listens on every host given, all on one port.
   * @param port 0 takes a free one
   * @returns the addresses listened on; hosts of a family that this machine lacks are left out
   * @throws the error of node:net when a host cannot be listened on, or none can
   */
  async listen(hosts: readonly string[], port: number): Promise<AddressInfo[]> {
    const addresses: AddressInfo[] = []
    let lacking: unknown
    for (const host of hosts) {
      const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
        this.#accept(socket),
      )
      server.maxConnections = CONNECTIONS_MAX
      try {
        addresses.push(await listening(server, host, addresses[0]?.port ?? port))
        server.on('error', (error) => this.#onFault(error))
        this.#listening.push(server)
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw error
        lacking = error
      }
    }
    if (addresses.length === 0) throw lacking
    return addresses
  }

  /** Calls that are open. */
  get openCalls(): number {
    return this.#calls.size
  }

  /** For how long no call has been open, in ms. */
  get emptyMs(): number {
    return this.#calls.emptyMs
  }

  /**
   * Takes connections and answers calls as before, but has clients leave each connection with its next answer: by
   * `connection: close` or GOAWAY. Those without a call are closed when nothing has come on them for LEAVE_MS.
   */
  retire(): void {
    if (this.#retiring) return
    this.#retiring = true
    this.#soughtAtMs = performance.now()
    for (const socket of this.#undecided) socket.setTimeout(LEAVE_MS)
    this.#http1.retire()
    this.#http2.retire()
  }

  /**
   * Retires, closes the port as soon as nobody seeks it any more, and resolves when every call has been answered and
   * every connection is closed.
   * @param soughtMsMax how long the port stays open at most if somebody does
   */
  async drain(soughtMsMax: number): Promise<void> {
    this.retire()
    await this.#unsought(soughtMsMax)
    for (const server of this.#listening) server.close()
    await this.#noSocket()
  }

  /** Resets what is still open. */
  close(): void {
    for (const server of this.#listening) server.close()
    for (const socket of this.#undecided) socket.destroy()
    this.#calls.abort(new SidecarError('draining', 'The sidecar shuts down.'))
    this.#http1.close()
    this.#http2.close()
  }

  /** Whoever balances connections has seen by then, as a rule, that this sidecar is not ready. */
  async #unsought(msMax: number): Promise<void> {
    const endMs = performance.now() + msMax
    for (;;) {
      const leftMs = Math.min(this.#soughtAtMs + UNSOUGHT_MS, endMs) - performance.now()
      if (leftMs <= 0) break
      await delay(leftMs)
    }
    let quietTurns = 0
    for (let turns = 0; quietTurns < 2 && turns < ACCEPTING_TURNS_MAX; turns++) {
      const before = this.#soughtAtMs
      await turn()
      quietTurns = this.#soughtAtMs === before ? quietTurns + 1 : 0
    }
  }

  #noSocket(): Promise<void> {
    if (this.#sockets.size === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onNoSocket = resolve
    })
  }

  /** Hands a connection to the server of its protocol, as soon as its first bytes tell. */
  #accept(socket: Socket): void {
    this.#soughtAtMs = performance.now()
    this.#sockets.add(socket)
    socket.on('finish', () => socket.setTimeout(LINGER_MS, () => socket.destroy()))
    socket.on('close', () => {
      this.#sockets.delete(socket)
      if (this.#sockets.size === 0) this.#onNoSocket?.()
    })
    let seen: Buffer = NOTHING
    const end = () => socket.destroy()
    const leave = () => this.#undecided.delete(socket)
    const onData = (bytes: Buffer) => {
      seen = seen.length === 0 ? bytes : Buffer.concat([seen, bytes])
      const compared = Math.min(seen.length, PREFACE.length)
      const isHttp2 = seen.compare(PREFACE, 0, compared, 0, compared) === 0
      if (isHttp2 && compared < PREFACE.length) return
      socket.off('data', onData)
      socket.off('end', end)
      socket.off('close', leave)
      socket.setTimeout(0, end)
      leave()
      if (isHttp2) {
        socket.pause()
        socket.unshift(seen)
        this.#http2.serve(socket)
      } else this.#http1.serve(socket, seen)
      // Not before the server listens for errors.
      socket.off('error', end)
    }
    this.#undecided.add(socket)
    socket.on('error', end)
    socket.on('end', end)
    socket.on('close', leave)
    socket.setTimeout(this.#retiring ? LEAVE_MS : this.#idleTimeoutMs, end)
    socket.on('data', onData)
  }
}

const NOTHING = Buffer.alloc(0)

function listening(server: net.Server, host: string, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port, ipv6Only: host === '::' }, () => {
      server.off('error', reject)
      resolve(server.address() as AddressInfo)
    })
  })
}
