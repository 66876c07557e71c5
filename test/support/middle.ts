/** Somebody on the path between two sidecars, who does with each message and pairing what the test likes. Tunnels pass. */
import http from 'node:http'
import http2 from 'node:http2'
import { type Posted, post } from './peer.ts'
import { listen } from './sidecars.ts'

/** A request on its way: a pairing or a message. */
export interface Passing {
  method: string
  path: string
  headers: http.IncomingHttpHeaders
  body: Buffer
  /** Lets it pass, and gives what answers it. */
  forward(): Promise<Posted>
}

/** What becomes of a request: an answer, or a connection that breaks, or nothing at all. */
export type Meddle = (passing: Passing) => Promise<Pick<Posted, 'status' | 'body'> | 'cut' | 'silence'>

export interface Middle {
  port: number
  url: string
  /** requests that came, answered or not */
  pairings: Buffer[]
  messages: Buffer[]
  /** what is done with messages; at first they pass */
  onMessage: Meddle
  /** what is done with pairings; at first they pass */
  onPairing: Meddle
  close(): Promise<void>
}

export const pass: Meddle = (passing) => passing.forward()

export type HttpVersion = 'HTTP/1.1' | 'HTTP/2'

/**
 * Starts it.
 * @param to inbound port of the sidecar behind; a function where that changes
 * @param version the one that it speaks with the sidecar in front
 */
export async function startMiddle(
  to: number | (() => number),
  version: HttpVersion = 'HTTP/2',
): Promise<Middle> {
  const target = typeof to === 'number' ? () => to : to
  const sockets = new Set<{ destroy(): void }>()
  const handle = async (request: http.IncomingMessage, response: http.ServerResponse) => {
    if (request.url!.endsWith('/api/mte-tunnel') && 'stream' in response) {
      const session = http2.connect(`http://127.0.0.1:${target()}`)
      sockets.add(session)
      passTunnel(session, (response as unknown as http2.Http2ServerResponse).stream)
      return
    }
    const pieces: Buffer[] = []
    for await (const piece of request) pieces.push(piece)
    const { method = '', url: path = '', headers } = request
    const body = Buffer.concat(pieces)
    const pairing = path.endsWith('/api/mte-pair')
    const kept = pairing ? middle.pairings : middle.messages
    kept.push(body)
    const meddle = pairing ? middle.onPairing : middle.onMessage
    const outcome = await meddle({ method, path, headers, body, forward: () => post(target(), path, body) })
    if (outcome === 'silence') return
    if (outcome === 'cut') cut(response)
    else response.writeHead(outcome.status, { 'content-type': 'application/octet-stream' }).end(outcome.body)
  }
  const onRequest = (request: unknown, response: unknown) =>
    handle(request as http.IncomingMessage, response as http.ServerResponse).catch(() =>
      cut(response as http.ServerResponse),
    )
  const server = version === 'HTTP/2' ? http2.createServer(onRequest) : http.createServer(onRequest)
  server.on('session', (session: http2.ServerHttp2Session) => sockets.add(session))
  server.on('connection', (socket) => sockets.add(socket))
  const port = await listen(server)
  const middle: Middle = {
    port,
    url: `http://127.0.0.1:${port}`,
    pairings: [],
    messages: [],
    onMessage: pass,
    onPairing: pass,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
  return middle
}

/** Lets all of a tunnel pass, both ways. */
function passTunnel(session: http2.ClientHttp2Session, from: http2.ServerHttp2Stream): void {
  const onward = session.request({ ':method': 'POST', ':path': '/api/mte-tunnel' })
  session.on('error', () => {})
  onward.on('error', () => {})
  onward.on('response', ({ ':status': status }) => {
    from.respond({ ':status': status })
    onward.pipe(from)
  })
  onward.on('close', () => {
    if (!onward.readableEnded) from.close(http2.constants.NGHTTP2_INTERNAL_ERROR)
    session.close()
  })
  from.on('error', () => {})
  from.on('close', () => onward.close(http2.constants.NGHTTP2_CANCEL))
  from.pipe(onward)
}

function cut(response: http.ServerResponse | http2.Http2ServerResponse): void {
  if ('stream' in response) response.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR)
  else response.socket?.resetAndDestroy()
}
