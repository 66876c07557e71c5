/** The figures that are told of a pair, and the tables that tell them. */
import type { Flood, Load, Scenario } from './load.ts'

/** What pairs are compared for: ours with other proxies, or what Redis costs, traces, a mesh, workers or a change. */
export type Comparison = 'proxies' | 'redis' | 'traces' | 'mesh' | 'workers' | 'baseline'

/** What a pair used up, and made, in a run. */
export interface Usage {
  cpuSeconds: number
  /** of Redis, beside the pair; 0 where there is none */
  redisCpuSeconds: number
  /** that arrived at the collector; 0 where there is none */
  spans: number
  /** calls of our sidecars, by how they went from one to the other */
  carried: { byTunnel: number; byMessage: number }
}

/** What one run came to, for a pair. The CPU is that of the pair alone: 0 when there is none. */
export interface Figures extends Partial<Flood> {
  callsPerSecond: number
  megabytesPerSecond: number
  cpuUsPerCall: number
  /** CPU of Redis, beside that of the pair */
  redisUsPerCall: number
  /** that were exported */
  spansPerCall: number
  /** of the calls, those that went by tunnel */
  tunnelPercent: number
  cpuNsPerByte: number
  p50Ms: number
  p99Ms: number
}

/** What became of a pair in a scenario. */
export interface Row {
  pair: string
  /** the pair that it is compared with, if it is not the one that others are compared with */
  base: string | undefined
  /** of each round */
  rounds: Figures[]
  /** medians over the rounds; undefined when there was none */
  median?: Figures
  /** the most memory that each of its services held, and what it held once it was at rest; the latter for open loops */
  peakBytes: number[]
  restBytes: number[]
  /** why it could not be measured to the end */
  failure?: string
}

export function figuresOf(load: Load, { cpuSeconds, redisCpuSeconds, spans, carried }: Usage): Figures {
  return {
    callsPerSecond: load.calls / load.seconds,
    megabytesPerSecond: load.bytes / load.seconds / 1e6,
    cpuUsPerCall: (cpuSeconds / load.calls) * 1e6,
    redisUsPerCall: (redisCpuSeconds / load.calls) * 1e6,
    spansPerCall: spans / load.calls,
    tunnelPercent: (100 * carried.byTunnel) / Math.max(1, carried.byTunnel + carried.byMessage),
    cpuNsPerByte: load.bytes > 0 ? (cpuSeconds / load.bytes) * 1e9 : 0,
    p50Ms: load.p50Ms,
    p99Ms: load.p99Ms,
    ...load.flood,
  }
}

/** The median of each figure. */
export function medians(rounds: Figures[]): Figures {
  const names = Object.keys(rounds[0]!) as (keyof Figures)[]
  return Object.fromEntries(
    names.map((name) => [name, median(rounds.map((figures) => figures[name]!))]),
  ) as never
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A cell, from the medians of a pair and what became of the pair that it is compared with. */
type Column = [title: string, cell: (own: Figures, row: Row, of: (pair: string) => Row | undefined) => string]

const decimals = (digits: number, value: number | undefined) =>
  value === undefined || !Number.isFinite(value) ? '-' : value.toFixed(digits)
const figure = (title: string, digits: number, name: keyof Figures): Column => [
  title,
  (own) => (own[name]! > 0 ? decimals(digits, own[name]) : '-'),
]
const ratio = (pair: string, name: keyof Figures): Column => [
  `to ${pair}`,
  (own, _, of) => (own[name]! > 0 ? decimals(2, own[name]! / (of(pair)?.median?.[name] ?? Number.NaN)) : '-'),
]
const added = (title: string, name: keyof Figures): Column => [
  title,
  (own, row, of) =>
    row.pair === 'direct' ? '-' : decimals(2, own[name]! - (of('direct')?.median?.[name] ?? Number.NaN)),
]
const byDifference = (own: number, base: number) => own - base
const byPercent = (own: number, base: number) => 100 * (own / base - 1)
const byRatio = (own: number, base: number) => own / base
/** What a pair has more than its base: the median of what it is within a round, and the least and the most of that. */
const more = (title: string, digits: number, name: keyof Figures, by = byDifference): Column => [
  title,
  (_, row, of) => {
    const rounds = (row.base && of(row.base)?.rounds) || []
    if (rounds.length === 0 || rounds.length < row.rounds.length) return '-'
    const all = row.rounds.map((figures, round) => by(figures[name]!, rounds[round]![name]!))
    const [middle, least, most] = [median(all), Math.min(...all), Math.max(...all)]
    return `${decimals(digits, middle)} (${decimals(digits, least)} to ${decimals(digits, most)})`
  },
]
const signed = (title: string, digits: number, name: keyof Figures): Column => [
  title,
  (own) => decimals(digits, own[name]),
]
const memory = (title: string, name: 'peakBytes' | 'restBytes'): Column => [
  title,
  (_, row) => row[name].map((bytes) => decimals(0, bytes / 1e6)).join(' + ') || '-',
]
const peak = memory('peak MB', 'peakBytes')
const rest = memory('at rest', 'restBytes')

const byTunnel = figure('tunnel %', 0, 'tunnelPercent')
const CALLS = [figure('calls/s', 0, 'callsPerSecond'), figure('CPU us/call', 1, 'cpuUsPerCall')]
const LATENCY = [figure('p50 ms', 2, 'p50Ms'), figure('p99 ms', 2, 'p99Ms')]
const COLUMNS: Record<Scenario['kind'], Column[]> = {
  'closed-loop': [...CALLS, ratio('nginx', 'cpuUsPerCall'), ...LATENCY, byTunnel, peak],
  'open-loop': [
    ...[...CALLS, ratio('nginx', 'cpuUsPerCall'), ...LATENCY],
    ...[added('p50 added', 'p50Ms'), added('p99 added', 'p99Ms'), byTunnel, peak, rest],
  ],
  body: [
    figure('MB/s', 0, 'megabytesPerSecond'),
    figure('CPU ns/byte', 2, 'cpuNsPerByte'),
    ...[ratio('haproxy', 'cpuNsPerByte'), byTunnel, peak],
  ],
  flood: [
    ...[
      figure('good calls/s', 0, 'callsPerSecond'),
      figure('p50 ms', 2, 'p50Ms'),
      figure('p99 ms', 2, 'p99Ms'),
    ],
    ...[figure('replays/s', 0, 'replaysPerSecond'), signed('drop %', 1, 'dropPercent')],
    ...[signed('p50 more', 2, 'p50MoreMs'), figure('control: replays/s', 0, 'controlReplaysPerSecond')],
    ...[signed('drop %', 1, 'controlDropPercent'), signed('p50 more', 2, 'controlP50MoreMs')],
  ],
}

const SPENT = [...CALLS, more('% more', 1, 'cpuUsPerCall', byPercent), ...LATENCY]
const LATER = more('p50 ms more', 2, 'p50Ms')
/** Columns where our pairs are compared; a flood is told in the same words everywhere. */
const OURS: Record<Exclude<Comparison, 'proxies'>, Column[]> = {
  redis: [
    ...[...CALLS, figure('Redis us/call', 1, 'redisUsPerCall'), more('us more', 1, 'cpuUsPerCall')],
    ...[more('% more', 1, 'cpuUsPerCall', byPercent), ...LATENCY, LATER, byTunnel, peak],
  ],
  traces: [...SPENT, LATER, figure('spans/call', 2, 'spansPerCall'), byTunnel, peak],
  mesh: [...SPENT, LATER, byTunnel, peak],
  workers: [...SPENT, more('times calls/s', 2, 'callsPerSecond', byRatio), byTunnel, peak],
  baseline: [...SPENT, LATER, byTunnel, peak],
}
const BODY_TO_BASELINE: Column[] = [
  ...[figure('MB/s', 0, 'megabytesPerSecond'), figure('CPU ns/byte', 2, 'cpuNsPerByte')],
  ...[more('% more', 1, 'cpuNsPerByte', byPercent), byTunnel, peak],
]

function columnsOf(comparison: Comparison, kind: Scenario['kind']): Column[] {
  if (comparison === 'proxies' || kind === 'flood') return COLUMNS[kind]
  if (kind === 'body') return BODY_TO_BASELINE
  return kind === 'open-loop' ? [...OURS[comparison], rest] : OURS[comparison]
}

/** The table of a scenario, a line a pair; pairs that failed say why below it. */
export function tableOf(comparison: Comparison, kind: Scenario['kind'], rows: Row[]): string {
  const of = (pair: string) => rows.find((row) => row.pair === pair)
  const columns = columnsOf(comparison, kind)
  const lines = [['pair', ...columns.map(([title]) => title)]]
  for (const row of rows)
    lines.push([row.pair, ...columns.map(([, cell]) => (row.median ? cell(row.median, row, of) : '-'))])
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
  const table = lines.map((line) =>
    line
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
      .join('  '),
  )
  const failures = rows.flatMap((row) => (row.failure ? [`${row.pair} failed: ${row.failure}`] : []))
  return [...table, ...failures].join('\n')
}
