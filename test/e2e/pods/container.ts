import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Pod, PodProcess, Program } from '../../support/pods.ts'

const LINES_KEPT = 12

/** A program that runs in a pod. */
export class Container {
  /** its exit status, or the signal that ended it; all that it printed has been handed on before */
  readonly ended: Promise<number | NodeJS.Signals>
  readonly #command: string
  readonly #process: PodProcess
  readonly #output: ReturnType<typeof createInterface>
  /** what it printed last */
  readonly #lines: string[] = []

  /** @param onLine gets each line of its standard output */
  constructor(pod: Pod, program: Program, onLine: (line: string) => void = () => {}) {
    this.#command = program.command.join(' ')
    this.#process = pod.start(program)
    this.#process.stdin.on('error', () => {}) // it has gone meanwhile, which it says itself
    this.ended = once(this.#process, 'close').then(([status, signal]) => status ?? signal)
    this.#output = createInterface({ input: this.#process.stdout })
    this.#output.on('line', onLine)
    for (const output of [this.#output, createInterface({ input: this.#process.stderr })]) {
      output.on('line', (line) => {
        this.#lines.push(line)
        if (this.#lines.length > LINES_KEPT) this.#lines.shift()
      })
    }
  }

  get hasEnded(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null
  }

  /** Gives it a line to read. */
  tell(line: string): void {
    this.#process.stdin.write(`${line}\n`)
  }

  /** Resolves when it prints this line, or has ended. */
  async says(line: string): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#output.on('line', (printed) => {
        if (printed === line) resolve()
      })
      void this.ended.then(() => resolve())
    })
  }

  /** As kill -9 does. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.ended
  }

  /** Asks it to leave. @throws Error unless it does so with status 0 */
  async stop(): Promise<void> {
    this.#process.kill('SIGTERM')
    await this.succeeds()
  }

  /** Resolves when it has ended with status 0. @throws Error with what it printed last, when that is another one */
  async succeeds(): Promise<void> {
    const how = await this.ended
    if (how !== 0) throw new Error([`${this.#command} ended with ${how}`, ...this.#lines].join('\n'))
  }
}
