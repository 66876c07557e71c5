/** Two apps in pods, each beside its sidecar: orders calls billing. Each has two pods, and their Redis has one. */
import { randomBytes } from 'node:crypto'
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { type Call, ID_PREFIX, type Load } from '../../chaos/load.ts'
import { redisBinary } from '../../support/debian.ts'
import { leads } from '../../support/leads.ts'
import type { Pod, PodNode } from '../../support/pods.ts'
import { cli } from '../../support/redis.ts'
import { MESH_NAMES, type Mesh } from '../mesh/mesh.ts'
import { Container } from './container.ts'
import { Deployment } from './deployment.ts'
import { BILLING_PORT, SIDECAR_PORTS } from './ports.ts'
import { type Setup, SIDECAR_UID } from './replica.ts'

const REDIS_PORT = 6379
const REDIS_UID = 999
const REDIS_POLL_MS = 20
/** A pod that is to stop is still called for a while, and so its app serves for so long. */
const APP_PRE_STOP_MS = 3000

export interface World {
  orders: Deployment
  billing: Deployment
  /** how often billing has executed each id */
  executions: ReadonlyMap<string, number>
  /** from all pods of orders, and those that come meanwhile */
  startLoad(): Load
  /** It forgets everything. */
  restartRedis(): Promise<void>
}

/** Another app that is called. */
export interface App {
  file: string
  /** gets the lines that it prints, but for ids */
  onLine(line: string): void
}

const BILLING: App = { file: path.join(import.meta.dirname, 'billing.ts'), onLine() {} }

/**
 * Starts it from what `npm run build` has made, and resolves when all is ready. It goes with the node.
 * @param mesh that all pods but that of Redis are in
 */
export async function startWorld(node: PodNode, app = BILLING, mesh?: Mesh): Promise<World> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-pods-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  chmodSync(folder, 0o711)
  const secret = path.join(folder, 'secret')
  writeFileSync(secret, randomBytes(32).toString('base64url'), { mode: 0o400 })
  chownSync(secret, SIDECAR_UID, SIDECAR_UID)
  const redisPod = node.addPod('redis')
  let redis = await startRedis(redisPod)

  const deploy = async (name: string, setup: Omit<Setup, 'service'>) => {
    const readiness = { port: SIDECAR_PORTS.admin, path: '/readyz' }
    const onReady = (pods: readonly Pod[]) => mesh?.lead(name, pods)
    const service = node.addService(80, { port: SIDECAR_PORTS.inbound, readiness, onReady })
    const env = {
      NAME: name,
      REDIS_URL: `redis://${redisPod.address}:${REDIS_PORT}`,
      CLIENT_ID_SECRET_FILE: secret,
      ...setup.env,
    }
    const prepare = mesh && ((pod: Pod) => mesh.join(pod, name))
    const deployment = new Deployment(node, name, { ...setup, service, env, prepare })
    await deployment.start()
    return { deployment, at: `${service.address}:${service.port}` }
  }
  const executions = new Map<string, number>()
  const { deployment: billing, at } = await deploy('billing', {
    app: app.file,
    env: { UPSTREAM: `http://127.0.0.1:${BILLING_PORT}` },
    appPreStopMs: APP_PRE_STOP_MS,
    onLine(line) {
      if (line.startsWith(ID_PREFIX)) executions.set(line, (executions.get(line) ?? 0) + 1)
      else app.onLine(line)
    },
  })
  let calls: Call[] | undefined
  // A mesh routes by names, and there is nobody here who could tell what they stand for.
  const names = Object.fromEntries(MESH_NAMES.map((name) => [`${name}:80`, at]))
  const { deployment: orders } = await deploy('orders', {
    app: path.join(import.meta.dirname, 'orders.ts'),
    env: mesh
      ? { PEERS: MESH_NAMES.map((name) => `${name}=http://${name}`).join(','), NODE_OPTIONS: leads(names) }
      : { PEERS: `billing=http://${at}` },
    appPreStopMs: 0,
    onLine: (line) => line.startsWith('{') && calls?.push(callOf(line)),
    onReady: (replica) => calls && replica.tell('start'),
  })
  return {
    ...{ orders, billing, executions },
    startLoad() {
      const begun: Call[] = []
      calls = begun
      for (const replica of orders.replicas) replica.tell('start')
      return {
        calls: begun,
        async stop() {
          await Promise.all(orders.replicas.map((replica) => replica.ask('stop', 'stopped')))
          // What billing printed before is there, and is read in this turn.
          await turn()
          calls = undefined
          return begun
        },
      }
    },
    async restartRedis() {
      await redis.stop()
      redis = await startRedis(redisPod)
    },
  }
}

/** Resolves when it answers. */
async function startRedis(pod: Pod): Promise<Container> {
  const options = ['--port', String(REDIS_PORT), '--bind', '0.0.0.0', '--protected-mode', 'no', '--save', '']
  const redis = new Container(pod, { command: [redisBinary(), ...options], uid: REDIS_UID })
  const answers = () => cli({ host: pod.address, port: REDIS_PORT }, 'PING', [])
  while (!(await answers().catch(() => undefined))) {
    if (redis.hasEnded) await redis.succeeds()
    await sleep(REDIS_POLL_MS)
  }
  return redis
}

/** What a pod printed of a call, with times of this process. */
function callOf(line: string): Call {
  const call = JSON.parse(line) as Call
  const { timeOrigin } = performance
  return { ...call, startedMs: call.startedMs - timeOrigin, endedMs: call.endedMs - timeOrigin }
}
