import assert from 'node:assert/strict'
import { onStopSignal } from '../sidecar/stop-signals.ts'
import { suite } from './support/suite.ts'

const test = suite('stop-signals')

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} that came before its handler was changed goes to the new one alone`, async () => {
    const heard: string[] = []
    process.on(signal, () => heard.push('old'))
    process.kill(process.pid, signal)
    // Nothing has been delivered yet: that takes a turn of the event loop.
    await new Promise<void>((resolve) => {
      onStopSignal((name) => {
        heard.push(name)
        resolve()
      })
    })
    assert.deepEqual(heard, [signal])
  })
}

test.after(() => {
  for (const signal of ['SIGTERM', 'SIGINT']) process.removeAllListeners(signal)
})

test.run()
