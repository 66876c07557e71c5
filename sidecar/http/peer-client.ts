import type { Answer, Caller, Request } from '../call.ts'
import { type ClientOptions, Http1Client } from './http1-client.ts'
import { Http2Client } from './http2-client.ts'
import { NoHttp2Error } from './http2-session.ts'

/** For how long an origin that could not speak HTTP/2 is called over HTTP/1.1, in ms. */
const HTTP1_REMEMBERED_MS = 60_000
const PEERS_MAX = 1000

/** A peer's sidecar with its connections. */
interface Peer {
  http2: Http2Client
  http1: Http1Client
  /** of the base URL, in front of every path */
  pathPrefix: string
  /** monotonic, in ms */
  http1UntilMs: number
}

/** Sends requests to peers' sidecars: over HTTP/2, or over HTTP/1.1 where the other end cannot speak it. */
export class PeerClient {
  readonly #options: ClientOptions
  /** by base URL, the least recently used first */
  readonly #peers = new Map<string, Peer>()

  constructor(options: ClientOptions) {
    this.#options = options
  }

  /**
   * Sends a request to a peer, its path below the path of the peer's base URL.
   *
   * Nobody is informed of interim responses: those of a call are inside of its messages, and others are nobody's.
   * @param url base URL of the peer's sidecar
   * @throws SendError when no answer came, or what the request's body throws
   */
  async send(url: string, request: Request, caller: Caller): Promise<Answer> {
    const peer = this.#peer(url)
    const sent = below(peer.pathPrefix, request)
    if (peer.http1UntilMs > 0 && performance.now() < peer.http1UntilMs)
      return peer.http1.send(sent, uninformed(caller))
    try {
      return await peer.http2.send(sent, caller)
    } catch (error) {
      if (!(error instanceof NoHttp2Error)) throw error
      const answer = await peer.http1.send(sent, uninformed(caller))
      peer.http1UntilMs = performance.now() + HTTP1_REMEMBERED_MS
      return answer
    }
  }

  /**
   * Sends a long request to a peer, likewise, over an HTTP/2 connection of its own.
   * @param onLeave told when the other end wants no more calls on the connection
   * @throws NoHttp2Error where the peer does not speak it, or as `send`
   */
  sendAlone(url: string, request: Request, caller: Caller, onLeave: () => void): Promise<Answer> {
    const peer = this.#peer(url)
    return peer.http2.sendAlone(below(peer.pathPrefix, request), caller, onLeave)
  }

  /** Takes no more requests; those under way go on. */
  close(): void {
    for (const peer of this.#peers.values()) closeBoth(peer)
    this.#peers.clear()
  }

  #peer(url: string): Peer {
    const peer = this.#peers.get(url) ?? this.#newPeer(new URL(url))
    this.#peers.delete(url)
    this.#peers.set(url, peer)
    if (this.#peers.size > PEERS_MAX) {
      const [oldest, unused] = this.#peers.entries().next().value!
      this.#peers.delete(oldest)
      closeBoth(unused)
    }
    return peer
  }

  #newPeer(url: URL): Peer {
    return {
      http2: new Http2Client(url, this.#options),
      http1: new Http1Client(url, this.#options),
      pathPrefix: url.pathname.replace(/\/$/, ''),
      http1UntilMs: 0,
    }
  }
}

function below(prefix: string, request: Request): Request {
  if (prefix === '') return request
  return { ...request, head: { ...request.head, path: prefix + request.head.path } }
}

function uninformed(caller: Caller): Caller {
  return { inform() {}, onGone: (callback) => caller.onGone(callback) }
}

function closeBoth(peer: Peer): void {
  peer.http2.close()
  peer.http1.close()
}
