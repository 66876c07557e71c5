/** A sidecar of several processes (WORKERS), seen from outside: it is one. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { beginCall } from './support/app-client.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { call } from './support/call.ts'
import { by } from './support/carriage.ts'
import { startMiddle } from './support/middle.ts'
import { post } from './support/peer.ts'
import { type SidecarProcess, startProcess } from './support/process.ts'
import { startRedis } from './support/redis.ts'
import { listen, SECRET } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('workers')
const root = new URL('..', import.meta.url)
const CALLS = 12

let app: AppServer
/** paths of the calls that reached the app */
const seen: string[] = []

test.before(async () => {
  app = await startAppServer()
})

test.after(() => app.close())

const answering = () => {
  app.handler = (request, response) => {
    seen.push(request.url!)
    response.end('done')
  }
}

const startBilling = (env: Record<string, string | number> = {}) =>
  startProcess({
    ...{ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}`, OUTBOUND_PORT: 'off' },
    ...{ WORKERS: 2, ACCESS_LOG: 'true', ...env },
  })

const startOrders = (port: number, env: Record<string, string | number> = {}) =>
  startProcess({
    ...{ NAME: 'orders', PEERS: `billing=http://127.0.0.1:${port}`, WORKERS: 2, ACCESS_LOG: 'true' },
    ...env,
  })

async function startPair(env: Record<string, string | number> = {}) {
  const billing = await startBilling(env)
  return { billing, orders: await startOrders(billing.ports.inbound!, env) }
}

/** One call after the other, each over a connection of its own. */
async function makeCalls(orders: SidecarProcess, count = CALLS): Promise<void> {
  answering()
  for (let i = 0; i < count; i++) assert.equal((await call(orders.ports.outbound!)).text, 'done')
}

/** A call that has reached the app, which is to answer it. */
async function openCall(orders: SidecarProcess) {
  const reached = app.next()
  const begun = beginCall('HTTP/1.1', orders.ports.outbound!).end()
  const [, response] = await reached
  return { begun, response }
}

const lines = ({ log }: SidecarProcess, message: string) =>
  log.map((line) => JSON.parse(line)).filter(({ msg }) => msg === message)

/** The processes that it has started. */
function childrenOf({ pid }: SidecarProcess): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
}

async function ask(sidecar: SidecarProcess, path: string, method = 'GET') {
  const { text } = await call(sidecar.ports.admin!, { method, path, headers: ['host', 'localhost'] })
  return JSON.parse(text)
}

async function served(sidecar: SidecarProcess): Promise<number> {
  const { text } = await call(sidecar.ports.admin!, { path: '/metrics' })
  return [...text.matchAll(/^http_server_request_duration_seconds_count\{.*\} (\d+)$/gm)]
    .map(([, count]) => Number(count))
    .reduce((sum, count) => sum + count, 0)
}

/** Looks again, at each turn of the event loop, until what is seen is as it should be. */
async function until<T>(look: () => T | Promise<T>, isIt: (seen: T) => boolean): Promise<T> {
  for (;;) {
    const seen = await look()
    if (isIt(seen)) return seen
    await turn()
  }
}

for (const where of ['the first process', 'Redis'] as const) {
  test(`calls go through all workers, which share pairs in ${where}`, async () => {
    const redis = where === 'Redis' ? await startRedis() : undefined
    const { billing, orders } = await startPair(redis && { REDIS_URL: `redis://127.0.0.1:${redis.port}` })
    await makeCalls(orders)
    for (const sidecar of [billing, orders]) {
      const calls = await until(
        () => lines(sidecar, 'call'),
        ({ length }) => length === CALLS,
      )
      assert.deepEqual([...new Set(calls.map(({ worker }) => worker))].sort(), [1, 2])
      assert.equal(lines(sidecar, 'paired').length, 1)
      assert.equal(childrenOf(sidecar).length, 2)
    }
    const [{ block, ...initiated }, ...others] = await ask(orders, '/pairs')
    assert.deepEqual([initiated.role, initiated.peer, block, others], ['initiator', peerOf(billing), 1, []])
    const [responded, ...more] = await ask(billing, '/pairs')
    // Each tunnel costs one message, in each worker that has one.
    assert.deepEqual([responded.role, more], ['responder', []])
    assert.ok(by({ message: responded.messages === CALLS, tunnel: responded.messages < CALLS }))
    assert.equal(
      (await ask(orders, `/pairs?peer=${encodeURIComponent(peerOf(billing))}`, 'DELETE')).dropped,
      1,
    )
    assert.deepEqual(await ask(orders, '/pairs'), [])
    await makeCalls(orders, 2)
    assert.equal(lines(orders, 'paired').length, 2)
    assert.deepEqual(await Promise.all([orders.stop(), billing.stop()]), [0, 0])
    await redis?.stop()
  })
}

const peerOf = ({ ports }: SidecarProcess) => `http://127.0.0.1:${ports.inbound}`

test('what all workers count is told as one, and not less when one of them ends', async () => {
  const { billing, orders } = await startPair()
  await makeCalls(orders)
  for (const sidecar of [billing, orders]) {
    assert.equal(
      await until(
        () => served(sidecar),
        (count) => count >= CALLS,
      ),
      CALLS,
    )
    const { all, peers, notReady, degraded, listening } = await ask(sidecar, '/status')
    assert.equal(all.inbound.calls + all.outbound.calls, CALLS)
    assert.equal(peers.length, 1)
    assert.deepEqual([peers[0].calls, peers[0].pairs, notReady, degraded], [CALLS, 1, [], []])
    assert.equal(listening.length, sidecar === orders ? 3 : 2)
  }
  const { text } = await call(orders.ports.admin!, { path: '/metrics' })
  for (const line of ['mte_pairs{role="initiator"} 1', 'mte_calls_open{direction="outbound"} 0'])
    assert.ok(text.split('\n').includes(line), line)
  assert.equal(text.match(/^process_start_time_seconds /gm)?.length, 1)
  const [one] = childrenOf(orders)
  process.kill(one!, 'SIGKILL')
  await until(
    () => ask(orders, '/readyz'),
    ({ degraded }) => degraded.length > 0,
  )
  assert.equal(await served(orders), CALLS)
  await makeCalls(orders)
  assert.equal(
    await until(
      () => served(orders),
      (count) => count >= 2 * CALLS,
    ),
    2 * CALLS,
  )
  await Promise.all([orders.stop(), billing.stop()])
})

test('the tunnels of all workers are told as one', async () => {
  const { billing, orders } = await startPair({ CARRIAGE: 'tunnel' })
  await makeCalls(orders)
  // Each worker opens a second one beside its calls.
  const open = 4
  for (const [sidecar, role] of [
    [orders, 'initiator'],
    [billing, 'responder'],
  ] as const) {
    const [, ...more] = await until(
      () => ask(sidecar, '/pairs'),
      ([pair]) => pair.tunnels === open,
    )
    const { peers } = await ask(sidecar, '/status')
    const { text } = await call(sidecar.ports.admin!, { path: '/metrics' })
    assert.deepEqual([peers[0].tunnels, more], [open, []])
    assert.ok(text.split('\n').includes(`mte_tunnels{role="${role}"} ${open}`), text)
  }
  await Promise.all([orders.stop(), billing.stop()])
})

test('a message runs once, whichever worker gets its bytes again', async () => {
  const billing = await startBilling()
  const middle = await startMiddle(billing.ports.inbound!, 'HTTP/1.1')
  const orders = await startProcess({ NAME: 'orders', PEERS: `billing=${middle.url}`, CARRIAGE: 'message' })
  await makeCalls(orders, 1)
  const before = seen.length
  for (let i = 0; i < 4; i++) {
    const { status, body } = await post(billing.ports.inbound!, '/api/mte-message', middle.messages[0]!)
    assert.deepEqual([status, body[2]], [409, 4])
  }
  assert.equal(seen.length, before)
  await Promise.all([orders.stop(), billing.stop()])
  await middle.close()
})

test('a worker that is killed is replaced, and loses its own calls alone', async () => {
  const { billing, orders } = await startPair()
  const [first, second] = [await openCall(orders), await openCall(orders)]
  const before = childrenOf(orders)
  process.kill(before[0]!, 'SIGKILL')
  const { degraded } = await until(
    () => ask(orders, '/readyz'),
    (ready) => ready.degraded.length > 0,
  )
  assert.match(degraded[0], /^1 of 2 workers run: what ended is started again/)
  await until(
    () => ask(orders, '/readyz'),
    (ready) => ready.degraded.length === 0,
  )
  for (const { response } of [first, second]) response.end('done')
  const ends = await Promise.allSettled([first, second].map(({ begun }) => begun.whole()))
  assert.deepEqual(ends.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  const after = childrenOf(orders)
  assert.equal(after.filter((pid) => before.includes(pid)).length, 1)
  assert.equal(after.length, 2)
  const [{ how, worker }] = lines(orders, 'a worker ended, and its calls with it')
  assert.deepEqual([how, worker], ['SIGKILL', 1])
  await makeCalls(orders)
  assert.equal(lines(orders, 'paired').length, 1)
  await Promise.all([orders.stop(), billing.stop()])
})

test('all of them drain, and stop once their calls are answered', async () => {
  const { billing, orders } = await startPair()
  const open = [await openCall(orders), await openCall(orders)]
  const drained = await ask(billing, '/drain', 'POST')
  assert.equal(drained.openCalls, 2)
  assert.deepEqual((await ask(billing, '/readyz')).reasons, ['draining'])
  const stopped = [orders.stop(), billing.stop()]
  await until(
    () => ask(orders, '/readyz'),
    ({ reasons }) => reasons.includes('draining'),
  )
  // Whoever stops all processes of a unit means the sidecar as a whole.
  for (const pid of childrenOf(orders)) process.kill(pid, 'SIGTERM')
  for (const { begun, response } of open) {
    response.end('done')
    assert.equal((await begun.whole()).text, 'done')
  }
  assert.deepEqual(await Promise.all(stopped), [0, 0])
  assert.deepEqual(
    lines(billing, 'draining').map(({ asked, signal }) => asked ?? signal),
    ['POST /drain', 'SIGTERM'],
  )
  assert.equal(lines(billing, 'stopped').length, 1)
})

test('a second signal ends all of them at once, and so does the end of the first process', async () => {
  const { billing, orders } = await startPair()
  const { begun } = await openCall(orders)
  const pids = [...childrenOf(orders), ...childrenOf(billing)]
  const stopped = orders.stop()
  await until(
    () => ask(orders, '/readyz'),
    ({ reasons }) => reasons.includes('draining'),
  )
  orders.stop()
  assert.equal(await stopped, 1)
  await assert.rejects(begun.whole())
  assert.equal(await billing.stop('SIGKILL'), 'SIGKILL')
  await until(
    () => pids.filter(isThere),
    ({ length }) => length === 0,
  )
})

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

test('a port that cannot be had is told once, and ends them all with 1', async () => {
  const taken = net.createServer()
  const port = await listen(taken)
  for (const name of ['OUTBOUND_PORT', 'ADMIN_PORT']) {
    const { status, log } = await runToEnd({ [name]: port })
    assert.equal(status, 1)
    const mistakes = log.filter(({ level }) => level === 'error')
    assert.equal(mistakes.length, 1, JSON.stringify(log))
    assert.match(mistakes[0]!.msg, new RegExp(`^${name}: cannot listen on port ${port}, as another process`))
  }
  taken.close()
})

async function runToEnd(env: Record<string, string | number>) {
  const variables = { CLIENT_ID_SECRET: SECRET, PORT: 0, OUTBOUND_PORT: 0, ADMIN_PORT: 0, WORKERS: 2, ...env }
  const child = spawn(process.execPath, ['sidecar/main.ts'], {
    cwd: root,
    env: {
      PATH: process.env.PATH,
      ...Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, String(value)])),
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let text = ''
  child.stderr.setEncoding('utf8').on('data', (more) => {
    text += more
  })
  const [status] = await once(child, 'close')
  const log = text.trim().split('\n')
  return { status, log: log.map((line) => JSON.parse(line) as { level: string; msg: string }) }
}

test.run()
