/** Measures pairs side by side: each is started, and then they take turns under one load after the other. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { type App, makeSparseFile, startApp } from './app.ts'
import { type Collector, startCollector } from './collector.ts'
import { callOften, type Extent, type Scenario, type Target } from './load.ts'
import type { Part } from './options.ts'
import { makeCertificates, type PairKind } from './pairs.ts'
import {
  cpuSeconds,
  findFreePorts,
  lastLines,
  peakBytes,
  residentBytes,
  type Service,
  stopService,
  waitForAnswer,
} from './processes.ts'
import { nowUs, type Span } from './profile.ts'
import { figuresOf, medians, type Row, type Usage } from './report.ts'

const MEBIBYTE = 2 ** 20
/** By then a sidecar has given back what it does not need at rest. */
const AT_REST_MS = 35_000

/** What every measurement of a run shares. */
export interface Bench {
  app: App
  redis: RedisServer | undefined
  collector: Collector | undefined
  rounds: number
  warmUp: Extent
  measured: Extent
  certificates: string
  scratch: string
  /** folder that gets CPU profiles of our processes, if they are to make any */
  profiles: string | undefined
}

/** A pair that has been started for a scenario. */
interface Contender {
  kind: PairKind
  row: Row
  target: Target
  services: Service[]
  /** between its two sides */
  between: Service[]
  /** URL at which our sidecar that calls tells its metrics */
  metrics: string | undefined
  /** when it was measured */
  spans: Span[]
  /** folder that gets its CPU profiles */
  profiles: string | undefined
}

/** What became of a pair, and where its CPU profiles are, if there are any. */
export interface Measured {
  row: Row
  spans: Span[]
  profiles: string | undefined
}

/**
 * Starts the app and makes all that the pairs need.
 * @param scratch an empty folder
 */
export async function prepare(
  scratch: string,
  { parts, rounds, quick, profile }: { parts: Part[]; rounds: number; quick: boolean; profile?: string },
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
  const compares = (what: Part['comparison']) => parts.some(({ comparison }) => comparison === what)
  return {
    app,
    redis: compares('redis') ? await startRedis() : undefined,
    collector: compares('traces') ? await startCollector() : undefined,
    rounds,
    warmUp,
    measured,
    certificates,
    scratch,
    profiles: profile === undefined ? undefined : path.resolve(profile),
  }
}

/** Starts every pair, measures them in turn, round after round, and stops them. */
export async function compare(pairs: PairKind[], scenario: Scenario, bench: Bench): Promise<Measured[]> {
  const contenders: Contender[] = []
  for (const kind of pairs) contenders.push(await enter(kind, scenario, bench))
  for (let round = 1; round <= bench.rounds; round++) {
    for (const contender of contenders) {
      if (contender.row.failure) continue
      console.error(`${scenario.name}, round ${round}: ${contender.row.pair}`)
      await measure(contender, scenario, bench)
    }
  }
  for (const { row, services } of contenders) row.peakBytes = services.map((service) => peakBytes([service]))
  if (scenario.kind === 'open-loop') {
    await sleep(AT_REST_MS)
    for (const { row, services } of contenders)
      row.restBytes = services.map((service) => residentBytes([service]))
  }
  for (const { kind, row, services, between } of contenders) {
    if (row.rounds.length > 0) row.median = medians(row.rounds)
    if (kind.traced && row.median?.spansPerCall === 0) row.failure = 'no span came to the collector'
    await Promise.all([...services, ...between].map(stopService))
  }
  return contenders
}

/** Starts a pair and waits until it answers. */
async function enter(kind: PairKind, scenario: Scenario, bench: Bench): Promise<Contender> {
  const ports = await findFreePorts(5)
  const port = () => ports.pop()!
  const [outbound, inbound, admin] = [port(), port(), port()]
  const between = { outbound: port(), inbound: port() }
  const app = bench.app[scenario.app]
  const folder = makeFolder(bench.scratch, `${scenario.name}-${kind.name}`)
  const secret = randomBytes(32).toString('base64url')
  const collector = bench.collector?.endpoint(kind.name)
  const profiles = bench.profiles && makeEmptyFolder(bench.profiles, path.basename(folder))
  const { certificates } = bench
  const redis = bench.redis?.url
  const ours = { admin, secret, redis, collector, profiles }
  const site = { outbound, inbound, app, between, certificates, folder, ...ours }
  const betweenServices = kind.startBetween?.(site) ?? []
  const services = kind.start(site)
  const entry = services.length > 0 ? outbound : app
  const metrics = kind.ours && `http://127.0.0.1:${admin}/metrics`
  const target = { outbound: entry, inbound, secret, refusing: bench.app.refusing, folder }
  const row: Row = { pair: kind.name, base: kind.base, rounds: [], peakBytes: [], restBytes: [] }
  try {
    await waitForAnswer(entry, [...services, ...betweenServices])
  } catch (error) {
    row.failure = (error as Error).message
  }
  return { kind, row, target, services, between: betweenServices, metrics, spans: [], profiles }
}

async function measure(contender: Contender, scenario: Scenario, bench: Bench): Promise<void> {
  const { row, target, services } = contender
  try {
    if (scenario.kind === 'body') await callOften(target, bench.warmUp)
    await scenario.run(target, bench.warmUp)
    const carried = await countCarried(contender)
    const fromUs = nowUs()
    const before = usageOf(contender, bench)
    const load = await scenario.run(target, bench.measured)
    const after = usageOf(contender, bench)
    contender.spans.push({ fromUs, toUs: nowUs() })
    const carriedAfter = await countCarried(contender)
    row.rounds.push(
      figuresOf(load, {
        cpuSeconds: after.cpuSeconds - before.cpuSeconds,
        redisCpuSeconds: after.redisCpuSeconds - before.redisCpuSeconds,
        spans: after.spans - before.spans,
        carried: {
          byTunnel: carriedAfter.byTunnel - carried.byTunnel,
          byMessage: carriedAfter.byMessage - carried.byMessage,
        },
      }),
    )
  } catch (error) {
    row.failure = [(error as Error).message, ...services.flatMap(lastLines)].join('\n')
  }
}

/** What it was since its start. */
function usageOf({ kind, services }: Contender, { redis, collector }: Bench): Omit<Usage, 'carried'> {
  return {
    cpuSeconds: cpuSeconds(services),
    redisCpuSeconds: redis ? cpuSeconds([redis]) : 0,
    spans: collector?.spans(kind.name) ?? 0,
  }
}

/** How many calls are over since the start, by how they went from sidecar to sidecar. */
async function countCarried({ metrics }: Contender): Promise<Usage['carried']> {
  const text = metrics ? await (await fetch(metrics)).text() : ''
  const count = (carriage: string) =>
    Number(
      new RegExp(`^mte_calls_total\\{.*"outbound".*"${carriage}".*\\} (\\d+)$`, 'm').exec(text)?.[1] ?? 0,
    )
  return { byTunnel: count('tunnel'), byMessage: count('message') }
}

/** Not with what another run left. */
function makeEmptyFolder(parent: string, name: string): string {
  rmSync(path.join(parent, name), { recursive: true, force: true })
  return makeFolder(parent, name)
}

function makeFolder(parent: string, name: string): string {
  const folder = path.join(parent, name)
  mkdirSync(folder, { recursive: true })
  return folder
}
