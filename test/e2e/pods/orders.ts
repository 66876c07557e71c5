/**
 * The app that calls billing, in its pod. It calls from the line `start` that it reads to the line `stop`, which it
 * confirms with `stopped`; when it is told to leave it lets its calls end before. For each call that is over it
 * prints a line of JSON.
 */
import { createInterface } from 'node:readline'
import { type Call, type Load, startLoad } from '../../chaos/load.ts'
import { CALLS_PER_SECOND, SIDECAR_PORTS } from './ports.ts'

let load: Load | undefined
console.log('listening')
process.on('SIGTERM', async () => {
  await load?.stop()
  process.exit()
})
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'start') load = startLoad(SIDECAR_PORTS.outbound, CALLS_PER_SECOND, print)
  if (line === 'stop') {
    await load?.stop()
    console.log('stopped')
  }
}

/** With times that mean the same in other processes. */
function print(call: Call): void {
  const { startedMs, endedMs } = call
  const { timeOrigin } = performance
  console.log(JSON.stringify({ ...call, startedMs: timeOrigin + startedMs, endedMs: timeOrigin + endedMs }))
}
