/** Every fault once, rolling restarts among them, each in one of HAProxy's modes, as `npm run chaos` makes them. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { suite } from '../support/suite.ts'

const test = suite('chaos')

for (const [mode, fault] of [
  ['tcp', 'initiators'],
  ['http', 'responders'],
  ['http', 'all sidecars'],
  ['tcp', 'responders: 10 restarts by SIGTERM'],
  ['http', 'initiators: 10 restarts by SIGTERM'],
] as const) {
  test(`no call runs twice or is lost, and all heals within 2 s: ${fault}, behind HAProxy in ${mode} mode`, async () => {
    const chaos = spawn(process.execPath, ['test/chaos/main.ts', '--mode', mode, '--fault', fault], {
      cwd: new URL('../..', import.meta.url),
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const report = await text(chaos.stdout)
    assert.equal(report.trim().split('\n').at(-1), 'all is well', report)
  }, 240_000)
}

test.run()
