/** Measures the webhook: reviews at a fixed rate, as a cluster sends them, and as many as it can answer. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { podOfFixture } from '../inject/pods.ts'
import { certificate } from '../support/certificates.ts'
import { type Injector, reviewOf, startInjector } from '../support/injector.ts'
import { cpuSeconds, peakBytes } from './processes.ts'

const CONNECTIONS = 16
const RATE = 500
const MEBIBYTE = 2 ** 20

/** @param seconds of each measurement */
export async function measureInjector(seconds: number): Promise<void> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-bench-'))
  const { key, cert } = certificate('IP:127.0.0.1')
  const env = { TLS_CERT_FILE: path.join(folder, 'tls.crt'), TLS_KEY_FILE: path.join(folder, 'tls.key') }
  writeFileSync(env.TLS_CERT_FILE, cert)
  writeFileSync(env.TLS_KEY_FILE, key)
  const injector = await startInjector(env)
  try {
    // On one core, and what sends the reviews on the others.
    pin(injector.pid, '0')
    if (os.cpus().length > 1) pin(process.pid, `1-${os.cpus().length - 1}`)
    const body = Buffer.from(JSON.stringify(reviewOf(podOfFixture('istio-native'))))
    const review = reviewer(injector, cert, body)
    console.log(
      `Reviews of a pod that Istio is in, ${body.length} bytes each, by ${CONNECTIONS} connections.\n`,
    )
    await flood(review, 1)
    await measure(`${RATE} a second`, injector, () => atRate(review, RATE, seconds))
    await measure('as many as it answers', injector, () => flood(review, seconds))
    console.log(`\nMost memory: ${(peakBytes([injector]) / MEBIBYTE).toFixed(0)} MiB`)
  } finally {
    await injector.stop()
    rmSync(folder, { recursive: true })
  }
}

type Review = () => Promise<void>

function reviewer({ ports }: Injector, ca: string, body: Buffer): Review {
  const agent = new https.Agent({ keepAlive: true, maxSockets: CONNECTIONS, ca })
  const headers = { 'content-type': 'application/json', 'content-length': body.length }
  const options = { host: '127.0.0.1', port: ports.webhook, path: '/inject', method: 'POST', agent, headers }
  return async () => {
    const request = https.request(options)
    request.end(body)
    const [response] = await once(request, 'response')
    let text = ''
    for await (const piece of response) text += piece
    if (response.statusCode !== 200 || !text.includes('"patch":')) throw new Error(`it answered ${text}`)
  }
}

/** @returns how long each took, in ms, from when it was due: a stall shows in every review that it delays */
async function atRate(review: Review, rate: number, seconds: number): Promise<number[]> {
  const startMs = performance.now()
  const timed = Array.from({ length: rate * seconds }, async (_, i) => {
    const dueMs = startMs + (i * 1000) / rate
    await delay(Math.max(0, Math.ceil(dueMs - performance.now())))
    await review()
    return performance.now() - dueMs
  })
  return Promise.all(timed)
}

async function flood(review: Review, seconds: number): Promise<number[]> {
  const endMs = performance.now() + seconds * 1000
  const latenciesMs: number[] = []
  const caller = async () => {
    for (let beganMs = performance.now(); beganMs < endMs; beganMs = performance.now()) {
      await review()
      latenciesMs.push(performance.now() - beganMs)
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, caller))
  return latenciesMs
}

async function measure(title: string, injector: Injector, run: () => Promise<number[]>): Promise<void> {
  const beforeSeconds = cpuSeconds([injector])
  const beganMs = performance.now()
  const latenciesMs = (await run()).sort((a, b) => a - b)
  const seconds = (performance.now() - beganMs) / 1000
  const count = latenciesMs.length
  const percentile = (percent: number) => latenciesMs[Math.floor((count * percent) / 100)]!.toFixed(1)
  const cpuUs = ((cpuSeconds([injector]) - beforeSeconds) * 1e6) / count
  console.log(
    `${title.padEnd(22)} ${(count / seconds).toFixed(0).padStart(6)} reviews/s   p50 ${percentile(50)} ms   p99 ${percentile(99)} ms   CPU ${cpuUs.toFixed(0)} us/review`,
  )
}

function pin(pid: number, cpus: string): void {
  execFileSync('taskset', ['--all-tasks', '--cpu-list', '--pid', cpus, String(pid)], { stdio: 'ignore' })
}
