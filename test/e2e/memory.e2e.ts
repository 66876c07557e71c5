/** What a sidecar of the built package takes: CPU until it is ready, and memory at rest and after a million calls. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import net from 'node:net'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { cpuSeconds } from '../bench/processes.ts'
import { call, once } from '../support/call.ts'
import { type SidecarProcess, startProcess } from '../support/process.ts'
import { type Server, startServer } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const PROGRAM = 'dist/sidecar/main.js'
const READY_CPU_MS_MAX = 600
const IDLE_MIB_MAX = 70
const AFTER_CALLS_MIB_MAX = 110
const CALLS = 1_000_000
const CONNECTIONS = 32
/** A sidecar gives memory back when it has been at rest for some seconds. */
const GIVEN_BACK_MS_MAX = 60_000
const POLL_MS = 500

type Figures = { cpuMs: number; idleMiB: number; busiestMiB: number; afterMiB: number }

const test = suite('memory')
const figures: Record<string, Figures> = {}
const sidecars: Record<string, SidecarProcess> = {}
let app: Server

test.before(async () => {
  execFileSync('npm', ['run', 'build'], { cwd: path.join(import.meta.dirname, '../..'), stdio: 'ignore' })
  app = await startServer((_request, response) => void response.end('here'))
  const billing = await start('billing', { UPSTREAM: `http://127.0.0.1:${app.port}` })
  await start('orders', { PEERS: `billing=http://127.0.0.1:${billing.ports.inbound}` })
})

test.after(async () => {
  console.table(figures)
  for (const sidecar of Object.values(sidecars)) await sidecar.stop()
  await app.close()
})

test(`is ready within ${READY_CPU_MS_MAX} ms of CPU`, () => {
  for (const [name, { cpuMs }] of Object.entries(figures))
    assert.ok(cpuMs <= READY_CPU_MS_MAX, `${name}: ${cpuMs} ms`)
})

test(`takes at most ${IDLE_MIB_MAX} MiB before its first call`, async () => {
  for (const [name, sidecar] of Object.entries(sidecars)) {
    await call(sidecar.ports.admin!, { path: '/readyz' })
    figures[name]!.idleMiB = mebibytes(sidecar)
    assert.ok(figures[name]!.idleMiB <= IDLE_MIB_MAX, `${name}: ${figures[name]!.idleMiB} MiB`)
  }
})

test(`takes at most ${AFTER_CALLS_MIB_MAX} MiB after ${CALLS} calls`, async () => {
  const port = sidecars.orders!.ports.outbound!
  let left = CALLS
  const take = () => {
    if (left % 1000 === 0) note('busiestMiB', Math.max)
    return left-- > 0
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, () => callInTurn(port, take)))
  const deadlineMs = performance.now() + GIVEN_BACK_MS_MAX
  do {
    await delay(POLL_MS)
    note('afterMiB', (_, now) => now)
  } while (performance.now() < deadlineMs && Object.values(figures).some(isLarge))
  for (const [name, { afterMiB }] of Object.entries(figures))
    assert.ok(afterMiB <= AFTER_CALLS_MIB_MAX, `${name}: ${afterMiB} MiB`)
}, 540_000)

async function start(name: string, env: Record<string, string>): Promise<SidecarProcess> {
  const sidecar = await startProcess({ NAME: name, ...env }, PROGRAM)
  const cpuMs = Math.round(cpuSeconds([sidecar]) * 1000)
  figures[name] = { cpuMs, idleMiB: 0, busiestMiB: 0, afterMiB: 0 }
  sidecars[name] = sidecar
  return sidecar
}

/** Calls over one connection, one call after the other, for as long as `take` allows another. */
async function callInTurn(port: number, take: () => boolean): Promise<void> {
  const socket = net.connect(port, '127.0.0.1')
  let answer = ''
  const next = () => {
    answer = ''
    if (take()) socket.write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n')
    else socket.end()
  }
  socket.setEncoding('latin1').on('data', (text) => {
    answer += text
    if (!answer.startsWith('HTTP/1.1 200 ')) socket.destroy(new Error(`not answered with 200: ${answer}`))
    else if (answer.endsWith('\r\n\r\nhere')) next()
  })
  next()
  await once(socket, 'close')
}

function note(figure: 'busiestMiB' | 'afterMiB', of: (before: number, now: number) => number): void {
  for (const [name, sidecar] of Object.entries(sidecars))
    figures[name]![figure] = of(figures[name]![figure], mebibytes(sidecar))
}

function isLarge({ afterMiB }: Figures): boolean {
  return afterMiB > AFTER_CALLS_MIB_MAX
}

function mebibytes(sidecar: SidecarProcess): number {
  return Math.round(sidecar.memoryBytes() / 2 ** 20)
}

test.run()
