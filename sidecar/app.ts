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

/** How much longer the peer's sidecar is waited for than it waits for its app: its own 504 says more, in ms. */
const PEER_ANSWER_EXTRA_MS = 500
/** How often the keys of what has ended are erased. */
const SWEEP_MS = 10_000

/**
 * Starts a sidecar.
 * @throws ListenError when a port cannot be had
 */
export async function startApp(config: Config, log: Logger): Promise<App> {
  const clockMs = () => performance.now()
  const random = randomPool()
  const identifying = identityOf(config)
  const store = config.redis
    ? await openRedis(config, config.redis, identifying, log, clockMs)
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

  const pairs = createPairs({
    identity,
    store,
    client: peerClient,
    responseTimeoutMs: config.responseTimeoutMs,
    clockMs,
    onEvent: pairingLog(log, clockMs),
  })
  const sweeper = setInterval(() => pairs.sweep(), SWEEP_MS).unref()
  const outbound = new Outbound({
    routes,
    pairs,
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
    token,
    cors,
    toApp: upstream && appClient && below(upstream.pathname, appClient.send),
    passThrough: upstream && passThrough({ upstream, ...client }),
    passThroughRoutes: config.passThroughRoutes,
    headers: config.headers,
    ...limits,
    random,
    clockMs,
  })
  let draining = false
  const admin = new Admin({
    name: config.name,
    store,
    dropPairs: (peer) => pairs.drop(peer),
    notReady: () => (draining ? ['draining'] : []),
  })

  const listeners = new Map<Role, Listener>()
  const ports = new Map<Role, AddressInfo>()
  const listen = async (role: Role, handler: Handler, hosts: readonly string[], port: number | 'off') => {
    if (port === 'off') return
    const listener = new Listener({
      handler,
      headBytesMax: config.maxHeaderBytes,
      idleTimeoutMs: config.idleTimeoutMs,
      onFault: (error) => log.error({ err: error }, 'a call failed in a way that was not foreseen'),
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
