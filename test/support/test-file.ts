import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** What became of one thing that was checked: a file of tests, or a check such as the linter. */
export interface Outcome {
  name: string
  passed: number
  /** at least 1 when there is a complaint */
  failed: number
  /** why it failed, a sentence each */
  complaints: string[]
  /** what it printed */
  output: string
}

export interface Limits {
  /** for the whole file */
  deadlineMs: number
  /** for leaving, once the last test is done */
  leaveMs: number
  /** stops the file when it aborts */
  interrupted: AbortSignal
}

/**
 * Runs one file of tests as a process of its own.
 *
 * uvu exits with 0 when a hook throws, when `run()` was forgotten, when there are no tests and when `only` is left
 * behind, and waits for ever for what was left open. So the verdict rests on the totals that uvu prints, and the
 * file has to print them, once, and to leave. Whatever it started is stopped with it.
 */
export async function runTestFile(file: string, limits: Limits, env = process.env): Promise<Outcome> {
  const child = spawn(process.execPath, [file], {
    detached: true, // a process group of its own, so that its children can be stopped too
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...env, FORCE_COLOR: '0' },
  })
  const left = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  const closed = once(child, 'close')
  let stopped = ''
  const stop = (why: string) => {
    stopped ||= why
    killGroup(child.pid!)
  }
  const interrupt = () => stop('was interrupted')
  const timers = [setTimeout(stop, limits.deadlineMs, `was not done after ${limits.deadlineMs / 1000} s`)]
  limits.interrupted.addEventListener('abort', interrupt)

  let output = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    output += text
  })
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text
    if (text.includes('\n  Duration: '))
      timers.push(
        setTimeout(
          stop,
          limits.leaveMs,
          'did not exit after its last test: a server, socket, timer or process is open',
        ),
      )
  })

  const [status, signal] = await left
  for (const timer of timers) clearTimeout(timer)
  limits.interrupted.removeEventListener('abort', interrupt)
  killGroup(child.pid!)
  await closed
  return judge(file, output, stopped || (status === 0 ? '' : `exited with ${signal ?? `status ${status}`}`))
}

/** The verdict on a file that printed `output`; `leaving` says what was wrong with how it left, if anything. */
function judge(file: string, output: string, leaving: string): Outcome {
  const goes = [...output.matchAll(/^ {2}Total: +(\d+)\n {2}Passed: +(\d+)\n {2}Skipped: +(\d+)$/gm)]
  const [total = 0, passed = 0, skipped = 0] = goes.length === 1 ? goes[0]!.slice(1).map(Number) : []
  const complaints = (output.match(/^ {3}FAIL .*$/gm) ?? []).map((line) => line.trim().replaceAll(/ +/g, ' '))
  if (complaints.length < total - passed)
    complaints.push('has tests that did not run to their end: a hook threw')
  if (goes.length > 1)
    complaints.push('waits between its suites: call every run() without awaiting anything between')
  if (goes.length === 0 && !leaving) complaints.push('ran no test: is test.run() missing at its end?')
  if (goes.length === 1 && total === 0) complaints.push('has no test')
  if (skipped > 0) complaints.push(`leaves out ${skipped} of its tests: remove only or skip`)
  if (complaints.length === 0 && leaving) complaints.push(leaving)
  return {
    name: file,
    passed,
    failed: Math.max(total - passed, Math.sign(complaints.length)),
    complaints,
    output,
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // nobody is left in it
  }
}
