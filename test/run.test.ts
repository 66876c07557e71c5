import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { suite } from './support/suite.ts'
import { type Limits, type Outcome, runTestFile } from './support/test-file.ts'

const test = suite('runner')
const SUITE = `import { suite } from '${import.meta.resolve('./support/suite.ts')}'; const test = suite('s')\n`
const UVU = `import { suite } from '${import.meta.resolve('uvu')}'; const test = suite('s')\n`

const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-runner-'))
test.after(() => rmSync(folder, { recursive: true }))

interface Verdict {
  passed: number
  failed: number
  complaints: RegExp[]
}

const good: Verdict = { passed: 2, failed: 0, complaints: [] }

// A handle that is left open closes after a minute, should the runner fail to stop its process.
const files: Record<string, [source: string, verdict: Verdict]> = {
  'passes a file whose tests pass': [
    `${SUITE} test('a', () => {}); test('b', async () => {}); test.run()`,
    good,
  ],
  'fails on a failing test, by its name': [
    `${SUITE} test('adds up', () => { throw new Error('no') }); test('b', () => {}); test.run()`,
    { passed: 1, failed: 1, complaints: [/^FAIL s "adds up"$/] },
  ],
  'fails every test of a suite whose before throws': [
    `${SUITE} test.before(() => { throw new Error('no') }); test('a', () => {}); test('b', () => {}); test.run()`,
    { passed: 0, failed: 2, complaints: [/^FAIL s "a"$/, /^FAIL s "b"$/] },
  ],
  'fails on an after that throws': [
    `${SUITE} test.after(() => { throw new Error('no') }); test('a', () => {}); test.run()`,
    { passed: 1, failed: 1, complaints: [/^FAIL s "tears down"$/] },
  ],
  'fails on a test that takes longer than its deadline': [
    `${SUITE} test('waits', () => new Promise(() => {}), 20); test.run()`,
    { passed: 0, failed: 1, complaints: [/^FAIL s "waits"$/] },
  ],
  'fails on a before of uvu that throws': [
    `${UVU} test.before(() => { throw new Error('no') }); test('a', () => {}); test.run()`,
    { passed: 0, failed: 1, complaints: [/a hook threw/] },
  ],
  'fails on an after.each of uvu that throws': [
    `${UVU} test.after.each(() => { throw new Error('no') }); test('a', () => {}); test('b', () => {}); test.run()`,
    { passed: 0, failed: 2, complaints: [/a hook threw/] },
  ],
  'fails on an after of uvu that throws': [
    `${UVU} test.after(() => { throw new Error('no') }); test('a', () => {}); test.run()`,
    { passed: 0, failed: 1, complaints: [/^exited with status 1$/] },
  ],
  'fails on a forgotten run()': [
    `${SUITE} test('a', () => {})`,
    { passed: 0, failed: 1, complaints: [/test\.run\(\) missing/] },
  ],
  'fails on a suite without a test': [
    `${SUITE} test.run()`,
    { passed: 0, failed: 1, complaints: [/^has no test$/] },
  ],
  'fails on an only that was left behind': [
    `${UVU} test('a', () => {}); test.only('b', () => {}); test.run()`,
    { passed: 1, failed: 1, complaints: [/leaves out 1 of its tests: remove only or skip/] },
  ],
  'fails on a skipped test': [
    `${UVU} test('a', () => {}); test.skip('b', () => {}); test.run()`,
    { passed: 1, failed: 1, complaints: [/leaves out 1 of its tests: remove only or skip/] },
  ],
  'fails on an error outside of the tests': [
    `${SUITE} test('a', () => {}); test.run(); throw new Error('no')`,
    { passed: 0, failed: 1, complaints: [/^exited with status 1$/] },
  ],
  'fails on an exit in the middle of a test': [
    `${SUITE} test('a', () => process.exit(0)); test.run()`,
    { passed: 0, failed: 1, complaints: [/^exited with status 1$/] },
  ],
  'fails on an exit status after the last test': [
    `${SUITE} test('a', () => { process.on('exit', () => { process.exitCode = 7 }) }); test.run()`,
    { passed: 1, failed: 1, complaints: [/^exited with status 7$/] },
  ],
  'fails on a file that is not TypeScript': [
    `${SUITE} test('a'`,
    { passed: 0, failed: 1, complaints: [/^exited with status 1$/] },
  ],
  'fails on two suites that do not run together': [
    `${SUITE} test('a', () => { throw new Error('no') }); test.run()
    await new Promise((done) => setImmediate(() => setTimeout(done, 5)))
    const second = suite('t'); second('b', () => {}); second.run()`,
    { passed: 0, failed: 1, complaints: [/^FAIL s "a"$/, /waits between its suites/] },
  ],
  'fails on what is left open, and stops it': [
    `${SUITE} test('a', () => { setTimeout(() => {}, 60_000) }); test.run()`,
    { passed: 1, failed: 1, complaints: [/did not exit after its last test/] },
  ],
}

for (const [sentence, [source, verdict]] of Object.entries(files))
  test(sentence, async () => expect(await run(source), verdict))

test('fails on a file that never ends, and stops it', async () => {
  const outcome = await run('setTimeout(() => {}, 60_000)', { deadlineMs: 200 })
  expect(outcome, { passed: 0, failed: 1, complaints: [/^was not done after 0.2 s$/] })
})

test('stops a file when it is interrupted', async () => {
  const outcome = await run('setTimeout(() => {}, 60_000)', { interrupted: AbortSignal.timeout(200) })
  expect(outcome, { passed: 0, failed: 1, complaints: [/^was interrupted$/] })
})

test('stops the processes that a file leaves behind', async () => {
  const source = `import { spawn } from 'node:child_process'
    ${SUITE} test('a', () => {
      const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'], { stdio: 'inherit' })
      child.unref()
    })
    test.run()`
  expect(await run(source), { passed: 1, failed: 0, complaints: [] }) // waits for the pipe that the child holds
})

test('says on its last line how many passed and failed, and names the failures', async () => {
  const place = newFolder()
  writeFileSync(path.join(place, 'good.test.ts'), files['passes a file whose tests pass']![0])
  writeFileSync(path.join(place, 'bad.test.ts'), files['fails on a failing test, by its name']![0])
  const { status, lines } = await runner(place)
  assert.equal(lines.at(-1), '3 passed, 1 failed')
  assert.equal(lines.at(-2), `✘ ${place}/bad.test.ts: FAIL s "adds up"`)
  assert.equal(status, 1)
})

test('takes a single file, and exits with 0 when it passes', async () => {
  const file = path.join(newFolder(), 'good.test.ts')
  writeFileSync(file, files['passes a file whose tests pass']![0])
  const { status, lines } = await runner(file)
  assert.equal(lines.at(-1), '2 passed, 0 failed')
  assert.equal(status, 0)
})

test('fails on a folder without tests', async () => {
  const place = newFolder()
  const { status, lines } = await runner(place)
  assert.deepEqual(lines.slice(-2), [`✘ ${place}: has no file of tests (*.test.ts)`, '0 passed, 1 failed'])
  assert.equal(status, 1)
})

test('fails on a folder that does not exist', async () => {
  const { status, lines } = await runner(path.join(folder, 'nowhere'))
  assert.equal(lines.at(-1), '0 passed, 1 failed')
  assert.equal(status, 1)
})

let folders = 0
function newFolder(): string {
  const place = path.join(folder, `${folders++}`)
  mkdirSync(place)
  return place
}

function run(source: string, limits: Partial<Limits> = {}): Promise<Outcome> {
  const file = path.join(newFolder(), 'x.test.ts')
  writeFileSync(file, source)
  return runTestFile(file, {
    deadlineMs: 30_000,
    leaveMs: 500,
    interrupted: new AbortController().signal,
    ...limits,
  })
}

function expect({ passed, failed, complaints, output }: Outcome, wanted: Verdict): void {
  const said = `${complaints.join('\n')}\n${output}`
  assert.deepEqual({ passed, failed }, { passed: wanted.passed, failed: wanted.failed }, said)
  assert.equal(complaints.length, wanted.complaints.length, said)
  for (const [index, pattern] of wanted.complaints.entries()) assert.match(complaints[index]!, pattern)
}

function runner(place: string): Promise<{ status: number; lines: string[] }> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [path.join(import.meta.dirname, 'run.ts'), place],
      (_error, stdout) => resolve({ status: child.exitCode!, lines: stdout.trimEnd().split('\n') }),
    )
  })
}

test.run()
