import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { suite } from '../support/suite.ts'

const test = suite('command injector')

function run(args: string[], env: Record<string, string> = {}) {
  const { promise, resolve } = Promise.withResolvers<{ status: unknown; stdout: string; stderr: string }>()
  const options = { cwd: new URL('../..', import.meta.url), env: { PATH: process.env.PATH, ...env } }
  execFile(process.execPath, ['sidecar/main.ts', 'injector', ...args], options, (error, stdout, stderr) =>
    resolve({ status: error?.code ?? 0, stdout, stderr }),
  )
  return promise
}

test('--policy prints the policies, with what options and variables say', async () => {
  const env = { SIDECAR_SECRET: 'shared' }
  const { status, stdout, stderr } = await run(['--policy', '--log-level', 'debug'], env)
  assert.deepEqual([status, stderr], [0, ''])
  assert.match(stdout, /^# Made by: mte-sidecar injector --policy\n/)
  assert.match(stdout, / : "shared"/)
  assert.match(stdout, / : "debug"/)
})

test('with mistakes it prints all of them, and nothing else', async () => {
  for (const args of [[], ['--policy']]) {
    const { status, stdout, stderr } = await run([...args, '--cpu', 'many'], { SIDECAR_MEMORY: 'much' })
    assert.deepEqual([status, stdout], [78, ''])
    assert.match(stderr, /^--cpu must be a quantity .*\nSIDECAR_MEMORY: must be a quantity .*\n$/)
  }
})

test('its help tells every variable', async () => {
  const { stdout } = await run(['--help'])
  for (const name of ['PORT', 'ADMIN_PORT', 'TLS_CERT_FILE', 'WEBHOOK_CONFIGURATION', 'SIDECAR_IMAGE'])
    assert.match(stdout, new RegExp(`\\b${name}\\b`))
})

test.run()
