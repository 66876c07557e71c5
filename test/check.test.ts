/** `mte-sidecar check`, as its users run it. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import path from 'node:path'
import { startMiddle } from './support/middle.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { listen, SECRET, type Sidecar, startSidecar, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('check')

const root = path.dirname(import.meta.dirname)

let app: Recorder
let billing: Sidecar
let UPSTREAM: string

test.before(async () => {
  app = await startRecorder((_seen, response) => response.writeHead(404).end('no page here'))
  UPSTREAM = `http://127.0.0.1:${app.port}`
  billing = await startSidecar({ NAME: 'billing', UPSTREAM })
})

test.after(async () => {
  await billing.close()
  await app.close()
})

async function check(
  env: Record<string, string>,
  ...urls: string[]
): Promise<{ status: number; lines: string[] }> {
  const coverage = process.env.NODE_V8_COVERAGE
  const variables = { CLIENT_ID_SECRET: SECRET, ...(coverage ? { NODE_V8_COVERAGE: coverage } : {}), ...env }
  const child = spawn(process.execPath, ['sidecar/main.ts', 'check', ...urls], { cwd: root, env: variables })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text))
  const [status] = await once(child, 'close')
  assert.ok(!output.includes(SECRET))
  return { status, lines: output.trimEnd().split('\n') }
}

test('all that is well is said to be, with the status 0', async () => {
  const { status, lines } = await check({ UPSTREAM, PEERS: `billing=${billing.url}` })
  assert.deepEqual(lines, [
    'ok    The configuration can be read.',
    `ok    The app at ${UPSTREAM} answers (status 404 to HEAD /).`,
    `ok    The peer at ${billing.url} has paired with us.`,
  ])
  assert.equal(status, 0)
})

test('what is not configured is said, and is no fault', async () => {
  const { status, lines } = await check({})
  assert.match(lines[1]!, /^-- {4}UPSTREAM is not set: this sidecar is for outbound calls only/)
  assert.match(lines[2]!, /^-- {4}PEERS names no peer/)
  assert.deepEqual([status, lines.length], [0, 3])
})

test('peers on the command line are tried too, each once; a pattern of PEERS needs one', async () => {
  const { status, lines } = await check({ PEERS: 'b=http://127.0.0.1:{port}' }, billing.url, billing.url)
  assert.equal(
    lines.filter((line) => line === `ok    The peer at ${billing.url} has paired with us.`).length,
    1,
  )
  assert.ok(lines.some((line) => /^-- {4}PEERS has .* stands for many: name one of them/.test(line)))
  assert.equal(status, 0)
})

/** Asserts what is said of the only thing that is wrong. */
async function finds(env: Record<string, string>, what: RegExp, advice: RegExp): Promise<void> {
  const { status, lines } = await check({ CONNECT_TIMEOUT_SECONDS: '0.5', ...env })
  const failures = lines.filter((line) => line.startsWith('FAIL'))
  assert.equal(failures.length, 1, lines.join('\n'))
  assert.match(failures[0]!, what)
  assert.match(lines[lines.indexOf(failures[0]!) + 1]!, advice)
  assert.equal(status, 1)
}

test('an app that is down is named', async () => {
  const down = `http://127.0.0.1:${await unusedPort()}`
  await finds(
    { UPSTREAM: down },
    new RegExp(`The app at ${down} does not answer: could not connect`),
    /Is it running.*UPSTREAM/,
  )
})

test('a Redis that is down is named without its password, and the peers are still tried', async () => {
  const place = `127.0.0.1:${await unusedPort()}`
  const { status, lines } = await check({
    REDIS_URL: `redis://app:hush@${place}`,
    NAME: 'orders',
    PEERS: `billing=${billing.url}`,
  })
  const at = lines.findIndex((line) => line.startsWith('FAIL'))
  assert.match(lines[at]!, new RegExp(`^FAIL  Redis at redis://${place}: .*[^.]\\.$`))
  assert.equal(lines[at + 1], '      Is it running, and does REDIS_URL say where?')
  assert.ok(lines.includes(`ok    The peer at ${billing.url} has paired with us.`))
  assert.ok(!lines.join().includes('hush'))
  assert.equal(status, 1)
})

test('a peer that is down is named, and what works is still said to work', async () => {
  const down = `http://127.0.0.1:${await unusedPort()}`
  const PEERS = `down=${down},billing=${billing.url}`
  await finds(
    { PEERS },
    new RegExp(`The peer's sidecar at ${down} did not answer: could not connect`),
    /running.*PORT/,
  )
  const { lines } = await check({ PEERS })
  assert.ok(lines.includes(`ok    The peer at ${billing.url} has paired with us.`))
})

test('a peer that says nothing is named within the time-out', async () => {
  const sockets: net.Socket[] = []
  const silent = net.createServer((socket) => sockets.push(socket))
  const PEERS = `silent=http://127.0.0.1:${await listen(silent)}`
  await finds({ PEERS }, /no connection within CONNECT_TIMEOUT_SECONDS/, /running/)
  for (const socket of sockets) socket.destroy()
  silent.close()
})

test('an app in place of a sidecar is named', async () => {
  await finds(
    { PEERS: `app=${UPSTREAM}` },
    new RegExp(`${UPSTREAM}: .*no relay.*404`),
    /that of the peer's sidecar \(its PORT\), not of its app/,
  )
})

test('a port that speaks no HTTP is named', async () => {
  const server = net.createServer((socket) => socket.resume().end('SSH-2.0-OpenSSH_9.2\r\n'))
  const peer = `http://127.0.0.1:${await listen(server)}`
  await finds({ PEERS: `ssh=${peer}` }, new RegExp(`${peer} speaks no HTTP`), /its PORT/)
  server.close()
})

test('another secret is named, and shown on neither side', async () => {
  const other = 'another secret for tests, long enough'
  const stranger = await startSidecar({ NAME: 'stranger', CLIENT_ID_SECRET: other })
  await finds(
    { PEERS: `stranger=${stranger.url}` },
    new RegExp(`${stranger.url}: .*CLIENT_ID_SECRET`),
    /both sidecars the same CLIENT_ID_SECRET/,
  )
  await stranger.close()
})

test('somebody in between who refuses is named with the status', async () => {
  const middle = await startMiddle(billing.port('inbound'))
  middle.onPairing = async () => ({ status: 429, body: Buffer.from('slow down') })
  await finds({ PEERS: `billing=${middle.url}` }, /429/, /PORT/)
  await middle.close()
})

test('a configuration that cannot be read is told as mistakes, with the status 78', async () => {
  const { status, lines } = await check({ CLIENT_ID_SECRET: 'short', UPSTREAM: 'nonsense' })
  assert.equal(status, 78)
  assert.deepEqual(
    lines.map((line) => line.split(':')[0]),
    ['UPSTREAM', 'CLIENT_ID_SECRET'],
  )
  assert.ok(!lines.join().includes('nonsense'))
})

test.run()
