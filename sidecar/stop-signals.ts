/** Has the signals that end a process handled so from here on, in place of what was done with them before. */
export function onStopSignal(handle: (signal: NodeJS.Signals) => void): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const before = process.listeners(signal)
    // First: one that came while something was loaded still waits, and is lost once nobody listens.
    process.on(signal, handle)
    for (const handler of before) process.off(signal, handler)
  }
}
