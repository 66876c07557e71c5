/** The processes that the benchmark starts, and what they cost. None of them outlives it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Ticks a second of the times in /proc: USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100
const LOG_LINES = 12
const LOG_LINE_CHARACTERS = 240
const START_DEADLINE_MS = 20_000
const START_POLL_MS = 50
const STOP_DEADLINE_MS = 3_000

export interface Service {
  name: string
  child: ChildProcess
  pid: number
  /** the file that takes what it prints */
  log: string
}

const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) killGroup(child)
})

/**
 * Starts a process that stays until `stopService`.
 * @param folder where it works and its log is kept
 */
export function startService(
  name: string,
  program: string,
  args: string[],
  folder: string,
  env: NodeJS.ProcessEnv = process.env,
): Service {
  const log = path.join(folder, `${name}.log`)
  const output = openSync(log, 'a')
  const child = track(
    spawn(program, args, { cwd: folder, env, detached: true, stdio: ['ignore', output, output] }),
  )
  closeSync(output)
  return { name, child, pid: child.pid!, log }
}

/** Asks a service to leave, makes it when it does not, and waits until it is gone. */
export async function stopService({ child }: Service): Promise<void> {
  if (!running.has(child)) return
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(killGroup, STOP_DEADLINE_MS, child)
  await gone
  clearTimeout(timer)
}

/**
 * Waits until a GET is answered with 200 at a port of this machine.
 * @throws Error with what the services printed last, when one of them has left or there is no answer in time
 */
export async function waitForAnswer(port: number, services: Service[], place = '/small'): Promise<void> {
  const deadlineMs = Date.now() + START_DEADLINE_MS
  for (;;) {
    const status = await getStatus(port, place)
    if (status === 200) return
    const gone = services.find((service) => !running.has(service.child))
    if (gone) throw new Error([`${gone.name} did not stay`, ...services.flatMap(lastLines)].join('\n'))
    if (Date.now() > deadlineMs)
      throw new Error([`GET ${place} gives ${status}, not 200`, ...services.flatMap(lastLines)].join('\n'))
    await sleep(START_POLL_MS)
  }
}

/** What a service printed last. */
export function lastLines({ name, log }: Service): string[] {
  const lines = readFileSync(log, 'utf8').split('\n').filter(Boolean).slice(-LOG_LINES)
  return lines.map((line) => `  ${name}: ${line.slice(0, LOG_LINE_CHARACTERS)}`)
}

/** The status of a GET, or the code of the error. */
async function getStatus(port: number, place: string): Promise<number | string | undefined> {
  const options = { host: '127.0.0.1', port, agent: false as const, timeout: START_DEADLINE_MS }
  const request = http.get({ ...options, path: place, headers: { host: 'app' } })
  request.on('timeout', () => request.destroy())
  try {
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    response.on('error', () => {}).resume()
    return response.statusCode
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

/** Ports of 127.0.0.1 that nobody listens on now. */
export async function findFreePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => net.createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

/**
 * Runs a program to its end.
 * @returns what it printed on standard output
 * @throws Error with what it printed, when it fails
 */
export async function runProgram(program: string, args: string[], cwd?: string): Promise<string> {
  const child = track(spawn(program, args, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] }))
  let output = ''
  let complaints = ''
  child.stdout!.setEncoding('utf8').on('data', (text) => {
    output += text
  })
  child.stderr!.setEncoding('utf8').on('data', (text) => {
    complaints += text
  })
  const [status] = await once(child, 'close')
  if (status !== 0) throw new Error(`${path.basename(program)} failed: ${complaints.trim() || output.trim()}`)
  return output
}

/** Seconds of CPU, user and system, that these processes and their children have used so far. */
export function cpuSeconds(processes: { pid: number }[]): number {
  let ticks = 0
  for (const { stat } of processTrees(processes)) {
    const [user, system, reapedUser, reapedSystem] = stat.slice(11, 15).map(Number)
    ticks += user! + system! + reapedUser! + reapedSystem!
  }
  return ticks / TICKS_PER_SECOND
}

/** The most memory that these processes and their children have held so far, each process at its own peak. */
export function peakBytes(processes: { pid: number }[]): number {
  return memoryBytes(processes, 'VmHWM')
}

/** The memory that these processes and their children hold now. */
export function residentBytes(processes: { pid: number }[]): number {
  return memoryBytes(processes, 'VmRSS')
}

function memoryBytes(processes: { pid: number }[], what: 'VmHWM' | 'VmRSS'): number {
  const line = new RegExp(`^${what}:\\s+(\\d+) kB$`, 'm')
  let kibibytes = 0
  for (const { pid } of processTrees(processes))
    kibibytes += Number(line.exec(readProc(pid, 'status'))?.[1] ?? 0)
  return kibibytes * 1024
}

/** Each of the processes and their children that lives, with the fields of its /proc/PID/stat from the third (its state) on. */
function processTrees(processes: { pid: number }[]): { pid: number; stat: string[] }[] {
  const stats = new Map<number, string[]>()
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const stat = readProc(Number(entry), 'stat')
    if (stat) stats.set(Number(entry), stat.slice(stat.lastIndexOf(')') + 2).split(' '))
  }
  const pids = processes.map(({ pid }) => pid)
  for (const parent of pids) for (const [pid, stat] of stats) if (Number(stat[1]) === parent) pids.push(pid)
  return pids.flatMap((pid) => (stats.has(pid) ? [{ pid, stat: stats.get(pid)! }] : []))
}

function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return '' // it left meanwhile
  }
}

function track(child: ChildProcess): ChildProcess {
  running.add(child)
  child.once('exit', () => running.delete(child))
  child.once('error', () => running.delete(child))
  return child
}

/** Each child leads a process group of its own, so that Ctrl-C leaves the order of leaving to the benchmark. */
function killGroup(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, 'SIGKILL')
  } catch {
    // nobody is left in it
  }
}
