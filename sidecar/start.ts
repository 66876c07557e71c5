/** Starts a sidecar in this process, with OpenTelemetry's SDK where something is exported. */
import type { Sdk } from '../otel/register.ts'
import type { App, FirstProcess } from './app.ts'
import type { Config } from './config.ts'
import type { Logger } from './log.ts'
import { Metrics } from './telemetry/metrics.ts'
import { VERSION } from './version.ts'

/** For what is left of traces and metrics, when all else has stopped, in ms. */
const LAST_EXPORT_MS = 1500

export interface Started {
  app: App
  metrics: Metrics
  /** Resets what is still open, stops, and exports what is left of traces and metrics. */
  close(): Promise<void>
}

/** Why a sidecar cannot start, as whoever runs it is to read it. */
export class StartError extends Error {}

/**
 * @param first undefined: there is no other process
 * @throws StartError where a port cannot be had
 */
export async function start(config: Config, log: Logger, first?: FirstProcess): Promise<Started> {
  const metrics = new Metrics()
  const sdk = await startSdk(config, log, metrics)
  // Not before: the SDK has to be there when ioredis is imported.
  const { startApp } = await import('./app.ts')
  const to = config.otel.traces ?? config.otel.metrics
  const host = to?.exporter === 'otlp' ? to.endpoint : to?.exporter
  const exporting = sdk && { ...sdk, host }
  const app = await startApp(config, log, metrics, exporting, first).catch(asStartError(config))
  const close = async () => {
    await app.close()
    await sdk?.shutdown(LAST_EXPORT_MS)
  }
  return { app, metrics, close }
}

/** Throws what came in the way of listening as a StartError, and other errors as they are. */
export function asStartError(config: Config): (error: unknown) => never {
  return (error) => {
    const why = listenMistake(error as NodeJS.ErrnoException, config)
    throw why === undefined ? error : new StartError(why, { cause: error })
  }
}

/** OpenTelemetry's SDK, which is not even loaded where nothing is exported. */
async function startSdk({ name, otel }: Config, log: Logger, metrics: Metrics): Promise<Sdk | undefined> {
  if (!otel.traces && !otel.metrics) return undefined
  const { startSdk } = await import('../otel/register.ts')
  return startSdk({ name, version: VERSION, log, families: () => metrics.families() })
}

/** Which variable is to blame when a port cannot be listened on; undefined for other errors. */
function listenMistake(
  { syscall, code, port }: NodeJS.ErrnoException & { port?: number },
  config: Config,
): string | undefined {
  if (syscall === 'getaddrinfo')
    return `ADMIN_HOST: has no address that is known here (${code}); 127.0.0.1 is the usual one`
  // For a worker it is the first process that listens, and node:cluster says that it could not bind.
  if (syscall !== 'listen' && syscall !== 'bind') return undefined
  if (code === 'EADDRNOTAVAIL') return `ADMIN_HOST: must be an address of this machine (${code})`
  const ports = { PORT: config.port, OUTBOUND_PORT: config.outboundPort, ADMIN_PORT: config.adminPort }
  const variable = Object.entries(ports).find(([, configured]) => configured === port)?.[0]
  const why = code === 'EADDRINUSE' ? 'another process listens there' : 'the system does not allow it'
  return `${variable}: cannot listen on port ${port}, as ${why} (${code}); set another port, or 0 for a free one`
}
