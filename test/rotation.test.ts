/** Secrets that change in their files while calls go on, seen from outside. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import type { PairSummary } from '../sidecar/pair/store.ts'
import { startBalancer } from './support/balancer.ts'
import { call } from './support/call.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type RedisServer, startRedis } from './support/redis.ts'
import { SecretMount } from './support/secret-mount.ts'
import { type Sidecar, startServer, startSidecar } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('rotation')

const OLD = 'canary: the old secret, of more than 32 characters'
const NEW = 'canary: the new secret, of more than 32 characters'
const OLD_TOKEN = 'canary-the-old-token'
const NEW_TOKEN = 'canary-the-new-token'

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

/** A sidecar, and where its secrets are. */
interface Mounted extends Sidecar {
  mount: SecretMount
}

/** Starts a sidecar of which all secrets are in files of a mount: `current`, `previous`, `token` and `previous-token`. */
async function startMounted(
  content: Record<string, string>,
  env: Record<string, string | number>,
): Promise<Mounted> {
  const mount = new SecretMount(content)
  const sidecar = await startSidecar({
    CLIENT_ID_SECRET: '',
    CLIENT_ID_SECRET_FILE: mount.file('current'),
    CLIENT_ID_SECRET_PREVIOUS_FILE: mount.file('previous'),
    ...('token' in content
      ? {
          OUTBOUND_TOKEN_FILE: mount.file('token'),
          OUTBOUND_TOKEN_PREVIOUS_FILE: mount.file('previous-token'),
        }
      : {}),
    ...env,
  })
  return {
    ...sidecar,
    mount,
    async close() {
      await sidecar.close()
      mount[Symbol.dispose]()
      assert.doesNotMatch(JSON.stringify(sidecar.lines), /canary/)
    },
  }
}

const startBilling = (content: Record<string, string>, env: Record<string, string | number> = {}) =>
  startMounted(content, {
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    OUTBOUND_PORT: 'off',
    ...env,
  })

const changes = ({ lines }: Sidecar) => lines.filter(({ msg }) => msg === 'secrets have changed')

let calls = 0

/** A POST with a path of its own. */
async function charge(sidecar: Sidecar, host = 'billing', headers: Record<string, string> = {}) {
  const path = `/${++calls}`
  const answer = await call(sidecar.port('outbound'), {
    method: 'POST',
    path,
    headers: { host, ...headers },
    body: 'x',
  })
  return { path, status: answer.status, code: answer.code }
}

const runsOf = (path: string) => app.seen.filter(({ url }) => url === path).length

/** Calls all the time, until the body is over; no call may fail, nor run twice. */
async function underLoad(
  ways: readonly (() => ReturnType<typeof charge>)[],
  body: () => Promise<void>,
): Promise<void> {
  let over = false
  const outcomes: Awaited<ReturnType<typeof charge>>[] = []
  const load = ways.map(async (way) => {
    while (!over) outcomes.push(await way())
  })
  try {
    await body()
  } finally {
    over = true
    await Promise.all(load)
  }
  assert.deepEqual(
    outcomes.filter(({ status }) => status !== 200),
    [],
  )
  const runs = Map.groupBy(app.seen, ({ url }) => url)
  for (const { path } of outcomes) assert.equal(runs.get(path)?.length, 1, path)
  assert.ok(outcomes.length > ways.length)
}

/** Resolves when something is so: asked for between calls to a sidecar that have nothing to do with it. */
async function until(sidecar: Sidecar, isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await call(sidecar.port('admin'), { path: '/livez' })
}

async function pairsOf(sidecar: Sidecar): Promise<PairSummary[]> {
  const { text } = await call(sidecar.port('admin'), { path: '/pairs', headers: { host: 'localhost' } })
  return JSON.parse(text)
}

/** Changes what all of them have, each in its own time, and resolves when they have. */
async function turnAll(sidecars: readonly Mounted[], content: Record<string, string>): Promise<void> {
  const before = sidecars.map((sidecar) => changes(sidecar).length)
  for (const { mount } of sidecars) mount.turn(content)
  for (const [i, sidecar] of sidecars.entries())
    await until(sidecar, () => changes(sidecar).length > before[i]!)
}

/** The three steps by which CLIENT_ID_SECRET changes. */
async function rotate(orders: readonly Mounted[], billing: readonly Mounted[]): Promise<void> {
  const all = [...orders, ...billing]
  await turnAll(all, { current: OLD, previous: NEW })
  await turnAll(all, { current: NEW, previous: OLD })
  for (const sidecar of orders)
    await until(sidecar, async () => (await pairsOf(sidecar)).every(({ secret }) => secret === 'current'))
  // Whoever makes no pairs first: this is the harder order.
  await turnAll(billing, { current: NEW })
  await turnAll(orders, { current: NEW })
  const changed = [
    ['CLIENT_ID_SECRET_PREVIOUS'],
    ['CLIENT_ID_SECRET', 'CLIENT_ID_SECRET_PREVIOUS'],
    ['CLIENT_ID_SECRET_PREVIOUS'],
  ]
  for (const sidecar of all)
    assert.deepEqual(
      changes(sidecar).map(({ fields }) => fields.changed),
      changed,
    )
}

test('CLIENT_ID_SECRET changes without a failed call, with pairs in memory', async () => {
  const billing = [
    await startBilling({ current: OLD }, { NAME: 'billing-1' }),
    await startBilling({ current: OLD }, { NAME: 'billing-2' }),
  ]
  const PEERS = billing.map(({ url }, i) => `billing-${i + 1}=${url}`).join()
  const start = (NAME: string) => startMounted({ current: OLD }, { NAME, PEERS })
  const orders = [await start('orders-1'), await start('orders-2')]
  const ways = orders.flatMap((sidecar) =>
    ['billing-1', 'billing-2'].map((host) => () => charge(sidecar, host)),
  )
  await underLoad(ways, () => rotate(orders, billing))
  for (const sidecar of [...orders, ...billing]) await sidecar.close()
})

test('CLIENT_ID_SECRET changes without a failed call, with replicas that share pairs in Redis', async () => {
  const REDIS_URL = redis.url
  const billing = [
    await startBilling({ current: OLD }, { REDIS_URL }),
    await startBilling({ current: OLD }, { REDIS_URL }),
  ]
  const balancer = await startBalancer(billing.map((sidecar) => sidecar.port('inbound')))
  const start = () =>
    startMounted({ current: OLD }, { NAME: 'orders', REDIS_URL, PEERS: `billing=${balancer.url}` })
  const orders = [await start(), await start()]
  const ways = [...orders, ...orders].map((sidecar) => () => charge(sidecar))
  await underLoad(ways, () => rotate(orders, billing))
  for (const sidecar of [...orders, ...billing]) await sidecar.close()
  await balancer.close()
})

test('a secret that was dropped opens nothing any more, though there are pairs of it', async () => {
  const billing = await startBilling({ current: OLD })
  const orders = await startMounted({ current: OLD }, { NAME: 'orders', PEERS: `billing=${billing.url}` })
  assert.equal((await charge(orders)).status, 200)
  await turnAll([billing], { current: NEW })
  assert.deepEqual(await pairsOf(billing), [])
  for (let i = 0; i < 2; i++) {
    const refused = await charge(orders)
    assert.equal(refused.status, 502)
    assert.equal(runsOf(refused.path), 0)
  }
  assert.equal((await charge(orders)).code, 'secret-mismatch')
  await turnAll([orders], { current: NEW })
  assert.equal((await charge(orders)).status, 200)
  await orders.close()
  await billing.close()
})

test('a call that is under way when its secret is dropped ends well', async () => {
  let answering: http.ServerResponse | undefined
  const server = await startServer((_, response) => {
    response.write('begun')
    answering = response
  })
  const billing = await startBilling({ current: OLD }, { UPSTREAM: `http://127.0.0.1:${server.port}` })
  const orders = await startMounted({ current: OLD }, { NAME: 'orders', PEERS: `billing=${billing.url}` })
  const request = http.get({
    host: '127.0.0.1',
    port: orders.port('outbound'),
    headers: { host: 'billing' },
  })
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  const pieces: string[] = []
  response.setEncoding('utf8').on('data', (piece: string) => pieces.push(piece))
  await once(response, 'data')
  await turnAll([orders, billing], { current: NEW })
  answering!.end(', and ended')
  await once(response, 'end')
  assert.equal(pieces.join(''), 'begun, and ended')
  await orders.close()
  await billing.close()
  await server.close()
})

test('OUTBOUND_TOKEN changes without a failed call', async () => {
  const billing = await startBilling({ current: OLD })
  const PEERS = `billing=${billing.url}`
  const orders = await startMounted({ current: OLD, token: OLD_TOKEN }, { NAME: 'orders', PEERS })
  let shown = OLD_TOKEN
  const way = () => charge(orders, 'billing', { 'x-mte-outbound-token': shown })
  await underLoad([way, way], async () => {
    await turnAll([orders], { current: OLD, token: NEW_TOKEN, 'previous-token': OLD_TOKEN })
    shown = NEW_TOKEN
  })
  await underLoad([way, way], () => turnAll([orders], { current: OLD, token: NEW_TOKEN }))
  shown = OLD_TOKEN
  const refused = await way()
  assert.deepEqual([refused.status, refused.code, runsOf(refused.path)], [401, 'token-wrong', 0])
  assert.equal((await charge(orders)).code, 'token-missing')
  await orders.close()
  await billing.close()
})

test('a mistake in one of the files is told, without the value, and all secrets stay as they were', async () => {
  const content = { current: OLD, token: OLD_TOKEN }
  const billing = await startBilling({ current: OLD })
  const orders = await startMounted(content, { NAME: 'orders', PEERS: `billing=${billing.url}` })
  const mistakes: [content: Record<string, string>, told: RegExp][] = [
    [{ ...content, current: 'canary', token: NEW_TOKEN }, /^CLIENT_ID_SECRET_FILE: .*32 characters or more/],
    [{ current: NEW, token: '' }, /^OUTBOUND_TOKEN_FILE: names a file that holds a mistake/],
    [{ token: NEW_TOKEN, previous: NEW }, /^CLIENT_ID_SECRET_FILE: must name a file .*ENOENT/],
    [{ ...content, previous: OLD }, /^CLIENT_ID_SECRET_PREVIOUS: must differ from CLIENT_ID_SECRET/],
    [
      { ...content, previous: 'canary', token: NEW_TOKEN },
      /^CLIENT_ID_SECRET_PREVIOUS_FILE: .*32 characters/,
    ],
  ]
  for (const [wrong, told] of mistakes) {
    const before = orders.lines.length
    orders.mount.turn(wrong)
    await until(orders, () => orders.lines.slice(before).some(({ level }) => level === 'warn'))
    const [{ msg } = { msg: '' }, ...more] = orders.lines.slice(before)
    assert.match(msg, told)
    assert.match(msg, /; all secrets stay as they were$/)
    assert.deepEqual(more, [])
    assert.equal((await charge(orders, 'billing', { 'x-mte-outbound-token': OLD_TOKEN })).status, 200)
    const refused = await charge(orders, 'billing', { 'x-mte-outbound-token': NEW_TOKEN })
    assert.equal(refused.code, 'token-wrong')
  }
  await turnAll([orders], { ...content, token: NEW_TOKEN })
  assert.equal((await charge(orders, 'billing', { 'x-mte-outbound-token': NEW_TOKEN })).status, 200)
  await orders.close()
  await billing.close()
})

test('the password of Redis counts from the next connection on, and another Redis takes a restart', async () => {
  await redis.cli('ACL', 'SETUSER', 'sidecar', 'on', '>canary-old', '~*', '+@all')
  const urlOf = (password: string, port = redis.port) => `redis://sidecar:${password}@127.0.0.1:${port}`
  const content = { current: OLD, redis: urlOf('canary-old') }
  using mount = new SecretMount(content)
  const REDIS_URL_FILE = mount.file('redis')
  const orders = await startMounted({ current: OLD }, { NAME: 'orders', REDIS_URL_FILE })
  const isBack = async () =>
    JSON.parse((await call(orders.port('admin'), { path: '/readyz' })).text).degraded.length === 0
  await until(orders, isBack)
  await redis.cli('ACL', 'SETUSER', 'sidecar', '>canary-new')
  mount.turn({ ...content, redis: urlOf('canary-new') })
  await until(orders, () => changes(orders).length === 1)
  assert.deepEqual(changes(orders)[0]!.fields, { changed: ['REDIS_URL'] })
  await redis.cli('ACL', 'SETUSER', 'sidecar', '<canary-old')
  assert.equal(await redis.cli('CLIENT', 'KILL', 'USER', 'sidecar'), 1)
  await until(orders, async () => !(await isBack()))
  await until(orders, isBack)
  assert.deepEqual(
    orders.lines.filter(({ level, fields }) => level === 'warn' && /WRONGPASS/.test(String(fields.reason))),
    [],
  )
  mount.turn({ ...content, redis: urlOf('canary-new', 1) })
  await until(orders, () => changes(orders).length === 2)
  assert.match(orders.lines.at(-1)!.msg, /^REDIS_URL says more than another user or password.*restart/)
  assert.ok(await isBack())
  await orders.close()
})

test('a secret of the environment stays, and one beside it that is in a file changes', async () => {
  const billing = await startBilling({ current: OLD })
  using mount = new SecretMount({})
  const orders = await startSidecar({
    NAME: 'orders',
    PEERS: `billing=${billing.url}`,
    CLIENT_ID_SECRET: NEW,
    CLIENT_ID_SECRET_PREVIOUS_FILE: mount.file('previous'),
  })
  assert.equal((await charge(orders)).code, 'secret-mismatch')
  mount.turn({ previous: OLD })
  await until(orders, () => changes(orders).length === 1)
  assert.deepEqual(changes(orders)[0]!.fields, { changed: ['CLIENT_ID_SECRET_PREVIOUS'] })
  assert.equal((await charge(orders)).status, 200)
  await orders.close()
  await billing.close()
})

test.run()
