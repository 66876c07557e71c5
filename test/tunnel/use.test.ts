/** Sidecars whose calls go by tunnels, from outside: when they do, what ends them, and that no call is lost by it. */
import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { startBalancer } from '../support/balancer.ts'
import { call } from '../support/call.ts'
import { type Recorder, startRecorder } from '../support/recorder.ts'
import { startRedis } from '../support/redis.ts'
import { type Sidecar, startPair, startSidecar, startTap } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('tunnel: in use')

/** A peer that gets so many calls within a second gets tunnels. */
const MANY = 100
const BY_BOTH = { CARRIAGE: 'auto' }
const BY_TUNNEL = { CARRIAGE: 'tunnel' }
const PLANTED = 'canary'

let app: Recorder

test.before(async () => {
  app = await startRecorder('done')
})

test.after(() => app.close())

let calls = 0

/** A POST with a path of its own, which has to run once and to be answered. */
async function charge(sidecar: Sidecar): Promise<void> {
  const path = `/${++calls}`
  const { text } = await call(sidecar.port('outbound'), { method: 'POST', path, body: 'x' })
  const runs = app.seen.filter(({ url }) => url === path).length
  assert.deepEqual([text, runs], ['done', 1])
}

const chargeMany = (sidecar: Sidecar, count: number) =>
  Promise.all(Array.from({ length: count }, () => charge(sidecar)))

/** Calls all the time, from several sides at once, until a body is over. */
async function underLoad(sidecar: Sidecar, body: () => Promise<void>): Promise<void> {
  let isOver = false
  const caller = async () => {
    while (!isOver) await charge(sidecar)
  }
  const over = body().finally(() => {
    isOver = true
  })
  await Promise.all([over, ...Array.from({ length: 8 }, caller)])
}

/** What a sidecar's metrics say, by name and by the value of one label. */
async function metric(sidecar: Sidecar, name: string, value: string): Promise<number> {
  const { text } = await call(sidecar.port('admin'), { path: '/metrics' })
  const found = new RegExp(`^${name}\\{[^}]*="${value}"[^}]*\\} (\\d+)$`, 'm').exec(text)
  return Number(found?.[1] ?? 0)
}

const calledBy = (sidecar: Sidecar, carriage: string) => metric(sidecar, 'mte_calls_total', carriage)

const tunnelsTo = (sidecar: Sidecar) => metric(sidecar, 'mte_tunnels', 'initiator')
const tunnelsFrom = (sidecar: Sidecar) => metric(sidecar, 'mte_tunnels', 'responder')

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await turn()
}

const administer = (sidecar: Sidecar, method: string, path: string) =>
  call(sidecar.port('admin'), { method, path, headers: { host: 'localhost' } })

test('a peer that gets few calls gets messages, and one that gets many gets tunnels; both sides count the same', async () => {
  const { orders, billing, close } = await startPair(app.port, { orders: BY_BOTH })
  await chargeMany(orders, MANY - 1)
  assert.deepEqual([await tunnelsTo(orders), await calledBy(orders, 'tunnel')], [0, 0])
  let made = MANY - 1
  while ((await tunnelsTo(orders)) === 0) {
    await chargeMany(orders, MANY)
    made += MANY
  }
  await chargeMany(orders, MANY)
  made += MANY
  const byTunnel = await calledBy(orders, 'tunnel')
  assert.ok(byTunnel > 0, `${byTunnel} calls by tunnel`)
  assert.equal(await calledBy(orders, 'message'), made - byTunnel)
  for (const carriage of ['message', 'tunnel'])
    assert.equal(await calledBy(billing, carriage), await calledBy(orders, carriage))
  for (const [one, other] of [
    [orders, billing],
    [billing, orders],
  ] as const) {
    const sent = await metric(one, 'mte_tunnel_records_total', 'sent')
    // Far fewer than calls: what waits is sealed at once.
    assert.ok(sent > 0)
    assert.ok((await metric(other, 'mte_tunnel_records_total', 'received')) > 0)
  }
  await close()
})

test('CARRIAGE says that all are the one or the other', async () => {
  for (const [carriage, other] of [
    ['message', 'tunnel'],
    ['tunnel', 'message'],
  ] as const) {
    const { orders, billing, close } = await startPair(app.port, { orders: { CARRIAGE: carriage } })
    await chargeMany(orders, 2 * MANY)
    for (const sidecar of [orders, billing])
      assert.deepEqual([await calledBy(sidecar, carriage), await calledBy(sidecar, other)], [2 * MANY, 0])
    assert.equal((await tunnelsTo(orders)) > 0, carriage === 'tunnel')
    await close()
  }
})

test('of all that a call is made of, and its answer, nothing is on the wire', async () => {
  const answering = await startRecorder((_seen, response) => {
    response.writeEarlyHints({ link: '</canary-hint>; rel=preload' })
    response.writeHead(418, 'canary reason', { 'x-canary-answer': 'canary-field', trailer: 'x-canary-end' })
    response.write('canary answer')
    response.addTrailers({ 'x-canary-end': 'canary-late' })
    response.end()
  })
  const billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${answering.port}` })
  const tap = await startTap(billing.port('inbound'))
  const orders = await startSidecar({
    ...BY_TUNNEL,
    NAME: 'orders',
    PEERS: `*.example=http://127.0.0.1:${tap.port}`,
  })
  const answer = await call(orders.port('outbound'), {
    method: 'PROPPATCH',
    path: '/canary-path?canary-query=1',
    headers: { host: 'canary.example', 'x-canary': 'canary', 'transfer-encoding': 'chunked' },
    body: 'canary-body '.repeat(1000),
    trailers: [['x-canary-trailer', 'canary-trailer-value']],
  })
  assert.deepEqual([answer.status, answer.text, answer.interim.length], [418, 'canary answer', 1])
  const recorded = tap.recorded().toString('latin1')
  assert.ok(recorded.length > 12_000)
  for (const word of [PLANTED, 'PROPPATCH', 'teapot']) assert.ok(!recorded.includes(word), word)
  for (const part of [orders, tap, billing, answering]) await part.close()
})

test('a sidecar that drains ends its tunnels: every call is answered, and those that still come are messages', async () => {
  const { orders, billing, close } = await startPair(app.port, { orders: BY_BOTH })
  await underLoad(orders, async () => {
    await until(async () => (await tunnelsFrom(billing)) > 0 && (await calledBy(billing, 'tunnel')) > MANY)
    await administer(billing, 'POST', '/drain')
    await until(async () => (await tunnelsTo(orders)) === 0)
    const before = await calledBy(billing, 'message')
    await until(async () => (await calledBy(billing, 'message')) > before + MANY)
  })
  await close()
})

test('where all calls have to go by tunnels, a replica that drains costs none: they go to another', async () => {
  const redis = await startRedis()
  const REDIS_URL = `redis://127.0.0.1:${redis.port}`
  const UPSTREAM = `http://127.0.0.1:${app.port}`
  const start = () => startSidecar({ NAME: 'billing', OUTBOUND_PORT: 'off', UPSTREAM, REDIS_URL })
  const replicas = [await start(), await start()]
  const balancer = await startBalancer(replicas.map((replica) => replica.port('inbound')))
  const orders = await startSidecar({ ...BY_TUNNEL, NAME: 'orders', PEERS: `billing=${balancer.url}` })
  await underLoad(orders, async () => {
    for (const replica of replicas) await until(async () => (await calledBy(replica, 'tunnel')) > 0)
    const [leaving, staying] = replicas as [Sidecar, Sidecar]
    await administer(leaving, 'POST', '/drain')
    await until(async () => (await tunnelsFrom(leaving)) === 0)
    const before = await calledBy(staying, 'tunnel')
    await until(async () => (await calledBy(staying, 'tunnel')) > before + MANY)
  })
  for (const part of [orders, balancer, ...replicas]) await part.close()
  await redis.stop()
})

test('a peer that restarted and lost everything costs no call, and runs each once', async () => {
  const UPSTREAM = `http://127.0.0.1:${app.port}`
  const start = (PORT: number) => startSidecar({ NAME: 'billing', UPSTREAM, OUTBOUND_PORT: 'off', PORT })
  let billing = await start(0)
  const orders = await startSidecar({ ...BY_TUNNEL, NAME: 'orders', PEERS: `billing=${billing.url}` })
  for (let i = 0; i < 3; i++) {
    await charge(orders)
    await billing.close()
    billing = await start(billing.port('inbound'))
    await chargeMany(orders, 20)
  }
  await orders.close()
  await billing.close()
})

for (const side of ['orders', 'billing'] as const) {
  test(`who drops pairs at ${side} ends the tunnels too: what is open goes on, and the next call pairs again`, async () => {
    const reached = Promise.withResolvers<() => void>()
    const holding = await startRecorder(({ url }, response) => {
      if (url === '/open') reached.resolve(() => response.end('late'))
      else response.end('done')
    })
    const pair = await startPair(holding.port, { orders: BY_TUNNEL })
    const { orders, billing } = pair
    const open = call(orders.port('outbound'), { path: '/open' })
    const answer = await reached.promise
    const peer = side === 'orders' ? billing.url : 'orders'
    const { text } = await administer(pair[side], 'DELETE', `/pairs?peer=${encodeURIComponent(peer)}`)
    assert.deepEqual(JSON.parse(text), { dropped: 1 })
    assert.equal((await call(orders.port('outbound'))).text, 'done')
    const pairings = () => billing.lines.filter(({ msg }) => msg === 'paired').length
    assert.equal(pairings(), 2)
    assert.deepEqual([await tunnelsTo(orders), await tunnelsFrom(billing)], [2, 2])
    answer()
    assert.equal((await open).text, 'late')
    await until(async () => (await tunnelsTo(orders)) === 1 && (await tunnelsFrom(billing)) === 1)
    await pair.close()
    await holding.close()
  })
}

test.run()
