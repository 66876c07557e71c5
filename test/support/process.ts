/** Sidecars as processes of their own, as users run them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Role } from '../../sidecar/app.ts'
import { CARRIAGE } from './carriage.ts'
import { SECRET } from './sidecars.ts'

export interface SidecarProcess {
  pid: number
  ports: Partial<Record<Role, number>>
  /** lines that it has logged so far */
  log: readonly string[]
  /** resident memory, in bytes */
  memoryBytes(): number
  /** @returns exit status, or the signal that ended it */
  stop(signal?: NodeJS.Signals): Promise<number | NodeJS.Signals | null>
}

/**
 * Starts `mte-sidecar run`, and resolves when it listens on all of its ports.
 * @param program of the checkout; the sources when not told
 */
export async function startProcess(
  env: Record<string, string | number>,
  program = 'sidecar/main.ts',
): Promise<SidecarProcess> {
  const defaults = { ...CARRIAGE, CLIENT_ID_SECRET: SECRET, PORT: 0, OUTBOUND_PORT: 0, ADMIN_PORT: 0 }
  const variables = Object.fromEntries(
    Object.entries({ ...defaults, ...env }).map(([name, value]) => [name, String(value)]),
  )
  const child = spawn(process.execPath, [program, 'run'], {
    cwd: new URL('../..', import.meta.url),
    env: { PATH: process.env.PATH, ...variables },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.once('exit', (status, signal) => resolve(status ?? signal))
  })
  const log: string[] = []
  const ports = await listening(child, log, variables.OUTBOUND_PORT === 'off' ? 2 : 3)
  return {
    pid: child.pid!,
    ports,
    log,
    memoryBytes: () => memoryBytes(child.pid!),
    stop(signal = 'SIGTERM') {
      child.kill(signal)
      return ended
    },
  }
}

async function listening(
  child: ChildProcess,
  lines: string[],
  count: number,
): Promise<SidecarProcess['ports']> {
  const ports: SidecarProcess['ports'] = {}
  const reader = createInterface({ input: child.stderr! })
  const { promise, resolve, reject } = Promise.withResolvers<SidecarProcess['ports']>()
  reader.on('line', (line) => {
    lines.push(line)
    const { msg, role, port } = JSON.parse(line)
    if (msg !== 'listening') return
    ports[role as Role] = port
    if (Object.keys(ports).length === count) resolve(ports)
  })
  child.once('exit', () => reject(new Error(`the sidecar did not start:\n${lines.join('\n')}`)))
  return promise
}

function memoryBytes(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s+([0-9]+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
  return Number(kilobytes) * 1024
}
