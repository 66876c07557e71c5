/** A link, to Redis or to a peer, that breaks in the ways in which networks break. */
import net from 'node:net'
import { listen } from './sidecars.ts'

export interface Link {
  port: number
  /** how many have been made so far, those included that came to nothing */
  readonly connections: number
  /** Resolves when so many connections have been made. */
  attempts(count: number): Promise<void>
  /** Breaks all connections with a RST, and new ones as they come. */
  cut(): void
  /** Carries nothing more, and tells nobody, as if packets were dropped; new connections stay silent too. */
  freeze(): void
  /** Carries new connections again; those that were silent are broken. */
  heal(): void
  /** Leads to another port from now on; what is open is broken. */
  retarget(port: number): void
  close(): Promise<void>
}

/**
 * @param to port of 127.0.0.1
 * @param onSent is told of what comes from whoever connects, by connection
 */
export async function startLink(
  to: number,
  onSent?: (connection: net.Socket, bytes: Buffer) => void,
): Promise<Link> {
  let state: 'open' | 'cut' | 'frozen' = 'open'
  let connections = 0
  let waiting: { count: number; wake(): void }[] = []
  const sockets = new Set<net.Socket>()
  const keep = (socket: net.Socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  }
  const server = net.createServer({ noDelay: true, allowHalfOpen: true }, (from) => {
    keep(from)
    connections++
    for (const { count, wake } of waiting) if (count <= connections) wake()
    waiting = waiting.filter(({ count }) => count > connections)
    if (state === 'cut') from.resetAndDestroy()
    if (state !== 'open') return
    const onward = net.connect({ host: '127.0.0.1', port: to, noDelay: true, allowHalfOpen: true })
    keep(onward)
    if (onSent) from.on('data', (bytes: Buffer) => onSent(from, bytes))
    for (const [source, target] of [
      [from, onward],
      [onward, from],
    ] as const) {
      source.on('data', (bytes) => {
        if (state === 'open') target.write(bytes)
      })
      source.on('end', () => {
        if (state === 'open') target.end()
      })
      source.on('error', () => {
        if (state === 'open') target.resetAndDestroy()
      })
    }
  })
  const breakAll = () => {
    for (const socket of sockets) socket.resetAndDestroy()
  }
  const port = await listen(server)
  return {
    port,
    get connections() {
      return connections
    },
    attempts(count) {
      return new Promise((wake) => {
        if (count <= connections) wake()
        else waiting.push({ count, wake })
      })
    },
    cut() {
      state = 'cut'
      breakAll()
    },
    freeze() {
      state = 'frozen'
    },
    heal() {
      state = 'open'
      breakAll()
    },
    retarget(next) {
      to = next
      breakAll()
    },
    async close() {
      breakAll()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
