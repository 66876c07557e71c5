/** Faults that befall pods, one after the other, and what becomes of their calls. */
import assert from 'node:assert/strict'
import type { Fault } from '../../chaos/faults.ts'
import { reportOf } from '../../chaos/report.ts'
import { judge, type Trial, tryFault } from '../../chaos/trial.ts'
import { tell } from '../../support/tell.ts'
import type { World } from './world.ts'

/** For healing, of load after each fault, at most. */
const SECONDS = 5

/** Tells the table of what they did, and fails unless all is well. */
export async function tryFaults(faults: readonly Fault<World>[], mode: string, world: World): Promise<void> {
  const trials: Trial[] = []
  for (const fault of faults) trials.push(await tryFault(fault, mode, world, SECONDS))
  const report = reportOf(trials.map((trial) => judge(trial, world.executions)))
  tell(report)
  assert.equal(report.split('\n').at(-1), 'all is well', report)
}
