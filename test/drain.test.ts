/** The life of a sidecar as a process: from its start to ready, and from the word that it is to go to its end. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { APP_PROTOCOLS, beginCall, makeCall } from './support/app-client.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { type CallAnswer, call } from './support/call.ts'
import { by } from './support/carriage.ts'
import { closeListeners, RawClient } from './support/listener.ts'
import { type SidecarProcess, startProcess } from './support/process.ts'
import { listen, SECRET, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('draining')
const root = new URL('..', import.meta.url)

let app: AppServer
const silent: (net.Server | net.Socket)[] = []

test.before(async () => {
  app = await startAppServer()
})

test.after(async () => {
  closeListeners()
  for (const each of silent) if (each instanceof net.Socket) each.destroy()
  for (const each of silent) if (each instanceof net.Server) each.close()
  await app.close()
})

interface Pair {
  /** the sidecar of the app that calls; its peer is `billing` */
  orders: SidecarProcess
  /** the sidecar of the app that is called */
  billing: SidecarProcess
}

async function startPair(env: Record<string, string | number> = {}): Promise<Pair> {
  const billing = await startProcess({
    ...{ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}`, OUTBOUND_PORT: 'off' },
    ...env,
  })
  const peers = `billing=http://127.0.0.1:${billing.ports.inbound}`
  return { orders: await startProcess({ NAME: 'orders', PEERS: peers, ...env }), billing }
}

/** Begins `mte-sidecar drain`, as a hook in the sidecar's container does. */
function beginDrain(
  port: number,
  ...options: string[]
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const env = { PATH: process.env.PATH, ADMIN_PORT: String(port) }
    const child = execFile(
      process.execPath,
      ['sidecar/main.ts', 'drain', ...options],
      { cwd: root, env },
      (_error, stdout, stderr) => resolve({ status: child.exitCode, stdout, stderr }),
    )
  })
}

function readiness({ ports }: SidecarProcess): Promise<CallAnswer> {
  return call(ports.admin!, { path: '/readyz' })
}

/** Asks until it is not ready. */
async function draining(sidecar: SidecarProcess): Promise<void> {
  for (;;) {
    const { status, text } = await readiness(sidecar)
    if (status === 200) continue
    assert.deepEqual([status, JSON.parse(text).reasons], [503, ['draining']])
    return
  }
}

/** A sidecar that drains takes messages as before, and no call by a tunnel any more. */
async function answeredWhileDraining(orders: SidecarProcess): Promise<void> {
  const { text, code } = await makeCall('HTTP/1.1', orders.ports.outbound!)
  by({
    message: () => assert.equal(text, 'another'),
    tunnel: () => assert.equal(code, 'peer-unreachable'),
  })()
}

test('drain waits for open calls, answers those that still come, and leaves a sidecar that works', async () => {
  const { orders, billing } = await startPair()
  const reached = app.next()
  const open = beginCall('HTTP/1.1', orders.ports.outbound!).end()
  const [, response] = await reached
  let over = false
  const drain = beginDrain(billing.ports.admin!).finally(() => {
    over = true
  })
  await draining(billing)
  app.handler = (_request, response) => response.end('another')
  await answeredWhileDraining(orders)
  assert.equal(over, false)
  response.end('done')
  assert.equal((await open.whole()).text, 'done')
  const { status, stdout, stderr } = await drain
  assert.deepEqual([status, stderr], [0, ''])
  assert.match(stdout, /^The sidecar drains\. After \d+\.\d s no call is open at its inbound port\.\n$/)
  await answeredWhileDraining(orders)
  assert.equal(await billing.stop(), 0)
  const lines = billing.log.map((line) => JSON.parse(line)).filter(({ msg }) => /drain|stop/.test(msg))
  assert.deepEqual(
    lines.map(({ msg, asked, signal }) => [msg, asked ?? signal]),
    [
      ['draining', 'POST /drain'],
      ['draining', 'SIGTERM'],
      ['stopped', undefined],
    ],
  )
  assert.equal(await orders.stop(), 0)
})

test('drain waits no longer than DRAIN_SECONDS, and what is open goes on', async () => {
  const { orders, billing } = await startPair({ DRAIN_SECONDS: 1.5 })
  const reached = app.next()
  const open = beginCall('HTTP/1.1', orders.ports.outbound!).end()
  const [, response] = await reached
  const { status, stdout } = await beginDrain(billing.ports.admin!)
  assert.equal(status, 0)
  assert.match(
    stdout,
    /After [12]\.\d s its DRAIN_SECONDS are over, and 1 call is still open at its inbound port\.\n$/,
  )
  response.end('done')
  assert.equal((await open.whole()).text, 'done')
  await Promise.all([orders.stop(), billing.stop()])
})

test('drain waits at least as long as it is told, with nothing open', async () => {
  const { orders, billing } = await startPair()
  const { status, stdout } = await beginDrain(billing.ports.admin!, '--at-least', '2')
  const [, seconds] = /^The sidecar drains\. After (\d+\.\d) s no call is open/.exec(stdout)!
  assert.deepEqual([status, Number(seconds) >= 2], [0, true])
  for (const wrong of ['-1', 'soon', '1.5']) {
    const refused = await beginDrain(billing.ports.admin!, '--at-least', wrong)
    assert.equal(refused.status, 64)
    assert.match(refused.stderr, /'--at-least <SECONDS>'.*It must be whole seconds, such as 5\./)
  }
  await Promise.all([orders.stop(), billing.stop()])
})

test('drain says so when the sidecar is stopped meanwhile, and when there is none', async () => {
  const { orders, billing } = await startPair({ DRAIN_SECONDS: 3600 })
  const reached = app.next()
  const open = beginCall('HTTP/1.1', orders.ports.outbound!).end()
  await reached
  const drain = beginDrain(billing.ports.admin!)
  await draining(billing)
  assert.equal(await billing.stop('SIGKILL'), 'SIGKILL')
  const { status, stdout } = await drain
  assert.equal(status, 0)
  assert.match(stdout, /it stopped answering, and so has been stopped/)
  const none = await beginDrain(billing.ports.admin!)
  assert.deepEqual([none.status, none.stdout], [1, ''])
  assert.match(none.stderr, /^nothing answered on 127\.0\.0\.1 port \d+ \(connect ECONNREFUSED .*\)\n$/)
  assert.equal((await open.whole()).code, 'peer-unreachable')
  await orders.stop()
})

for (const leaving of ['orders', 'billing'] as const) {
  for (const protocol of APP_PROTOCOLS) {
    test(`a stream that outlasts DRAIN_SECONDS of ${leaving} is an error over ${protocol}, and no shorter stream`, async () => {
      const pair = await startPair({ DRAIN_SECONDS: 0.2 })
      const reached = app.next()
      // Neither a length nor an end is announced: only how the connection ends tells that something is missing.
      const stream = beginCall(protocol, pair.orders.ports.outbound!).end()
      const [, response] = await reached
      response.useChunkedEncodingByDefault = false
      response.removeHeader('transfer-encoding')
      response.write('begun')
      assert.equal((await stream.read())?.toString(), 'begun')
      const aborted = once(response, 'close')
      assert.equal(await pair[leaving].stop(), 0)
      await assert.rejects(stream.read())
      await aborted
      assert.equal(response.writableFinished, false)
      const [warning] = pair[leaving].log.filter((line) => line.includes('"warn"'))
      assert.match(warning!, /DRAIN_SECONDS are over: requests that are still open are reset/)
      await Promise.all([pair.orders.stop(), pair.billing.stop()])
    })
  }
}

test('a second signal ends it at once, with 1, and what is open is broken off, not ended', async () => {
  const { orders, billing } = await startPair({ DRAIN_SECONDS: 3600 })
  const reached = app.next()
  // An answer over HTTP/1.0 lasts until its connection ends.
  const client = new RawClient(orders.ports.outbound!).write('GET / HTTP/1.0\r\nHost: billing\r\n\r\n')
  const [, response] = await reached
  response.write('begun')
  await client.until(/begun$/)
  const stopped = orders.stop()
  await draining(orders)
  orders.stop()
  assert.equal(await client.ended, 'ECONNRESET')
  assert.equal(await stopped, 1)
  await billing.stop()
})

test('a signal that comes before the sidecar listens ends it with 0', async () => {
  const child = spawn(process.execPath, ['sidecar/main.ts'], {
    cwd: root,
    env: { PATH: process.env.PATH, CLIENT_ID_SECRET: SECRET, PORT: '0', OUTBOUND_PORT: '0', ADMIN_PORT: '0' },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const exit = once(child, 'exit')
  // Its first line is of the first port that listens: others, and what else it starts, are still to come.
  await once(child.stderr!, 'data')
  child.kill('SIGTERM')
  assert.deepEqual(await exit, [0, null])
})

for (const [how, place] of [
  ['away', unusedPort],
  ['silent', silentPort],
] as const) {
  test(`it starts and is ready with Redis, peer, app and collector ${how}, and says what it cannot do`, async () => {
    const at = async (scheme: string) => `${scheme}://127.0.0.1:${await place()}`
    const REDIS_URL = await at('redis')
    const sidecar = await startProcess({
      REDIS_URL,
      PEERS: `billing=${await at('http')}`,
      UPSTREAM: await at('http'),
      OTEL_EXPORTER_OTLP_ENDPOINT: await at('http'),
      // Longer than this test may take.
      CONNECT_TIMEOUT_SECONDS: 600,
    })
    const { status, text } = await readiness(sidecar)
    assert.deepEqual([status, JSON.parse(text).reasons], [200, []])
    assert.equal((await call(sidecar.ports.inbound!, { path: '/api/mte-echo' })).status, 200)
    assert.equal((await call(sidecar.ports.outbound!)).code, 'state-unavailable')
    const [degraded] = JSON.parse((await readiness(sidecar)).text).degraded
    assert.ok(degraded.startsWith(`Redis at ${REDIS_URL}: `), degraded)
    assert.equal(await sidecar.stop(), 0)
  })
}

/** A port of 127.0.0.1 at which a server takes connections, and never says a word. */
async function silentPort(): Promise<number> {
  const server = net.createServer((socket) => silent.push(socket))
  silent.push(server)
  return listen(server)
}

test.run()
