/** The sidecar as a process: what it does with signals, and with errors that nothing else caught. */
import { setTimeout as delay } from 'node:timers/promises'
import { collectAtRest } from './collect-at-rest.ts'
import type { Config } from './config.ts'
import { createLogger, type Logger } from './log.ts'
import { StartError, start } from './start.ts'
import { onStopSignal } from './stop-signals.ts'

/** A SIGINT that comes so soon after the first is the same one, in ms. */
const SAME_SIGINT_MS = 500

/** A sidecar that runs: in this process, or in several. */
interface Running {
  /** Resolves when all calls have been answered and all connections are closed. */
  drain(): Promise<void>
  /** Resets what is still open, and stops. */
  close(): Promise<void>
}

/**
 * Runs a sidecar until a signal, and then ends the process: with 0 once open requests are answered or their time is
 * over, with 1 at a second signal or after a failure.
 * @param warnings about the configuration, to be logged
 */
export async function run(config: Config, warnings: readonly string[]): Promise<void> {
  const worker = config.workers > 1 ? await workerHere() : null
  const log = createLogger(config.logLevel, worker)
  process.on('uncaughtException', (error: unknown) => {
    log.error({ err: error }, 'the sidecar failed and stops')
    process.exit(1)
  })
  if (worker) {
    const { runWorker } = await import('./workers/worker.ts')
    return runWorker(config, log)
  }
  for (const warning of [...warnings, ...runtimeDoubts(process.versions)]) log.warn(warning)
  const starting = config.workers > 1 ? startWorkers(config, log) : startHere(config, log)
  const isStopping = stopOnSignal(starting, config.drainMs, log)
  try {
    await starting
  } catch (error) {
    // Ctrl-C at a terminal ends workers that are still being loaded, too.
    if (isStopping()) process.exit(0)
    if (!(error instanceof StartError)) throw error
    log.error(error.message)
    process.exit(1)
  }
}

/** Which of WORKERS this process is; null: it is the first one, which starts the others. */
async function workerHere(): Promise<{ worker: number } | null> {
  const { default: cluster } = await import('node:cluster')
  return cluster.worker ? { worker: cluster.worker.id } : null
}

async function startHere(config: Config, log: Logger): Promise<Running> {
  const { app, close } = await start(config, log)
  collectAtRest(() => app.quietMs())
  return { drain: () => app.drain(), close }
}

async function startWorkers(config: Config, log: Logger): Promise<Running> {
  const { Workers } = await import('./workers/workers.ts')
  const workers = new Workers(config, log)
  await workers.start()
  return workers
}

/** What this Node cannot do as it should. */
export function runtimeDoubts({ node, uv }: { node: string; uv: string }): string[] {
  const [major = 0, minor = 0] = uv.split('.').map(Number)
  if (major > 1 || minor >= 52) return []
  const what =
    'may take an answer that the app breaks off for a complete one, if it has neither length nor chunks'
  return [`Node ${node} ${what}: use 24.16 or newer`]
}

/** @returns whether a signal has come */
function stopOnSignal(starting: Promise<Running>, drainMs: number, log: Logger): () => boolean {
  let stoppedAtMs = Number.NEGATIVE_INFINITY
  let running: Running | undefined
  const stop = async (signal: NodeJS.Signals) => {
    // Ctrl-C comes twice under npm: from the terminal, and passed on.
    if (signal === 'SIGINT' && performance.now() - stoppedAtMs < SAME_SIGINT_MS) return
    if (stoppedAtMs > Number.NEGATIVE_INFINITY) {
      // What is open is reset at once: what the system does with it could pass for the end of an answer.
      void running?.close()
      process.exit(1)
    }
    stoppedAtMs = performance.now()
    running = await starting
    log.info({ signal }, 'draining')
    const drained = running.drain().then(() => true)
    if (!(await Promise.race([drained, delay(drainMs, false)]))) {
      log.warn('DRAIN_SECONDS are over: requests that are still open are reset')
    }
    await running.close()
    log.info('stopped')
    process.exit(0)
  }
  onStopSignal(stop)
  return () => stoppedAtMs > Number.NEGATIVE_INFINITY
}
