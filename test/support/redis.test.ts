import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import { installRedis } from './debian.ts'
import { type RedisServer, startRedis } from './redis.ts'
import { startRedisCluster, startRedisSentinel } from './redis-cluster.ts'
import { suite } from './suite.ts'

const test = suite('support/redis')

const PASSWORD = 'a "quoted" \\ p@ss/w:rd'

/** What a client that is given its URL alone gets for a PING. */
async function ping(url: string, ca?: string): Promise<string> {
  const client = new Redis(url, {
    lazyConnect: true,
    retryStrategy: () => null,
    ...(ca ? { tls: { ca } } : {}),
  })
  const failed = new Promise<never>((_, reject) => client.once('error', reject))
  try {
    return await Promise.race([client.connect().then(() => client.ping()), failed])
  } finally {
    client.disconnect()
  }
}

async function folderOf(server: RedisServer): Promise<string> {
  const [, folder] = (await server.cli('CONFIG', 'GET', 'dir')) as string[]
  return folder!
}

test('a server answers at its URL, and leaves no process and no folder', async () => {
  const server = await startRedis({ config: { maxmemory: '50mb' } })
  const { pid } = server
  const folder = await folderOf(server)
  assert.equal(await ping(server.url), 'PONG')
  assert.deepEqual(await server.cli('CONFIG', 'GET', 'maxmemory'), ['maxmemory', '52428800'])
  await assert.rejects(server.cli('NOSUCH'), /unknown command/)
  await server.stop()
  await assert.rejects(ping(server.url), /ECONNREFUSED/)
  assert.throws(() => process.kill(pid, 0), /ESRCH/)
  assert.ok(!existsSync(folder))
})

test('a server that is killed comes back on its port, empty, even if it had written its data down', async () => {
  const server = await startRedis()
  await server.cli('SET', 'key', 'value')
  await server.cli('SAVE')
  const { pid } = server
  await server.kill()
  await assert.rejects(ping(server.url), /ECONNREFUSED/)
  await server.start()
  assert.notEqual(server.pid, pid)
  assert.equal(await server.cli('DBSIZE'), 0)
  await server.stop()
})

test('a server that is paused answers when it goes on', async () => {
  const server = await startRedis()
  server.pause()
  const answer = ping(server.url)
  server.resume()
  assert.equal(await answer, 'PONG')
  server.pause()
  await server.stop()
})

test('a password, or a user with one, is needed, and is not in the arguments', async () => {
  for (const username of [undefined, 'sidecar']) {
    const server = await startRedis({ password: PASSWORD, ...(username ? { username } : {}) })
    assert.equal(await ping(server.url), 'PONG')
    await assert.rejects(ping(`redis://127.0.0.1:${server.port}`), /NOAUTH/)
    const { stdout } = await promisify(execFile)('ps', ['-o', 'args=', '-p', String(server.pid)])
    assert.match(stdout, /redis|valkey/)
    assert.ok(!stdout.includes('quoted'))
    await server.stop()
  }
})

test('a server with TLS answers who trusts its certificate', async () => {
  const server = await startRedis({ tls: true })
  assert.equal(await server.cli('PING'), 'PONG')
  assert.equal(await ping(server.url, server.ca), 'PONG')
  await assert.rejects(ping(server.url), /self-signed certificate/)
  await server.stop()
})

test('a replica has what its primary had', async () => {
  const primary = await startRedis()
  await primary.cli('SET', 'key', 'value')
  const replica = await startRedis({ replicaOf: primary.port })
  while ((await replica.cli('GET', 'key').catch(String)) !== 'value');
  await assert.rejects(replica.cli('SET', 'key', 'other'), /READONLY/)
  await replica.kill()
  await primary.kill()
  await replica.start()
  assert.equal(await replica.cli('DBSIZE'), 0)
  await replica.stop()
  await primary.stop()
})

test('a server that does not start says why', async () => {
  await assert.rejects(startRedis({ config: { nonsense: '1' } }), /did not start.*Bad directive/s)
})

test('a binary that is named and is none is told, and nothing is installed', async () => {
  const { REDIS_SERVER_BIN = '' } = process.env
  for (const name of ['/nowhere/redis-server', '/tmp']) {
    const said: string[] = []
    process.env.REDIS_SERVER_BIN = name
    try {
      await assert.rejects(startRedis(), new RegExp(`REDIS_SERVER_BIN names no program: ${name}`))
      installRedis((line) => said.push(line))
    } finally {
      process.env.REDIS_SERVER_BIN = REDIS_SERVER_BIN
    }
    assert.deepEqual(said, [`What needs Redis will fail: REDIS_SERVER_BIN names no program: ${name}`])
  }
})

test('a server goes with its process, and its folder too, when that crashes', async () => {
  const source = `
    import { startRedis } from '${import.meta.resolve('./redis.ts')}'
    const server = await startRedis()
    const [, folder] = await server.cli('CONFIG', 'GET', 'dir')
    console.log(server.url + ' ' + folder)
    setImmediate(() => { throw new Error('crash') })`
  const run = promisify(execFile)(process.execPath, ['--input-type=module', '--eval', source])
  const { stdout, stderr } = await run.catch((error) => error)
  assert.match(stderr, /Error: crash/)
  const [url, folder] = stdout.trim().split(' ')
  await assert.rejects(ping(url!), /ECONNREFUSED/)
  assert.ok(!existsSync(folder!))
})

test('a cluster has a primary for each slot', async () => {
  const { nodes, url, stop } = await startRedisCluster()
  assert.equal(url, `redis+cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')}`)
  const answers = await Promise.all(nodes.map((node) => node.cli('SET', 'key', 'value').catch(String)))
  const elsewhere = answers.filter((answer) => /MOVED 12539 127\.0\.0\.1:/.test(String(answer)))
  assert.deepEqual([answers.includes('OK'), elsewhere.length], [true, 2])
  await stop()
})

test('a sentinel promotes the replica when the primary is gone', async () => {
  const { primary, replica, url, stop } = await startRedisSentinel()
  const [, host, port] = /^redis\+sentinel:\/\/([^:]+):([0-9]+)\/mymaster$/.exec(url)!
  const client = new Redis({
    sentinels: [{ host: host!, port: Number(port) }],
    name: 'mymaster',
    sentinelRetryStrategy: () => 50,
  })
  client.on('error', () => {})
  assert.equal(await client.set('key', 'value'), 'OK')
  assert.equal(await client.wait(1, 0), 1)
  await primary.kill()
  // It breaks all connections to it when it is promoted.
  while (((await replica.cli('ROLE').catch(() => [])) as string[])[0] !== 'master');
  assert.equal(await client.get('key'), 'value')
  assert.equal(client.stream.remotePort, replica.port)
  client.disconnect()
  await stop()
})

test.run()
