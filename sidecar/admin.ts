/** The port for whoever runs the sidecar: is it alive, is it ready, what are its pairs? */
import type { Answer } from './call.ts'
import { SidecarError } from './errors.ts'
import type { Arrival } from './http/listener.ts'
import { json } from './http/problem.ts'
import type { PairStore } from './pair/store.ts'

export interface AdminOptions {
  name: string
  store: PairStore
  /** why this sidecar should get no new calls; none: it is ready */
  notReady(): string[]
}

/** Answers what comes in at ADMIN_PORT. */
export class Admin {
  readonly #options: AdminOptions

  constructor(options: AdminOptions) {
    this.#options = options
  }

  /** @throws SidecarError not-found */
  async answer({ request: { head }, socket }: Arrival): Promise<Answer> {
    const { name, store, notReady } = this.#options
    const [pathname] = head.path.split('?', 1)
    const read = head.method === 'GET' || head.method === 'HEAD'
    if (read && pathname === '/livez') return json({ status: 'alive', name })
    if (read && pathname === '/readyz') {
      const reasons = notReady()
      return json(
        { status: reasons.length === 0 ? 'ready' : 'not ready', reasons },
        reasons.length === 0 ? 200 : 503,
      )
    }
    // What is more than a probe needs stays on this machine.
    if (read && pathname === '/pairs' && isLoopback(socket?.remoteAddress)) return json(await store.list())
    throw new SidecarError('not-found', 'Here are /livez and /readyz, and from this machine /pairs.')
  }
}

function isLoopback(address: string | undefined): boolean {
  return address !== undefined && /^(?:::ffff:)?127\.|^::1$/.test(address)
}
