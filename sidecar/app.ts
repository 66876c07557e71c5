/** The sidecar as a whole: builds its parts, listens, drains and stops. */
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { Admin, type Administered } from './admin.ts'
import type { Send } from './call.ts'
import type { Config } from './config.ts'
import { Cors } from './cors.ts'
import { joinPath } from './http/fields.ts'
import { Http1Client } from './http/http1-client.ts'
import { type Handler, Listener } from './http/listener.ts'
import type { PassThroughOptions } from './http/pass-through.ts'
import { PeerClient } from './http/peer-client.ts'
import { PlainClient } from './http/plain-client.ts'
import { Inbound, type InboundOptions } from './inbound.ts'
import type { Logger } from './log.ts'
import { Outbound } from './outbound.ts'
import { OutboundToken } from './outbound-token.ts'
import { MemoryStore } from './pair/memory-store.ts'
import type { PairStore } from './pair/store.ts'
import { TUNNEL_HEAD_BYTES_MAX } from './pair/tunnel-frames.ts'
import { createPairs, identityOf, pairingLog } from './pairing.ts'
import { randomPool } from './random.ts'
import type { ConnectionOptions } from './redis/connection.ts'
import { watchPeersFile, watchSecrets } from './rereading.ts'
import { Routes } from './routes.ts'
import { aboutOf } from './status.ts'
import { measuredStore } from './telemetry/measured-store.ts'
import { Metrics } from './telemetry/metrics.ts'
import { Recent } from './telemetry/recent.ts'
import { Telemetry } from './telemetry/telemetry.ts'
import type { Tracing } from './telemetry/tracing.ts'
import { Budget } from './tunnel/budget.ts'
import { openTunnel } from './tunnel/opening.ts'
import { Tunnels } from './tunnel/tunnels.ts'

export type Role = 'inbound' | 'outbound' | 'admin'

/** A sidecar that runs. */
export interface App {
  /** where each port really listens; a port that is off is not there */
  readonly ports: ReadonlyMap<Role, AddressInfo>
  /** what an admin port tells of it, and has it do */
  readonly administered: Administered
  /** for how long no call has been open, apart from those at the admin port, in ms */
  quietMs(): number
  /**
   * Is not ready any more, has callers leave their connections, soon takes no new ones, and resolves when all calls
   * have been answered and all connections are closed.
   */
  drain(): Promise<void>
  /** Resets what is still open, and stops. */
  close(): Promise<void>
}

/** What a sidecar tells of itself elsewhere than at its admin port. */
export interface Exporting {
  /** undefined: no spans are made */
  tracing: Tracing | undefined
  /** where it goes; undefined: nowhere */
  host: string | undefined
  /** why the last export failed */
  trouble(): string | undefined
}

/** What the first process does for one of WORKERS: it has the admin port, and says where the others listen. */
export interface FirstProcess {
  /** where pairs are, if Redis is not where they are */
  store: PairStore
}

const NOT_EXPORTING: Exporting = { tracing: undefined, host: undefined, trouble: () => undefined }

/** How much longer the peer's sidecar is waited for than it waits for its app: its own 504 says more, in ms. */
const PEER_ANSWER_EXTRA_MS = 500
/** How old the number of pairs may be that the metrics tell. */
const PAIRS_COUNTED_MS = 5_000
/** Redis has so long to answer before calls are taken: who calls at once is not to pay for a start. */
const REDIS_FIRST_ANSWER_MS = 500
/**
 * A port stays open for so long at most while there are still callers who seek it. HAProxy's checks, as they are by
 * default, see within 6 s that a sidecar is not ready; docker stop kills after 10 s.
 */
const SOUGHT_MS_MAX = 7_000
/** For what has come by tunnels and waits for apps, in all of them together. */
const TUNNELS_BYTES_MAX = 256 * 1024 * 1024
/** How often tunnels look whether their other ends live, and their calls whether they are late. */
const TICK_MS = 250
/** How often the keys of what has ended are erased. */
const SWEEP_MS = 10_000

/**
 * Starts a sidecar.
 * @param metrics of this sidecar alone
 * @param first undefined: there is no other process
 * @throws ListenError when a port cannot be had
 */
export async function startApp(
  config: Config,
  log: Logger,
  metrics: Metrics = new Metrics(),
  exporting: Exporting = NOT_EXPORTING,
  first?: FirstProcess,
): Promise<App> {
  const clockMs = () => performance.now()
  const random = randomPool()
  const identifying = identityOf(config)
  const { redis: address, ca } = config
  const redis = address && (await openRedis({ address, ca, log, clockMs }))
  const store = redis
    ? measuredStore(redis.store, metrics)
    : // What was sent before this was made cannot have run here: it does not wait for anything.
      (first?.store ?? new MemoryStore(clockMs))
  const identity = await identifying
  const timeouts = { connectTimeoutMs: config.connectTimeoutMs, responseTimeoutMs: config.responseTimeoutMs }
  const client = { headBytesMax: config.maxHeaderBytes, ...timeouts, ...(config.ca ? { ca: config.ca } : {}) }
  const peerClient = new PeerClient({
    ...client,
    responseTimeoutMs: client.responseTimeoutMs + PEER_ANSWER_EXTRA_MS,
  })
  const plainClient = new PlainClient(client)
  const upstream = config.upstream === undefined ? undefined : new URL(config.upstream)
  const appClient = upstream && new Http1Client(upstream, client)
  const token = new OutboundToken(config.outboundTokens)
  const cors = new Cors({
    origins: config.corsOrigins,
    methods: config.corsMethods,
    allowedHeaders: config.corsAllowedHeaders,
  })
  const routes = new Routes(config.peers, config.passThroughHosts)
  const limits = { headBytesMax: config.maxHeaderBytes, bodyBytesMax: config.maxBodyBytes }

  const recent = new Recent(clockMs)
  const telemetry = new Telemetry({
    tracing: exporting.tracing,
    contextInside: config.traceContext === 'inside',
    accessLog: config.accessLog ? log : undefined,
    metrics,
    recent,
  })
  const pairs = createPairs({
    identity,
    store,
    client: peerClient,
    responseTimeoutMs: config.responseTimeoutMs,
    clockMs,
    telemetry,
    onEvent: pairingLog(log, clockMs),
  })
  const sweeper = setInterval(() => pairs.sweep(), SWEEP_MS).unref()
  const ofTunnels = {
    headBytesMax: config.maxHeaderBytes,
    budget: new Budget(TUNNELS_BYTES_MAX),
    clockMs,
    onRecord: (direction: 'sent' | 'received', workMs: number) => metrics.record(direction, workMs / 1000),
  }
  const tunnels = new Tunnels({
    // A head may be too large for a frame.
    carriage: config.maxHeaderBytes > TUNNEL_HEAD_BYTES_MAX ? 'message' : config.carriage,
    delay,
    clockMs,
    open: (url, events) =>
      openTunnel(
        url,
        {
          pairs,
          random,
          send: (to, request, caller, onLeave) => peerClient.sendAlone(to, request, caller, onLeave),
          tunnel: { ...ofTunnels, responseTimeoutMs: config.responseTimeoutMs + PEER_ANSWER_EXTRA_MS },
        },
        events,
      ),
    onFailure: (url, error) => log.debug({ peer: url, reason: reasonOf(error) }, 'could not open a tunnel'),
  })
  const onFault = (error: unknown, ids?: object) =>
    log.error({ err: error, ...ids }, 'a call failed in a way that was not foreseen')
  const outbound = new Outbound({
    tunnels,
    routes,
    pairs,
    telemetry,
    toPeer: (url, request, caller) => peerClient.send(url, request, caller),
    toPlain: (origin, request, caller) => plainClient.send(origin, request, caller),
    token,
    cors,
    ...limits,
    random,
    clockMs,
  })
  const inbound = new Inbound({
    pairs,
    outbound,
    telemetry,
    token,
    cors,
    toApp: upstream && appClient && { url: upstream.origin, send: below(upstream.pathname, appClient.send) },
    passThrough:
      upstream && config.passThroughRoutes.length > 0
        ? await passingThrough({ upstream, ...client })
        : undefined,
    passThroughRoutes: config.passThroughRoutes,
    headers: config.headers,
    ...limits,
    random,
    tunnel: { ...ofTunnels, onFault },
    clockMs,
  })
  const tickTunnels = () => {
    tunnels.tick()
    inbound.tunnels.tick()
  }
  const ticker = setInterval(tickTunnels, TICK_MS).unref()
  let drainingSinceMs: number | undefined
  const listeners = new Map<Role, Listener>()
  const ports = new Map<Role, AddressInfo>()
  const administered: Administered = {
    standing: async () => {
      const trouble = store.trouble()
      return {
        notReady: drainingSinceMs === undefined ? [] : ['draining'],
        degraded: trouble === undefined ? [] : [trouble],
        storeTrouble: trouble,
        collector: { host: exporting.host, trouble: exporting.trouble() },
        recent: [recent.tally()],
        names: telemetry.names,
        tunnels: { initiator: tunnels.counts, responder: inbound.tunnels.counts },
      }
    },
    pairs: () => store.list(),
    dropPairs: async (peer) => {
      const dropped = await pairs.drop(peer)
      // Afterwards: for one that goes another is opened at once, which must not be of a pair that goes too.
      tunnels.retire(peer)
      inbound.tunnels.retire(peer)
      return dropped
    },
    drain: async () => {
      drainingSinceMs ??= clockMs()
      const listener = listeners.get('inbound')
      listener?.retire()
      inbound.tunnels.retire()
      const drainingMs = clockMs() - drainingSinceMs
      return {
        openCalls: listener?.openCalls ?? 0,
        emptyMs: Math.min(listener?.emptyMs ?? drainingMs, drainingMs),
        leftMs: Math.max(0, config.drainMs - drainingMs),
      }
    },
    metricsText: (accept) => metrics.text(accept),
  }
  const admin = new Admin({
    about: aboutOf(config),
    listening: () => [...ports].map(([role, { address, port }]) => ({ role, address, port })),
    sidecar: administered,
    log,
  })
  const listen = async (role: Role, handler: Handler, hosts: readonly string[], port: number | 'off') => {
    if (port === 'off') return
    const listener = new Listener({
      handler,
      headBytesMax: config.maxHeaderBytes,
      idleTimeoutMs: config.idleTimeoutMs,
      onFault,
    })
    listeners.set(role, listener)
    const [address] = await listener.listen(hosts, port)
    ports.set(role, address!)
  }
  const { peersFile, secretFiles } = config
  const watchers = [
    peersFile && watchPeersFile(peersFile.path, routes, log),
    secretFiles &&
      watchSecrets(
        secretFiles,
        config,
        identity,
        { token, pairs, redis: redis?.connection, onPairSecrets: tickTunnels },
        log,
      ),
  ]
  const close = async () => {
    for (const watcher of watchers) watcher?.close()
    clearInterval(sweeper)
    clearInterval(ticker)
    tunnels.close()
    for (const listener of listeners.values()) listener.close()
    peerClient.close()
    plainClient.close()
    appClient?.close()
    await store.close()
  }
  metrics.watch({
    openCalls: () => ({
      inbound: listeners.get('inbound')?.openCalls ?? 0,
      outbound: listeners.get('outbound')?.openCalls ?? 0,
    }),
    tunnels: () => ({ initiator: tunnels.size, responder: inbound.tunnels.size }),
    pairs: remembered(PAIRS_COUNTED_MS, clockMs, async () => {
      const all = await store.list()
      const initiator = all.filter(({ role }) => role === 'initiator').length
      return { initiator, responder: all.length - initiator }
    }),
  })
  try {
    await redis?.connection.ready(REDIS_FIRST_ANSWER_MS)
    await listen('inbound', (arrival) => inbound.answer(arrival), ['0.0.0.0', '::'], config.port)
    await listen('outbound', (arrival) => outbound.answer(arrival), ['127.0.0.1', '::1'], config.outboundPort)
    if (!first)
      await listen('admin', (arrival) => admin.answer(arrival), [config.adminHost], config.adminPort)
  } catch (error) {
    await close()
    throw error
  }
  if (!first) for (const [role, { address, port }] of ports) log.info({ role, address, port }, 'listening')
  const forCalls = () => [...listeners].flatMap(([role, listener]) => (role === 'admin' ? [] : [listener]))
  return {
    ports,
    administered,
    quietMs: () => Math.min(...forCalls().map(({ emptyMs }) => emptyMs)),
    async drain() {
      drainingSinceMs ??= clockMs()
      // What is open when DRAIN_SECONDS are over is reset: it must not have come just before.
      const soughtMsMax = Math.min(SOUGHT_MS_MAX, config.drainMs / 2)
      inbound.tunnels.retire()
      await Promise.all(forCalls().map((listener) => listener.drain(soughtMsMax)))
    },
    close,
  }
}

// ioredis and http2-proxy take 10 MB: they are loaded where they are used.
async function openRedis(options: ConnectionOptions) {
  const { RedisConnection } = await import('./redis/connection.ts')
  const { RedisStore } = await import('./redis/redis-store.ts')
  const connection = new RedisConnection(options)
  return { connection, store: new RedisStore({ ...options, connection }) }
}

async function passingThrough(options: PassThroughOptions): Promise<InboundOptions['passThrough']> {
  const { passThrough } = await import('./http/pass-through.ts')
  return passThrough(options)
}

/** What work gave a moment ago: whoever reaches the admin port can have it asked for, as often as they like. */
function remembered<T>(ms: number, clockMs: () => number, work: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined
  let askedMs = 0
  return () => {
    if (answer && clockMs() - askedMs < ms) return answer
    askedMs = clockMs()
    answer = work()
    return answer
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : 'unknown'
}

/** Calls below a base path. */
function below(basePath: string, send: Send): Send {
  if (basePath === '/') return send
  return async (request, caller) => {
    const path = joinPath(basePath, request.head.path)
    return send({ ...request, head: { ...request.head, path } }, caller)
  }
}
