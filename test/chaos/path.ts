/** The network between the two sides, in the hands of somebody who can break it, and can repeat what went over it. */
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Link, startLink } from '../support/link.ts'

/** How long it is listened to before what was heard is sent again, and how long that is left to itself. */
const LISTEN_MS = 1000
const REPLAY_MS = 500

export interface Path {
  /** from the initiators to HAProxy in front of the responders */
  link: Link
  /** Breaks all connections with a RST; new ones are carried. */
  reset(): void
  /** Sends all that the initiators send within a second to the responders once more, connection by connection. */
  replay(): Promise<void>
}

/** @param to port of HAProxy in front of the responders */
export async function startPath(to: number): Promise<Path> {
  let heard: Map<net.Socket, Buffer[]> | undefined
  const link = await startLink(to, (connection, bytes) => {
    const sent = heard?.get(connection)
    if (sent) sent.push(bytes)
    else heard?.set(connection, [bytes])
  })
  const reset = () => {
    link.cut()
    link.heal()
  }
  return {
    link,
    reset,
    async replay() {
      const connections = new Map<net.Socket, Buffer[]>()
      heard = connections
      reset() // a connection can be repeated from its beginning alone
      await sleep(LISTEN_MS)
      heard = undefined
      if (connections.size === 0) throw new Error('there was nothing to be replayed')
      await Promise.all([...connections.values()].map((sent) => send(to, Buffer.concat(sent))))
    },
  }
}

async function send(port: number, bytes: Buffer): Promise<void> {
  const socket = net.connect(port, '127.0.0.1')
  socket.on('error', () => {}) // it may well be closed
  socket.resume()
  await once(socket, 'connect')
  socket.write(bytes)
  await sleep(REPLAY_MS)
  socket.destroy()
}
