/** The sidecar as a whole: builds its parts, listens, drains and stops. */
import type { AddressInfo } from 'node:net'
import { Admin } from './admin.ts'
import type { Send } from './call.ts'
import type { Config } from './config.ts'
import { Cors } from './cors.ts'
import { joinPath } from './http/fields.ts'
import { Http1Client } from './http/http1-client.ts'
import { type Handler, Listener } from './http/listener.ts'
import { passThrough } from './http/pass-through.ts'
import { PeerClient } from './http/peer-client.ts'
import { PlainClient } from './http/plain-client.ts'
import { Inbound } from './inbound.ts'
import type { Logger } from './log.ts'
import { Outbound } from './outbound.ts'
import { OutboundToken } from './outbound-token.ts'
import type { Identity } from './pair/handshake.ts'
import { MemoryStore } from './pair/memory-store.ts'
import type { PairStore } from './pair/store.ts'
import { createPairs, identityOf, pairingLog } from './pairing.ts'
import { watchPeersFile } from './peers-file.ts'
import { randomPool } from './random.ts'
import { RedisConnection } from './redis/connection.ts'
import { RedisStore } from './redis/redis-store.ts'
import type { RedisAddress } from './redis/redis-url.ts'
import { Routes } from './routes.ts'
import { serviceName } from './telemetry/call-record.ts'
import { measuredStore } from './telemetry/measured-store.ts'
import { Metrics } from './telemetry/metrics.ts'
import { Recent } from './telemetry/recent.ts'
import { Telemetry } from './telemetry/telemetry.ts'
import type { Tracing } from './telemetry/tracing.ts'
import { VERSION } from './version.ts'

export type Role = 'inbound' | 'outbound' | 'admin'

/** A sidecar that runs. */
export interface App {
  /** where each port really listens; a port that is off is not there */
  readonly ports: ReadonlyMap<Role, AddressInfo>
  /** Takes no new connections, and resolves when all calls have been answered. */
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

const NOT_EXPORTING: Exporting = { tracing: undefined, host: undefined, trouble: () => undefined }

/** How much longer the peer's sidecar is waited for than it waits for its app: its own 504 says more, in ms. */
const PEER_ANSWER_EXTRA_MS = 500
/** How old the number of pairs may be that the metrics tell. */
const PAIRS_COUNTED_MS = 5_000
/** How often the keys of what has ended are erased. */
const SWEEP_MS = 10_000

/**
 * Starts a sidecar.
 * @param metrics of this sidecar alone
 * @throws ListenError when a port cannot be had
 */
export async function startApp(
  config: Config,
  log: Logger,
  metrics: Metrics = new Metrics(),
  exporting: Exporting = NOT_EXPORTING,
): Promise<App> {
  const clockMs = () => performance.now()
  const random = randomPool()
  const identifying = identityOf(config)
  const store = config.redis
    ? measuredStore(await openRedis(config, config.redis, identifying, log, clockMs), metrics)
    : // What was sent before this was made cannot have run here: it does not wait for anything.
      new MemoryStore(clockMs)
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
  const outbound = new Outbound({
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
    passThrough: upstream && passThrough({ upstream, ...client }),
    passThroughRoutes: config.passThroughRoutes,
    headers: config.headers,
    ...limits,
    random,
    clockMs,
  })
  let draining = false
  const listeners = new Map<Role, Listener>()
  const ports = new Map<Role, AddressInfo>()
  const { jaegerUiUrl } = config
  const admin = new Admin({
    about: {
      name: config.name,
      version: VERSION,
      startedAtMs: Date.now(),
      store: config.redis ? 'redis' : 'memory',
      jaeger: jaegerUiUrl === undefined ? undefined : { url: jaegerUiUrl, service: serviceName(config.name) },
    },
    listening: () => [...ports].map(([role, { address, port }]) => ({ role, address, port })),
    store,
    dropPairs: (peer) => pairs.drop(peer),
    peerName: (url) => telemetry.nameOf(url),
    notReady: () => (draining ? ['draining'] : []),
    metrics,
    recent,
    collector: () => ({ host: exporting.host, trouble: exporting.trouble() }),
  })
  const listen = async (role: Role, handler: Handler, hosts: readonly string[], port: number | 'off') => {
    if (port === 'off') return
    const listener = new Listener({
      handler,
      headBytesMax: config.maxHeaderBytes,
      idleTimeoutMs: config.idleTimeoutMs,
      onFault: (error, ids) =>
        log.error({ err: error, ...ids }, 'a call failed in a way that was not foreseen'),
    })
    listeners.set(role, listener)
    const [address] = await listener.listen(hosts, port)
    ports.set(role, address!)
  }
  const watcher = config.peersFile && watchPeers(config.peersFile.path, routes, log)
  const close = async () => {
    watcher?.close()
    clearInterval(sweeper)
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
    pairs: remembered(PAIRS_COUNTED_MS, clockMs, async () => {
      const all = await store.list()
      const initiator = all.filter(({ role }) => role === 'initiator').length
      return { initiator, responder: all.length - initiator }
    }),
  })
  try {
    await listen('inbound', (arrival) => inbound.answer(arrival), ['0.0.0.0', '::'], config.port)
    await listen('outbound', (arrival) => outbound.answer(arrival), ['127.0.0.1', '::1'], config.outboundPort)
    await listen('admin', (arrival) => admin.answer(arrival), [config.adminHost], config.adminPort)
  } catch (error) {
    await close()
    throw error
  }
  for (const [role, { address, port }] of ports) log.info({ role, address, port }, 'listening')
  return {
    ports,
    async drain() {
      draining = true
      await Promise.all([listeners.get('inbound')?.drain(), listeners.get('outbound')?.drain()])
    },
    close,
  }
}

async function openRedis(
  { ca }: Config,
  address: RedisAddress,
  identifying: Promise<Identity>,
  log: Logger,
  clockMs: () => number,
): Promise<PairStore> {
  const { secrets } = await identifying
  const connection = new RedisConnection({ address, ca, log, clockMs })
  return new RedisStore({ connection, secrets, log, clockMs })
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

/** Calls below a base path. */
function below(basePath: string, send: Send): Send {
  return async (request, caller) => {
    const path = joinPath(basePath, request.head.path)
    return send({ ...request, head: { ...request.head, path } }, caller)
  }
}

function watchPeers(path: string, routes: Routes, log: Logger): { close(): void } {
  return watchPeersFile(path, {
    onPeers: (peers) => {
      routes.setFilePeers(peers)
      log.info({ peers: peers.length }, 'PEERS_FILE was read')
    },
    onMistake: (message) => log.warn(`PEERS_FILE ${message}; the peers stay as they were`),
  })
}
