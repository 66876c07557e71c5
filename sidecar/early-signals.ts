/**
 * Signals that come while `run` is being loaded: there is nothing to drain yet, so they end the process at once. As
 * process 1 of a container Node would not even hear them.
 */
const [command = 'run'] = process.argv.slice(2)
if (command === 'run') for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0))
