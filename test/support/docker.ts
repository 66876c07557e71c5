/** A real Docker engine and Compose for tests: the engine that runs here, else one that ends with them. */
import { type ChildProcessByStdio, execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { debianRoot, importStandIns } from './base-images.ts'
import { findProgram, installPackages } from './debian.ts'
import { type GoProgram, goProgram } from './go-program.ts'

const run = promisify(execFile)
/** What the name of a run's folder begins with; the process' id follows. */
const PREFIX = 'mte-docker-'
const START_DEADLINE_MS = 60_000
const POLL_MS = 100
const LOG_LINES = 20
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024

const COMPOSE: GoProgram = {
  name: 'docker-compose',
  version: '2.40.3',
  variable: 'DOCKER_COMPOSE_BIN',
  origin: 'https://github.com/docker/compose/releases',
  requires: ['github.com/docker/compose/v2/cmd@v2.40.3'],
  main: 'github.com/docker/compose/v2/cmd',
}

/** `docker` and `docker compose`, for one engine. */
export interface Docker {
  /**
   * Runs `docker` with these words.
   * @returns what it printed on standard output, without the end of the last line
   * @throws Error with what it printed, when it fails
   */
  run(...words: string[]): Promise<string>
  /** Runs a line of a shell in a folder, as `run` does. */
  shell(line: string, folder: string): Promise<string>
  /** Starts `docker` with these words in a folder. */
  start(folder: string, ...words: string[]): ChildProcessByStdio<null, Readable, Readable>
  /** Ends the engine with all that is in it, if it is one of ours. */
  stop(): Promise<void>
}

/**
 * Builds Compose and, where no engine runs, installs one and makes what images are based on. Where that cannot be done
 * it says so, and leaves it to tests to fail.
 */
export async function installDocker(say: (line: string) => void): Promise<void> {
  try {
    await goProgram(COMPOSE, say)
    if (await engineRuns()) return
    if (!findProgram('dockerd') || !findProgram('debootstrap'))
      installPackages(['docker.io', 'debootstrap'], say)
    await debianRoot(say)
  } catch (error) {
    say(`What needs Docker will fail: ${(error as Error).message}`)
  }
}

/**
 * Finds the engine that runs here, which has the public images or fetches them. Where none runs it starts one, and gives
 * it stand-ins for them.
 * @throws Error that says how to get one, where that cannot be done
 */
export async function startDocker(): Promise<Docker> {
  const compose = await goProgram(COMPOSE, console.error)
  removeLeftovers()
  const folder = folderOf(process.pid)
  const config = path.join(folder, 'config')
  mkdirSync(path.join(config, 'cli-plugins'), { recursive: true })
  symlinkSync(compose, path.join(config, 'cli-plugins/docker-compose'))
  const env = { ...process.env, DOCKER_CONFIG: config }
  if (await engineRuns()) return client(env, async () => removeRun(process.pid))
  const { host, end } = await startEngine(folder)
  const stop = async () => {
    await end()
    removeRun(process.pid)
  }
  const docker = client({ ...env, DOCKER_HOST: host }, stop)
  await importStandIns({ ...env, DOCKER_HOST: host }).catch(async (error) => {
    await stop()
    throw error
  })
  return docker
}

/** Does an engine run here that this user may use? */
async function engineRuns(): Promise<boolean> {
  try {
    await run('docker', ['version'])
    return true
  } catch {
    return false
  }
}

function client(env: NodeJS.ProcessEnv, stop: () => Promise<void>): Docker {
  const execute = async (program: string, words: string[], cwd?: string) => {
    try {
      const { stdout } = await run(program, words, { env, cwd, maxBuffer: OUTPUT_BYTES_MAX })
      return stdout.trimEnd()
    } catch (error) {
      const { message, stdout } = error as Error & { stdout: string }
      throw new Error(`${message}\n${stdout}`)
    }
  }
  return {
    run: (...words) => execute('docker', words),
    shell: (line, folder) => execute('sh', ['-ec', line], folder),
    start: (cwd, ...words) => spawn('docker', words, { env, cwd, stdio: ['ignore', 'pipe', 'pipe'] }),
    stop,
  }
}

/**
 * Starts an engine, with a network and a folder of its own; it ends with this process, if not before.
 * @returns where it listens, and what ends it
 */
async function startEngine(folder: string): Promise<{ host: string; end: () => Promise<void> }> {
  if (process.getuid!() !== 0)
    throw new Error('no Docker engine runs here that this user may use, and only root may start one')
  const dockerd = findProgram('dockerd')
  if (!dockerd) throw new Error('there is no Docker engine: run `apt-get install docker.io`')
  const bridge = bridgeOf(process.pid)
  ip(`link add ${bridge} type bridge`)
  ip(`addr add ${networkOf(process.pid)}.1/24 dev ${bridge}`)
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1')
  const host = `unix://${folder}/docker.sock`
  const log = path.join(folder, 'dockerd.log')
  const output = openSync(log, 'w')
  const places = ['data-root', 'exec-root', 'pidfile'].map((name) => `--${name}=${path.join(folder, name)}`)
  // If it were the one to turn on forwarding, it would forbid all but its own.
  const options = [`--host=${host}`, `--bridge=${bridge}`, '--ip-forward=false', ...places]
  // In a group of its own, as it needs time to end what runs in it when this process is killed with all of its group.
  const child = spawn('setpriv', ['--pdeathsig=TERM', '--', dockerd, ...options], {
    detached: true,
    stdio: ['ignore', output, output],
  })
  closeSync(output)
  const gone = once(child, 'exit')
  const end = async () => {
    child.kill('SIGTERM')
    await gone
  }
  const deadlineMs = performance.now() + START_DEADLINE_MS
  for (;;) {
    try {
      await run('docker', ['--host', host, 'version'])
      return { host, end }
    } catch (error) {
      if (child.exitCode === null && performance.now() < deadlineMs) await sleep(POLL_MS)
      else {
        await end()
        const printed = readFileSync(log, 'utf8').trimEnd().split('\n').slice(-LOG_LINES).join('\n')
        throw new Error(`Docker's engine did not start: ${(error as Error).message}\n${printed}`)
      }
    }
  }
}

const folderOf = (pid: number) => path.join(os.tmpdir(), `${PREFIX}${pid}`)
const bridgeOf = (pid: number) => `mte-br${pid}`
/** Addresses that are set aside for tests of networks (RFC 2544). */
const networkOf = (pid: number) => `198.19.${pid % 256}`

/** Of runs that were killed. */
function removeLeftovers(): void {
  for (const name of readdirSync(os.tmpdir())) {
    const pid = Number(name.startsWith(PREFIX) && name.slice(PREFIX.length))
    if (pid > 0 && !existsSync(`/proc/${pid}`)) removeRun(pid)
  }
}

/** Removes what a run has made, once its engine has ended. */
function removeRun(pid: number): void {
  rmSync(folderOf(pid), { recursive: true, force: true, maxRetries: 3 })
  const bridge = bridgeOf(pid)
  if (!existsSync(`/sys/class/net/${bridge}`)) return
  ip(`link delete ${bridge}`)
  const rules = execFileSync('iptables-save', { encoding: 'utf8' }).split('\n')
  const others = rules.filter((rule) => !rule.includes(bridge) && !rule.includes(`${networkOf(pid)}.`))
  execFileSync('iptables-restore', { input: others.join('\n') })
}

function ip(words: string): void {
  execFileSync('ip', words.split(' '))
}
