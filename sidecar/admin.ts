/** The port for whoever runs the sidecar: is it alive, is it ready, how are its calls, what are its pairs, may it drain? */
import net from 'node:net'
import { type Answer, type Fields, WholeBody } from './call.ts'
import { SidecarError } from './errors.ts'
import { hostAndPort } from './formats.ts'
import { field } from './http/fields.ts'
import type { Arrival } from './http/listener.ts'
import { json } from './http/problem.ts'
import { type PairStore, StoreUnavailableError } from './pair/store.ts'
import { type About, type Collector, type Listening, type Status, statusOf } from './status.ts'
import { STATUS_PAGE_FIELDS, statusPage } from './status-page.ts'
import type { Metrics } from './telemetry/metrics.ts'
import type { Recent } from './telemetry/recent.ts'

/** How far the inbound port has come with draining. */
export interface Draining {
  openCalls: number
  /** for how long none has been open since it drains */
  emptyMs: number
  /** until DRAIN_SECONDS are over */
  leftMs: number
}

export interface AdminOptions {
  about: About
  /** the ports that are open */
  listening(): Listening[]
  store: Pick<PairStore, 'list' | 'trouble'>
  /** forgets the pairs with a peer, and gives how many they were */
  dropPairs(peer: string): Promise<number>
  /** what the peer with this base URL calls itself, where that is known */
  peerName(url: string): string | undefined
  /** why this sidecar should get no new calls; none: it is ready */
  notReady(): string[]
  /** Is not ready from now on, and has callers at the inbound port go elsewhere; asked again, it tells how that goes. */
  drain(): Draining
  metrics: Pick<Metrics, 'text'>
  recent: Pick<Recent, 'snapshot'>
  collector(): Collector
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
    if (read && pathname === '/livez') return json({ status: 'alive', name: this.#options.about.name })
    if (read && pathname === '/readyz') return this.#readiness()
    if (read && pathname === '/metrics') return this.#metrics(field(head.fields, 'accept') ?? '')
    // What is more than a probe or a scraper needs stays on this machine.
    if (isLoopback(socket?.remoteAddress) && isNoSite(head.authority)) {
      if (read && pathname === '/') return whole(statusPage(await this.#status()), STATUS_PAGE_FIELDS)
      if (read && pathname === '/status') return json(await this.#status())
      if (read && pathname === '/pairs') return json(await known(this.#options.store.list()))
      if (head.method === 'DELETE' && pathname === '/pairs') return this.#drop(query.join('?'))
      // Browsers let the page of any site send a POST; they name the site, and nobody else does.
      if (head.method === 'POST' && pathname === '/drain' && field(head.fields, 'origin') === undefined)
        return json(this.#options.drain())
    }
    throw new SidecarError(
      'not-found',
      'Here are /livez, /readyz and /metrics, and for this machine alone, at 127.0.0.1, [::1] or localhost, /, /status, /pairs and POST /drain.',
    )
  }

  #readiness(): Answer {
    const reasons = this.#options.notReady()
    const ready = reasons.length === 0
    const said = { status: ready ? 'ready' : 'not ready', reasons, degraded: this.#degraded() }
    return json(said, ready ? 200 : 503)
  }

  /** Without its store a sidecar is still ready for what needs no pairs. */
  #degraded(): string[] {
    const trouble = this.#options.store.trouble()
    return trouble === undefined ? [] : [trouble]
  }

  async #metrics(accept: string): Promise<Answer> {
    const { contentType, body } = await this.#options.metrics.text(accept)
    return whole(body, ['content-type', contentType])
  }

  async #status(): Promise<Status> {
    const { about, store, recent, listening, notReady, collector, peerName } = this.#options
    const pairs = await store.list().catch(noneIfAway)
    return statusOf(about, {
      atMs: Date.now(),
      listening: listening(),
      notReady: notReady(),
      degraded: this.#degraded(),
      storeTrouble: store.trouble(),
      collector: collector(),
      recent: recent.snapshot(),
      pairs,
      peerName,
    })
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

function whole(text: string, fields: Fields): Answer {
  const body = Buffer.from(text)
  const more = ['content-length', String(body.length), 'cache-control', 'no-store']
  return { head: { status: 200, fields: [...fields, ...more] }, body: new WholeBody(body) }
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

function noneIfAway(error: unknown): undefined {
  if (!(error instanceof StoreUnavailableError)) throw error
}
