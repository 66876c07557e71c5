/** The sidecar as a process: what it does with signals, and with errors that nothing else caught. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Sdk } from '../otel/register.ts'
import type { App } from './app.ts'
import { collectAtRest } from './collect-at-rest.ts'
import type { Config } from './config.ts'
import { createLogger, type Logger } from './log.ts'
import { Metrics } from './telemetry/metrics.ts'
import { VERSION } from './version.ts'

/** A SIGINT that comes so soon after the first is the same one, in ms. */
const SAME_SIGINT_MS = 500
/** For what is left of traces and metrics, when all else has stopped, in ms. */
const LAST_EXPORT_MS = 1500

interface Running {
  app: App
  sdk: Sdk | undefined
}

/**
 * Runs a sidecar until a signal, and then ends the process: with 0 once open requests are answered or their time is
 * over, with 1 at a second signal or after a failure.
 * @param warnings about the configuration, to be logged
 */
export async function run(config: Config, warnings: readonly string[]): Promise<void> {
  const log = createLogger(config.logLevel)
  for (const warning of [...warnings, ...runtimeDoubts(process.versions)]) log.warn(warning)
  process.on('uncaughtException', (error: unknown) => {
    log.error({ err: error }, 'the sidecar failed and stops')
    process.exit(1)
  })
  const starting = start(config, log)
  stopOnSignal(starting, config.drainMs, log)
  try {
    const { app } = await starting
    collectAtRest(() => app.quietMs())
  } catch (error) {
    const why = listenMistake(error as NodeJS.ErrnoException, config)
    if (why === undefined) throw error
    log.error(why)
    process.exit(1)
  }
}

async function start(config: Config, log: Logger): Promise<Running> {
  const metrics = new Metrics()
  const sdk = await startSdk(config, log, metrics)
  // Not before: the SDK has to be there when ioredis is imported.
  const { startApp } = await import('./app.ts')
  if (!sdk) return { app: await startApp(config, log, metrics), sdk }
  const to = config.otel.traces ?? config.otel.metrics
  const host = to?.exporter === 'otlp' ? to.endpoint : to?.exporter
  return { app: await startApp(config, log, metrics, { ...sdk, host }), sdk }
}

/** OpenTelemetry's SDK, which is not even loaded where nothing is exported. */
async function startSdk({ name, otel }: Config, log: Logger, metrics: Metrics): Promise<Sdk | undefined> {
  if (!otel.traces && !otel.metrics) return undefined
  const { startSdk } = await import('../otel/register.ts')
  return startSdk({ name, version: VERSION, log, families: () => metrics.families() })
}

/** What this Node cannot do as it should. */
export function runtimeDoubts({ node, uv }: { node: string; uv: string }): string[] {
  const [major = 0, minor = 0] = uv.split('.').map(Number)
  if (major > 1 || minor >= 52) return []
  const what =
    'may take an answer that the app breaks off for a complete one, if it has neither length nor chunks'
  return [`Node ${node} ${what}: use 24.16 or newer`]
}

function stopOnSignal(starting: Promise<Running>, drainMs: number, log: Logger): void {
  let stoppedAtMs = Number.NEGATIVE_INFINITY
  let running: Running | undefined
  const stop = async (signal: NodeJS.Signals) => {
    // Ctrl-C comes twice under npm: from the terminal, and passed on.
    if (signal === 'SIGINT' && performance.now() - stoppedAtMs < SAME_SIGINT_MS) return
    if (stoppedAtMs > Number.NEGATIVE_INFINITY) {
      // What is open is reset at once: what the system does with it could pass for the end of an answer.
      void running?.app.close()
      process.exit(1)
    }
    stoppedAtMs = performance.now()
    running = await starting
    const { app, sdk } = running
    log.info({ signal }, 'draining')
    const drained = app.drain().then(() => true)
    if (!(await Promise.race([drained, delay(drainMs, false)]))) {
      log.warn('DRAIN_SECONDS are over: requests that are still open are reset')
    }
    await app.close()
    await sdk?.shutdown(LAST_EXPORT_MS)
    log.info('stopped')
    process.exit(0)
  }
  // In place of what they did before.
  for (const signal of ['SIGTERM', 'SIGINT']) process.removeAllListeners(signal).on(signal, stop)
}

/** Which variable is to blame when a port cannot be listened on; undefined for other errors. */
function listenMistake(
  { syscall, code, port }: NodeJS.ErrnoException & { port?: number },
  config: Config,
): string | undefined {
  if (syscall === 'getaddrinfo')
    return `ADMIN_HOST: has no address that is known here (${code}); 127.0.0.1 is the usual one`
  if (syscall !== 'listen') return undefined
  if (code === 'EADDRNOTAVAIL') return `ADMIN_HOST: must be an address of this machine (${code})`
  const ports = { PORT: config.port, OUTBOUND_PORT: config.outboundPort, ADMIN_PORT: config.adminPort }
  const variable = Object.entries(ports).find(([, configured]) => configured === port)?.[0]
  const why = code === 'EADDRINUSE' ? 'another process listens there' : 'the system does not allow it'
  return `${variable}: cannot listen on port ${port}, as ${why} (${code}); set another port, or 0 for a free one`
}
