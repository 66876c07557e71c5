import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { StoreUnavailableError } from '../../sidecar/pair/store.ts'
import { RedisConnection } from '../../sidecar/redis/connection.ts'
import type { RedisStore } from '../../sidecar/redis/redis-store.ts'
import { parseRedisUrl } from '../../sidecar/redis/redis-url.ts'
import { found, HOUR_MS, inboundPair, outboundPair, PEER, random } from '../pair/store-pairs.ts'
import { startLink } from '../support/link.ts'
import { type RedisOptions, type RedisServer, startRedis } from '../support/redis.ts'
import { startRedisCluster, startRedisSentinel } from '../support/redis-cluster.ts'
import { suite } from '../support/suite.ts'
import { openStore } from './open-store.ts'

const test = suite('redis/connection')

/** Runs a test with a server of its own. */
async function withRedis(options: RedisOptions, body: (server: RedisServer) => Promise<void>): Promise<void> {
  const server = await startRedis(options)
  try {
    await body(server)
  } finally {
    await server.stop()
  }
}

/** Both roles do what they are there for. */
async function works(store: RedisStore): Promise<void> {
  const pair = inboundPair()
  await store.addInbound(pair, HOUR_MS)
  assert.equal(await store.claim(await found(store, pair), 0, 0), 'new')
  assert.equal(await store.claim(await found(store, pair), 0, 0), 'replayed')
  await store.addOutbound(outboundPair())
  assert.equal((await store.lease(PEER))?.block, 0)
  assert.equal(store.trouble(), undefined)
}

/** Resolves when it works again: every attempt fails in time, and none hangs. */
async function comesBack(store: RedisStore): Promise<void> {
  for (;;) {
    try {
      return await works(store)
    } catch (error) {
      assert.ok(error instanceof StoreUnavailableError)
      await sleep(20)
    }
  }
}

/** What the store says of each of its verbs that write. */
async function refusal(store: RedisStore): Promise<string> {
  const verbs = [
    () => store.addOutbound(outboundPair()),
    () => store.addInbound(inboundPair(), HOUR_MS),
    () => store.firstSight(random(32)),
  ]
  const told = new Set<string>()
  for (const verb of verbs) {
    await assert.rejects(verb, (error: unknown) => {
      assert.ok(error instanceof StoreUnavailableError)
      told.add(error.message)
      return true
    })
  }
  assert.match(store.trouble() ?? '', /^Redis at .*: .+; .+$/)
  return [...told].join('\n')
}

test('reaches a server by address, with a database', () =>
  withRedis({}, async (server) => {
    const { store, close } = openStore(`${server.url}/3`)
    await works(store)
    assert.match(String(await server.cli('INFO', 'keyspace')), /^db3:keys=[0-9]+/m)
    assert.ok(!/^db0:/m.test(String(await server.cli('INFO', 'keyspace'))))
    await close()
  }))

test('does not use another database than the one that is named', () =>
  withRedis({}, async (server) => {
    const { store, close } = openStore(`${server.url}/99`)
    assert.match(await refusal(store), /DB index.*names a database that this Redis does not have/)
    assert.equal(await server.cli('DBSIZE'), 0)
    await close()
  }))

test('reaches a server with a password, and says when it is wrong without showing it', () =>
  withRedis({ password: 'p@ss/w:rd' }, async (server) => {
    const right = openStore(server.url)
    await works(right.store)
    await right.close()
    for (const [url, why] of [
      [`redis://:wr0ng-one@127.0.0.1:${server.port}`, /WRONGPASS.*right user and password/],
      [`redis://127.0.0.1:${server.port}`, /NOAUTH.*right user and password/],
    ] as const) {
      const { store, lines, close } = openStore(url)
      const told = await refusal(store)
      assert.match(told, why)
      assert.ok(!JSON.stringify([told, lines]).includes('wr0ng-one'))
      await close()
    }
  }))

test('reaches a server as a user', () =>
  withRedis({ username: 'sidecar', password: 'p@ss/w:rd' }, async (server) => {
    const { store, close } = openStore(server.url)
    await works(store)
    await close()
  }))

test('reaches a server by a socket', () =>
  withRedis({ unixSocket: true }, async (server) => {
    const { store, close } = openStore(server.url)
    await works(store)
    await close()
  }))

test('reaches a server over TLS, if it trusts its certificate', () =>
  withRedis({ tls: true }, async (server) => {
    const trusting = openStore(server.url, [server.ca!])
    await works(trusting.store)
    await trusting.close()
    const { store, close } = openStore(server.url)
    assert.match(await refusal(store), /certificate.*CA_FILE must hold/)
    await close()
  }))

test('needs no more of an ACL than README asks for', () =>
  withRedis({}, async (server) => {
    const rules =
      '~mte:* +@connection +eval +evalsha +info +time +@hash +@string +@bitmap +@sortedset +@keyspace'
    await server.cli('ACL', 'SETUSER', 'sidecar', 'on', '>secret', ...rules.split(' '))
    const { store, close } = openStore(`redis://sidecar:secret@127.0.0.1:${server.port}`)
    await works(store)
    await close()
  }))

test('says what an ACL lacks', () =>
  withRedis({}, async (server) => {
    await server.cli('ACL', 'SETUSER', 'sidecar', 'on', '>secret', '~other:*', '+@all')
    const keys = openStore(`redis://sidecar:secret@127.0.0.1:${server.port}`)
    assert.match(await refusal(keys.store), /NOPERM|permission/)
    await keys.close()
    await server.cli('ACL', 'SETUSER', 'sidecar', 'allkeys', '-@scripting')
    const scripts = openStore(`redis://sidecar:secret@127.0.0.1:${server.port}`)
    assert.match(await refusal(scripts.store), /NOPERM.*allow this user/)
    await scripts.close()
  }))

test('says when the server has no scripts', () =>
  withRedis({ config: { 'rename-command': 'EVAL ""' } }, async (server) => {
    const { store, close } = openStore(server.url)
    assert.match(await refusal(store), /unknown command.*must be Redis 7 or Valkey/s)
    await close()
  }))

test('says when the memory of Redis is full, and goes on when it is not', () =>
  withRedis({}, async (server) => {
    const { store, lines, close } = openStore(server.url)
    await works(store)
    await server.cli('CONFIG', 'SET', 'maxmemory', '1')
    assert.match(await refusal(store), /OOM.*give Redis more memory/)
    await server.cli('CONFIG', 'SET', 'maxmemory', '0')
    await works(store)
    const said = lines.map(({ message }) => message)
    assert.deepEqual(said, ['Redis cannot be used: calls that need it fail', 'Redis is back'])
    await close()
  }))

test('says when it is a replica, and follows its address to the primary', () =>
  withRedis({}, (primary) =>
    withRedis({ replicaOf: primary.port }, async (replica) => {
      const link = await startLink(replica.port)
      const { store, close } = openStore(`redis://127.0.0.1:${link.port}`)
      assert.match(await refusal(store), /READONLY.*must name the primary/)
      link.retarget(primary.port)
      await comesBack(store)
      await close()
      await link.close()
    }),
  ))

test('starts without Redis, says so once, and finds it when it comes', () =>
  withRedis({}, async (server) => {
    await server.kill()
    const { store, lines, close } = openStore(server.url)
    assert.match(await refusal(store), /ECONNREFUSED.*is it running/)
    await server.start()
    await comesBack(store)
    const said = lines.map(({ level, message }) => [level, message])
    assert.deepEqual(said, [
      ['warn', 'Redis cannot be used: calls that need it fail'],
      ['info', 'Redis is back'],
    ])
    await close()
  }))

test('a connection that breaks for a moment costs no call', () =>
  withRedis({}, async (server) => {
    const link = await startLink(server.port)
    const { store, close } = openStore(`redis://127.0.0.1:${link.port}`)
    await works(store)
    link.cut()
    link.heal()
    await link.attempts(2)
    await works(store)
    await close()
    await link.close()
  }))

test('gives up a connection that has gone silent, and makes another', () =>
  withRedis({}, async (server) => {
    const link = await startLink(server.port)
    const { store, close } = openStore(`redis://127.0.0.1:${link.port}`)
    await works(store)
    link.freeze()
    assert.match(await refusal(store), /no answer within/)
    link.heal()
    await comesBack(store)
    await close()
    await link.close()
  }))

test('tries less and less often to connect', () =>
  withRedis({}, async (server) => {
    const link = await startLink(server.port)
    link.cut()
    const startedMs = performance.now()
    const { close } = openStore(`redis://127.0.0.1:${link.port}`)
    await link.attempts(7)
    // At least half of 50, 100, 200, 400, 800 and 1,000 ms.
    assert.ok(performance.now() - startedMs >= 1275)
    await close()
    await link.close()
  }))

test('has all keys of a name in one slot of a cluster, and says when a slot has no server', async () => {
  const cluster = await startRedisCluster()
  const { store, close } = openStore(cluster.url)
  await works(store)
  await close()
  for (const node of cluster.nodes) {
    await node.cli('FLUSHALL')
    await node.cli('CLUSTER', 'FLUSHSLOTS')
  }
  const down = openStore(cluster.url)
  assert.match(await refusal(down.store), /has each slot a primary/)
  await down.close()
  await cluster.stop()
})

test('says that a cluster is none, and that a server is one', async () => {
  const cluster = await startRedisCluster()
  const tags = Array.from({ length: 3 }, () => openStore(`redis://127.0.0.1:${cluster.nodes[0]!.port}`))
  const told = await Promise.all(tags.map(({ store }) => store.list().then(() => '', String)))
  for (const why of told) assert.match(why, /^$|MOVED.*must begin with redis\+cluster:/)
  for (const { close } of tags) await close()
  await cluster.stop()
  await withRedis({}, async (server) => {
    const { store, close } = openStore(`redis+cluster://127.0.0.1:${server.port}`)
    assert.match(await refusal(store), /cluster support disabled.*must begin with redis:/)
    await close()
  })
})

test('takes another password for its next connections, but no other place, and none for a cluster', () => {
  const log = { error() {}, warn() {}, info() {}, debug() {} }
  for (const [before, after, taken] of [
    ['redis://u:old@127.0.0.1:1', 'redis://u:new@127.0.0.1:1', true],
    ['redis://:old@127.0.0.1:1', 'redis://127.0.0.1:1', true],
    ['redis+sentinel://:old@127.0.0.1:1/main', 'redis+sentinel://u:new@127.0.0.1:1/main', true],
    ['redis://u:old@127.0.0.1:1', 'redis://u:new@127.0.0.1:2', false],
    ['redis://u:old@127.0.0.1:1', 'rediss://u:old@127.0.0.1:1', false],
    ['redis+cluster://:old@127.0.0.1:1', 'redis+cluster://:new@127.0.0.1:1', false],
  ] as const) {
    const address = parseRedisUrl(before)
    const connection = new RedisConnection({ address, ca: undefined, log, clockMs: () => performance.now() })
    assert.equal(connection.logInAs(parseRedisUrl(after)), taken, after)
    connection.close()
  }
})

test('follows sentinels to the next primary, on which pairs are new', async () => {
  const sentinel = await startRedisSentinel()
  const { store, close } = openStore(sentinel.url)
  await works(store)
  const pair = inboundPair()
  await store.addInbound(pair, HOUR_MS)
  assert.equal(await store.claim(await found(store, pair), 0, 0), 'new')
  await sentinel.primary.kill()
  await comesBack(store)
  assert.equal(await store.claim(pair, 0, 0), 'gone')
  await close()
  await sentinel.stop()
})

test.run()
