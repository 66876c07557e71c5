/** Replicas that share their pairs in Redis, seen from outside. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { type Balancer, startBalancer } from './support/balancer.ts'
import { call } from './support/call.ts'
import { carriage } from './support/carriage.ts'
import { type Link, startLink } from './support/link.ts'
import { startMiddle } from './support/middle.ts'
import { post } from './support/peer.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type RedisServer, startRedis } from './support/redis.ts'
import { SECRET, type Sidecar, startServer, startSidecar } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('replicas')

let app: Recorder
let redis: RedisServer

test.before(async () => {
  app = await startRecorder('done')
  redis = await startRedis()
})

test.after(async () => {
  await app.close()
  await redis.stop()
})

interface Fleet {
  orders: Sidecar[]
  billing: Sidecar[]
  /** before billing's replicas */
  balancer: Balancer
  /** between all of them and Redis */
  link: Link
}

let calls = 0

/** Runs a body with two replicas on each side, which share one Redis, empty at first. */
async function withFleet(body: (fleet: Fleet) => Promise<void>): Promise<void> {
  await redis.cli('FLUSHALL')
  const link = await startLink(redis.port)
  const REDIS_URL = `redis://127.0.0.1:${link.port}`
  const billing = [await startBilling({ REDIS_URL }), await startBilling({ REDIS_URL })]
  const balancer = await startBalancer(billing.map((sidecar) => sidecar.port('inbound')))
  const PEERS = `billing=${balancer.url}`
  const start = () => startSidecar({ NAME: 'orders', REDIS_URL, PEERS })
  const fleet = { orders: [await start(), await start()], billing, balancer, link }
  try {
    await body(fleet)
  } finally {
    for (const sidecar of [...fleet.orders, ...fleet.billing]) await sidecar.close()
    await balancer.close()
    await link.close()
  }
}

const startBilling = (env: Record<string, string | number>) =>
  startSidecar({
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    OUTBOUND_PORT: 'off',
    ...env,
  })

/** A POST with a path of its own; `runs` says how often that reached the app. */
async function charge(sidecar: Sidecar) {
  const path = `/${++calls}`
  const answer = await call(sidecar.port('outbound'), { method: 'POST', path, body: 'x' })
  const runs = app.seen.filter(({ url }) => url === path).length
  return { code: answer.code, status: answer.status, text: answer.text, runs }
}

const DONE = { code: undefined, status: 200, text: 'done', runs: 1 }

const pairings = (sidecars: Sidecar[]) =>
  sidecars.flatMap(({ lines }) => lines.filter(({ msg }) => msg === 'paired')).length

const ready = async (sidecar: Sidecar) =>
  JSON.parse((await call(sidecar.port('admin'), { path: '/readyz' })).text) as { degraded: string[] }

/** Calls until one is answered: those before fail as they should. */
async function heals(sidecar: Sidecar): Promise<void> {
  for (;;) {
    const answer = await charge(sidecar)
    if (answer.status === 200) return assert.deepEqual(answer, DONE)
    assert.ok(answer.runs === 0 || answer.code === 'outcome-unknown', JSON.stringify(answer))
  }
}

test('share the pairs of all of them, on both sides', async () => {
  await withFleet(async ({ orders, billing }) => {
    for (let i = 0; i < 8; i++) assert.deepEqual(await charge(orders[i % 2]!), DONE)
    assert.deepEqual([pairings(orders), pairings(billing)], [1, 1])
    const heard = billing.map(({ lines }) => lines.filter(({ msg }) => msg === 'paired').length)
    assert.deepEqual(heard.toSorted(), [0, 1])
  })
})

test('all started anew go on with the pairs that are there', async () => {
  await withFleet(async (fleet) => {
    assert.deepEqual(await charge(fleet.orders[0]!), DONE)
    for (const sidecar of [...fleet.orders, ...fleet.billing]) await sidecar.close()
    const REDIS_URL = `redis://127.0.0.1:${fleet.link.port}`
    fleet.billing = await Promise.all(
      fleet.billing.map((sidecar) => startBilling({ REDIS_URL, PORT: sidecar.port('inbound') })),
    )
    const PEERS = `billing=${fleet.balancer.url}`
    fleet.orders = [await startSidecar({ NAME: 'orders', REDIS_URL, PEERS })]
    for (let i = 0; i < 4; i++) assert.deepEqual(await charge(fleet.orders[0]!), DONE)
    assert.deepEqual([pairings(fleet.orders), pairings(fleet.billing)], [0, 0])
  })
})

test('run a message once, whichever of them gets its bytes again', async () => {
  await withFleet(async ({ orders, billing, link }) => {
    const middle = await startMiddle(billing[0]!.port('inbound'), 'HTTP/1.1')
    const PEERS = `billing=${middle.url}`
    const other = await startSidecar({
      NAME: 'others',
      REDIS_URL: `redis://127.0.0.1:${link.port}`,
      PEERS,
      CARRIAGE: 'message',
    })
    assert.deepEqual(await charge(other), DONE)
    assert.deepEqual(await charge(orders[0]!), DONE)
    const before = app.seen.length
    for (const sidecar of [...billing, ...billing]) {
      const { status, body } = await post(sidecar.port('inbound'), '/api/mte-message', middle.messages[0]!)
      assert.deepEqual([status, body[2]], [409, 4])
    }
    assert.equal(app.seen.length, before)
    await other.close()
    await middle.close()
  })
})

test('start without Redis, do what needs none, and find it when it comes', async () => {
  const link = await startLink(redis.port)
  link.cut()
  const sidecar = await startBilling({
    REDIS_URL: `redis://127.0.0.1:${link.port}`,
    PASS_THROUGH_ROUTES: '/healthz',
  })
  const orders = await startSidecar({ NAME: 'orders', PEERS: `billing=${sidecar.url}` })
  const inbound = sidecar.port('inbound')
  assert.equal((await call(inbound, { path: '/api/mte-echo' })).status, 200)
  assert.equal((await call(inbound, { path: '/healthz' })).text, 'done')
  assert.equal((await call(sidecar.port('admin'), { path: '/livez' })).status, 200)
  assert.match((await ready(sidecar)).degraded.join(), /Redis at redis:.*is it running/)
  const refused = await call(orders.port('outbound'), { method: 'POST', path: '/', body: 'x' })
  assert.deepEqual([refused.status, refused.code], [503, 'state-unavailable'])
  assert.match(refused.text, /could not keep the pair, as its store is away/)
  link.heal()
  await heals(orders)
  assert.deepEqual((await ready(sidecar)).degraded, [])
  await orders.close()
  await sidecar.close()
  await link.close()
})

test('say which side cannot ask its Redis, run nothing, and heal', async () => {
  await withFleet(async ({ orders, billing, link }) => {
    assert.deepEqual(await charge(orders[0]!), DONE)
    link.cut()
    // This replica has no lease yet, and needs Redis to get one.
    const own = await charge(orders[1]!)
    assert.deepEqual([own.status, own.code, own.runs], [503, 'state-unavailable', 0])
    assert.match(own.text, /Redis at redis:/)
    // The other one has, but its peer cannot mark the message; an open tunnel needs no marks.
    const theirs = await charge(orders[0]!)
    if (carriage === 'message') {
      assert.deepEqual([theirs.status, theirs.code, theirs.runs], [503, 'state-unavailable', 0])
      assert.match(theirs.text, /peer's sidecar at .* did not run the call/)
    } else assert.deepEqual(theirs, DONE)
    for (const sidecar of [...orders, ...billing]) assert.equal((await ready(sidecar)).degraded.length, 1)
    link.heal()
    for (const sidecar of orders) await heals(sidecar)
    // Who has a tunnel need not have asked Redis for that.
    for (const sidecar of [...orders, ...billing]) while ((await ready(sidecar)).degraded.length > 0);
    assert.equal(pairings(orders), 1)
  })
})

test('finish the calls that are under way when Redis goes', async () => {
  const server = await startServer((_, response) => {
    response.write('begun')
    response.on('close', () => {})
    answering = response
  })
  let answering: http.ServerResponse | undefined
  await redis.cli('FLUSHALL')
  const link = await startLink(redis.port)
  const REDIS_URL = `redis://127.0.0.1:${link.port}`
  const billing = await startBilling({ REDIS_URL, UPSTREAM: `http://127.0.0.1:${server.port}` })
  const orders = await startSidecar({ NAME: 'orders', REDIS_URL, PEERS: `billing=${billing.url}` })
  const request = http.get({
    host: '127.0.0.1',
    port: orders.port('outbound'),
    headers: { host: 'billing' },
  })
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  const pieces: string[] = []
  response.setEncoding('utf8').on('data', (piece: string) => pieces.push(piece))
  await once(response, 'data')
  link.cut()
  answering!.end(', and ended')
  await once(response, 'end')
  assert.equal(pieces.join(''), 'begun, and ended')
  await orders.close()
  await billing.close()
  await server.close()
  await link.close()
})

test('heal when Redis was flushed, and run nothing twice', async () => {
  await withFleet(async ({ orders }) => {
    for (const sidecar of orders) assert.deepEqual(await charge(sidecar), DONE)
    await redis.cli('FLUSHALL')
    for (const sidecar of orders) await heals(sidecar)
    assert.deepEqual(await charge(orders[0]!), DONE)
  })
})

const NEW = 'the next secret for tests, of more than 32 characters'

test('change their secret one after the other without a failed call, whichever begins', async () => {
  for (const sides of [['billing', 'orders'] as const, ['orders', 'billing'] as const]) {
    await withFleet(async (fleet) => {
      const REDIS_URL = `redis://127.0.0.1:${fleet.link.port}`
      const PEERS = `billing=${fleet.balancer.url}`
      const works = async () => {
        for (const sidecar of fleet.orders)
          for (let i = 0; i < 4; i++) assert.deepEqual(await charge(sidecar), DONE)
      }
      const change = async (side: 'billing' | 'orders', CLIENT_ID_SECRET: string, previous: string) => {
        for (const [i, sidecar] of fleet[side].entries()) {
          const env = { REDIS_URL, CLIENT_ID_SECRET, CLIENT_ID_SECRET_PREVIOUS: previous }
          await sidecar.app.drain()
          await sidecar.close()
          fleet[side][i] =
            side === 'billing'
              ? await startBilling({ ...env, PORT: sidecar.port('inbound') })
              : await startSidecar({ NAME: 'orders', PEERS, ...env })
          await works()
        }
      }
      await works()
      for (const side of sides) await change(side, SECRET, NEW)
      for (const side of sides) await change(side, NEW, SECRET)
    })
  }
})

test.run()
