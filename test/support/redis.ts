/** Real Redis servers for tests, or Valkey's. None of them outlives its test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type RedisOptions as ClientOptions, Redis } from 'ioredis'
import { certificate } from './certificates.ts'
import { redisBinary } from './debian.ts'
import { unusedPort } from './sidecars.ts'

const START_DEADLINE_MS = 10_000
const POLL_MS = 10
const LOG_LINES = 20

/** How a client reaches a server. */
type Access = Pick<ClientOptions, 'host' | 'port' | 'path' | 'username' | 'password' | 'tls'>

export interface RedisOptions {
  password?: string
  /** of the only user; needs a password */
  username?: string
  /** speaks TLS alone, with a certificate made on the spot for 127.0.0.1 */
  tls?: true
  /** speaks over a socket besides, which is in its URL */
  unixSocket?: true
  /** port of its primary */
  replicaOf?: number
  /** lines of redis.conf */
  config?: Record<string, string>
}

export interface RedisServer {
  port: number
  /** with credentials, if any */
  url: string
  /** the authority of its certificate, in PEM */
  ca: string | undefined
  /** Sends one command over a connection of its own. */
  cli(command: string, ...args: string[]): Promise<unknown>
  /** The process that serves now. */
  readonly pid: number
  /** Ends it, and removes its folder. */
  stop(): Promise<void>
  /** Kills it with -9. */
  kill(): Promise<void>
  /** Starts it again on the same port, empty. */
  start(): Promise<void>
  /** Lets it do nothing more, as if it hung. */
  pause(): void
  resume(): void
}

/** Starts a server that keeps nothing on disk, on a free port of 127.0.0.1; resolves when it answers. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const { password, username, tls, unixSocket, replicaOf, config } = options
  const port = await unusedPort()
  const folder = makeFolder()
  const file = (name: string) => path.join(folder, name)
  const certified = tls && certificate('IP:127.0.0.1')
  const lines: Record<string, string> = {
    port: String(tls ? 0 : port),
    bind: '127.0.0.1',
    dir: folder,
    save: '""',
    appendonly: 'no',
    loglevel: 'warning',
    // It would wait for more replicas before it sends them anything.
    'repl-diskless-sync-delay': '0',
    ...(unixSocket ? { unixsocket: file('redis.sock') } : {}),
    ...(replicaOf === undefined ? {} : { replicaof: `127.0.0.1 ${replicaOf}` }),
    ...config,
  }
  if (certified) {
    writeFileSync(file('cert.pem'), certified.cert)
    writeFileSync(file('key.pem'), certified.key)
    Object.assign(lines, {
      'tls-port': String(port),
      'tls-cert-file': file('cert.pem'),
      'tls-key-file': file('key.pem'),
      'tls-auth-clients': 'no',
    })
  }
  let users = ''
  if (username !== undefined)
    users = `user default off\nuser ${username} on ${JSON.stringify(`>${password}`)} ~* &* +@all\n`
  else if (password !== undefined) lines.requirepass = JSON.stringify(password)
  const text = Object.entries(lines).map(([name, value]) => `${name} ${value}\n`)
  writeFileSync(file('redis.conf'), text.join('') + users)
  const access: Access = {
    ...(unixSocket ? { path: file('redis.sock') } : { host: '127.0.0.1', port }),
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(certified ? { tls: { ca: certified.cert } } : {}),
  }
  let child = await startServer(folder, access)
  return {
    port,
    url: urlOf(options, port, file('redis.sock')),
    ca: certified?.cert,
    cli: (command, ...args) => cli(access, command, args),
    get pid() {
      return child.pid!
    },
    async stop() {
      await killServer(child)
      removeFolder(folder)
    },
    kill: () => killServer(child),
    async start() {
      await killServer(child)
      // It would read it: what it had from its primary, if it was a replica, or what SAVE wrote.
      rmSync(file('dump.rdb'), { force: true })
      child = await startServer(folder, access)
    },
    pause: () => child.kill('SIGSTOP'),
    resume: () => child.kill('SIGCONT'),
  }
}

const running = new Set<ChildProcess>()
const folders = new Set<string>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  for (const folder of folders) removeFolder(folder)
})

/** Makes a folder that goes with this process, if not before. */
export function makeFolder(): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-redis-'))
  folders.add(folder)
  return folder
}

export function removeFolder(folder: string): void {
  folders.delete(folder)
  // Who has just been killed may have made one more file.
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
}

/**
 * Starts a server, or a sentinel, and resolves when it answers.
 * @param folder has its redis.conf, and gets what it prints
 * @throws Error with what it printed last, when it ends or does not answer in time
 */
export async function startServer(folder: string, access: Access, ...args: string[]): Promise<ChildProcess> {
  const log = path.join(folder, 'redis.log')
  const output = openSync(log, 'w')
  const child = spawn(redisBinary(), [path.join(folder, 'redis.conf'), ...args], {
    stdio: ['ignore', output, output],
  })
  closeSync(output)
  running.add(child)
  child.once('exit', () => running.delete(child))
  const deadlineMs = performance.now() + START_DEADLINE_MS
  for (;;) {
    try {
      await cli(access, 'PING', [])
      return child
    } catch (error) {
      if (!hasEnded(child) && performance.now() < deadlineMs) await sleep(POLL_MS)
      else {
        await killServer(child)
        const printed = readFileSync(log, 'utf8').trimEnd().split('\n').slice(-LOG_LINES).join('\n')
        throw new Error(`Redis did not start: ${(error as Error).message}\n${printed}`)
      }
    }
  }
}

/** Kills it with -9, and resolves when it is gone. */
export async function killServer(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}

/** Sends one command over a connection of its own. */
export async function cli(access: Access, command: string, args: string[]): Promise<unknown> {
  const client = new Redis({
    ...access,
    lazyConnect: true,
    enableReadyCheck: false,
    retryStrategy: () => null,
    commandTimeout: START_DEADLINE_MS,
  })
  client.on('error', () => {}) // it rejects what is asked, too
  try {
    await client.connect()
    return await client.call(command, ...args)
  } finally {
    client.disconnect()
  }
}

function urlOf({ username, password, tls, unixSocket }: RedisOptions, port: number, socket: string): string {
  const encoded = [username ?? '', password ?? ''].map(encodeURIComponent)
  const credentials = password === undefined ? '' : `${encoded.join(':')}@`
  if (unixSocket) return credentials === '' ? `unix:${socket}` : `unix://${credentials}${socket}`
  return `${tls ? 'rediss' : 'redis'}://${credentials}127.0.0.1:${port}`
}
