/** The figures that are told of a pair, and the tables that tell them. */
import type { Load, Scenario } from './load.ts'

/** What one run came to, for a pair. The CPU is that of the pair alone: 0 when there is none. */
export interface Figures {
  callsPerSecond: number
  megabytesPerSecond: number
  cpuUsPerCall: number
  cpuNsPerByte: number
  p50Ms: number
  p99Ms: number
}

/** What became of a pair in a scenario. */
export interface Row {
  pair: string
  /** of each round */
  rounds: Figures[]
  /** medians over the rounds; undefined when there was none */
  median?: Figures
  /** the most memory that its processes held */
  peakBytes: number
  /** why it could not be measured to the end */
  failure?: string
}

export function figuresOf(load: Load, cpuSeconds: number): Figures {
  return {
    callsPerSecond: load.calls / load.seconds,
    megabytesPerSecond: load.bytes / load.seconds / 1e6,
    cpuUsPerCall: (cpuSeconds / load.calls) * 1e6,
    cpuNsPerByte: load.bytes > 0 ? (cpuSeconds / load.bytes) * 1e9 : 0,
    p50Ms: load.p50Ms,
    p99Ms: load.p99Ms,
  }
}

/** The median of each figure. */
export function medians(rounds: Figures[]): Figures {
  const names = Object.keys(rounds[0]!) as (keyof Figures)[]
  return Object.fromEntries(
    names.map((name) => [name, median(rounds.map((figures) => figures[name]))]),
  ) as never
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A cell, from the medians of a pair and those of the pair that it is compared with. */
type Column = [
  title: string,
  cell: (own: Figures, row: Row, of: (pair: string) => Figures | undefined) => string,
]

const decimals = (digits: number, value: number | undefined) =>
  value === undefined || !Number.isFinite(value) ? '-' : value.toFixed(digits)
const figure = (title: string, digits: number, name: keyof Figures): Column => [
  title,
  (own) => (own[name] > 0 ? decimals(digits, own[name]) : '-'),
]
const ratio = (pair: string, name: keyof Figures): Column => [
  `to ${pair}`,
  (own, _, of) => (own[name] > 0 ? decimals(2, own[name] / (of(pair)?.[name] ?? Number.NaN)) : '-'),
]
const added = (title: string, name: keyof Figures): Column => [
  title,
  (own, row, of) =>
    row.pair === 'direct' ? '-' : decimals(2, own[name] - (of('direct')?.[name] ?? Number.NaN)),
]
const peak: Column = ['peak MB', (_, row) => (row.peakBytes > 0 ? decimals(0, row.peakBytes / 1e6) : '-')]

const CALLS = [figure('calls/s', 0, 'callsPerSecond'), figure('CPU us/call', 1, 'cpuUsPerCall')]
const LATENCY = [figure('p50 ms', 2, 'p50Ms'), figure('p99 ms', 2, 'p99Ms')]
const COLUMNS: Record<Scenario['kind'], Column[]> = {
  'closed-loop': [...CALLS, ratio('nginx', 'cpuUsPerCall'), ...LATENCY, peak],
  'open-loop': [
    ...[...CALLS, ratio('nginx', 'cpuUsPerCall'), ...LATENCY],
    ...[added('p50 added', 'p50Ms'), added('p99 added', 'p99Ms'), peak],
  ],
  body: [
    figure('MB/s', 0, 'megabytesPerSecond'),
    figure('CPU ns/byte', 2, 'cpuNsPerByte'),
    ...[ratio('haproxy', 'cpuNsPerByte'), peak],
  ],
}

/** The table of a scenario, a line a pair; pairs that failed say why below it. */
export function tableOf(kind: Scenario['kind'], rows: Row[]): string {
  const columns = COLUMNS[kind]
  const of = (pair: string) => rows.find((row) => row.pair === pair)?.median
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
