/** How a command ends, and how it says why. */

const STATUS = { ok: 0, failure: 1, usage: 64, configuration: 78 } as const

/** Tells people something that is not what the command was asked for. */
export function complain(line: string): void {
  console.error(line)
}

/** Sets the exit status of the process, which goes on until it has nothing more to do. */
export function leave(status: keyof typeof STATUS): void {
  process.exitCode = STATUS[status]
}
