import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { ERRORS } from '../../sidecar/errors.ts'
import { REJECTS } from '../../sidecar/pair/reject.ts'
import { Metrics } from '../../sidecar/telemetry/metrics.ts'
import { suite } from '../support/suite.ts'

const test = suite('dashboard and alert rules')
const otel = path.join(import.meta.dirname, '../../otel')

interface Panel {
  type: string
  title: string
  description: string
  gridPos: { x: number; y: number; w: number; h: number }
  targets: { expr: string; legendFormat: string }[]
  fieldConfig: { defaults: { unit: string } }
}

interface Dashboard {
  panels: Panel[]
  templating: { list: { name: string; definition?: string }[] }
}

/** What asks for metrics: its text in PromQL, and names of labels that are expected of its result. */
interface Query {
  where: string
  promql: string
  shown: string[]
}

const dashboard: Dashboard = JSON.parse(readFileSync(path.join(otel, 'grafana/dashboard.json'), 'utf8'))
const graphs = dashboard.panels.filter(({ type }) => type !== 'row')
const rules = readFileSync(path.join(otel, 'prometheus/alerts.yaml'), 'utf8')
const queries = [...ofPanels(), ...ofVariables(), ...ofAlerts()]

/** Prometheus itself makes them. */
const LABELS_OF_TARGETS = ['job', 'instance']
const METRICS_OF_TARGETS = ['up']
const KEYWORDS = ['or', 'and', 'unless', 'bool', 'offset']
const VALUES: Record<string, readonly string[]> = {
  mte_direction: ['outbound', 'inbound'],
  mte_carriage: ['message', 'tunnel'],
  error_type: Object.keys(ERRORS),
  code: Object.keys(REJECTS),
  operation: ['encode', 'decode', 'handshake', 'list'],
  direction: ['sent', 'received'],
}

/** The labels of each metric that a sidecar prints once it has met everything. */
let printed: Map<string, Set<string>>
test.before(async () => {
  const metrics = new Metrics()
  const call = { peer: 'billing', method: 'POST', status: 502, error: 'peer-unreachable' }
  metrics.served({ direction: 'outbound', ...call }, 0.1)
  metrics.forwarded({ direction: 'outbound', ...call }, 0.1)
  metrics.coded('encode', 'request', 0.0001, 100, 200)
  metrics.paired('initiator', 0.01, 'secret-mismatch')
  metrics.rejected('sent', 'replayed')
  metrics.resent('same')
  metrics.carried('outbound', 'tunnel')
  metrics.record('sent', 0.0001)
  metrics.stored('claim', 0.001, true)
  metrics.watch({
    openCalls: () => ({ outbound: 1, inbound: 1 }),
    tunnels: () => ({ initiator: 1, responder: 1 }),
    pairs: async () => ({ initiator: 1, responder: 1 }),
  })
  printed = labelsOf((await metrics.text('')).body)
})

test('ask for metrics that a sidecar prints, with labels that these have', () => {
  assert.ok(ofPanels().length >= graphs.length)
  assert.equal(ofVariables().length, 2)
  assert.equal(ofAlerts().length, rules.split('- alert:').length - 1)
  for (const { where, promql } of queries) assert.deepEqual(mistakes(promql), [], where)
})

test('show no label that their queries have left out', () => {
  for (const { where, promql, shown } of queries) {
    const kept = [...promql.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, labels]) => labels!.split(', '))
    const all = promql.includes(' by (') ? kept : LABELS_OF_TARGETS
    for (const label of shown) assert.ok(all.includes(label), `${where}: ${label}`)
  }
})

test('mistakes in queries would be found', () => {
  assert.deepEqual(mistakes('sum(rate(mte_rejects[5m]))'), ['no metric: mte_rejects'])
  assert.deepEqual(mistakes('mte_rejects_total or mte_reject_total'), ['no metric: mte_reject_total'])
  assert.deepEqual(mistakes('mte_rejects_total{peer="a"}'), ['mte_rejects_total has no label: peer'])
  assert.deepEqual(mistakes('sum by (peer) (mte_pairs{role="initiator"})'), ['no label: peer'])
  assert.deepEqual(mistakes('mte_rejects_total{code=~"replayed|replay"}'), ['code has no value: replay'])
})

test('every panel says in which unit and what it shows, and has a place of its own', () => {
  assert.ok(graphs.length > 20, `${graphs.length} panels were found`)
  const places = new Set<string>()
  for (const { title, description, fieldConfig, gridPos } of graphs) {
    assert.ok(fieldConfig.defaults.unit, title)
    assert.ok(description.length > 20, title)
    assert.ok(gridPos.x + gridPos.w <= 24, title)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        assert.ok(!places.has(`${x} ${y}`), `${title} covers another panel`)
        places.add(`${x} ${y}`)
      }
  }
})

test('every panel can be narrowed to instances of any data source', () => {
  const names = dashboard.templating.list.map(({ name }) => name)
  assert.deepEqual(names, ['datasource', 'instance', 'peer'])
  for (const { title, targets } of graphs)
    for (const { expr } of targets)
      for (const [selector] of expr.matchAll(/\{[^}]*\}/g))
        assert.ok(selector.includes('instance=~"$instance"'), `${title}: ${selector}`)
  for (const [, uid] of JSON.stringify(dashboard).matchAll(/"uid":"([^"]*)"/g))
    assert.match(uid!, /^(mte-sidecar|\$\{datasource\})$/)
})

test.run()

function ofPanels(): Query[] {
  return graphs.flatMap(({ title, targets }) =>
    targets.map(({ expr, legendFormat }) => ({
      where: `panel ${title}`,
      promql: expr,
      shown: namesIn(legendFormat, /\{\{(\w+)\}\}/g),
    })),
  )
}

function ofVariables(): Query[] {
  return dashboard.templating.list.flatMap(({ name, definition }) => {
    const [, metric, label] = /^label_values\((.*), (\w+)\)$/.exec(definition ?? '') ?? []
    return metric ? [{ where: `variable ${name}`, promql: `sum by (${label}) (${metric})`, shown: [] }] : []
  })
}

function ofAlerts(): Query[] {
  const parts = /- alert: (\w+)\n +expr: (?:>-\n)?(.*?)\n +for: .*?annotations:\n(.*?)(?=\n +- alert|$)/gs
  return Array.from(rules.matchAll(parts), ([, name, expr, annotations]) => ({
    where: `alert ${name}`,
    promql: expr!.replace(/\s+/g, ' '),
    shown: namesIn(annotations!, /\$labels\.(\w+)/g),
  }))
}

function namesIn(text: string, pattern: RegExp): string[] {
  return Array.from(text.matchAll(pattern), ([, name]) => name!)
}

/** By the name of a sample, in Prometheus' text format. */
function labelsOf(text: string): Map<string, Set<string>> {
  const labels = new Map<string, Set<string>>()
  for (const [, name, list = ''] of text.matchAll(/^(\w+)(?:\{(.*)\})? /gm)) {
    const known = labels.get(name!) ?? new Set(LABELS_OF_TARGETS)
    for (const label of namesIn(list, /(\w+)="/g)) known.add(label)
    labels.set(name!, known)
  }
  for (const name of METRICS_OF_TARGETS) labels.set(name, new Set(LABELS_OF_TARGETS))
  return labels
}

/** What a query names that no sidecar prints. */
function mistakes(promql: string): string[] {
  const found: string[] = []
  const used = new Set<string>()
  const metric = (name: string) => {
    if (!printed.has(name)) found.push(`no metric: ${name}`)
    for (const label of printed.get(name) ?? []) used.add(label)
  }
  let rest = promql.replace(/\[[^\]]*\]/g, '')
  rest = rest.replace(/(\w+)\{([^}]*)\}/g, (_, name: string, matchers: string) => {
    metric(name)
    for (const [, label, value] of matchers.matchAll(/(\w+)\s*[=!]~?\s*"([^"]*)"/g)) {
      if (printed.has(name) && !printed.get(name)!.has(label!)) found.push(`${name} has no label: ${label}`)
      const wrong = value!.split('|').filter((one) => one !== '' && VALUES[label!]?.includes(one) === false)
      found.push(...wrong.map((one) => `${label} has no value: ${one}`))
    }
    return ''
  })
  const groups: string[] = []
  rest = rest.replace(/\b(?:by|on|group_left)\s*\(([^)]*)\)/g, (_, list: string) => {
    groups.push(...list.split(/[\s,]+/).filter(Boolean))
    return ''
  })
  for (const [, name] of rest.matchAll(/\b([a-z_]\w*)\b(?!\s*\()/g))
    if (!KEYWORDS.includes(name!)) metric(name!)
  for (const label of groups) if (!used.has(label)) found.push(`no label: ${label}`)
  return found
}
