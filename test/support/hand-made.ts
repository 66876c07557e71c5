/** Relays in the hands of a test: they open or accept tunnels as any relay does, and then send what they like. */
import { randomBytes } from 'node:crypto'
import http2, { type ClientHttp2Session, type ClientHttp2Stream, type ServerHttp2Stream } from 'node:http2'
import { MemoryStore } from '../../sidecar/pair/memory-store.ts'
import { meshSecret } from '../../sidecar/pair/secrets.ts'
import {
  ANSWER_BYTES,
  OPENING_BYTES,
  parseOpening,
  tunnelAnswer,
  tunnelSecrets,
} from '../../sidecar/pair/tunnel-keys.ts'
import { createPairs } from '../../sidecar/pairing.ts'
import type { TestPeer } from './peer.ts'
import { listen, SECRET } from './sidecars.ts'
import { READY, TunnelEnd } from './tunnel-end.ts'

export interface HandMade {
  end: TunnelEnd
  stream: ClientHttp2Stream
  close(): void
}

/**
 * Opens a tunnel, and says READY.
 * @param index of a message of the peer's pair, which it spends
 * @throws when the sidecar gives none; the message is the status
 */
export async function openTunnel(port: number, peer: TestPeer, index: number): Promise<HandMade> {
  const session: ClientHttp2Session = http2.connect(`http://127.0.0.1:${port}`)
  session.on('error', () => {})
  const opening = peer.opening(index)
  const stream = session.request({ ':method': 'POST', ':path': '/api/mte-tunnel' })
  stream.write(opening)
  const end = await new Promise<TunnelEnd>((resolve, reject) => {
    let held = Buffer.alloc(0)
    let end: TunnelEnd | undefined
    let status = 0
    stream.on('response', (headers) => {
      status = Number(headers[':status'])
      if (status !== 200) reject(new Error(String(status)))
    })
    stream.on('data', (bytes: Buffer) => {
      if (end) return end.take(bytes)
      held = Buffer.concat([held, bytes])
      if (status !== 200 || held.length < ANSWER_BYTES) return
      const secrets = tunnelSecrets(peer.message(index).id, opening, held.subarray(0, ANSWER_BYTES))
      end = new TunnelEnd('initiator', { out: secrets.outbound, in: secrets.inbound }, (record) =>
        stream.write(record),
      )
      end.take(held.subarray(ANSWER_BYTES))
      resolve(end)
    })
    stream.on('error', (error) => {
      reject(error)
      end?.over(error)
    })
    stream.on('close', () => end?.over('closed'))
  }).catch((error) => {
    session.destroy()
    throw error
  })
  end.send(READY)
  return { end, stream, close: () => session.destroy() }
}

export interface Responder {
  url: string
  close(): Promise<void>
}

/**
 * Starts a relay that pairs with whoever knows the secret, and accepts tunnels; it takes no messages.
 * @param onTunnel plays the responder of a tunnel; nothing has been sent yet
 */
export async function startResponder(onTunnel: (end: TunnelEnd) => void): Promise<Responder> {
  const clockMs = () => performance.now()
  const pairs = createPairs({
    identity: { name: 'billing', secrets: [await meshSecret(SECRET, 'billing')] },
    store: new MemoryStore(clockMs),
    client: { send: () => Promise.reject(new Error('it calls nobody')) },
    responseTimeoutMs: 1_000,
    clockMs,
  })
  const pair = async (stream: ServerHttp2Stream) => {
    const pieces: Buffer[] = []
    for await (const piece of stream) pieces.push(piece)
    const answer = await pairs.answer(Buffer.concat(pieces))
    stream.respond({ ':status': 200 })
    stream.end(answer)
  }
  const accept = async (stream: ServerHttp2Stream) => {
    let held = Buffer.alloc(0)
    let end: TunnelEnd | undefined
    const opened = new Promise<void>((resolve) => {
      stream.on('data', (bytes: Buffer) => {
        if (end) return end.take(bytes)
        held = Buffer.concat([held, bytes])
        if (held.length >= OPENING_BYTES) resolve()
      })
    })
    await opened
    const opening = held.subarray(0, OPENING_BYTES)
    const received = await pairs.accept(parseOpening(opening))
    await received.claim()
    const answer = tunnelAnswer(randomBytes(32))
    const { inbound, outbound } = tunnelSecrets(received, opening, answer)
    stream.respond({ ':status': 200 })
    stream.write(answer)
    end = new TunnelEnd('responder', { out: inbound, in: outbound }, (record) => stream.write(record))
    stream.on('close', () => end?.over('closed'))
    onTunnel(end)
    end.take(held.subarray(OPENING_BYTES))
  }
  const sessions = new Set<{ destroy(): void }>()
  const server = http2.createServer()
  server.on('session', (session) => {
    sessions.add(session)
    session.on('error', () => {})
  })
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.on('error', () => {})
    const handle = headers[':path'] === '/api/mte-pair' ? pair : accept
    handle(stream).catch(() => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR))
  })
  const port = await listen(server)
  return {
    url: `http://127.0.0.1:${port}`,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const session of sessions) session.destroy()
      await closed
    },
  }
}
