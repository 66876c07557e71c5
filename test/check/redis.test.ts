/** What `mte-sidecar check` says of Redis. */
import assert from 'node:assert/strict'
import net from 'node:net'
import { runCheck } from '../../sidecar/check.ts'
import { loadConfig } from '../../sidecar/config.ts'
import { type Found, findings, marked, withElsewhere } from '../support/check.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { listen, SECRET, unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('check of Redis')

let redis: RedisServer

test.before(async () => {
  redis = await startRedis()
})

test.after(() => redis.stop())

/** What is said of Redis, and whether all works. */
async function check(REDIS_URL: string): Promise<{ works: boolean; found: Found[] }> {
  const lines: string[] = []
  const { config } = loadConfig({ CLIENT_ID_SECRET: SECRET, NAME: 'orders', REDIS_URL })
  const works = await runCheck(config, [], (line) => lines.push(line))
  assert.ok(!/hush|guess/.test(lines.join()))
  return { works, found: findings(lines).filter(({ what }) => what.startsWith('Redis')) }
}

async function isWell(url: string): Promise<void> {
  const what = `Redis at ${url.replace(/\/\/.*@/, '//')} answers.`
  assert.deepEqual(await check(url), { works: true, found: [{ mark: 'ok', what, advice: undefined }] })
}

/** Asserts the only thing that it is warned of. */
async function warns(url: string, what: RegExp, advice: RegExp): Promise<void> {
  const { works, found } = await check(url)
  const [warning, ...more] = marked(found, 'warn')
  assert.match(warning!.what, what)
  assert.match(warning!.advice!, advice)
  assert.deepEqual([more, found[0]!.mark, works], [[], 'ok', true])
}

/** Asserts the only thing that is said. */
async function fails(url: string, what: RegExp, advice: RegExp): Promise<void> {
  const { works, found } = await check(url)
  assert.match(found[0]!.what, what)
  assert.match(found[0]!.advice!, advice)
  assert.deepEqual([found.length, found[0]!.mark, works], [1, 'FAIL', false])
}

/** The URL for a user that may do this. */
async function asUser(name: string, ...rules: string[]): Promise<string> {
  await redis.cli('ACL', 'SETUSER', name, 'reset', 'on', '>hush', ...rules)
  return redis.url.replace('redis://', `redis://${name}:hush@`)
}

test('one that answers and keeps nothing on disk is well', () => isWell(redis.url))

test('a user that may do no more than it needs is well', async () => {
  const classes = ['+@hash', '+@string', '+@bitmap', '+@sortedset']
  await isWell(await asUser('least', '~mte:*', '+eval', '+evalsha', '+info', '+time', ...classes))
})

test('one that is down is named without its password', async () => {
  const place = `127.0.0.1:${await unusedPort()}`
  await fails(
    `redis://app:hush@${place}`,
    new RegExp(`^Redis at redis://${place}: .*[^.]\\.$`),
    /^Is it running, and does REDIS_URL say where\?$/,
  )
})

test('a wrong password and a user that may do too little are told, with what to do, and no password', async () => {
  const wrong = (await asUser('app', '~*', '+@all')).replace('hush', 'guess')
  await fails(wrong, /: WRONGPASS .*[^.]\.$/, /REDIS_URL must hold the right user and password/)
  const poor = await asUser('poor', '~*', '+info', '+time', '+ping')
  await fails(poor, /NOPERM/, /^Allow this user .*\+eval.*\.$/)
})

test('a version that is too old is told', async () => {
  const old = net.createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (bytes) => {
      const info = 'redis_version:6.2.14\r\nloading:0\r\n'
      for (const [, command] of String(bytes).matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g))
        socket.write(/info/i.test(command!) ? `$${info.length}\r\n${info}\r\n` : '+OK\r\n')
    })
  })
  const url = `redis://127.0.0.1:${await listen(old)}`
  await fails(url, /is version 6\.2\.14, which is too old/, /^It must be Redis 7 or Valkey\.$/)
  old.close()
})

test('one that drops keys when it is full is warned of', async () => {
  await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'volatile-ttl')
  await isWell(redis.url) // it has no limit
  await redis.cli('CONFIG', 'SET', 'maxmemory', '100mb')
  await warns(redis.url, /is full \(maxmemory-policy volatile-ttl\)/, /^Set maxmemory-policy noeviction/)
  await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
  await isWell(redis.url)
})

test('one that writes to disk is warned of', async () => {
  for (const [setting, bad, good] of [
    ['appendonly', 'yes', 'no'],
    ['save', '3600 1', ''],
  ] as const) {
    await redis.cli('CONFIG', 'SET', setting, bad)
    await warns(redis.url, /writes to disk/, /Set appendonly no and save ""/)
    await redis.cli('CONFIG', 'SET', setting, good)
    await isWell(redis.url)
  }
})

test('a primary that takes writes without its replicas is warned of', async () => {
  const replica = await startRedis({ replicaOf: redis.port })
  await redis.cli('SET', 'mte:test', '1', 'PX', '1')
  assert.equal(await redis.cli('WAIT', '1', '9000'), 1)
  await warns(redis.url, /takes writes when it is cut off from its replicas/, /Set min-replicas-to-write 1/)
  await redis.cli('CONFIG', 'SET', 'min-replicas-to-write', '1')
  await isWell(redis.url)
  await redis.cli('CONFIG', 'SET', 'min-replicas-to-write', '0')
  await replica.stop()
})

test('one on another host is warned of without a password, and without TLS', () =>
  withElsewhere(async (address) => {
    const config = { bind: `127.0.0.1 ${address}`, 'protected-mode': 'no' }
    const open = await startRedis({ config })
    const { works, found } = await check(open.url.replace('127.0.0.1', address))
    const [password, tls, ...more] = marked(found, 'warn')
    assert.match(password!.what, /asks for no password: whoever reaches it can delete pairs/)
    assert.match(password!.advice!, /requirepass/)
    assert.match(tls!.what, /is on another host, and is spoken to without TLS.*keeps\.$/)
    assert.match(tls!.advice!, /rediss:\/\//)
    assert.deepEqual([more, works], [[], true])
    await open.stop()

    const closed = await startRedis({ config, password: 'hush' })
    const url = closed.url.replace('127.0.0.1', address)
    await warns(url, /without TLS.*, and reads the password\.$/, /rediss:\/\//)
    await closed.stop()
  }))

test.run()
