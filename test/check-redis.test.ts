/** What `mte-sidecar check` says of a Redis that runs. One that does not: check.test.ts. */
import assert from 'node:assert/strict'
import { runCheck } from '../sidecar/check.ts'
import { loadConfig } from '../sidecar/config.ts'
import { startRedis } from './support/redis.ts'
import { SECRET } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('check of Redis')

const redis = await startRedis()
test.after(() => redis.stop())

const OK = `ok    Redis at ${redis.url} answers.`

/** What is said of Redis, and whether all is well. */
async function check(REDIS_URL = redis.url): Promise<{ ok: boolean; lines: string[] }> {
  const lines: string[] = []
  const { config } = loadConfig({ CLIENT_ID_SECRET: SECRET, NAME: 'orders', REDIS_URL })
  const ok = await runCheck(config, [], (line) => lines.push(line))
  const others = (line: string) => /configuration can be read|UPSTREAM|PEERS/.test(line)
  return { ok, lines: lines.filter((line) => !others(line)) }
}

/** The URL for a user that may do this. */
async function asUser(name: string, ...rules: string[]): Promise<string> {
  await redis.cli('ACL', 'SETUSER', name, 'reset', 'on', '>hush', ...rules)
  return redis.url.replace('redis://', `redis://${name}:hush@`)
}

test('one that answers and keeps nothing on disk is well', async () => {
  assert.deepEqual(await check(), { ok: true, lines: [OK] })
})

test('a user that may do no more than it needs is well', async () => {
  const rules = [
    '~mte:*',
    '+eval',
    '+evalsha',
    '+info',
    '+time',
    '+@hash',
    '+@string',
    '+@bitmap',
    '+@sortedset',
  ]
  assert.deepEqual(await check(await asUser('least', ...rules)), { ok: true, lines: [OK] })
})

test('a wrong password and a user that may do too little are told, with what to do, and no password', async () => {
  const wrong = (await asUser('app', '~*', '+@all')).replace('hush', 'guess')
  for (const [url, reason, advice] of [
    [
      wrong,
      /^FAIL {2}Redis at redis:.*: WRONGPASS .*[^.]\.$/,
      /REDIS_URL must hold the right user and password/,
    ],
    [await asUser('poor', '~*', '+info', '+time', '+ping'), /^FAIL .*NOPERM/, /allow this user .*\+eval/i],
  ] as const) {
    const { ok, lines } = await check(url)
    assert.deepEqual([ok, lines.length], [false, 2], lines.join('\n'))
    assert.match(lines[0]!, reason)
    assert.match(lines[1]!, /^ {6}[^ ].*\.$/)
    assert.match(lines[1]!, advice)
    assert.ok(!/hush|guess/.test(lines.join()))
  }
})

test('one that drops keys when it is full is warned of, and is no failure', async () => {
  await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'volatile-ttl')
  assert.deepEqual(await check(), { ok: true, lines: [OK] }, 'it has no limit')
  await redis.cli('CONFIG', 'SET', 'maxmemory', '100mb')
  const { ok, lines } = await check()
  assert.deepEqual([ok, lines[0], lines.length], [true, OK, 3])
  assert.match(lines[1]!, /^-- {4}Redis at redis:.* is full \(maxmemory-policy volatile-ttl\)/)
  assert.match(lines[2]!, /^ {6}Set maxmemory-policy noeviction/)
  await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
  assert.deepEqual((await check()).lines, [OK])
})

test('one that writes to disk is warned of, and is no failure', async () => {
  const warns = async () => {
    const { ok, lines } = await check()
    assert.deepEqual([ok, lines[0], lines.length], [true, OK, 3])
    assert.match(lines[1]!, /^-- {4}Redis at redis:.* writes to disk/)
    assert.match(lines[2]!, /Set appendonly no and save ""/)
  }
  await redis.cli('CONFIG', 'SET', 'appendonly', 'yes')
  await warns()
  await redis.cli('CONFIG', 'SET', 'appendonly', 'no')
  assert.deepEqual((await check()).lines, [OK])
  await redis.cli('CONFIG', 'SET', 'save', '3600 1')
  await warns()
  await redis.cli('CONFIG', 'SET', 'save', '')
  assert.deepEqual((await check()).lines, [OK])
})

test.run()
