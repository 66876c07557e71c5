/** Starts the SDK in a process of its own, as a sidecar does: it can be started once a process. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { LogLine } from '../support/sidecars.ts'

export interface SdkProcess {
  /** Has it do one of the things that sdk-program.ts can, and gives what that gives. */
  ask<T>(what: string, ...args: unknown[]): Promise<T>
  /** Resolves with the next line of its log. */
  logged(): Promise<LogLine>
  /** @returns what it printed */
  stop(): Promise<string>
}

export async function startSdkProcess(env: Record<string, string>): Promise<SdkProcess> {
  const child = fork(path.join(import.meta.dirname, 'sdk-program.ts'), {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    env: { PATH: process.env.PATH, NODE_V8_COVERAGE: process.env.NODE_V8_COVERAGE, ...env },
  })
  const lines: LogLine[] = []
  const readers: ((line: LogLine) => void)[] = []
  const answers: ((answer: unknown) => void)[] = []
  child.on('message', (message: { line?: LogLine; answer?: unknown }) => {
    if (message.line) {
      const read = readers.shift()
      if (read) read(message.line)
      else lines.push(message.line)
    } else answers.shift()?.(message.answer)
  })
  const answered = <T>() => new Promise<T>((resolve) => answers.push(resolve as (answer: unknown) => void))
  const ended = once(child, 'exit').then(() => {})
  let printed = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    printed += text
  })
  if (!(await Promise.race([answered<string>(), ended]))) throw new Error('the SDK did not start')
  return {
    ask<T>(what: string, ...args: unknown[]) {
      child.send([what, ...args])
      return answered<T>()
    },
    logged: () => {
      const line = lines.shift()
      return line ? Promise.resolve(line) : new Promise((resolve) => readers.push(resolve))
    },
    async stop() {
      const gone = Promise.all([ended, once(child.stdout!, 'end')])
      child.disconnect()
      await gone
      return printed
    },
  }
}
