/** What is asked of our pair, and what it came to, in one table. */
import type { Comparison, Figures, Row } from './report.ts'

/** What was measured: every scenario of every comparison. */
export interface Outcome {
  comparison: Comparison
  scenario: string
  rows: Row[]
}

type Find = (comparison: Comparison, scenario: string, pair: string) => Row | undefined
type Line = [title: string, goal: string, value: (find: Find) => number | undefined, digits?: number]

const ratio =
  (scenario: string, name: keyof Figures, { pair = 'ours', to = 'nginx' } = {}) =>
  (find: Find) =>
    quotient(find('proxies', scenario, pair)?.median?.[name], find('proxies', scenario, to)?.median?.[name])
const addedMs = (name: 'p50Ms' | 'p99Ms') => (find: Find) => {
  const [own, direct] = ['ours', 'direct'].map((pair) => find('proxies', 'open-loop', pair)?.median?.[name])
  return own === undefined || direct === undefined ? undefined : own - direct
}
const largestMegabytes = (name: 'peakBytes' | 'restBytes') => (find: Find) => {
  const bytes = find('proxies', 'open-loop', 'ours')?.[name] ?? []
  return bytes.length > 0 ? Math.max(...bytes) / 1e6 : undefined
}
/** The median of the ratios within a round is in the table of the comparison; this is the ratio of the medians. */
const toBase = (comparison: Comparison, name: keyof Figures, pair: string, base: string) => (find: Find) =>
  quotient(
    find(comparison, 'get-small', pair)?.median?.[name],
    find(comparison, 'get-small', base)?.median?.[name],
  )

const LINES: Line[] = [
  ['small GET, CPU a call, to nginx', '0.9', ratio('get-small', 'cpuUsPerCall')],
  ['GET of 16 KiB, CPU a call, to nginx', '1.5', ratio('get-16k', 'cpuUsPerCall')],
  ['POST of 16 KiB, CPU a call, to nginx', '1.5', ratio('post-16k', 'cpuUsPerCall')],
  [
    'small GET by message, CPU a call, to nginx',
    '3.5',
    ratio('get-small', 'cpuUsPerCall', { pair: 'ours-by-message' }),
  ],
  ['GET of a big body, CPU a byte, to HAProxy', '2', ratio('body-get', 'cpuNsPerByte', { to: 'haproxy' })],
  ['POST of a big body, CPU a byte, to HAProxy', '2', ratio('body-post', 'cpuNsPerByte', { to: 'haproxy' })],
  ['p50 added at 1,000 calls/s, ms', '0.4', addedMs('p50Ms')],
  ['p99 added at 1,000 calls/s, ms', '2', addedMs('p99Ms')],
  ['most memory of a sidecar under that, MB', '120', largestMegabytes('peakBytes'), 0],
  ['its memory at rest after that, MB', '90', largestMegabytes('restBytes'), 0],
  ['with Redis, CPU a call, to without', '1.05', toBase('redis', 'cpuUsPerCall', 'redis', 'memory')],
  ['with 1 % traced, CPU a call, to without', '1.05', toBase('traces', 'cpuUsPerCall', '1-percent', 'off')],
  [
    '2 workers, calls a second, to 1',
    'more than 1.4',
    toBase('workers', 'callsPerSecond', '2-workers', '1-worker'),
  ],
]

export function summaryOf(outcomes: readonly Outcome[]): string {
  const find: Find = (comparison, scenario, pair) =>
    outcomes
      .find((outcome) => outcome.comparison === comparison && outcome.scenario === scenario)
      ?.rows.find((row) => row.pair === pair)
  const lines = LINES.map(([title, goal, value, digits = 2]) => [
    title,
    value(find)?.toFixed(digits) ?? '-',
    goal,
  ])
  return [['', 'measured', 'at most'], ...lines]
    .map(([title, value, goal]) => `${title!.padEnd(44)}${value!.padStart(10)}${goal!.padStart(16)}`)
    .join('\n')
}

function quotient(own: number | undefined, base: number | undefined): number | undefined {
  return own === undefined || base === undefined ? undefined : own / base
}
