/** `mte-sidecar pairs`, as its users run it. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import path from 'node:path'
import { call } from './support/call.ts'
import { by } from './support/carriage.ts'
import {
  listen,
  type Pair,
  type Server,
  startPair,
  startServer,
  startSidecar,
  unusedPort,
} from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('pairs command')

const root = path.dirname(import.meta.dirname)

let pair: Pair

test.before(async () => {
  pair = await startPair((_request, response) => response.end('done'))
})

test.after(() => pair.close())

interface Outcome {
  status: number
  stdout: string
  stderr: string
}

/** Runs it beside what listens on this port of 127.0.0.1. */
async function pairs(adminPort: number, ...args: string[]): Promise<Outcome> {
  const coverage = process.env.NODE_V8_COVERAGE
  const env = { ADMIN_PORT: String(adminPort), ...(coverage ? { NODE_V8_COVERAGE: coverage } : {}) }
  const child = spawn(process.execPath, ['sidecar/main.ts', 'pairs', ...args], { cwd: root, env })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (text) => (output.stdout += text))
  child.stderr.on('data', (text) => (output.stderr += text))
  const [status] = await once(child, 'close')
  return { status, ...output }
}

const orders = (...args: string[]) => pairs(pair.orders.port('admin'), ...args)
const billing = (...args: string[]) => pairs(pair.billing.port('admin'), ...args)

/** Makes a pair between both, if there is none. */
const callBilling = () => call(pair.orders.port('outbound'))

/** Something that answers every request with this. */
function startAnswering(status: number, body: string): Promise<Server> {
  return startServer((_request, response) => response.writeHead(status).end(body))
}

test('with no pairs it says so', async () => {
  const lonely = await startSidecar({})
  assert.deepEqual(await pairs(lonely.port('admin')), {
    status: 0,
    stdout: 'There are no pairs: the first call to or from a peer makes one.\n',
    stderr: '',
  })
  assert.equal((await pairs(lonely.port('admin'), '--json')).stdout, '[]\n')
  await lonely.close()
})

test('it prints a line for each pair, and as JSON what the sidecar says', async () => {
  await callBilling()
  const tunnels = by({ message: 0, tunnel: 1 })
  const { status, stdout, stderr } = await orders()
  assert.deepEqual([status, stderr], [0, ''])
  const [head, line, ...rest] = stdout.split('\n')
  assert.match(head!, /^PEER +ROLE +SECRET +AGE +MESSAGES +BLOCK +TUNNELS$/)
  assert.match(
    line!,
    new RegExp(`^${pair.billing.url}  initiator  current  [0-9]+ s +[0-9]+ +[0-9]+ +${tunnels}$`),
  )
  assert.equal(head!.indexOf('ROLE'), line!.indexOf('initiator'))
  assert.deepEqual(rest, [''])
  const [{ ageMs, ...others }, ...more] = JSON.parse((await billing('--json')).stdout)
  assert.ok(ageMs >= 0)
  const responded = { role: 'responder', peer: 'orders', secret: 'current', block: 0, messages: 1, tunnels }
  assert.deepEqual(others, responded)
  assert.deepEqual(more, [])
})

test('ages are in the unit that says enough', async () => {
  const ages: [ms: number, told: string][] = [
    [0, '0 s'],
    [59_999, '59 s'],
    [60_000, '1 min'],
    [3_599_999, '59 min'],
    [3_600_000, '1 h'],
    [10_000_000, '2 h'],
  ]
  const rest = { role: 'initiator', peer: 'http://p', secret: 'previous', block: 7, messages: 8, tunnels: 9 }
  const list = ages.map(([ageMs]) => ({ ...rest, ageMs }))
  const server = await startAnswering(200, JSON.stringify(list))
  const [, ...lines] = (await pairs(server.port)).stdout.trimEnd().split('\n')
  await server.close()
  assert.deepEqual(
    lines.map((line) => line.split(/ {2,}/)),
    ages.map(([, told]) => ['http://p', 'initiator', 'previous', told, '8', '7', '9']),
  )
})

test('a name that would move the terminal is escaped, and is no other JSON', async () => {
  const peer = 'bad\u001b[2J\u009b\u202e\n\u{e0001}name'
  const escaped = 'bad\\u001b[2J\\u009b\\u202e\\u000a\\udb40\\udc01name'
  const list = [{ role: 'responder', peer, secret: 'current', ageMs: 0, block: 0, messages: 1, tunnels: 0 }]
  const server = await startAnswering(200, JSON.stringify(list))
  const [table, json, dropped] = await Promise.all([
    pairs(server.port),
    pairs(server.port, '--json'),
    pairs(server.port, 'drop', peer),
  ])
  await server.close()
  assert.equal(table.stdout.split('\n')[1], `${escaped}  responder  current  0 s  1         0      0`)
  assert.ok(!/[^\x20-\x7e\n]/.test(json.stdout), json.stdout)
  assert.deepEqual(JSON.parse(json.stdout), list)
  // It answers with a list here, too.
  assert.equal(dropped.status, 1)
  const gone = await orders('drop', peer)
  assert.equal(
    gone.stderr,
    `there was no pair with ${escaped}: mte-sidecar pairs lists those that there are\n`,
  )
})

test('drop has the sidecar forget the pairs with a peer, once', async () => {
  await callBilling()
  const { host } = new URL(pair.billing.url)
  assert.deepEqual(await orders('drop', `HTTP://${host}/`), {
    status: 0,
    stdout: `Dropped 1 pair with ${pair.billing.url}.\n`,
    stderr: '',
  })
  assert.match((await orders()).stdout, /^There are no pairs/)
  const again = await orders('drop', pair.billing.url)
  assert.deepEqual(again, {
    status: 1,
    stdout: '',
    stderr: `there was no pair with ${pair.billing.url}: mte-sidecar pairs lists those that there are\n`,
  })
  await callBilling()
  const count = JSON.parse((await billing('--json')).stdout).length
  assert.ok(count > 1)
  assert.equal((await billing('drop', 'orders')).stdout, `Dropped ${count} pairs with orders.\n`)
  assert.match((await billing()).stdout, /^There are no pairs/)
})

test('a command line that is wrong is told with the status 64, and nothing is dropped', async () => {
  await callBilling()
  for (const [args, why] of [
    [['drop'], /^error: missing required argument 'PEER'/],
    [['drop', 'a', 'b'], /too many arguments/],
    [['dorp', 'a'], /too many arguments/],
    [['drop', 'http://me:hush@peer'], /^error: PEER must be without user name and password\n/],
    [['drop', 'http://'], /^error: PEER must have the form http:\/\/host:port/],
  ] as const) {
    const { status, stdout, stderr } = await orders(...args)
    assert.deepEqual([status, stdout], [64, ''])
    assert.match(stderr, why)
    assert.ok(!stderr.includes('hush'))
  }
  const { status, stderr } = await orders('drop', '')
  assert.equal(status, 1)
  assert.match(stderr, /one peer as GET \/pairs does/)
  assert.equal(JSON.parse((await orders('--json')).stdout).length, 1)
})

test('a sidecar whose Redis is away says why there is no answer', async () => {
  const redisUrl = `redis://127.0.0.1:${await unusedPort()}`
  const away = await startSidecar({ REDIS_URL: redisUrl })
  for (const args of [[], ['drop', 'orders']]) {
    const { status, stdout, stderr } = await pairs(away.port('admin'), ...args)
    assert.deepEqual([status, stdout], [1, ''])
    assert.match(stderr, new RegExp(`answered with status 503: Redis at ${redisUrl}: .*is it running`))
  }
  await away.close()
})

test('nothing that answers, and what is no sidecar, are told with the status 1', async () => {
  const silent = net.createServer()
  const silentPort = await listen(silent)
  const halting = await startServer((_request, response) => response.writeHead(200).write('['))
  const page = await startAnswering(200, '<html>hello</html>')
  const missing = await startAnswering(404, 'not here')
  for (const args of [[], ['--json'], ['drop', 'orders']]) {
    for (const [port, why] of [
      [await unusedPort(), /^nothing answered on 127\.0\.0\.1 port [0-9]+ \(.*ECONNREFUSED.*\)\n$/],
      [0, /^ADMIN_PORT is 0/],
      [page.port, /^what answered on 127\.0\.0\.1 port [0-9]+ is no mte-sidecar.*ADMIN_HOST and ADMIN_PORT/],
      [missing.port, /^\/pairs on 127\.0\.0\.1 port [0-9]+ answered with status 404\n$/],
    ] as const) {
      const { status, stdout, stderr } = await pairs(port, ...args)
      assert.deepEqual([status, stdout], [1, ''])
      assert.match(stderr, why)
    }
  }
  for (const { status, stderr } of await Promise.all([pairs(silentPort), pairs(halting.port)])) {
    assert.equal(status, 1)
    assert.match(stderr, /^nothing answered .* within 2 s\n$/)
  }
  for (const server of [halting, page, missing]) await server.close()
  silent.close()
})

test.run()
