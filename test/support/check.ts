/** `mte-sidecar check` as its users run it, and what it needs to find something wrong. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { reachable } from './reachable.ts'
import { SECRET, unusedPort } from './sidecars.ts'
import { tell } from './tell.ts'

const root = path.dirname(path.dirname(import.meta.dirname))

export interface Checked {
  status: number
  /** as printed */
  lines: string[]
  found: Found[]
}

/** A line with a mark, and the line below it, if there is one. */
export interface Found {
  mark: string
  what: string
  advice: string | undefined
}

export interface CheckOptions {
  /** base URLs on its command line */
  urls?: string[]
  /** user and group that it runs as, by a test that runs as root; the same as the test */
  ids?: { uid: number; gid: number }
  /** what its clock is ahead of the real one, in ms */
  clockAheadMs?: number
}

/** Runs it to its end, with no other variables; no sidecar answers at its ADMIN_PORT unless one is said to. */
export async function check(env: Record<string, string>, options: CheckOptions = {}): Promise<Checked> {
  const { urls = [], ids, clockAheadMs } = options
  const coverage = process.env.NODE_V8_COVERAGE
  const command = [process.execPath, 'sidecar/main.ts', 'check', ...urls]
  const [program, ...args] = ids ? reachable(['setpriv', ...asUser(ids), '--', ...command]) : command
  const child = spawn(program!, args, {
    cwd: root,
    env: {
      PATH: process.env.PATH!,
      CLIENT_ID_SECRET: SECRET,
      ADMIN_PORT: String(await unusedPort()),
      // Another user may not write there.
      ...(coverage && !ids ? { NODE_V8_COVERAGE: coverage } : {}),
      ...(clockAheadMs === undefined ? {} : { NODE_OPTIONS: `--import=${shiftedClock(clockAheadMs)}` }),
      ...env,
    },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text))
  const [status] = await once(child, 'close')
  assert.ok(!output.includes(SECRET))
  const lines = output.trimEnd().split('\n')
  return { status, lines, found: findings(lines) }
}

function asUser({ uid, gid }: { uid: number; gid: number }): string[] {
  return [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']
}

/** What is printed, with each advice beside what it is about. */
export function findings(lines: readonly string[]): Found[] {
  const found: Found[] = []
  for (const line of lines) {
    const [, mark = '', text = ''] = /^(ok|warn|FAIL|--|) +(\S.*)$/.exec(line) ?? []
    if (mark !== '') found.push({ mark, what: text, advice: undefined })
    else if (found.length > 0) found.at(-1)!.advice = text
  }
  return found
}

/** Those with a mark, but what is said of the user that runs the test. */
export function marked(found: readonly Found[], mark: string): Found[] {
  return found.filter((one) => one.mark === mark && !/^This runs as/.test(one.what))
}

/**
 * Runs something with an address that is none of this machine's interfaces, and that leads here: as an address of
 * another host does. Where that cannot be had, says so.
 */
export async function withElsewhere(work: (address: string) => Promise<void>): Promise<void> {
  // Of a network for documentation (RFC 5737), another one for each process.
  const address = `203.0.113.${(process.pid % 250) + 2}`
  const route = ['local', `${address}/32`, 'dev', 'lo']
  try {
    execFileSync('ip', ['route', 'add', ...route], { stdio: 'ignore' })
  } catch {
    return tell('Another host was not tried: this user may not make an address lead here.')
  }
  try {
    await work(address)
  } finally {
    execFileSync('ip', ['route', 'del', ...route])
  }
}

/** URL of a module that turns the clock of its process. */
function shiftedClock(byMs: number): string {
  const module = `const Real = Date
globalThis.Date = class extends Real {
  constructor(...parts) { if (parts.length > 0) super(...parts); else super(Date.now()) }
  static now() { return Real.now() + ${byMs} }
}`
  return `data:text/javascript,${encodeURIComponent(module)}`
}
