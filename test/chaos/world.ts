/**
 * The world that the faults happen to: an app that counts what it executes, two sidecars a side that share a Redis of
 * their side, and HAProxy in front of each side. What a sidecar has to say to Redis, and to the other side, goes over
 * links that can be cut.
 */

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import net from 'node:net'
import nodePath from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { findFreePorts, type Service, startService, stopService, waitForAnswer } from '../bench/processes.ts'
import { findProgram, installPackages, installRedis } from '../support/debian.ts'
import { type Link, startLink } from '../support/link.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { startServer } from '../support/sidecars.ts'
import { countingApp } from './app.ts'
import { type Load, startLoad } from './load.ts'
import { type Path, startPath } from './path.ts'

/** What HAProxy balances: connections, or each request by itself. */
export type Mode = 'tcp' | 'http'
export const MODES: readonly Mode[] = ['tcp', 'http']
/** What CARRIAGE is of all sidecars. */
export type Carriage = 'auto' | 'message' | 'tunnel'
export const CARRIAGES: readonly Carriage[] = ['auto', 'message', 'tunnel']

const SEEN_POLL_MS = 20
/** What HAProxy calls a server that is up. */
const UP = '2'
const MAIN = nodePath.join(import.meta.dirname, '../../sidecar/main.ts')

export interface World {
  initiators: Side
  responders: Side
  /** between them */
  path: Path
  /** to HAProxy in front of the initiators */
  startLoad(callsPerSecond?: number): Load
  /** how often the app has executed each id */
  executions: ReadonlyMap<string, number>
  /** what all sidecars have that are started from here on */
  secrets: { current: string; previous?: string }
  stop(): Promise<void>
}

/** The replicas of one sidecar, and what they share. */
export interface Side {
  replicas: Replica[]
  /** the primary */
  redis: RedisServer
  /** from the replicas to it */
  link: Link
}

interface Place {
  /** what HAProxy calls it */
  server: string
  /** the socket at which HAProxy takes orders */
  haproxy: string
  ports: { traffic: number; admin: number }
  /** for what it prints */
  folder: string
  env(): NodeJS.ProcessEnv
}

/** A sidecar that keeps its place from process to process. */
export class Replica {
  readonly ports: Place['ports']
  readonly #place: Place
  #service: Service | undefined

  constructor(place: Place) {
    this.ports = place.ports
    this.#place = place
  }

  /** Resolves when it is ready. */
  async start(): Promise<void> {
    const { server, ports, folder, env } = this.#place
    const variables = { PATH: process.env.PATH, ADMIN_PORT: String(ports.admin), ...env() }
    const name = server.replace('/', '-')
    this.#service = startService(name, process.execPath, [MAIN, 'run'], folder, variables)
    await waitForAnswer(ports.admin, [this.#service], '/readyz')
  }

  /** As kill -9 does. */
  async kill(): Promise<void> {
    const { child } = this.#service!
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }

  /** As the preStop hook of a container does. */
  async drain(): Promise<void> {
    const env = { PATH: process.env.PATH, ADMIN_PORT: String(this.ports.admin) }
    await promisify(execFile)(process.execPath, [MAIN, 'drain'], { env })
  }

  /**
   * Lets it answer what it has begun.
   * @throws Error when it does not leave as it should
   */
  async stop(): Promise<void> {
    const { child } = this.#service!
    await stopService(this.#service!)
    if (child.exitCode !== 0)
      throw new Error(`${this.#place.server} left with ${child.exitCode ?? child.signalCode}`)
  }

  /** Resolves when HAProxy gives it new connections. */
  async seen(): Promise<void> {
    const { haproxy, server } = this.#place
    const [side, number] = server.split('/')
    for (;;) {
      const states = await text(net.connect(haproxy).end(`show servers state ${side}\n`))
      // be_id be_name srv_id srv_name srv_addr srv_op_state …
      const state = states.split('\n').find((line) => line.split(' ')[3] === number)
      if (state?.split(' ')[5] === UP) return
      await sleep(SEEN_POLL_MS)
    }
  }
}

/**
 * Installs HAProxy and Redis first where they are missing.
 * @param folder an empty one, which gets what the processes print
 * @param say is told what is installed
 * @throws Error that says how to install them, where this process may not
 */
export async function startWorld(
  mode: Mode,
  carriage: Carriage,
  folder: string,
  say: (line: string) => void,
): Promise<World> {
  installRedis(say)
  if (!findProgram('haproxy')) installPackages(['haproxy'], say)
  const executions = new Map<string, number>()
  const app = await startServer(countingApp((id) => executions.set(id, (executions.get(id) ?? 0) + 1)))
  const orders = nodePath.join(folder, 'haproxy.sock')
  const ports = await findFreePorts(10)
  const [port, peer] = ports.splice(0, 2) as [number, number]
  const secrets: World['secrets'] = { current: randomBytes(32).toString('base64url') }
  const startSide = async (name: string, env: (traffic: string) => NodeJS.ProcessEnv): Promise<Side> => {
    // It would wait for more replicas before it sends them anything.
    const redis = await startRedis({ config: { 'repl-diskless-sync-delay': '0' } })
    const link = await startLink(redis.port)
    const replicas = ['1', '2'].map((number) => {
      const [traffic, admin] = ports.splice(0, 2) as [number, number]
      return new Replica({
        server: `${name}/${number}`,
        haproxy: orders,
        ports: { traffic, admin },
        folder,
        env: () => ({
          NAME: name,
          CARRIAGE: carriage,
          REDIS_URL: `redis://127.0.0.1:${link.port}`,
          CLIENT_ID_SECRET: secrets.current,
          CLIENT_ID_SECRET_PREVIOUS: secrets.previous,
          ...env(String(traffic)),
        }),
      })
    })
    await Promise.all(replicas.map((replica) => replica.start()))
    return { replicas, redis, link }
  }
  const responders = await startSide('responders', (traffic) => ({
    PORT: traffic,
    OUTBOUND_PORT: 'off',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
  }))
  const path = await startPath(peer)
  const initiators = await startSide('initiators', (traffic) => ({
    PORT: '0',
    OUTBOUND_PORT: traffic,
    PEERS: `billing=http://127.0.0.1:${path.link.port}`,
  }))
  const config = nodePath.join(folder, 'haproxy.cfg')
  writeFileSync(config, haproxyConfig(mode, { orders, port, peer }, initiators, responders))
  const haproxy = startService('haproxy', findProgram('haproxy')!, ['-db', '-f', config], folder)
  return {
    ...{ initiators, responders, path, executions, secrets },
    startLoad: (callsPerSecond) => startLoad(port, callsPerSecond),
    async stop() {
      const sides = [initiators, responders]
      await Promise.all(sides.flatMap(({ replicas }) => replicas.map((replica) => replica.stop())))
      await stopService(haproxy)
      for (const { link, redis } of sides) {
        await link.close()
        await redis.stop()
      }
      await path.link.close()
      await app.close()
    },
  }
}

/**
 * As it is usually set up: what could not be connected is tried elsewhere, what has been sent is not sent again. Without
 * `timeout check`, a check that takes longer than `inter`, as any does on a busy machine, would tell of no server.
 */
function haproxyConfig(
  mode: Mode,
  listen: { orders: string; port: number; peer: number },
  initiators: Side,
  responders: Side,
): string {
  const http2 = mode === 'http' ? 'proto h2 check-proto h1' : ''
  const servers = ({ replicas }: Side, options: string) =>
    replicas.map(({ ports: { traffic, admin } }, i) => {
      return `  server ${i + 1} 127.0.0.1:${traffic} check port ${admin} ${options}`
    })
  return `
global
  nbthread 1
  stats socket ${listen.orders} level admin
  maxconn 2000
defaults
  mode ${mode}
  balance roundrobin
  timeout connect 1s
  timeout check 2s
  timeout client 60s
  timeout server 60s
  retries 3
  option redispatch 1
  option httpchk GET /readyz
  default-server inter 200ms fall 1 rise 1
listen initiators
  bind 127.0.0.1:${listen.port}
${servers(initiators, '').join('\n')}
listen responders
  bind 127.0.0.1:${listen.peer}
${servers(responders, http2).join('\n')}
`
}
