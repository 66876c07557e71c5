import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { suite } from '../support/suite.ts'

const test = suite('package')
const run = promisify(execFile)
const root = path.join(import.meta.dirname, '../..')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-package-'))
const app = path.join(folder, 'app')
let packed: { filename: string; files: { path: string }[] }

test.before(async () => {
  mkdirSync(app)
  writeFileSync(path.join(app, 'package.json'), '{}')
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: root })
  packed = JSON.parse(stdout.slice(stdout.indexOf('[\n')))[0]
})
test.after(() => rmSync(folder, { recursive: true }))

test('holds the compiled program and nothing else', () => {
  const names = packed.files.map((file) => file.path)
  const strangers = names.filter(
    (name) =>
      !/^(dist\/.+\.(?:js|css)|sidecar\/(mte-sidecar|node-version)\.js|README\.md|LICENSE|package\.json)$/.test(
        name,
      ),
  )
  assert.deepEqual(strangers, [])
  for (const name of [
    'dist/sidecar/main.js',
    'dist/otel/register.js',
    'sidecar/mte-sidecar.js',
    'README.md',
    'LICENSE',
  ])
    assert.ok(names.includes(name), name)
})

test('starts where it is installed alone', async () => {
  await run('npm', ['install', '--prefer-offline', path.join(folder, packed.filename)], { cwd: app })
  const { stdout } = await run('npx', ['mte-sidecar', '--version'], { cwd: app })
  assert.equal(stdout.trim(), JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')).version)
}, 120_000)

test('shows there what it does', async () => {
  const { stdout } = await run('npx', ['mte-sidecar', 'demo'], { cwd: app })
  assert.match(stdout, /All of it was so/)
}, 120_000)

test.run()
