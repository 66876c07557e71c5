/** A gateway between two sidecars, over HTTP/2, that does to the bytes of tunnels what a test likes. */
import http2, { type ClientHttp2Session, type ClientHttp2Stream, type ServerHttp2Stream } from 'node:http2'
import { listen } from './sidecars.ts'

export type Way = 'up' | 'down'

/** What opens a tunnel, and what grants it, go before the records. */
const START_BYTES = { up: 60, down: 34 }
const LENGTH_BYTES = 4

/** A part of what goes one way by a tunnel: 0 is what opens or grants it, then come the records. */
export interface Part {
  /** counted from 1 */
  tunnel: number
  way: Way
  n: number
  bytes: Buffer
}

export interface Gateway {
  port: number
  url: string
  /** requests for tunnels that came so far */
  readonly tunnels: number
  /** everything that came one way by a tunnel; they are counted from 1 */
  recorded(tunnel: number, way: Way): Buffer
  /** what is passed on in place of a part; undefined: nothing. At first they pass. */
  onPart: (part: Part) => Buffer | undefined
  /** what answers a request for a tunnel in place of the sidecar; undefined: the sidecar */
  answer: ((stream: ServerHttp2Stream) => void) | undefined
  /** the tunnel that is cut off behind so many bytes that went one way */
  cutBehind: { tunnel: number; way: Way; bytes: number } | undefined
  /** Breaks what is open of tunnels. */
  cut(): void
  /** Resolves once so many requests for tunnels are over. */
  over(tunnels: number): Promise<void>
  close(): Promise<void>
}

/** @param to inbound port of the sidecar behind */
export async function startGateway(to: number): Promise<Gateway> {
  const sessions = new Set<{ destroy(): void }>()
  const open = new Set<() => void>()
  const records: Record<Way, Buffer[]>[] = []
  let over = 0
  const waiting: (() => void)[] = []
  const connect = () => {
    const session = http2.connect(`http://127.0.0.1:${to}`)
    session.on('error', () => {})
    sessions.add(session)
    return session
  }
  let shared: ClientHttp2Session | undefined
  const server = http2.createServer()
  server.on('session', (session) => {
    sessions.add(session)
    session.on('error', () => {})
  })
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.on('error', () => {})
    const isTunnel = String(headers[':path']).endsWith('/api/mte-tunnel')
    if (isTunnel) {
      records.push({ up: [], down: [] })
      stream.on('close', () => {
        over++
        for (const wake of waiting.splice(0)) wake()
      })
      if (gateway.answer) {
        gateway.answer(stream)
        return
      }
    }
    if (shared?.closed || shared?.destroyed) shared = undefined
    const session = isTunnel ? connect() : (shared ??= connect())
    const onward = session.request({ ...headers })
    onward.on('error', () => {})
    const cut = () => {
      stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR)
      onward.close(http2.constants.NGHTTP2_INTERNAL_ERROR)
      if (isTunnel) setImmediate(() => session.destroy())
    }
    if (isTunnel) open.add(cut)
    stream.on('close', () => {
      open.delete(cut)
      if (stream.rstCode !== http2.constants.NGHTTP2_NO_ERROR) cut()
    })
    onward.on('close', () => {
      if (onward.rstCode !== http2.constants.NGHTTP2_NO_ERROR) cut()
    })
    onward.on('response', (answer) => {
      if (!stream.closed) stream.respond(answer)
    })
    const tunnel = records.length
    pass(stream, onward, 'up', isTunnel ? tunnel : 0, cut)
    pass(onward, stream, 'down', isTunnel ? tunnel : 0, cut)
  })

  function pass(
    from: ServerHttp2Stream | ClientHttp2Stream,
    into: ServerHttp2Stream | ClientHttp2Stream,
    way: Way,
    tunnel: number,
    cut: () => void,
  ): void {
    let held: Buffer = Buffer.alloc(0)
    let n = 0
    let sent = 0
    let isCut = false
    const write = (bytes: Buffer) => {
      const limit = gateway.cutBehind
      const max =
        limit?.way === way && limit.tunnel === tunnel ? limit.bytes - sent : Number.POSITIVE_INFINITY
      sent += bytes.length
      if (isCut || into.closed || into.destroyed) return
      if (bytes.length < max) into.write(bytes)
      else {
        isCut = true
        // What was written must have left, before the stream is reset.
        into.write(bytes.subarray(0, max), () => setImmediate(cut))
      }
    }
    from.on('data', (bytes: Buffer) => {
      if (tunnel === 0) return write(bytes)
      records[tunnel - 1]![way].push(bytes)
      held = Buffer.concat([held, bytes])
      for (;;) {
        const length =
          n === 0
            ? START_BYTES[way]
            : held.length < LENGTH_BYTES
              ? Number.POSITIVE_INFINITY
              : LENGTH_BYTES + held.readUInt32BE()
        if (held.length < length) return
        const passed = gateway.onPart({ tunnel, way, n: n++, bytes: held.subarray(0, length) })
        held = held.subarray(length)
        if (passed) write(passed)
      }
    })
    from.on('end', () => {
      if (held.length > 0) write(held)
      if (!isCut && !into.closed && !into.destroyed) into.end()
    })
  }

  const port = await listen(server)
  const gateway: Gateway = {
    port,
    url: `http://127.0.0.1:${port}`,
    get tunnels() {
      return records.length
    },
    recorded: (tunnel, way) => Buffer.concat(records[tunnel - 1]![way]),
    onPart: ({ bytes }) => bytes,
    answer: undefined,
    cutBehind: undefined,
    cut() {
      for (const cut of [...open]) cut()
    },
    async over(tunnels) {
      while (over < tunnels)
        await new Promise<void>((resolve) => {
          waiting.push(resolve)
        })
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const session of sessions) session.destroy()
      await closed
    },
  }
  return gateway
}
