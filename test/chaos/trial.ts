/** One fault under load, and what it did to the calls. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Fault } from './faults.ts'
import type { Call, Load } from './load.ts'

/** Traffic flows again when so many calls, in the order in which they began, are all answered. */
const ANSWERED_IN_A_ROW = 50
export const HEALED_WITHIN_MS = 2000
/** Of load without a fault before each fault. */
const BEFORE_MS = 500
/** Longer than a sidecar takes to answer a call in vain: what seems healed may not be until that has passed. */
const AFTER_MS = 1000
const HEALED_POLL_MS = 100
const STEADY_DEADLINE_MS = 15_000

/** What a fault befalls. */
export interface Scene {
  startLoad(callsPerSecond?: number): Load
  /** how often the app has executed each id */
  executions: ReadonlyMap<string, number>
}

export interface Trial {
  fault: Pick<Fault, 'name' | 'sparesCalls'>
  mode: string
  calls: Call[]
  /** when the fault was over, monotonic */
  overAtMs: number
}

export interface Outcome {
  mode: string
  fault: string
  calls: number
  /** unsafe calls that the app executed more than once */
  executedTwice: number
  /** calls that got a 2xx, though the app never executed them, or answered another call with it */
  lost: number
  /** unsafe calls of which an error said that they certainly did not run, and which did */
  toldWrong: number
  /** calls that were not answered, by what was told instead */
  failed: Record<string, number>
  /**
   * From the end of the fault to the answer to the first of 50 calls in a row that began after it and were all
   * answered; undefined when there were none.
   */
  healedMs: number | undefined
  /** what must not be; empty when all is well */
  faults: string[]
}

/**
 * Lets a fault strike under load.
 * @param seconds of load at most after the fault is over; less, if all is healed before
 * @throws Error when the world does not work before it
 */
export async function tryFault<World extends Scene>(
  fault: Fault<World>,
  mode: string,
  world: World,
  seconds: number,
): Promise<Trial> {
  await steady(world)
  const load = world.startLoad(fault.callsPerSecond)
  await sleep(BEFORE_MS)
  await fault.strike(world)
  const overAtMs = performance.now()
  while (healedAfterMs(load.calls, overAtMs) === undefined && performance.now() < overAtMs + 1000 * seconds)
    await sleep(HEALED_POLL_MS)
  await sleep(AFTER_MS)
  return { fault, mode, calls: await load.stop(), overAtMs }
}

/** Waits until no call fails. */
async function steady(world: Scene): Promise<void> {
  const deadlineMs = performance.now() + STEADY_DEADLINE_MS
  for (;;) {
    const load = world.startLoad()
    await sleep(BEFORE_MS)
    const failed = (await load.stop()).find(({ answered }) => !answered)
    if (!failed) return
    if (performance.now() > deadlineMs)
      throw new Error(`calls fail for ${STEADY_DEADLINE_MS / 1000} s without any fault: ${failed.failure}`)
  }
}

/** Late executions count only in what is judged after them. */
export function judge({ fault, mode, calls, overAtMs }: Trial, executions: Scene['executions']): Outcome {
  const times = ({ id }: Call) => executions.get(id) ?? 0
  const unsafe = calls.filter(({ method }) => method === 'POST')
  const failed: Record<string, number> = {}
  for (const { answered, failure } of calls) if (!answered) failed[failure] = (failed[failure] ?? 0) + 1
  const outcome = {
    mode,
    fault: fault.name,
    calls: calls.length,
    executedTwice: unsafe.filter((call) => times(call) > 1).length,
    lost: calls.filter((call) => isSuccess(call) && (!call.answered || times(call) === 0)).length,
    toldWrong: unsafe.filter((call) => isCertain(call) && times(call) > 0).length,
    failed,
    healedMs: healedAfterMs(calls, overAtMs),
  }
  const { executedTwice, lost, toldWrong, healedMs } = outcome
  const faults: string[] = []
  if (executedTwice > 0) faults.push(`${executedTwice} executed twice`)
  if (lost > 0) faults.push(`${lost} lost`)
  if (toldWrong > 0) faults.push(`${toldWrong} told wrong`)
  if (healedMs === undefined) faults.push('not healed')
  else if (healedMs > HEALED_WITHIN_MS) faults.push(`healed after ${Math.round(healedMs)} ms`)
  const failures = calls.filter(({ answered }) => !answered).length
  if (fault.sparesCalls && failures > 0) faults.push(`${failures} failed`)
  return { ...outcome, faults }
}

function isSuccess({ status }: Call): boolean {
  return status >= 200 && status < 300
}

/** Does the error say that the call did not run? What is not our sidecar's says nothing. */
function isCertain({ status, failure }: Call): boolean {
  return status >= 300 && !failure.endsWith('of HAProxy') && failure !== 'outcome-unknown'
}

function healedAfterMs(calls: readonly Call[], overAtMs: number): number | undefined {
  const after = calls
    .filter(({ startedMs }) => startedMs >= overAtMs)
    .toSorted((a, b) => a.startedMs - b.startedMs)
  let inARow = 0
  for (const [i, { answered }] of after.entries()) {
    inARow = answered ? inARow + 1 : 0
    if (inARow === ANSWERED_IN_A_ROW) return after[i + 1 - ANSWERED_IN_A_ROW]!.endedMs - overAtMs
  }
  return undefined
}
