/**
 * Measures our pair of sidecars beside pairs of nginx, HAProxy and Envoy that do mutual TLS: the same app, the same
 * load, the same run. Machines differ and are noisy: only ratios within one run mean anything.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { type Bench, compare, prepare } from './compare.ts'
import { measureInjector } from './injector.ts'
import { type Part, readOptions } from './options.ts'
import type { PairKind } from './pairs.ts'
import { stopService } from './processes.ts'
import { tellProfiles } from './profile.ts'
import { findProgram, HOW_TO_INSTALL, installPrograms, requireProgram } from './programs.ts'
import { tableOf } from './report.ts'
import { type Outcome, summaryOf } from './summary.ts'

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

async function run(options: NonNullable<ReturnType<typeof readOptions>>): Promise<void> {
  if (options.install) await installPrograms((command) => console.error(command))
  for (const program of ['nginx', 'wrk', 'curl', 'openssl'] as const) requireProgram(program)
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-bench-'))
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }))
  const bench = await prepare(scratch, options)
  const { rounds, quick, json, parts } = options
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
  const outcomes: Outcome[] = []
  for (const part of parts) outcomes.push(...(await runPart(part, bench)))
  if (options.summary) console.log(`\n${summaryOf(outcomes)}`)
  if (json) writeFileSync(json, `${JSON.stringify({ machine, rounds, quick, outcomes }, undefined, 2)}\n`)
  await stopService(bench.app.service)
  await bench.redis?.stop()
  if (outcomes.some(({ rows }) => rows.some((row) => row.failure))) process.exitCode = 1
}

async function runPart(part: Part, bench: Bench): Promise<Outcome[]> {
  const { comparison, scenarios } = part
  const pairs = part.pairs.filter(isInstalled)
  const width = Math.max(...pairs.map(({ name }) => name.length))
  console.log(`\n${pairs.map(({ name, title }) => `  ${name.padEnd(width)} ${title}`).join('\n')}`)
  const outcomes: Outcome[] = []
  for (const scenario of scenarios) {
    const measured = await compare(pairs, scenario, bench)
    const rows = measured.map(({ row }) => row)
    outcomes.push({ comparison, scenario: scenario.name, rows })
    console.log(`\n${scenario.name}: ${scenario.title}\n${tableOf(comparison, scenario.kind, rows)}`)
    for (const { profiles, spans } of measured) if (profiles) console.log(tellProfiles(profiles, spans))
  }
  return outcomes
}

function isInstalled({ name, program }: PairKind): boolean {
  if (!program || findProgram(program)) return true
  console.log(`${name} is skipped: ${program} is not installed. Install it: ${HOW_TO_INSTALL}`)
  return false
}
