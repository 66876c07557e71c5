import { checkOnce, hostAndPort, type Pattern, type Peer } from './formats.ts'

/** Where a call goes: to a peer's sidecar, encoded, or, if that was configured, to the authority itself in plain. */
export type Route = { kind: 'peer'; url: string } | { kind: 'plain'; origin: string }

interface Entry {
  pattern: Pattern
  /** undefined: passed through in plain */
  url: string | undefined
}

const FOUND_MAX = 1000

/** Which authority is called by which way; what is not listed is refused. */
export class Routes {
  readonly #peers: readonly Peer[]
  readonly #plain: readonly Pattern[]
  /** in the order in which they are tried */
  #entries: readonly Entry[] = []
  /** what was found of late, by authority */
  readonly #found = new Map<string, { scheme: string; route: Route }>()

  /** @param plain authorities that may be called in plain */
  constructor(peers: readonly Peer[], plain: readonly Pattern[]) {
    this.#peers = peers
    this.#plain = plain
    this.setFilePeers([])
  }

  /**
   * Sets the peers that come from PEERS_FILE, in place of those that came before.
   * @throws Mistake when an authority is named twice; nothing changes then
   */
  setFilePeers(filePeers: readonly Peer[]): void {
    const peers = [...this.#peers, ...filePeers]
    checkOnce([...peers.map((peer) => peer.pattern), ...this.#plain])
    const entries: Entry[] = [...peers, ...this.#plain.map((pattern) => ({ pattern, url: undefined }))]
    this.#found.clear()
    this.#entries = entries.sort((a, b) => weight(b.pattern) - weight(a.pattern))
  }

  /**
   * The way to an authority; undefined when it has none.
   * @param authority `host[:port]`, in any case
   * @param scheme which tells the port where the authority does not
   */
  find(authority: string, scheme: string): Route | undefined {
    const found = this.#found.get(authority)
    if (found && found.scheme === scheme) return found.route
    const route = this.#search(authority, scheme)
    if (!route) return undefined
    if (this.#found.size >= FOUND_MAX) this.#found.clear()
    this.#found.set(authority, { scheme, route })
    return route
  }

  #search(authority: string, scheme: string): Route | undefined {
    const parsed = hostAndPort(authority)
    if (!parsed) return undefined
    const { host } = parsed
    const port = parsed.port ?? (scheme === 'https' ? 443 : 80)
    const entry = this.#entries.find(({ pattern }) => matches(pattern, host, port))
    if (!entry) return undefined
    if (entry.url === undefined) return { kind: 'plain', origin: `${scheme}://${host}:${port}` }
    return { kind: 'peer', url: entry.url.replaceAll('{host}', host).replaceAll('{port}', String(port)) }
  }
}

function matches(pattern: Pattern, host: string, port: number): boolean {
  if (pattern.port !== undefined && pattern.port !== port) return false
  const star = pattern.host.indexOf('*')
  if (star < 0) return pattern.host === host
  const [before, after] = [pattern.host.slice(0, star), pattern.host.slice(star + 1)]
  return host.length > before.length + after.length && host.startsWith(before) && host.endsWith(after)
}

/** Names before patterns, longer ones first, and with a port before without. */
function weight({ host, port }: Pattern): number {
  return (host.includes('*') ? 0 : 1_000_000) + 2 * host.length + (port === undefined ? 0 : 1)
}
