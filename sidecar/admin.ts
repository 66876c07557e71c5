/** The port for whoever runs the sidecar: is it alive, is it ready, what are its pairs? */
import net from 'node:net'
import type { Answer } from './call.ts'
import { SidecarError } from './errors.ts'
import { hostAndPort } from './formats.ts'
import type { Arrival } from './http/listener.ts'
import { json } from './http/problem.ts'
import { type PairStore, StoreUnavailableError } from './pair/store.ts'

export interface AdminOptions {
  name: string
  store: Pick<PairStore, 'list' | 'trouble'>
  /** forgets the pairs with a peer, and gives how many they were */
  dropPairs(peer: string): Promise<number>
  /** why this sidecar should get no new calls; none: it is ready */
  notReady(): string[]
}

/** Answers what comes in at ADMIN_PORT. */
export class Admin {
  readonly #options: AdminOptions

  constructor(options: AdminOptions) {
    this.#options = options
  }

  /** @throws SidecarError not-found, bad-request or state-unavailable */
  async answer({ request: { head }, socket }: Arrival): Promise<Answer> {
    const [pathname, ...query] = head.path.split('?')
    const read = head.method === 'GET' || head.method === 'HEAD'
    if (read && pathname === '/livez') return json({ status: 'alive', name: this.#options.name })
    if (read && pathname === '/readyz') return this.#readiness()
    // What is more than a probe needs stays on this machine.
    if (pathname === '/pairs' && isLoopback(socket?.remoteAddress) && isNoSite(head.authority)) {
      if (read) return json(await known(this.#options.store.list()))
      if (head.method === 'DELETE') return this.#drop(query.join('?'))
    }
    throw new SidecarError(
      'not-found',
      'Here are /livez and /readyz, and for this machine alone, at 127.0.0.1, [::1] or localhost, /pairs.',
    )
  }

  /** Without its store a sidecar is still ready for what needs no pairs. */
  #readiness(): Answer {
    const { store, notReady } = this.#options
    const reasons = notReady()
    const ready = reasons.length === 0
    const trouble = store.trouble()
    const degraded = trouble === undefined ? [] : [trouble]
    return json({ status: ready ? 'ready' : 'not ready', reasons, degraded }, ready ? 200 : 503)
  }

  async #drop(query: string): Promise<Answer> {
    const [peer, ...more] = new URLSearchParams(query).getAll('peer')
    if (!peer || more.length > 0) {
      throw new SidecarError(
        'bad-request',
        'It must name one peer as GET /pairs does, percent-encoded: DELETE /pairs?peer=http%3A%2F%2Fbilling%3A8080',
      )
    }
    return json({ dropped: await known(this.#options.dropPairs(peer)) })
  }
}

function isLoopback(address: string | undefined): boolean {
  return address !== undefined && /^(?:::ffff:)?127\.|^::1$/.test(address)
}

/** A page of a site whose name has been made to lead to this machine (DNS rebinding) names that site. */
function isNoSite(authority: string): boolean {
  const host = hostAndPort(authority)?.host.replace(/^\[|\]$/g, '') ?? ''
  return host === 'localhost' || net.isIP(host) !== 0
}

/** What the store knows; that it is away is told as what it is. */
async function known<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (!(error instanceof StoreUnavailableError)) throw error
    throw new SidecarError('state-unavailable', error.message, { cause: error })
  }
}
