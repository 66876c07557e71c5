/** Real sidecars on free ports, with what tests need to look at them. */
import { randomInt } from 'node:crypto'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import tls from 'node:tls'
import { type App, type Exporting, type Role, startApp } from '../../sidecar/app.ts'
import { loadConfig } from '../../sidecar/config.ts'
import type { Logger } from '../../sidecar/log.ts'
import { Metrics } from '../../sidecar/telemetry/metrics.ts'
import type { Tracing } from '../../sidecar/telemetry/tracing.ts'
import { CARRIAGE } from './carriage.ts'

export const SECRET = 'a secret for tests, of more than 32 characters'

export interface LogLine {
  level: string
  msg: string
  fields: Record<string, unknown>
}

export interface Sidecar {
  app: App
  lines: LogLine[]
  port(role: Role): number
  /** base URL of its inbound port */
  url: string
  close(): Promise<void>
}

type Env = Record<string, string | number>

/**
 * Starts a sidecar in this process. Ports are free ones unless the variables say otherwise.
 * @param tracing what it makes spans with, if it is to make any
 */
export async function startSidecar(env: Env, tracing?: Tracing): Promise<Sidecar> {
  const free = { PORT: 0, OUTBOUND_PORT: 0, ADMIN_PORT: 0 }
  const defaults = { ...CARRIAGE, ...free, CLIENT_ID_SECRET: SECRET, NAME: 'test' }
  const variables = Object.fromEntries(
    Object.entries({ ...defaults, ...env }).map(([name, value]) => [name, String(value)]),
  )
  const lines: LogLine[] = []
  const exporting: Exporting = { tracing, host: undefined, trouble: () => undefined }
  const app = await startApp(loadConfig(variables).config, collect(lines), new Metrics(), exporting)
  const port = (role: Role) => app.ports.get(role)!.port
  return { app, lines, port, url: `http://127.0.0.1:${port('inbound')}`, close: () => app.close() }
}

export interface Pair {
  /** the sidecar of the app that calls; its peer is `billing` */
  orders: Sidecar
  /** the sidecar of the app that is called */
  billing: Sidecar
  close(): Promise<void>
}

/**
 * Starts an app and two sidecars, so that calls for `billing` to the outbound port of `orders` reach the app.
 * @param app what answers behind billing's sidecar: a handler of node:http, or the port of a server that is there
 */
export async function startPair(
  app: http.RequestListener | number,
  env: { orders?: Env; billing?: Env } = {},
  tracing: { orders?: Tracing; billing?: Tracing } = {},
): Promise<Pair> {
  const server = typeof app === 'number' ? undefined : await startServer(app)
  const upstream = `http://127.0.0.1:${server?.port ?? app}`
  const called = { NAME: 'billing', UPSTREAM: upstream, OUTBOUND_PORT: 'off', ...env.billing }
  const billing = await startSidecar(called, tracing.billing)
  const calling = { NAME: 'orders', PEERS: `billing=${billing.url}`, ...env.orders }
  const orders = await startSidecar(calling, tracing.orders)
  return {
    orders,
    billing,
    async close() {
      await orders.close()
      await billing.close()
      await server?.close()
    },
  }
}

export interface Server {
  port: number
  server: http.Server
  close(): Promise<void>
}

/** Starts an app that answers over HTTP/1.1. */
export async function startServer(
  handler: http.RequestListener,
  options: http.ServerOptions = {},
): Promise<Server> {
  const server = http.createServer({ maxHeaderSize: 1024 * 1024, ...options }, handler)
  server.maxHeadersCount = 0
  const port = await listen(server)
  return {
    port,
    server,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

export interface Tap {
  port: number
  /** everything that went by, in both directions */
  recorded(): Buffer
  sent(): Buffer
  received(): Buffer
  /** Breaks every connection that is open, with a RST. */
  cut(): void
  close(): Promise<void>
}

/**
 * Stands between two parties, and records what goes by.
 * @param secure what it speaks TLS with, which ends here
 */
export async function startTap(to: number, secure?: tls.TlsOptions): Promise<Tap> {
  const sent: Buffer[] = []
  const received: Buffer[] = []
  const sockets = new Set<net.Socket>()
  const keep = (socket: net.Socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  }
  const onConnection = (from: net.Socket) => {
    const onward = net.connect({ port: to, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    keep(onward)
    for (const [source, target, record] of [
      [from, onward, sent],
      [onward, from, received],
    ] as const) {
      source.on('data', (bytes: Buffer) => record.push(bytes))
      source.on('error', () =>
        target instanceof tls.TLSSocket ? target.destroy() : target.resetAndDestroy(),
      )
      source.pipe(target)
    }
  }
  const options = { allowHalfOpen: true, noDelay: true }
  const server = secure
    ? tls.createServer({ ...options, ...secure }, onConnection)
    : net.createServer(options, onConnection)
  // Those below TLS, too.
  server.on('connection', keep)
  const port = await listen(server)
  const cut = () => {
    for (const socket of sockets) socket.resetAndDestroy()
  }
  return {
    port,
    recorded: () => Buffer.concat([...sent, ...received]),
    sent: () => Buffer.concat(sent),
    received: () => Buffer.concat(received),
    cut,
    async close() {
      cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const given = new Set<number>()

/** Lets a server listen on a port of 127.0.0.1, or of another host, that none had before it: a sidecar may remember who that was. */
export async function listen(server: net.Server, host = '127.0.0.1'): Promise<number> {
  for (;;) {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, host, resolve)
    })
    const { port } = server.address() as AddressInfo
    if (!given.has(port)) {
      given.add(port)
      return port
    }
    await new Promise((resolve) => server.close(resolve))
  }
}

/** Below those that systems give to connections and to whoever asks for any port: none of them takes one of these. */
const UNUSED_PORTS = { from: 20_000, to: 32_000 }

/** A port of 127.0.0.1 on which nothing listens, nor did before, nor will by chance. */
export async function unusedPort(): Promise<number> {
  for (;;) {
    const port = randomInt(UNUSED_PORTS.from, UNUSED_PORTS.to)
    if (given.has(port)) continue
    given.add(port)
    const server = net.createServer()
    const free = await new Promise((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!free) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}

function collect(lines: LogLine[]): Logger {
  const write = (level: string) => (first: object | string, message?: string) => {
    if (typeof first === 'string') lines.push({ level, msg: first, fields: {} })
    else lines.push({ level, msg: message ?? '', fields: first as Record<string, unknown> })
  }
  return { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug') }
}
