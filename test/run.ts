/**
 * Runs the tests and says what failed; the last line is `N passed, N failed`.
 *
 *     npm test                  types, linter, every *.test.ts, and how much of sidecar/ they covered; those that call
 *                               through sidecars twice: once more with all of them by tunnel
 *     npm test -- test/pair     only the *.test.ts files there, and nothing else
 *     npm test -- --carriage tunnel test/calls.test.ts     with all calls between sidecars by tunnel, or as messages
 *     npm run e2e               every *.e2e.ts: real components and big bodies, one file after the other; big bodies by
 *                               tunnel too
 *     npm run e2e -- --kube     those in test/e2e/kube alone: an API server of Kubernetes, which is built first, in minutes
 *     npm run e2e -- --mesh     the one of a mesh alone
 *
 * Redis' server and Chromium are installed first where they are missing, and for e2e Docker's engine; where that cannot
 * be done, the tests that need them fail.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { installChromium, installRedis } from './support/debian.ts'
import { installDocker } from './support/docker.ts'
import { buildTracingPrograms } from './support/jaeger.ts'
import { buildKubernetes } from './support/kubernetes.ts'
import { told } from './support/tell.ts'
import { type Outcome, runTestFile } from './support/test-file.ts'

/** What is run only when it is asked for, as what it needs takes long to build. */
const KUBE = 'test/e2e/kube'

process.chdir(path.dirname(import.meta.dirname))
const { values, positionals } = parseArgs({
  options: {
    e2e: { type: 'boolean' },
    kube: { type: 'boolean' },
    mesh: { type: 'boolean' },
    carriage: { type: 'string' },
  },
  allowPositionals: true,
})
if (values.mesh) positionals.push('test/e2e/mesh.e2e.ts')
if (values.kube) positionals.push(KUBE)
const kind = values.e2e
  ? {
      suffix: '.e2e.ts',
      folder: 'test/e2e',
      carried: /\/support\/carriage\.ts'/,
      atATime: 1,
      deadlineMs: 10 * 60_000,
    }
  : {
      suffix: '.test.ts',
      folder: 'test',
      carried: /\/support\/(sidecars|process|traced-pair)\.ts'/,
      atATime: 2,
      deadlineMs: 3 * 60_000,
    }
const all = !values.e2e && !values.carriage && positionals.length === 0
if (values.carriage && values.carriage !== 'tunnel' && values.carriage !== 'message')
  throw new Error(`--carriage takes tunnel or message, not "${values.carriage}"`)

const interruption = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interruption.abort())

const outcomes: Outcome[] = []
installRedis(console.log)
installChromium(console.log)
if (values.kube) await buildKubernetes(console.log)
else if (values.e2e) {
  await buildTracingPrograms(console.log)
  await installDocker(console.log)
}
if (all) for (const script of ['typecheck', 'lint']) report(await check(script))
await (all ? withCoverage(runFiles) : runFiles(process.env))
summarize()

async function runFiles(env: NodeJS.ProcessEnv): Promise<void> {
  const limits = { deadlineMs: kind.deadlineMs, leaveMs: 5_000, interrupted: interruption.signal }
  const files = (positionals.length > 0 ? positionals : ['test']).flatMap(findFiles)
  const runs = files.map((file) => ({ file, carriage: values.carriage, env }))
  if (positionals.length === 0 && !values.carriage)
    // What they cover is known by then, and recording it takes long.
    for (const file of files.filter(isForBothCarriages))
      runs.push({ file, carriage: 'tunnel', env: process.env })
  const worker = async () => {
    for (let next = runs.shift(); next; next = runs.shift()) {
      const { file, carriage, env } = next
      const name = carriage ? `${file} (by ${carriage})` : file
      if (interruption.signal.aborted) report(failure(name, 'was not run: interrupted'))
      else report({ ...(await runTestFile(file, limits, { ...env, TEST_CARRIAGE: carriage })), name })
    }
  }
  await Promise.all(Array.from({ length: kind.atATime }, worker))
}

/** Does it start whole sidecars, or, where that takes long, ask which carriage they are to have? */
function isForBothCarriages(file: string): boolean {
  if (path.dirname(file) !== kind.folder) return false
  return kind.carried.test(readFileSync(file, 'utf8'))
}

/** Runs `run` so that every process of it records what it covers; the report and the thresholds are c8's. */
async function withCoverage(run: (env: NodeJS.ProcessEnv) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-coverage-'))
  try {
    await run({ ...process.env, NODE_V8_COVERAGE: folder })
    report(await check('coverage', '--temp-directory', folder))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function findFiles(place: string): string[] {
  const isFile = statSync(place, { throwIfNoEntry: false })?.isFile()
  const files = isFile
    ? [place]
    : globSync(`${place}/**/*${kind.suffix}`, { exclude: values.kube ? [] : [KUBE] }).sort()
  if (files.length === 0) report(failure(place, `has no file of tests (*${kind.suffix})`))
  return files
}

/** Runs a script of package.json whose exit status is the verdict. */
async function check(script: string, ...args: string[]): Promise<Outcome> {
  const child = spawn('npm', ['run', '--silent', script, '--', ...args], { stdio: 'inherit' })
  const [status] = await once(child, 'exit')
  return status === 0
    ? { name: script, passed: 1, failed: 0, complaints: [], output: '' }
    : failure(script, 'failed, see what it printed above')
}

function failure(name: string, complaint: string): Outcome {
  return { name, passed: 0, failed: 1, complaints: [complaint], output: '' }
}

function report(outcome: Outcome): void {
  outcomes.push(outcome)
  if (outcome.failed > 0) console.log(`${outcome.output}\n✘ ${outcome.name}: ${outcome.failed} failed\n`)
  else console.log([`✔ ${outcome.name}: ${outcome.passed} passed`, ...told(outcome.output)].join('\n'))
}

function summarize(): void {
  let passed = 0
  let failed = 0
  console.log()
  for (const outcome of outcomes) {
    passed += outcome.passed
    failed += outcome.failed
    for (const complaint of outcome.complaints) console.log(`✘ ${outcome.name}: ${complaint}`)
  }
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1
}
