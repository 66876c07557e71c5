/**
 * Calls at fixed times, whatever became of the calls before: `node open-loop.ts PORT PATH CALLS_PER_SECOND SECONDS
 * CONNECTIONS`. So many connections take turns; with 0, calls share as few as they need.
 *
 * A latency counts from the time that the call was due, so that a stall shows in every call that it delays. Prints
 * one line of JSON. The clock is a thread of its own: timers of Node have whole milliseconds, which is more than
 * what is measured here.
 */
import http from 'node:http'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

const CONNECTIONS_MAX = 256
const CALL_TIMEOUT_MS = 10_000
const LEAD_MS = 20

/** Milliseconds on a clock that all threads share. */
const nowMs = () => Number(process.hrtime.bigint()) / 1e6

if (isMainThread) {
  const [port, path, rate, seconds, connections] = process.argv.slice(2)
  const calls = Number(rate) * Number(seconds)
  const agents = Array.from({ length: Number(connections) || 1 }, () => {
    return new http.Agent({ keepAlive: true, maxSockets: Number(connections) ? 1 : CONNECTIONS_MAX })
  })
  let made = 0
  const clock = new Worker(new URL(import.meta.url), {
    workerData: { calls, intervalMs: 1000 / Number(rate) },
  })
  const latenciesMs: number[] = []
  let refused = 0
  let broken = 0
  let firstDueMs = 0
  clock.on('message', (dueMs: number) => {
    firstDueMs ||= dueMs
    const headers = { host: 'app' }
    const agent = agents[made++ % agents.length]
    const request = http.get({ host: '127.0.0.1', port, path, headers, agent, timeout: CALL_TIMEOUT_MS })
    let complete = false
    request.on('response', (response) => {
      if (response.statusCode !== 200) refused++
      response.on('end', () => {
        complete = true
        latenciesMs.push(nowMs() - dueMs)
      })
      response.on('error', () => {}) // it is not complete when it closes
      response.resume()
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => {}) // neither is this
    request.on('close', () => {
      if (!complete) broken++
      if (latenciesMs.length + broken === calls) finish()
    })
  })

  function finish(): void {
    const elapsedSeconds = (nowMs() - firstDueMs) / 1000
    latenciesMs.sort((a, b) => a - b)
    const percentile = (percent: number) => latenciesMs[Math.floor((latenciesMs.length * percent) / 100)] ?? 0
    const outcome = { p50Ms: percentile(50), p99Ms: percentile(99), seconds: elapsedSeconds, refused, broken }
    console.log(JSON.stringify({ calls, ...outcome }))
    for (const agent of agents) agent.destroy()
  }
} else {
  const { calls, intervalMs } = workerData as { calls: number; intervalMs: number }
  const bell = new Int32Array(new SharedArrayBuffer(4)) // nobody rings it: it only times out
  const startMs = nowMs() + LEAD_MS
  for (let call = 0; call < calls; call++) {
    const dueMs = startMs + call * intervalMs
    const waitMs = dueMs - nowMs()
    if (waitMs > 0) Atomics.wait(bell, 0, 0, waitMs)
    parentPort!.postMessage(dueMs)
  }
}
