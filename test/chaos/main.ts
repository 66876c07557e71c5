/** Breaks two by two sidecars behind HAProxy in every way, under load, and counts what became of each call. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { FAULTS, type Fault, rollingRestarts } from './faults.ts'
import { reportOf } from './report.ts'
import { HEALED_WITHIN_MS, judge, type Outcome, type Trial, tryFault } from './trial.ts'
import { CARRIAGES, type Carriage, MODES, type Mode, startWorld } from './world.ts'

const SECONDS = 3
const RESTARTS = 10
const HELP = `Usage: npm run chaos -- [options]

Breaks sidecars, their Redis and the network between under a load of calls with unique ids, and counts: calls that ran
twice, that were answered but never ran, that failed. Two sidecars on each side are behind HAProxy, with a Redis a side.
Exit status 1 when a call ran twice, was lost or was told wrong, when calls fail for more than ${HEALED_WITHIN_MS / 1000} s after a fault is
over, or when one fails while sidecars restart or the secret is changed.

  --fault TEXT   only the faults whose names hold this text
  --mode MODE    only one of HAProxy's modes, ${MODES.join(' or ')}: it balances connections, or each request by itself
  --carriage C   what CARRIAGE is of all sidecars: ${CARRIAGES.join(', ')}; auto when not told, which has both: calls are
                 messages after a fault, and go by tunnels again once a sidecar gets 100 of them in a second
  --seconds N    how long it may take to heal until the next fault is tried; ${SECONDS} when not told
  --restarts N   how many rolling restarts of a side in each way; ${RESTARTS} when not told
  --logs FOLDER  leaves there what every process printed, and every call

Faults:
${[...FAULTS, ...rollingRestarts(RESTARTS)].map(({ name }) => `  ${name}`).join('\n')}
`

process.on('SIGINT', () => process.exit(130))
process.on('SIGTERM', () => process.exit(143))
try {
  const options = readOptions()
  if (options) await run(options)
} catch (error) {
  console.error(`chaos: ${(error as Error).message}`)
  process.exitCode = 1
}
process.exit()

interface Options {
  faults: readonly Fault[]
  modes: readonly Mode[]
  carriage: Carriage
  seconds: number
  logs: string | undefined
}

function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      fault: { type: 'string', default: '' },
      mode: { type: 'string' },
      carriage: { type: 'string', default: 'auto' },
      seconds: { type: 'string', default: String(SECONDS) },
      restarts: { type: 'string', default: String(RESTARTS) },
      logs: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    console.log(HELP)
    return undefined
  }
  if (!/^[1-9]\d{0,3}$/.test(values.restarts))
    throw new Error('--restarts takes a whole number from 1 to 9999')
  const all = [...FAULTS, ...rollingRestarts(Number(values.restarts))]
  const faults = all.filter(({ name }) => name.includes(values.fault))
  if (faults.length === 0)
    throw new Error(`--fault takes a part of a name of ${all.map(({ name }) => `"${name}"`).join(', ')}`)
  const modes = MODES.filter((mode) => mode === (values.mode ?? mode))
  if (modes.length === 0) throw new Error(`--mode takes ${MODES.join(' or ')}, not "${values.mode}"`)
  const carriage = CARRIAGES.find((one) => one === values.carriage)
  if (!carriage) throw new Error(`--carriage takes ${CARRIAGES.join(', ')}, not "${values.carriage}"`)
  if (!/^[1-9]\d?$/.test(values.seconds)) throw new Error('--seconds takes a whole number from 1 to 99')
  return { faults, modes, carriage, seconds: Number(values.seconds), logs: values.logs }
}

async function run({ modes, logs, ...what }: Options): Promise<void> {
  const folder =
    logs === undefined ? mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-chaos-')) : path.resolve(logs)
  if (logs === undefined)
    process.on('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
  process.env.TMPDIR = folder // what the servers of Redis leave when this is interrupted goes with the rest
  const outcomes: Outcome[] = []
  for (const mode of modes) {
    const place = path.join(folder, mode)
    mkdirSync(place, { recursive: true })
    outcomes.push(...(await runMode(mode, what, place)))
  }
  console.log(reportOf(outcomes))
  if (outcomes.some((outcome) => outcome.faults.length > 0)) process.exitCode = 1
}

async function runMode(
  mode: Mode,
  { faults, carriage, seconds }: Pick<Options, 'faults' | 'carriage' | 'seconds'>,
  folder: string,
): Promise<Outcome[]> {
  const world = await startWorld(mode, carriage, folder, console.error)
  const trials: Trial[] = []
  for (const fault of faults) {
    console.error(`HAProxy in ${mode} mode: ${fault.name}`)
    trials.push(await tryFault(fault, mode, world, seconds))
  }
  await world.stop()
  writeFileSync(path.join(folder, 'calls.json'), JSON.stringify(trials))
  return trials.map((trial) => judge(trial, world.executions))
}
