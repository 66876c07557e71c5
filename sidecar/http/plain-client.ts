import type { Answer, Caller, Request } from '../call.ts'
import { type ClientOptions, Http1Client } from './http1-client.ts'

const ORIGINS_MAX = 100

/** Sends calls in plain, over HTTP/1.1, to the origins that were configured for it. */
export class PlainClient {
  readonly #options: ClientOptions
  /** the least recently used first */
  readonly #origins = new Map<string, Http1Client>()

  constructor(options: ClientOptions) {
    this.#options = options
  }

  /**
   * @param origin `http://host:port` or `https://host:port`
   * @throws SendError when no answer came, or what the request's body throws
   */
  send(origin: string, request: Request, caller: Caller): Promise<Answer> {
    const client = this.#origins.get(origin) ?? new Http1Client(new URL(origin), this.#options)
    this.#origins.delete(origin)
    this.#origins.set(origin, client)
    if (this.#origins.size > ORIGINS_MAX) {
      const [oldest, idle] = this.#origins.entries().next().value!
      this.#origins.delete(oldest)
      idle.close()
    }
    return client.send(request, caller)
  }

  close(): void {
    for (const client of this.#origins.values()) client.close()
    this.#origins.clear()
  }
}
