/**
 * The configurations that the documents of the MTE API Relay give as examples, unchanged: two sidecars run with them,
 * and talk to each other. Only where the addresses in them lead is another thing here.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type CallOptions, call } from './support/call.ts'
import { certificate } from './support/certificates.ts'
import { leads } from './support/leads.ts'
import { type SidecarProcess, startProcess } from './support/process.ts'
import { type RedisServer, startRedis } from './support/redis.ts'
import { listen, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { tell } from './support/tell.ts'

const test = suite("the original's variables")

const MINIMAL = `
UPSTREAM='https://api.my-company.com'
CLIENT_ID_SECRET='2DkV4DDabehO8cifDktdF9elKJL0CKrk'
OUTBOUND_TOKEN='abcdefg1234567'
`
const FULL = `
UPSTREAM='https://api.my-company.com'
CLIENT_ID_SECRET='2DkV4DDabehO8cifDktdF9elKJL0CKrk'
OUTBOUND_TOKEN='abcdefg1234567'
REDIS_URL='redis://10.0.1.230:6379'
PORT=3000
LOG_LEVEL='debug'
HEADERS='{"x-service-name":"mte-api-relay"}'
CORS_ORIGINS='https://www.my-company.com,https://dashboard.my-company.com'
CORS_METHODS='GET,POST,DELETE'
`
/** Ports of the examples: that of the full one, and the default; another where somebody else has that. */
const FULL_PORT = await portOr(3000)
const MINIMAL_PORT = await portOr(8080)
const [SECRET, TOKEN] = ['2DkV4DDabehO8cifDktdF9elKJL0CKrk', 'abcdefg1234567']
const TO_FULL = { 'x-mte-outbound-token': TOKEN, 'x-mte-upstream': `http://127.0.0.1:${FULL_PORT}` }
const TO_MINIMAL = { 'x-mte-outbound-token': TOKEN, 'x-mte-upstream': `http://127.0.0.1:${MINIMAL_PORT}` }

const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-original-'))
const { cert, key } = certificate('DNS:api.my-company.com')
const apps: https.Server[] = []
let redis: RedisServer
let full: SidecarProcess
let minimal: SidecarProcess

test.before(async () => {
  redis = await startRedis()
  const caFile = path.join(folder, 'ca.pem')
  writeFileSync(caFile, cert)
  const start = async (example: string, name: string, port: number) => {
    const own = variables(example)
    const app = `127.0.0.1:${await startApp(name)}`
    const to = { 'api.my-company.com:443': app, '10.0.1.230:6379': `127.0.0.1:${redis.port}` }
    // The two ports that the original does not have are free ones. An empty variable is as good as an unset one.
    return startProcess({
      PORT: '',
      ...own,
      ...(port === Number(own.PORT ?? 8080) ? {} : { PORT: String(port) }),
      CA_FILE: caFile,
      NODE_OPTIONS: leads(to),
    })
  }
  full = await start(FULL, 'behind the full example', FULL_PORT)
  minimal = await start(MINIMAL, 'behind the minimal example', MINIMAL_PORT)
})

test.after(async () => {
  assert.deepEqual(await Promise.all([full?.stop(), minimal?.stop()]), [0, 0])
  await redis?.stop()
  for (const app of apps) app.close()
  rmSync(folder, { recursive: true })
})

test('PORT is where it listens, 8080 unless it is set', () => {
  assert.deepEqual([full.ports.inbound, minimal.ports.inbound], [FULL_PORT, MINIMAL_PORT])
})

test('each calls the UPSTREAM of the other, for whoever shows OUTBOUND_TOKEN', async () => {
  const options: CallOptions = { method: 'POST', path: '/orders?id=1', body: 'an order' }
  const there = await call(MINIMAL_PORT, { ...options, headers: TO_FULL })
  assert.deepEqual([there.status, JSON.parse(there.text).app], [200, 'behind the full example'])
  const back = await call(FULL_PORT, { ...options, headers: TO_MINIMAL })
  assert.deepEqual([back.status, JSON.parse(back.text).app], [200, 'behind the minimal example'])
  for (const { text } of [there, back]) {
    const { method, url, body, headers } = JSON.parse(text)
    assert.deepEqual([method, url, body], ['POST', '/orders?id=1', 'an order'])
    assert.ok(!JSON.stringify(headers).includes('x-mte-'))
  }
})

test('without OUTBOUND_TOKEN nobody gets through, neither encoded nor in plain', async () => {
  const wrong = await call(MINIMAL_PORT, {
    headers: { ...TO_FULL, 'x-mte-outbound-token': 'abcdefg1234568' },
  })
  assert.deepEqual([wrong.status, wrong.code], [401, 'token-wrong'])
  const { 'x-mte-upstream': upstream } = TO_FULL
  const none = await call(MINIMAL_PORT, { headers: { 'x-mte-upstream': upstream } })
  assert.deepEqual([none.status, none.code], [404, 'not-found'])
  assert.equal((await call(FULL_PORT, { path: '/orders' })).status, 404)
})

test('HEADERS are added to requests to UPSTREAM and to its answers', async () => {
  const there = await call(MINIMAL_PORT, { headers: TO_FULL })
  assert.equal(there.headers['x-service-name'], 'mte-api-relay')
  assert.equal(JSON.parse(there.text).headers['x-service-name'], 'mte-api-relay')
  const back = await call(FULL_PORT, { headers: TO_MINIMAL })
  assert.equal(back.headers['x-service-name'], undefined)
  assert.equal(JSON.parse(back.text).headers['x-service-name'], undefined)
})

test('REDIS_URL is where the pairs are', async () => {
  await call(MINIMAL_PORT, { headers: TO_FULL })
  const keys = (await redis.cli('KEYS', '*')) as string[]
  assert.ok(keys.length > 0)
  for (const name of keys) assert.match(name, /^mte:/)
})

const preflight = (origin: string) =>
  call(FULL_PORT, {
    method: 'OPTIONS',
    path: '/orders',
    headers: { ...TO_MINIMAL, origin, 'access-control-request-method': 'DELETE' },
  })

test('CORS_ORIGINS may call from a browser, with CORS_METHODS', async () => {
  for (const origin of ['https://www.my-company.com', 'https://dashboard.my-company.com']) {
    const { status, headers } = await preflight(origin)
    assert.deepEqual([status, headers['access-control-allow-origin']], [200, origin])
    assert.equal(headers['access-control-allow-methods'], 'GET, POST, DELETE')
    const answer = await call(FULL_PORT, { headers: { ...TO_MINIMAL, origin } })
    assert.deepEqual([answer.status, answer.headers['access-control-allow-origin']], [200, origin])
  }
})

test('no other origin may', async () => {
  for (const origin of ['https://www.my-company.com.evil.example', 'http://www.my-company.com', 'null']) {
    const { headers } = await preflight(origin)
    assert.equal(headers['access-control-allow-origin'], undefined, origin)
    assert.equal(headers['access-control-allow-methods'], undefined, origin)
    const answer = await call(FULL_PORT, { headers: { ...TO_MINIMAL, origin } })
    assert.equal(answer.headers['access-control-allow-origin'], undefined, origin)
  }
})

test("the documents' curl lines are answered as they say", async () => {
  for (const port of [FULL_PORT, MINIMAL_PORT]) {
    for (const [route, expected] of [
      ['/api/mte-echo', 'pong'],
      ['/api/mte-echo?msg=test', 'test'],
    ] as const) {
      const answer = await call(port, { path: route, headers: { host: `localhost:${port}` } })
      assert.equal(answer.status, 200)
      const { message, timestamp, ...rest } = JSON.parse(answer.text)
      assert.deepEqual([message, rest], [expected, {}])
      assert.match(timestamp, /^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    }
  }
})

test('LOG_LEVEL=debug logs every call, and neither secrets nor what is in it', async () => {
  const planted = 'planted-in-a-call'
  const headers = { ...TO_FULL, 'x-planted': planted }
  // A method that no other call here has tells its line from theirs.
  await call(MINIMAL_PORT, { method: 'PUT', path: `/${planted}`, headers, body: planted })
  const told = ({ log }: SidecarProcess) => log.some((line) => JSON.parse(line).method === 'PUT')
  while (!told(full)) await nextTurn()
  assert.ok(!told(minimal))
  for (const secret of [SECRET, TOKEN, planted]) assert.ok(!full.log.join().includes(secret))
})

/** The variables that a shell makes of the lines. */
function variables(lines: string): Record<string, string> {
  const text = execFileSync('/bin/sh', ['-c', `set -a\n${lines}\nexec /usr/bin/env -0`], {
    env: {},
  }).toString()
  const pairs = text.split('\0').filter((line) => line !== '')
  const all = pairs.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])
  // What the shell sets by itself is in none of the lines.
  return Object.fromEntries(all.filter(([name]) => lines.includes(`\n${name}=`)))
}

/** Starts an app over TLS that answers with what it got, and its name. */
function startApp(name: string): Promise<number> {
  const app = https.createServer({ cert, key }, async (request, response) => {
    let body = ''
    for await (const piece of request.setEncoding('utf8')) body += piece
    const { method, url, headers } = request
    response.end(JSON.stringify({ app: name, method, url, headers, body }))
  })
  apps.push(app)
  return listen(app)
}

/** The port, or an unused one, and that is told, where somebody listens there. */
async function portOr(port: number): Promise<number> {
  const server = net.createServer()
  const isFree = await new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(port, () => server.close(() => resolve(true)))
  })
  if (isFree) return port
  const other = await unusedPort()
  tell(`port ${port}, which the documents of the original name, is taken: ${other} takes its place here`)
  return other
}

test.run()
