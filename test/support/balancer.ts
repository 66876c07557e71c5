import net from 'node:net'
import { listen } from './sidecars.ts'

export interface Balancer {
  port: number
  url: string
  close(): Promise<void>
}

/**
 * Stands before replicas, and leads each new connection to the next of them.
 * @param ports of 127.0.0.1
 * @param host where it is reached itself
 */
export async function startBalancer(ports: readonly number[], host = '127.0.0.1'): Promise<Balancer> {
  let turn = 0
  const sockets = new Set<net.Socket>()
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (from) => {
    const to = net.connect({
      host: '127.0.0.1',
      port: ports[turn++ % ports.length]!,
      allowHalfOpen: true,
      noDelay: true,
    })
    for (const [source, target] of [
      [from, to],
      [to, from],
    ] as const) {
      sockets.add(source)
      source.on('error', () => target.resetAndDestroy())
      source.on('close', () => sockets.delete(source))
      source.pipe(target)
    }
  })
  const port = await listen(server, host)
  return {
    port,
    url: `http://${host}:${port}`,
    async close() {
      for (const socket of sockets) socket.resetAndDestroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
