/** With a go that writes a shell script instead of building anything. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { type GoProgram, goProgram } from './go-program.ts'
import { suite } from './suite.ts'

const test = suite('go program')
const before = { PATH: process.env.PATH, XDG_CACHE_HOME: process.env.XDG_CACHE_HOME }
const PROGRAM: GoProgram = {
  name: 'tracer',
  version: '1.2.3',
  variable: 'TRACER_BIN',
  origin: 'https://tracer.example/download',
  requires: ['tracer.example/cmd@v1.2.3'],
  main: { source: 'package main' },
}
/** Of `go build -trimpath -ldflags=… -o NAME .` */
const BUILDS = `if [ "$1" = build ]; then read -r line <main.go; printf '#!/bin/sh\\necho %s\\n' "$line" >"$5"; fi`
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-go-program-'))
let nth = 0
let said: string[] = []

/** Has nothing on PATH but these scripts, and a cache that is empty. */
function machine(scripts: Record<string, string>): string {
  const bin = path.join(folder, String(nth++))
  mkdirSync(bin)
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(path.join(bin, name), `#!/bin/sh\n${script}\n`)
    chmodSync(path.join(bin, name), 0o755)
  }
  process.env.PATH = bin
  process.env.XDG_CACHE_HOME = path.join(bin, 'cache')
  said = []
  return bin
}

const find = (program = PROGRAM) => goProgram(program, (line) => said.push(line))
const output = (binary: string) => execFileSync('/bin/sh', [binary], { encoding: 'utf8' }).trim()

test.after(() => {
  Object.assign(process.env, before)
  if (before.XDG_CACHE_HOME === undefined) delete process.env.XDG_CACHE_HOME
  rmSync(folder, { recursive: true })
})

test('a program is built once, and says so', async () => {
  const bin = machine({ go: BUILDS })
  const binary = await find()
  assert.equal(output(binary), 'package main')
  assert.match(said.join('\n'), /^Building tracer 1\.2\.3, once.*\nBuilt tracer 1\.2\.3 in \d+ s: .*tracer$/)
  rmSync(path.join(bin, 'go'))
  assert.equal(await find(), binary)
  assert.equal(said.length, 2)
})

test('another version, and one that is made of something else, are built for themselves', async () => {
  machine({ go: BUILDS })
  const binaries = [
    await find(),
    await find({ ...PROGRAM, version: '1.2.4' }),
    await find({ ...PROGRAM, requires: ['tracer.example/cmd@v1.2.3', 'more.example@v1'] }),
    await find({ ...PROGRAM, main: { source: 'package main // changed' } }),
  ]
  assert.equal(new Set(binaries).size, 4)
  assert.equal(output(binaries[3]!), 'package main // changed')
})

test('several that build it at once all have it, and leave nothing else', async () => {
  const bin = machine({ go: BUILDS })
  const binaries = await Promise.all([find(), find(), find()])
  assert.equal(new Set(binaries).size, 1)
  assert.equal(output(binaries[0]!), 'package main')
  assert.deepEqual(globSync(`${bin}/cache/mte-sidecar/*/*`), [binaries[0]])
})

test('a binary that the variable names comes first, and then one on PATH', async () => {
  const bin = machine({ go: 'exit 1', tracer: '', other: '' })
  assert.equal(await find(), path.join(bin, 'tracer'))
  process.env.TRACER_BIN = path.join(bin, 'other')
  try {
    assert.equal(await find(), path.join(bin, 'other'))
    process.env.TRACER_BIN = path.join(bin, 'missing')
    await assert.rejects(find(), /^Error: TRACER_BIN names no program: .*missing$/)
  } finally {
    delete process.env.TRACER_BIN
  }
})

test('where one on PATH may be of another version, it is not taken', async () => {
  const bin = machine({ go: BUILDS, tracer: '' })
  assert.notEqual(await find({ ...PROGRAM, exact: true }), path.join(bin, 'tracer'))
})

test('modules are replaced before any is fetched, and values are linked in', async () => {
  const bin = machine({ go: `echo "$@" >>"$XDG_CACHE_HOME/calls"; ${BUILDS}` })
  mkdirSync(path.join(bin, 'cache'))
  await find({ ...PROGRAM, replaces: ['a=a@v1', 'b=b@v1'], linked: ['a.version=1'] })
  const calls = readFileSync(path.join(bin, 'cache/calls'), 'utf8')
  assert.match(
    calls,
    /mod init .*\nmod edit -replace=a=a@v1 -replace=b=b@v1\nget .*\nbuild .* -X=a\.version=1 /,
  )
})

test('without Go it says how to get the program', async () => {
  machine({})
  await assert.rejects(find(), {
    message:
      'there is no tracer 1.2.3: install Go (https://go.dev/dl), with which the tests build it, or set ' +
      'TRACER_BIN to its binary (https://tracer.example/download)',
  })
})

test('what cannot be built says why, and is not there the next time', async () => {
  const bin = machine({ go: 'echo "go: downloading tracer" >&2; echo "no such module" >&2; exit 1' })
  await assert.rejects(find(), { message: 'tracer 1.2.3 could not be built: no such module' })
  assert.deepEqual(globSync(`${bin}/cache/mte-sidecar/*/*`), [])
  writeFileSync(path.join(bin, 'go'), `#!/bin/sh\n${BUILDS}\n`)
  assert.equal(output(await find()), 'package main')
})

test.run()
