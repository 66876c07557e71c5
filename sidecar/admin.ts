/** The port for whoever runs the sidecar: is it alive, is it ready, how are its calls, what are its pairs, may it drain? */
import net from 'node:net'
import { type Answer, type Fields, WholeBody } from './call.ts'
import { SidecarError } from './errors.ts'
import { hostAndPort } from './formats.ts'
import { field } from './http/fields.ts'
import type { Arrival } from './http/listener.ts'
import { json } from './http/problem.ts'
import type { Logger } from './log.ts'
import { type PairSummary, StoreUnavailableError } from './pair/store.ts'
import { type About, type Listening, type Standing, type Status, statusOf } from './status.ts'
import { STATUS_PAGE_FIELDS, statusPage } from './status-page.ts'
import { snapshotOf } from './telemetry/recent.ts'

/** How far the inbound port has come with draining. */
export interface Draining {
  openCalls: number
  /** for how long none has been open since it drains */
  emptyMs: number
  /** until DRAIN_SECONDS are over */
  leftMs: number
}

/** A pair as GET /pairs gives it. */
export interface ListedPair extends PairSummary {
  /** that are open with its peer, in its role */
  tunnels: number
}

/** What the admin port tells of and has done: in this process, or in all of WORKERS. */
export interface Administered {
  standing(): Promise<Standing>
  /** @throws StoreUnavailableError */
  pairs(): Promise<PairSummary[]>
  /**
   * Forgets the pairs with a peer, and gives how many they were.
   * @throws StoreUnavailableError
   */
  dropPairs(peer: string): Promise<number>
  /** Is not ready from now on, and has callers at the inbound port go elsewhere; asked again, it tells how that goes. */
  drain(): Promise<Draining>
  /** All metrics, as Metrics.text gives them. */
  metricsText(accept: string): Promise<{ contentType: string; body: string }>
}

export interface AdminOptions {
  about: About
  /** the ports that are open */
  listening(): Listening[]
  sidecar: Administered
  log: Pick<Logger, 'info'>
}

/** Answers what comes in at ADMIN_PORT. */
export class Admin {
  readonly #options: AdminOptions
  #drains = false

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
      if (read && pathname === '/pairs') return json(await this.#pairs())
      if (head.method === 'DELETE' && pathname === '/pairs') return this.#drop(query.join('?'))
      // Browsers let the page of any site send a POST; they name the site, and nobody else does.
      if (head.method === 'POST' && pathname === '/drain' && field(head.fields, 'origin') === undefined)
        return this.#drain()
    }
    throw new SidecarError(
      'not-found',
      'Here are /livez, /readyz and /metrics, and for this machine alone, at 127.0.0.1, [::1] or localhost, /, /status, /pairs and POST /drain.',
    )
  }

  /** Without its store a sidecar is still ready for what needs no pairs. */
  async #readiness(): Promise<Answer> {
    const { notReady: reasons, degraded } = await this.#options.sidecar.standing()
    const ready = reasons.length === 0
    return json({ status: ready ? 'ready' : 'not ready', reasons, degraded }, ready ? 200 : 503)
  }

  async #metrics(accept: string): Promise<Answer> {
    const { contentType, body } = await this.#options.sidecar.metricsText(accept)
    return whole(body, ['content-type', contentType])
  }

  async #status(): Promise<Status> {
    const { about, listening, sidecar } = this.#options
    const pairs = await sidecar.pairs().catch(noneIfAway)
    const { recent, names, ...standing } = await sidecar.standing()
    return statusOf(about, {
      ...standing,
      atMs: Date.now(),
      listening: listening(),
      recent: snapshotOf(recent),
      pairs,
      peerName: (url) => names.get(url),
    })
  }

  async #pairs(): Promise<ListedPair[]> {
    const { sidecar } = this.#options
    const pairs = await known(sidecar.pairs())
    const { tunnels } = await sidecar.standing()
    return pairs.map((pair) => ({ ...pair, tunnels: tunnels[pair.role].get(pair.peer) ?? 0 }))
  }

  async #drain(): Promise<Answer> {
    if (!this.#drains) this.#options.log.info({ asked: 'POST /drain' }, 'draining')
    this.#drains = true
    return json(await this.#options.sidecar.drain())
  }

  async #drop(query: string): Promise<Answer> {
    const [peer, ...more] = new URLSearchParams(query).getAll('peer')
    if (!peer || more.length > 0) {
      throw new SidecarError(
        'bad-request',
        'It must name one peer as GET /pairs does, percent-encoded: DELETE /pairs?peer=http%3A%2F%2Fbilling%3A8080',
      )
    }
    return json({ dropped: await known(this.#options.sidecar.dropPairs(peer)) })
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
