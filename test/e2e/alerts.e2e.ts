/** The alert rules and the dashboard, as Prometheus itself reads them. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { promtool } from '../support/promtool.ts'
import { suite } from '../support/suite.ts'

const test = suite('alert rules')
const run = promisify(execFile)
const root = path.join(import.meta.dirname, '../..')
const rules = path.join(root, 'otel/prometheus/alerts.yaml')
const ruleTests = path.join(root, 'test/otel/alerts.test.yaml')
const scratch = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-alerts-'))
let program: string

test.before(() => {
  program = promtool(console.log)
})
test.after(() => rmSync(scratch, { recursive: true }))

test('are rules of Prometheus, and its configuration loads them', async () => {
  await check('check', 'rules', rules)
  const output = await check('check', 'config', path.join(root, 'otel/prometheus/prometheus.yaml'))
  assert.match(output, /1 rule files found/)
})

test('fire at what they are for, and at nothing else', () => check('test', 'rules', ruleTests))

test('are tried each', () => {
  const names = Array.from(readFileSync(rules, 'utf8').matchAll(/- alert: (\w+)/g), ([, name]) => name!)
  assert.ok(names.length > 0)
  const tests = readFileSync(ruleTests, 'utf8')
  for (const name of names) assert.ok(tests.includes(`alertname="${name}"`), `no test expects ${name}`)
})

test("the dashboard's queries are PromQL", async () => {
  const json = readFileSync(path.join(root, 'otel/grafana/dashboard.json'), 'utf8')
  const { panels } = JSON.parse(json) as { panels: { targets?: { expr: string }[] }[] }
  const queries = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
  const file = path.join(scratch, 'queries.yaml') // JSON is YAML too
  const asRules = queries.map((expr, i) => ({
    record: `query:${i}`,
    expr: expr.replaceAll('$__rate_interval', '5m').replaceAll(/\$\w+/g, '.*'),
  }))
  writeFileSync(file, JSON.stringify({ groups: [{ name: 'queries', rules: asRules }] }))
  assert.match(await check('check', 'rules', file), new RegExp(`${queries.length} rules found`))
})

test.run()

/** @returns what promtool printed. @throws Error with that, when it finds a mistake */
async function check(...args: string[]): Promise<string> {
  try {
    return (await run(program, args)).stdout
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string }
    throw new Error(`${stdout}${stderr}`)
  }
}
