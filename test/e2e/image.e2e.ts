/** The image, built from the Dockerfile and run by a real engine as users run it. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { call } from '../support/call.ts'
import { type Docker, startDocker } from '../support/docker.ts'
import { SECRET } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import { tell } from '../support/tell.ts'

const test = suite('image')
const root = path.join(import.meta.dirname, '../..')
const IMAGE = 'mte-sidecar:0.1.0'
const APP_IMAGE = 'node:24-alpine'
const NETWORK = 'mte-e2e'
const TOKEN = 'abcdefg1234567'
const CONFINED = ['--cap-drop=ALL', '--read-only', '--user=65532', '--security-opt=no-new-privileges']
const BUILD_DEADLINE_MS = 5 * 60_000
const POLL_MS = 100
const MIB = 1024 * 1024

/** Answers with what it was asked; `/held` has begun to answer, and goes on when somebody asks for `/release`. */
const APP = `
  let release
  require('node:http').createServer((request, response) => {
    if (request.url === '/held') {
      response.write('begun, ')
      release = () => response.end('and ended')
    } else if (request.url === '/release') {
      release()
      response.end()
    } else request.pipe(response)
  }).listen(9000)`

let docker: Docker
const containers: string[] = []

test.before(async () => {
  docker = await startDocker()
}, BUILD_DEADLINE_MS)
test.after(async () => {
  if (containers.length > 0) await docker.run('rm', '--force', '--volumes', ...containers)
  await docker.run('network', 'rm', NETWORK)
  await docker.stop()
}, BUILD_DEADLINE_MS)

/** Starts a container in the network of these tests, where others find it by its name. */
async function start(name: string, image: string, options: string[], command: string[] = []): Promise<void> {
  const named = [`--name=${NETWORK}-${name}`, `--network-alias=${name}`, `--network=${NETWORK}`]
  containers.push(`${NETWORK}-${name}`)
  await docker.run('run', '--detach', ...named, ...options, image, ...command)
}

const variables = (values: Record<string, string>) =>
  Object.entries(values).map(([name, value]) => `--env=${name}=${value}`)

/** Starts a sidecar as users of the original start theirs: with its port, and three variables. */
async function startSidecar(name: string, options: string[] = []): Promise<number> {
  const given = { UPSTREAM: 'http://app:9000', CLIENT_ID_SECRET: SECRET, OUTBOUND_TOKEN: TOKEN }
  await start(name, IMAGE, [
    '--publish=127.0.0.1::8080',
    '--health-interval=1s',
    ...variables(given),
    ...options,
  ])
  await until(name, 'healthy')
  return publishedPort(name, 8080)
}

async function publishedPort(name: string, port: number): Promise<number> {
  return Number((await docker.run('port', `${NETWORK}-${name}`, `${port}/tcp`)).split(':').at(-1))
}

/** Waits until its health check says so: the test's deadline bounds it. */
async function until(name: string, health: 'healthy'): Promise<void> {
  for (;;) {
    const state = await inspect<{ Status: string; Health: { Status: string } }>(
      `${NETWORK}-${name}`,
      '.State',
    )
    if (state.Health.Status === health) return
    if (state.Status === 'exited')
      throw new Error(await docker.shell(`docker logs ${NETWORK}-${name} 2>&1`, root))
    await sleep(POLL_MS)
  }
}

async function inspect<T>(what: string, part: string): Promise<T> {
  return JSON.parse(await docker.run('inspect', `--format={{json ${part}}}`, what))
}

/** Calls billing's app through the sidecar of orders, and billing's. */
function callBilling(port: number, body: string): ReturnType<typeof call> {
  const headers = { 'x-mte-outbound-token': TOKEN, 'x-mte-upstream': 'http://billing:8080' }
  return call(port, { method: 'POST', path: '/charges', headers, body })
}

/** Begins a call that the app does not answer to its end; resolves when the first of it is here. */
function hold(port: number): Promise<http.IncomingMessage> {
  const headers = { 'x-mte-outbound-token': TOKEN, 'x-mte-upstream': 'http://billing:8080' }
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: '/held', headers, agent: false }
    http.get(options, (answer) => answer.once('readable', () => resolve(answer))).once('error', reject)
  })
}

test(
  'builds with no more than docker build',
  async () => {
    await docker.run('build', '--tag', IMAGE, root)
    await docker.run('network', 'create', NETWORK)
  },
  BUILD_DEADLINE_MS,
)

test('says what it is, and starts as a user without a name or rights', async () => {
  const { version, description } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
  const config = await inspect<Record<string, unknown>>(IMAGE, '.Config')
  assert.equal(config.User, '65532:65532')
  assert.deepEqual(config.Entrypoint, ['mte-sidecar'])
  assert.deepEqual(Object.keys(config.ExposedPorts as object), ['8080/tcp'])
  const labels = config.Labels as Record<string, string>
  assert.equal(labels['org.opencontainers.image.version'], version)
  assert.equal(labels['org.opencontainers.image.description'], description)
})

test('holds the program and what it needs to run, and neither a shell nor npm', async () => {
  const id = await docker.run('create', IMAGE)
  containers.push(id)
  const names = (await docker.shell(`docker export ${id} | tar --list`, root)).split('\n')
  const ours = names.filter((name) => /^app\/[^/]+\/?$/.test(name)).sort()
  assert.deepEqual(ours, ['app/LICENSE', 'app/dist/', 'app/node_modules/', 'app/package.json'])
  const developing = /^app\/(?:dist\/test|node_modules\/(?:node|typescript|uvu)\/|.+\.(?:ts|map)$)/
  assert.deepEqual(
    names.filter((name) => developing.test(name)),
    [],
  )
  const programs = names.filter((name) => /(?:^|\/)(?:sh|bash|dash|busybox|npm|npx|apt-get)$/.test(name))
  assert.deepEqual(programs, [])
})

test('has no layer with more than its bases and its own files, and weighs what it says', async () => {
  const history = await docker.run(
    'history',
    '--no-trunc',
    '--human=false',
    '--format={{.Size}} {{.CreatedBy}}',
    IMAGE,
  )
  const layers = history.split('\n').map((line) => ({ bytes: Number.parseInt(line, 10), line }))
  const ours = layers.filter(({ line }) => line.includes('COPY'))
  assert.equal(ours.length, 1)
  assert.doesNotMatch(history, /secret|token/i)
  const bytes = layers.reduce((sum, layer) => sum + layer.bytes, 0)
  const own = ours[0]!.bytes
  tell(`image: ${(bytes / MIB).toFixed(0)} MiB, of which ${(own / MIB).toFixed(0)} MiB are ours`)
  assert.ok(own < 50 * MIB, `${own} bytes`)
})

let orders: number

test('carries calls, run as the original is run, and confined', async () => {
  await start('app', APP_IMAGE, ['--publish=127.0.0.1::9000'], ['node', '--eval', APP])
  await startSidecar('billing', CONFINED)
  orders = await startSidecar('orders')
  const echo = await call(orders, { path: '/api/mte-echo?msg=test' })
  assert.equal(JSON.parse(echo.text).message, 'test')
  for (const body of ['first', 'second']) {
    const answer = await callBilling(orders, body)
    assert.deepEqual([answer.status, answer.text], [200, body])
  }
  const direct = await call(await publishedPort('billing', 8080), { path: '/charges' })
  assert.equal(direct.code, 'not-found')
})

test('writes nothing', async () => {
  assert.equal(await docker.run('diff', `${NETWORK}-orders`), '')
})

test('has all commands', async () => {
  const keys = await docker.run('run', '--rm', ...CONFINED, '--network=none', IMAGE, 'keygen')
  assert.match(keys, /^CLIENT_ID_SECRET=\S{32,}\nOUTBOUND_TOKEN=\S{32,}$/)
  const inOrders = (...words: string[]) => docker.run('exec', `${NETWORK}-orders`, 'mte-sidecar', ...words)
  assert.match(await inOrders('pairs'), /http:\/\/billing:8080/)
  assert.match(await inOrders('check', 'http://billing:8080'), /http:\/\/billing:8080/)
  await assert.rejects(docker.run('run', '--rm', IMAGE, 'healthcheck'), /nothing answered/)
  await assert.rejects(docker.run('run', '--rm', IMAGE), /CLIENT_ID_SECRET: is required/)
})

test('leaves no zombie behind, however often its health is asked', async () => {
  const ask = () => docker.run('exec', `${NETWORK}-billing`, 'mte-sidecar', 'healthcheck')
  for (let i = 0; i < 5; i++) await Promise.all(Array.from({ length: 4 }, ask))
  const processes = (await docker.run('top', `${NETWORK}-billing`, '-eo', 'pid,stat,args'))
    .split('\n')
    .slice(1)
  const left = processes.filter((line) => !line.includes('healthcheck'))
  assert.equal(left.length, 1, processes.join('\n'))
  assert.doesNotMatch(processes.join('\n'), /^\d+ +Z/m)
})

test('tells how much memory it takes', async () => {
  for (let i = 0; i < 500; i++) await callBilling(orders, 'again')
  const stats = await docker.run('stats', '--no-stream', '--format={{.MemUsage}}', `${NETWORK}-billing`)
  const [used = ''] = stats.split(' / ')
  tell(`container after 500 calls: ${used}`)
  const [, number, unit] = /^([\d.]+)(\w)iB$/.exec(used)!
  assert.ok(unit === 'M' && Number(number) < 200, used)
})

test('drains when it is asked to, and leaves with 0 when it is then stopped', async () => {
  assert.match(await docker.run('exec', `${NETWORK}-orders`, 'mte-sidecar', 'drain'), /drains/)
  const answer = await callBilling(orders, 'last')
  assert.deepEqual([answer.text, answer.headers.connection], ['last', 'close'])
  await docker.run('stop', '--time=10', `${NETWORK}-orders`)
  assert.equal(await inspect(`${NETWORK}-orders`, '.State.ExitCode'), 0)
  await docker.run('start', `${NETWORK}-orders`)
  await until('orders', 'healthy')
  orders = await publishedPort('orders', 8080)
})

test('answers what it has begun when it is told to stop, and leaves with 0', async () => {
  const held = await hold(orders)
  const left = docker.run('wait', `${NETWORK}-billing`)
  await docker.run('kill', '--signal=TERM', `${NETWORK}-billing`)
  await call(await publishedPort('app', 9000), { path: '/release' })
  let text = ''
  for await (const piece of held.setEncoding('utf8')) text += piece
  assert.equal(text, 'begun, and ended')
  assert.equal(await left, '0')
})

test('leaves at once when it is told to stop twice', async () => {
  await docker.run('start', `${NETWORK}-billing`)
  await until('billing', 'healthy')
  const held = await hold(orders)
  const cut = assert.rejects(held.toArray())
  const left = docker.run('wait', `${NETWORK}-billing`)
  for (let i = 0; i < 2; i++) await docker.run('kill', '--signal=TERM', `${NETWORK}-billing`)
  assert.equal(await left, '1')
  await cut
})

test.run()
