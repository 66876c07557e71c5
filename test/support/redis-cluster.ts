/** Several Redis servers that belong together: a cluster, and a primary that a sentinel watches. */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { findProgram, redisBinary } from './debian.ts'
import {
  cli,
  killServer,
  makeFolder,
  type RedisServer,
  removeFolder,
  startRedis,
  startServer,
} from './redis.ts'
import { unusedPort } from './sidecars.ts'

const DEADLINE_MS = 20_000
const POLL_MS = 20

export interface RedisCluster {
  nodes: RedisServer[]
  url: string
  stop(): Promise<void>
}

/** Three primaries that have all slots among them; resolves when each of them knows. */
export async function startRedisCluster(): Promise<RedisCluster> {
  const nodes = await Promise.all([startNode(), startNode(), startNode()])
  const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
  const beside = path.dirname(redisBinary())
  const client = findProgram('redis-cli', beside) ?? findProgram('valkey-cli', beside)
  if (!client) throw new Error('there is no redis-cli: run `apt-get install redis-tools`')
  await promisify(execFile)(client, ['--cluster', 'create', ...addresses, '--cluster-yes']).catch((error) => {
    throw new Error(`the cluster cannot be made: ${error.stdout || error.message}`)
  })
  for (const node of nodes)
    await until('all slots have a server', async () =>
      String(await node.cli('CLUSTER', 'INFO')).includes('cluster_state:ok'),
    )
  return {
    nodes,
    url: `redis+cluster://${addresses.join(',')}`,
    async stop() {
      for (const node of nodes) await node.stop()
    },
  }
}

async function startNode(): Promise<RedisServer> {
  // Nodes would talk on its port plus 10,000, which may be more than there are.
  const bus = String(await unusedPort())
  return startRedis({
    config: { 'cluster-enabled': 'yes', 'cluster-node-timeout': '1000', 'cluster-port': bus },
  })
}

export interface RedisSentinel {
  primary: RedisServer
  replica: RedisServer
  url: string
  stop(): Promise<void>
}

/**
 * A primary with a replica that has all of its data, and a sentinel that knows both: it promotes the replica when the
 * primary has been gone for half a second.
 */
export async function startRedisSentinel(): Promise<RedisSentinel> {
  const primary = await startRedis()
  const replica = await startRedis({ replicaOf: primary.port })
  await until('the replica has the data', async () =>
    String(await replica.cli('INFO', 'replication')).includes('master_link_status:up'),
  )
  const folder = makeFolder()
  const port = await unusedPort()
  const lines = [
    `port ${port}`,
    'bind 127.0.0.1',
    `dir ${folder}`,
    `sentinel monitor mymaster 127.0.0.1 ${primary.port} 1`,
    'sentinel down-after-milliseconds mymaster 500',
    'sentinel failover-timeout mymaster 2000',
  ]
  writeFileSync(path.join(folder, 'redis.conf'), lines.map((line) => `${line}\n`).join(''))
  const access = { host: '127.0.0.1', port }
  const sentinel = await startServer(folder, access, '--sentinel')
  await until('the sentinel knows the replica', async () =>
    JSON.stringify(await cli(access, 'SENTINEL', ['REPLICAS', 'mymaster'])).includes(
      '"master-link-status","ok"',
    ),
  )
  return {
    primary,
    replica,
    url: `redis+sentinel://127.0.0.1:${port}/mymaster`,
    async stop() {
      await killServer(sentinel)
      removeFolder(folder)
      await primary.stop()
      await replica.stop()
    },
  }
}

/** Resolves when it is so. @throws Error when it takes too long */
async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + DEADLINE_MS
  while (!(await isSo())) {
    if (performance.now() > deadlineMs) throw new Error(`waited for ${DEADLINE_MS} ms until ${what}`)
    await sleep(POLL_MS)
  }
}
