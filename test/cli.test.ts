import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { parseEnv } from 'node:util'
import { VARIABLES } from '../sidecar/variables.ts'
import { suite } from './support/suite.ts'

const test = suite('command line')
const root = path.dirname(import.meta.dirname)
const SECRET = '2DkV4DDabehO8cifDktdF9elKJL0CKrk'
const FREE_PORTS = { PORT: '0', OUTBOUND_PORT: '0', ADMIN_PORT: '0' }

const started: ChildProcessWithoutNullStreams[] = []
test.after(() => {
  for (const child of started) child.kill('SIGKILL')
})

interface Options {
  /** all of its environment */
  env?: Record<string, string>
  program?: string[]
}

function start(
  args: string[],
  { env = {}, program = ['sidecar/main.ts'] }: Options = {},
): ChildProcessWithoutNullStreams {
  const coverage = process.env.NODE_V8_COVERAGE
  const child = spawn(process.execPath, [...program, ...args], {
    cwd: root,
    env: { ...env, ...(coverage ? { NODE_V8_COVERAGE: coverage } : {}) },
  })
  started.push(child)
  return child
}

async function run(
  args: string[],
  options: Options = {},
): Promise<{ status: number; stdout: string; stderr: string }> {
  const child = start(args, options)
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (text) => (output.stdout += text))
  child.stderr.on('data', (text) => (output.stderr += text))
  const [status] = await once(child, 'close')
  return { status, ...output }
}

/** Starts a sidecar on free ports, and waits until it listens on all of them. */
async function startSidecar(env: Record<string, string> = {}) {
  const child = start([], { env: { CLIENT_ID_SECRET: SECRET, ...FREE_PORTS, ...env } })
  const exit = once(child, 'exit')
  const lines = createInterface({ input: child.stderr })[Symbol.asyncIterator]()
  const nextLine = async (): Promise<Record<string, unknown>> =>
    JSON.parse((await lines.next()).value ?? '{}')
  const log: Record<string, unknown>[] = []
  const ports = new Map<unknown, number>()
  while (ports.size < 3) {
    const entry = await nextLine()
    assert.notEqual(entry.msg, undefined, `the sidecar did not start: ${JSON.stringify(log)}`)
    log.push(entry)
    if (entry.msg === 'listening') ports.set(entry.role, Number(entry.port))
  }
  return { child, exit, log, ports, nextLine }
}

/** A sidecar with a call that the app behind it never answers; `reset` gives the error that the caller gets. */
async function startWithOpenCall(env: Record<string, string> = {}) {
  const app = http.createServer().listen(0, '127.0.0.1')
  await once(app, 'listening')
  const host = `127.0.0.1:${(app.address() as AddressInfo).port}`
  const sidecar = await startSidecar({ PASS_THROUGH_HOSTS: host, ...env })
  const call = http.get({ port: sidecar.ports.get('outbound'), headers: { host }, agent: false })
  const reset = new Promise((resolve) => call.on('error', resolve))
  await once(app, 'request')
  app.close()
  return { ...sidecar, reset }
}

test('help is for whoever has never seen it: commands, examples, exit statuses', async () => {
  const { status, stdout, stderr } = await run(['--help'])
  assert.equal(status, 0)
  assert.equal(stderr, '')
  for (const command of [
    'run',
    'demo',
    'keygen',
    'check [URL...]',
    'healthcheck',
    'drain',
    'pairs [options]',
  ])
    assert.ok(stdout.includes(`\n  ${command} `))
  assert.match(stdout, /mte-sidecar keygen >> \.env/)
})

test('each command has a help with an example', async () => {
  for (const command of ['run', 'demo', 'keygen', 'check', 'healthcheck', 'drain', 'pairs', 'pairs drop']) {
    const { status, stdout } = await run([...command.split(' '), '--help'])
    assert.equal(status, 0)
    assert.match(stdout, new RegExp(`^Usage: mte-sidecar ${command}[^]*Example[^]*mte-sidecar`))
  }
})

test('the help of run tells every variable with its default', async () => {
  const { stdout } = await run(['run', '--help'])
  const text = stdout.replace(/\s+/g, ' ')
  for (const [name, { doc, default: value }] of Object.entries(VARIABLES)) {
    assert.ok(text.includes(` ${name} ${doc}${value === null ? '' : ` (default: ${value})`}`), name)
  }
})

test("the version is the package's", async () => {
  const {
    default: { version },
  } = await import('../package.json', { with: { type: 'json' } })
  assert.deepEqual(await run(['--version']), { status: 0, stdout: `${version}\n`, stderr: '' })
})

test('a wrong command line is told, with the status 64', async () => {
  const wrong: [string[], RegExp][] = [
    [['healtcheck'], /unknown command 'healtcheck'\n\(Did you mean healthcheck\?\)/],
    [['run', 'now'], /too many arguments/],
    [['--port', '80'], /unknown option '--port'/],
  ]
  for (const [args, why] of wrong) {
    const { status, stdout, stderr } = await run(args)
    assert.deepEqual([status, stdout], [64, ''])
    assert.match(stderr, why)
  }
})

test('a URL to check that is none is told without showing it', async () => {
  const { status, stderr } = await run(['check', 'http://peer', 'http://me:hush@peer'], {
    env: { CLIENT_ID_SECRET: SECRET },
  })
  assert.equal(status, 64)
  assert.match(stderr, /^error: URL 2 must be without user name and password\n/)
  assert.ok(!stderr.includes('hush'))
})

test('keygen prints fresh secrets as variables, ready for an environment file', async () => {
  const [first, second] = await Promise.all([run(['keygen']), run(['keygen'])])
  assert.deepEqual([first.status, first.stderr], [0, ''])
  const { CLIENT_ID_SECRET = '', OUTBOUND_TOKEN = '', ...rest } = parseEnv(first.stdout)
  for (const secret of [CLIENT_ID_SECRET, OUTBOUND_TOKEN])
    assert.equal(Buffer.from(secret, 'base64url').length, 32)
  assert.deepEqual(rest, {})
  assert.equal(new Set([CLIENT_ID_SECRET, OUTBOUND_TOKEN, ...Object.values(parseEnv(second.stdout))]).size, 4)
})

test('all mistakes of the configuration are told at once, without secrets, with the status 78', async () => {
  const env = {
    CLIENT_ID_SECRET: 'hush-hush',
    PORT: 'http',
    UPSTREAM: 'app:80',
    CORS_ORIGIN: 'https://a.com',
  }
  for (const args of [[], ['run'], ['check']]) {
    const { status, stdout, stderr } = await run(args, { env })
    assert.deepEqual([status, stdout], [78, ''])
    assert.deepEqual(stderr.trimEnd().split('\n'), [
      'UPSTREAM: must begin with http:// or https://',
      'CLIENT_ID_SECRET: must have 32 characters or more: mte-sidecar keygen makes one',
      'PORT: must be a port from 0 to 65535',
      'CORS_ORIGIN: is no variable of mte-sidecar; CORS_ORIGINS is',
    ])
  }
})

test('a sidecar logs where it listens and what is odd, and ends with 0 after a signal', async () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const { child, exit, log, ports } = await startSidecar({ CORS_ORIGIN: 'https://a.com' })
    assert.deepEqual([...ports.keys()], ['inbound', 'outbound', 'admin'])
    assert.ok([...ports.values()].every((port) => port > 0))
    const warnings = log.filter(({ level }) => level === 'warn').map(({ msg }) => msg)
    assert.deepEqual(warnings, ['CORS_ORIGIN: is no variable of mte-sidecar; CORS_ORIGINS is'])
    child.kill(signal)
    assert.deepEqual(await exit, [0, null])
  }
})

test('a port that is taken is told by its variable, with the status 1', async () => {
  const taken = net.createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const port = String((taken.address() as AddressInfo).port)
  try {
    for (const name of ['OUTBOUND_PORT', 'ADMIN_PORT']) {
      const { status, stderr } = await run([], {
        env: { CLIENT_ID_SECRET: SECRET, ...FREE_PORTS, [name]: port },
      })
      assert.equal(status, 1)
      const { level, msg } = JSON.parse(stderr)
      assert.equal(level, 'error')
      assert.match(
        msg,
        new RegExp(
          `^${name}: cannot listen on port ${port}, as another process listens there \\(EADDRINUSE\\)`,
        ),
      )
    }
  } finally {
    taken.close()
  }
})

test('an address that is none of this machine is told by its variable', async () => {
  for (const ADMIN_HOST of ['192.0.2.1', 'nowhere.invalid']) {
    const { status, stderr } = await run([], { env: { CLIENT_ID_SECRET: SECRET, ...FREE_PORTS, ADMIN_HOST } })
    assert.equal(status, 1)
    assert.match(JSON.parse(stderr).msg, /^ADMIN_HOST: .*(EADDRNOTAVAIL|ENOTFOUND|EAI_AGAIN)/)
  }
})

test('a second signal ends the sidecar at once, with the status 1, while a call is still open', async () => {
  const { child, exit, nextLine } = await startWithOpenCall()
  child.kill('SIGTERM')
  assert.equal((await nextLine()).msg, 'draining')
  child.kill('SIGTERM')
  assert.deepEqual(await exit, [1, null])
})

test('Ctrl-C that comes twice, as under npm, is one', async () => {
  const { child, exit, nextLine, reset } = await startWithOpenCall({ DRAIN_SECONDS: '0.6' })
  child.kill('SIGINT')
  assert.equal((await nextLine()).msg, 'draining')
  child.kill('SIGINT')
  assert.deepEqual(await exit, [0, null])
  await reset
})

test('a call that outlasts DRAIN_SECONDS is reset', async () => {
  const { child, exit, reset } = await startWithOpenCall({ DRAIN_SECONDS: '0.1' })
  child.kill('SIGTERM')
  assert.deepEqual(await exit, [0, null])
  assert.match(String(await reset), /ECONNRESET|hang up/)
})

test('healthcheck says whether the sidecar is alive', async () => {
  const { child, exit, ports } = await startSidecar({ ADMIN_HOST: '0.0.0.0' })
  const env = { ADMIN_PORT: String(ports.get('admin')), ADMIN_HOST: '0.0.0.0', PORT: 'whatever' }
  assert.deepEqual(await run(['healthcheck'], { env }), { status: 0, stdout: '', stderr: '' })
  child.kill('SIGTERM')
  await exit
  const { status, stderr } = await run(['healthcheck'], { env })
  assert.equal(status, 1)
  assert.match(stderr, /^nothing answered .*ECONNREFUSED.*\n$/)
})

test('healthcheck gives up on what answers with another status, and on what does not answer', async () => {
  const server = http.createServer((_request, response) => response.writeHead(503).end())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const silent = net.createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const check = (port: number) => run(['healthcheck'], { env: { ADMIN_PORT: String(port) } })
  const [wrong, late] = await Promise.all(
    [server, silent].map((one) => check((one.address() as AddressInfo).port)),
  )
  server.close()
  silent.close()
  assert.deepEqual([wrong?.status, late?.status], [1, 1])
  assert.match(wrong!.stderr, /^\/livez .* answered with status 503\n$/)
  assert.match(late!.stderr, /^nothing answered .* within 2 s\n$/)
  assert.match((await check(0)).stderr, /^ADMIN_PORT is 0/)
})

test("the package's program runs the sources where they are", async () => {
  const { status, stdout } = await run(['keygen'], { program: ['sidecar/mte-sidecar.js'] })
  assert.equal(status, 0)
  assert.match(stdout, /^CLIENT_ID_SECRET=/)
})

test("a Node that is too old is told in one line, by the package's program and by the sources", async () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-old-'))
  try {
    const old = path.join(folder, 'old.mjs')
    writeFileSync(old, "Object.defineProperty(process.versions, 'node', { value: '24.10.0' })")
    for (const file of ['sidecar/mte-sidecar.js', 'sidecar/main.ts']) {
      const { status, stdout, stderr } = await run(['keygen'], { program: ['--import', old, file] })
      assert.deepEqual([status, stdout], [1, ''])
      assert.match(
        stderr,
        /^mte-sidecar needs Node 24\.11 or newer, and this is Node 24\.10\.0 .*npm ci.*\n$/,
      )
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test.run()
