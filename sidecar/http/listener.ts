import net, { type AddressInfo, type Socket } from 'node:net'
import { SidecarError } from '../errors.ts'
import { OpenCalls, type ServerOptions } from './exchange.ts'
import { Http1Server } from './http1-server.ts'
import { Http2Server } from './http2-server.ts'

export type { Arrival, Handler } from './exchange.ts'

export type ListenerOptions = Omit<ServerOptions, 'calls'>

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const CONNECTIONS_MAX = 20_000
/** How long the other ends of connections may take to read what they were sent last, in ms. */
const LINGER_MS = 1000

/** One port that speaks HTTP/1.1 and, with prior knowledge, HTTP/2. */
export class Listener {
  readonly #listening: net.Server[] = []
  readonly #sockets = new Set<Socket>()
  #onNoSocket: (() => void) | undefined
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

  /** Takes no more connections, and resolves when the calls that are open have been answered, and the answers read. */
  async drain(): Promise<void> {
    for (const server of this.#listening) server.close()
    for (const socket of this.#undecided) socket.destroy()
    this.#http1.drain()
    this.#http2.drain()
    await this.#calls.none()
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

  /**
   * Resolves when all connections are closed, or LINGER_MS are over. A process that ends while bytes of the other end
   * are unread breaks the connection, and the other end loses what it has not read yet.
   */
  #noSocket(): Promise<void> {
    if (this.#sockets.size === 0) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, LINGER_MS)
      this.#onNoSocket = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** Hands a connection to the server of its protocol, as soon as its first bytes tell. */
  #accept(socket: Socket): void {
    this.#sockets.add(socket)
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
      socket.pause()
      socket.off('data', onData)
      socket.off('end', end)
      socket.off('close', leave)
      socket.setTimeout(0, end)
      leave()
      socket.unshift(seen)
      if (isHttp2) this.#http2.serve(socket)
      else this.#http1.serve(socket)
      // Not before the server listens for errors.
      socket.off('error', end)
    }
    this.#undecided.add(socket)
    socket.on('error', end)
    socket.on('end', end)
    socket.on('close', leave)
    socket.setTimeout(this.#idleTimeoutMs, end)
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
