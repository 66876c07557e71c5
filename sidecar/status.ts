/** What a sidecar tells of itself to whoever is on call: the status page shows it, and GET /status gives it as JSON. */
import type { Config } from './config.ts'
import type { PairSummary } from './pair/store.ts'
import { serviceName } from './telemetry/call-record.ts'
import type { Direction } from './telemetry/metrics.ts'
import {
  type Figures,
  OTHER,
  type PeerFigures,
  type RecentSnapshot,
  type RecentTally,
  type RejectFigures,
} from './telemetry/recent.ts'
import { VERSION } from './version.ts'

/** What does not change while it runs. */
export interface About {
  name: string
  version: string
  /** ms since 1970 */
  startedAtMs: number
  store: 'memory' | 'redis'
  /** base URL of Jaeger's pages, and the name that this sidecar's spans have there; undefined: no links */
  jaeger: { url: string; service: string } | undefined
}

/** A port that is open. */
export interface Listening {
  role: string
  address: string
  port: number
}

/** Where spans and metrics are sent. */
export interface Collector {
  /** undefined: nowhere */
  host: string | undefined
  /** why the last export failed */
  trouble: string | undefined
}

/**
 * How the calls of the last minute went: all well, some failed, half of them or more failed, or there was none. Those
 * that the caller itself gave up are no sign of trouble.
 */
export type PeerState = 'ok' | 'failures' | 'failing' | 'idle'

export interface PeerStatus extends PeerFigures {
  /** what it calls itself; undefined where that is not known */
  name: string | undefined
  state: PeerState
  /** undefined: not known, as the store is away */
  pairs: number | undefined
  /** that are open: without any, its calls are messages */
  tunnels: number
  /** its traces in Jaeger */
  tracesUrl: string | undefined
}

export interface Status extends Omit<About, 'jaeger'> {
  /** ms since 1970 */
  atMs: number
  listening: Listening[]
  /** why this sidecar should get no new calls; none: it is ready */
  notReady: string[]
  /** what it cannot do meanwhile */
  degraded: string[]
  storeTrouble: string | undefined
  collector: Collector
  all: Record<Direction, Figures>
  /** those in trouble first, then by name */
  peers: PeerStatus[]
  /** undefined: not known, as the store is away */
  pairs: PairSummary[] | undefined
  rejects: RejectFigures[]
}

/** How many tunnels are open with each peer that has some: an initiator knows it by its base URL, a responder by name. */
export type OpenTunnels = Record<PairSummary['role'], ReadonlyMap<string, number>>

/** What a sidecar knows of itself, in one process or in several. May be cloned. */
export interface Standing extends Pick<Status, 'notReady' | 'degraded' | 'storeTrouble' | 'collector'> {
  /** of each of its processes */
  recent: RecentTally[]
  /** what peers call themselves, where that is known, by the base URL of their sidecars */
  names: ReadonlyMap<string, string>
  tunnels: OpenTunnels
}

/** What is known at one moment. */
export interface Moment extends Pick<Status, 'atMs' | 'listening' | 'notReady' | 'degraded'> {
  storeTrouble: string | undefined
  collector: Collector
  recent: RecentSnapshot
  pairs: PairSummary[] | undefined
  tunnels: OpenTunnels
  /** what the peer with this base URL calls itself, where that is known */
  peerName(url: string): string | undefined
}

/** What a sidecar with this configuration is that starts now. */
export function aboutOf({ name, redis, jaegerUiUrl }: Pick<Config, 'name' | 'redis' | 'jaegerUiUrl'>): About {
  return {
    name,
    version: VERSION,
    startedAtMs: Date.now(),
    store: redis ? 'redis' : 'memory',
    jaeger: jaegerUiUrl === undefined ? undefined : { url: jaegerUiUrl, service: serviceName(name) },
  }
}

export function statusOf({ jaeger, ...about }: About, moment: Moment): Status {
  const { recent, peerName, tunnels, ...told } = moment
  const counts = countPairs(moment.pairs ?? [])
  const peers = [...recent.peers, ...unused(recent.peers, counts)].map((figures) => {
    const { direction, peer } = figures
    const name = direction === 'outbound' ? peerName(peer) : peer === OTHER ? undefined : peer
    return {
      ...figures,
      name,
      state: stateOf(figures),
      pairs: moment.pairs && (counts[direction].get(peer) ?? 0),
      tunnels: tunnels[direction === 'outbound' ? 'initiator' : 'responder'].get(peer) ?? 0,
      tracesUrl: jaeger && tracesUrl(jaeger, name),
    }
  })
  return { ...about, ...told, all: recent.all, peers: peers.sort(byTrouble), rejects: recent.rejects }
}

type Counts = Record<Direction, Map<string, number>>

/** How many pairs there are with each peer. */
function countPairs(pairs: PairSummary[]): Counts {
  const counts: Counts = { outbound: new Map(), inbound: new Map() }
  for (const { role, peer } of pairs) {
    const count = role === 'initiator' ? counts.outbound : counts.inbound
    count.set(peer, (count.get(peer) ?? 0) + 1)
  }
  return counts
}

/** The peers with pairs that no call has used since the start; at most UNUSED_MAX a direction. */
function unused(met: PeerFigures[], counts: Counts): PeerFigures[] {
  return (['outbound', 'inbound'] as const).flatMap((direction) => {
    const known = new Set(met.filter((one) => one.direction === direction).map(({ peer }) => peer))
    return [...counts[direction].keys()]
      .filter((peer) => !known.has(peer))
      .slice(0, UNUSED_MAX)
      .map((peer) => ({ direction, peer, ...NOTHING }))
  })
}

const UNUSED_MAX = 100
const NOTHING = {
  calls: 0,
  callsPerSecond: 0,
  p50Seconds: undefined,
  p99Seconds: undefined,
  failures: [],
  lastSuccessSeconds: undefined,
  lastFailure: undefined,
}

function stateOf({ calls, failures }: Figures): PeerState {
  if (calls === 0) return 'idle'
  const failed = failures.reduce((sum, { code, count }) => (code === 'caller-gone' ? sum : sum + count), 0)
  if (failed === 0) return 'ok'
  return failed * 2 >= calls ? 'failing' : 'failures'
}

const URGENCY: readonly PeerState[] = ['failing', 'failures', 'ok', 'idle']

function byTrouble(a: PeerStatus, b: PeerStatus): number {
  return (
    URGENCY.indexOf(a.state) - URGENCY.indexOf(b.state) ||
    compare(a.name ?? a.peer, b.name ?? b.peer) ||
    compare(b.direction, a.direction)
  )
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Jaeger's search for what went to a peer or came from it; without a name, for all that this sidecar did. */
function tracesUrl({ url, service }: { url: string; service: string }, name: string | undefined): string {
  const search = `${url}/search?service=${encodeURIComponent(service)}`
  if (name === undefined) return search
  const tags = JSON.stringify({ 'service.peer.name': serviceName(name).toWellFormed() })
  return `${search}&tags=${encodeURIComponent(tags)}`
}
