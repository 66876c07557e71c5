/** What ADMIN_PORT answers. */
import assert from 'node:assert/strict'
import http from 'node:http'
import os from 'node:os'
import type { ListedPair } from '../sidecar/admin.ts'
import type { Status } from '../sidecar/status.ts'
import { type CallAnswer, call, once } from './support/call.ts'
import { type Pair, type Sidecar, startPair, startSidecar, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('admin')

let pair: Pair
/** its Redis is not there */
let away: Sidecar
let redisUrl: string

test.before(async () => {
  pair = await startPair((_request, response) => response.end('done'))
  redisUrl = `redis://127.0.0.1:${await unusedPort()}`
  away = await startSidecar({ REDIS_URL: redisUrl })
})

test.after(async () => {
  await away.close()
  await pair.close()
})

function ask(sidecar: Sidecar, method: string, path: string, host = 'localhost'): Promise<CallAnswer> {
  return call(sidecar.port('admin'), { method, path, headers: ['host', host] })
}

async function pairsOf(sidecar: Sidecar): Promise<ListedPair[]> {
  return JSON.parse((await ask(sidecar, 'GET', '/pairs')).text)
}

test('it tells whether the sidecar is alive and ready, at any name', async () => {
  for (const host of ['localhost', 'orders.internal:8082']) {
    const alive = await ask(pair.orders, 'GET', '/livez', host)
    assert.deepEqual(JSON.parse(alive.text), { status: 'alive', name: 'orders' })
    const { status, text } = await ask(pair.orders, 'GET', '/readyz?verbose', host)
    assert.deepEqual([status, JSON.parse(text)], [200, { status: 'ready', reasons: [], degraded: [] }])
  }
})

test('it has nothing else', async () => {
  for (const [method, path] of [
    ['POST', '/livez'],
    ['DELETE', '/readyz'],
    ['GET', '/pairs/'],
    ['POST', '/pairs'],
    ['DELETE', '/pairs/?peer=orders'],
    ['POST', '/'],
    ['GET', '/status/'],
    ['POST', '/status'],
    ['DELETE', '/metrics'],
    ['GET', '/drain'],
    ['PUT', '/drain'],
    ['POST', '/drain/'],
    ['GET', '/favicon.ico'],
    ['GET', '/api/mte-echo'],
  ] as const) {
    const { code, text } = await ask(pair.orders, method, path)
    assert.equal(code, 'not-found', `${method} ${path}`)
    const ways = [...JSON.parse(text).detail.matchAll(/(?<= )\/[a-z]*/g)].map(String)
    assert.deepEqual(ways.sort(), ['/', '/drain', '/livez', '/metrics', '/pairs', '/readyz', '/status'])
  }
})

test('it lists the pairs of both roles, without keys', async () => {
  await call(pair.orders.port('outbound'))
  const [initiated] = await pairsOf(pair.orders)
  assert.deepEqual(Object.keys(initiated!).sort(), [
    'ageMs',
    'block',
    'messages',
    'peer',
    'role',
    'secret',
    'tunnels',
  ])
  assert.deepEqual([initiated!.role, initiated!.peer], ['initiator', pair.billing.url])
  const [responded] = await pairsOf(pair.billing)
  assert.deepEqual([responded!.role, responded!.peer, responded!.messages], ['responder', 'orders', 1])
})

for (const [carriage, count] of [
  ['message', 0],
  ['tunnel', 1],
] as const) {
  test(`with CARRIAGE=${carriage} it tells of ${count} tunnels with the peer, on both sides`, async () => {
    const both = await startPair((_request, response) => response.end('done'), {
      orders: { CARRIAGE: carriage },
    })
    await call(both.orders.port('outbound'))
    for (const sidecar of [both.orders, both.billing]) {
      const pairs = await pairsOf(sidecar)
      const { peers }: Status = JSON.parse((await ask(sidecar, 'GET', '/status')).text)
      assert.deepEqual(
        [pairs.map(({ tunnels }) => tunnels), peers.map(({ tunnels }) => tunnels)],
        [[count], [count]],
      )
    }
    await both.close()
  })
}

test('it forgets the pairs with a peer, as initiator and as responder, and the next call heals that', async () => {
  for (const [sidecar, peer] of [
    [pair.orders, pair.billing.url],
    [pair.billing, 'orders'],
  ] as const) {
    await call(pair.orders.port('outbound'))
    const others = (await pairsOf(sidecar)).filter((one) => one.peer !== peer)
    const ours = (await pairsOf(sidecar)).length - others.length
    assert.ok(ours > 0)
    const path = `/pairs?peer=${encodeURIComponent(peer)}`
    const { status, text } = await ask(sidecar, 'DELETE', path)
    assert.deepEqual([status, JSON.parse(text)], [200, { dropped: ours }])
    assert.deepEqual(await pairsOf(sidecar), others)
    assert.deepEqual(JSON.parse((await ask(sidecar, 'DELETE', path)).text), { dropped: 0 })
    assert.equal((await call(pair.orders.port('outbound'))).text, 'done')
    assert.equal((await pairsOf(sidecar)).filter((one) => one.peer === peer).length, 1)
  }
})

test('it forgets nothing where not one peer is named', async () => {
  await call(pair.orders.port('outbound'))
  const count = (await pairsOf(pair.orders)).length
  const peer = encodeURIComponent(pair.billing.url)
  for (const query of [
    '',
    '?',
    '?peer',
    '?peer=',
    `?peer=${peer}&peer=${peer}`,
    `?peer=${peer}&peer=`,
    `?PEER=${peer}`,
  ]) {
    const { code, text } = await ask(pair.orders, 'DELETE', `/pairs${query}`)
    assert.equal(code, 'bad-request', query)
    assert.match(JSON.parse(text).detail, /one peer as GET \/pairs does.*DELETE \/pairs\?peer=http%3A%2F%2F/)
  }
  const nobody = await ask(pair.orders, 'DELETE', '/pairs?peer=nobody')
  assert.deepEqual(JSON.parse(nobody.text), { dropped: 0 })
  assert.equal((await pairsOf(pair.orders)).length, count)
})

test('it gives metrics at any name, in the format that is asked for', async () => {
  await call(pair.orders.port('outbound'))
  for (const [accept, type] of [
    ['*/*', 'text/plain'],
    ['application/openmetrics-text;version=1.0.0', 'application/openmetrics-text'],
  ] as const) {
    const { status, headers, text } = await call(pair.orders.port('admin'), {
      path: '/metrics',
      headers: { host: 'orders.internal:8082', accept },
    })
    assert.equal(status, 200)
    assert.equal(headers['content-type']!.split(';')[0], type)
    assert.match(text, /^http_server_request_duration_seconds_count\{.*\} [1-9]/m)
  }
})

test('it tells its status in JSON', async () => {
  await call(pair.orders.port('outbound'))
  const status: Status = JSON.parse((await ask(pair.orders, 'GET', '/status')).text)
  const { name, store, notReady, degraded, peers, pairs } = status
  assert.deepEqual(
    { name, store, notReady, degraded },
    { name: 'orders', store: 'memory', notReady: [], degraded: [] },
  )
  assert.deepEqual(
    status.listening.map(({ role, port }) => [role, port]),
    (['inbound', 'outbound', 'admin'] as const).map((role) => [role, pair.orders.port(role)]),
  )
  const [{ peer, direction, state, calls }] = peers as [Status['peers'][number]]
  assert.deepEqual([peer, direction, state], [pair.billing.url, 'outbound', 'ok'])
  assert.ok(calls > 0)
  assert.equal(pairs?.length, 1)
})

test('the status page may do nothing but show itself', async () => {
  const { status, headers } = await ask(pair.orders, 'GET', '/')
  assert.equal(status, 200)
  const policy = headers['content-security-policy'] as string
  assert.match(policy, /^default-src 'none'; script-src 'sha256-[^ ']+'; style-src 'sha256-[^ ']+';/)
  for (const rule of [
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ])
    assert.ok(policy.includes(rule), rule)
  const { 'content-type': type, 'x-content-type-options': options, 'referrer-policy': referrer } = headers
  assert.deepEqual(
    [type, options, referrer, headers['cache-control']],
    ['text/html; charset=utf-8', 'nosniff', 'no-referrer', 'no-store'],
  )
})

test('a page of a site learns nothing of pairs and status, and cannot have pairs forgotten, nor have it drain', async () => {
  await call(pair.orders.port('outbound'))
  const peer = encodeURIComponent(pair.billing.url)
  for (const host of [
    'evil.example',
    'evil.example:8082',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '',
  ]) {
    for (const path of ['/pairs', '/status', '/'])
      assert.equal((await ask(pair.orders, 'GET', path, host)).code, 'not-found', `${host} ${path}`)
    assert.equal((await ask(pair.orders, 'DELETE', `/pairs?peer=${peer}`, host)).code, 'not-found', host)
    assert.equal((await ask(pair.orders, 'POST', '/drain', host)).code, 'not-found', host)
  }
  // Browsers send a POST to wherever a page says, and ask only whether the page may see the answer.
  for (const origin of ['https://evil.example', 'http://localhost:3000', 'null'])
    assert.equal(
      (
        await call(pair.orders.port('admin'), {
          ...{ method: 'POST', path: '/drain' },
          headers: { host: '127.0.0.1:8082', origin, 'content-type': 'text/plain' },
        })
      ).code,
      'not-found',
    )
  assert.equal((await ask(pair.orders, 'GET', '/readyz')).status, 200)
  const preflight = await call(pair.orders.port('admin'), {
    method: 'OPTIONS',
    path: `/pairs?peer=${peer}`,
    headers: { host: 'localhost', origin: 'https://evil.example', 'access-control-request-method': 'DELETE' },
  })
  assert.equal(preflight.status, 404)
  assert.deepEqual(
    Object.keys(preflight.headers).filter((name) => name.startsWith('access-control-')),
    [],
  )
  for (const host of ['LOCALHOST', 'localhost:8082', '127.0.0.1:8082', '[::1]', '[::1]:8082', '10.0.0.1'])
    for (const path of ['/pairs', '/status', '/'])
      assert.equal((await ask(pair.orders, 'GET', path, host)).status, 200, `${host} ${path}`)
  assert.ok((await pairsOf(pair.orders)).length > 0)
})

for (const address of outsideAddresses()) {
  test(`at ${address} it has no more than probes and scrapers need`, async () => {
    const exposed = await startSidecar({ ADMIN_HOST: '0.0.0.0' })
    const statusOf = async (host: string, path: string, method = 'GET') => {
      const request = http.request({ host, port: exposed.port('admin'), path, method, agent: false }).end()
      const response = await once<http.IncomingMessage>(request, 'response')
      response.resume()
      return response.statusCode
    }
    for (const path of ['/livez', '/readyz', '/metrics']) assert.equal(await statusOf(address, path), 200)
    for (const [host, status] of [
      [address, 404],
      ['127.0.0.1', 200],
    ] as const) {
      for (const path of ['/pairs', '/status', '/']) assert.equal(await statusOf(host, path), status, path)
      assert.equal(await statusOf(host, '/pairs?peer=nobody', 'DELETE'), status)
      assert.equal(await statusOf(host, '/readyz'), 200, 'nobody had it drain')
      assert.equal(await statusOf(host, '/drain', 'POST'), status)
    }
    await exposed.close()
  })
}

for (const [how, drain] of [
  ['POST /drain', (leaving: Sidecar) => ask(leaving, 'POST', '/drain')],
  ['a signal', (leaving: Sidecar) => leaving.app.drain()],
] as const) {
  test(`a sidecar that drains because of ${how} is alive, but not ready`, async () => {
    const leaving = await startSidecar({})
    await drain(leaving)
    const { status, text } = await ask(leaving, 'GET', '/readyz')
    const said = { status: 'not ready', reasons: ['draining'], degraded: [] }
    assert.deepEqual([status, JSON.parse(text)], [503, said])
    assert.equal((await ask(leaving, 'GET', '/livez')).status, 200)
    assert.deepEqual(JSON.parse((await ask(leaving, 'GET', '/status')).text).notReady, ['draining'])
    await leaving.close()
  })
}

test('it tells how far draining has come, as often as it is asked', async () => {
  const reached = Promise.withResolvers<http.ServerResponse>()
  const busy = await startPair((_request, response) => reached.resolve(response), {
    billing: { DRAIN_SECONDS: 3600 },
  })
  const drain = async () => {
    const { status, text } = await ask(busy.billing, 'POST', '/drain')
    assert.equal(status, 200)
    return JSON.parse(text)
  }
  const charge = call(busy.orders.port('outbound'))
  const response = await reached.promise
  const { leftMs, ...first } = await drain()
  assert.deepEqual(first, { openCalls: 1, emptyMs: 0 })
  assert.ok(leftMs > 3_590_000 && leftMs <= 3_600_000)
  response.end('done')
  assert.equal((await charge).text, 'done')
  let last = await drain()
  while (last.openCalls > 0 || last.emptyMs === 0) last = await drain()
  assert.ok(last.emptyMs < 60_000 && last.leftMs < leftMs)
  assert.deepEqual(
    busy.billing.lines.filter(({ msg }) => msg === 'draining').map(({ fields }) => fields),
    [{ asked: 'POST /drain' }],
  )
  await busy.close()
})

test('a sidecar whose Redis is away is ready for what needs none, and says what is degraded', async () => {
  const { status, text } = await ask(away, 'GET', '/readyz')
  const { degraded, ...rest } = JSON.parse(text)
  assert.deepEqual([status, rest], [200, { status: 'ready', reasons: [] }])
  assert.equal(degraded.length, 1)
  assert.ok(degraded[0].startsWith(`Redis at ${redisUrl}: `), degraded[0])
  assert.match(degraded[0], /; is it running, and does REDIS_URL say where\?$/)
})

test('while Redis is away its pairs are unavailable, which is no fault of the sidecar', async () => {
  for (const [method, path] of [
    ['GET', '/pairs'],
    ['DELETE', '/pairs?peer=orders'],
  ] as const) {
    const { status, code, text } = await ask(away, method, path)
    assert.deepEqual([status, code], [503, 'state-unavailable'])
    assert.ok(JSON.parse(text).detail.startsWith(`Redis at ${redisUrl}: `), text)
  }
  assert.equal((await ask(away, 'DELETE', '/pairs')).code, 'bad-request')
  assert.deepEqual(
    away.lines.filter(({ level }) => level === 'error'),
    [],
  )
})

/** Addresses of this machine besides loopback, if it has any. */
function outsideAddresses(): string[] {
  const interfaces = Object.values(os.networkInterfaces()).flatMap((each) => each ?? [])
  return interfaces
    .filter(({ family, internal }) => family === 'IPv4' && !internal)
    .map(({ address }) => address)
}

test.run()
