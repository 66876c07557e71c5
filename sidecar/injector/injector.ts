/** The injector as a process: a mutating webhook that puts the sidecar into new pods, until a signal. */
import { setTimeout as delay } from 'node:timers/promises'
import { attempt, Mistake } from '../formats.ts'
import { createLogger, type Logger } from '../log.ts'
import { watchFiles } from '../watch-files.ts'
import { KubeApi } from './kube-api.ts'
import { startProbes } from './probes.ts'
import { type KeyPair, type KeyPairFiles, readKeyPair, type Settings } from './settings.ts'
import { Webhook } from './webhook.ts'

/**
 * Runs the injector until a signal, and then ends the process: with 0 once what was begun is answered, with 1 at a
 * second signal or after a failure.
 */
export async function runInjector(settings: Settings): Promise<void> {
  const log = createLogger(settings.logLevel)
  process.on('uncaughtException', (error: unknown) => {
    log.error({ err: error }, 'the injector failed and stops')
    process.exit(1)
  })
  const webhook = new Webhook(settings.defaults, log)
  stopOnSignal(webhook, settings.drainMs, log)
  try {
    const probesPort = await startProbes(webhook, settings.adminPort)
    log.info({ role: 'admin', port: probesPort }, 'listening')
    log.info({ role: 'webhook', port: await webhook.listen(settings.port) }, 'listening')
  } catch (error) {
    const { syscall, code, port } = error as NodeJS.ErrnoException & { port?: number }
    if (syscall !== 'listen') throw error
    const variable = port === settings.adminPort ? 'ADMIN_PORT' : 'PORT'
    log.error(`${variable}: cannot listen on port ${port} (${code}); set another port, or 0 for a free one`)
    process.exit(1)
  }
  const present = (pair: KeyPair) => webhook.present(pair)
  if (settings.files) presentFiles(settings.files, present, log)
  else await presentOwn(settings, present, log)
}

/** A change that cannot be used is logged, and changes nothing. */
function presentFiles(files: KeyPairFiles, present: (pair: KeyPair) => void, log: Logger): void {
  watchFiles([files.cert, files.key], () => {
    const read = attempt(() => readKeyPair(files))
    return () => {
      if (read instanceof Mistake) {
        log.warn(`TLS_CERT_FILE and TLS_KEY_FILE: ${read.message}; the certificate stays as it was`)
        return
      }
      present(read)
      log.info('the certificate was read')
    }
  })
}

async function presentOwn(
  { selfSigned }: Settings,
  present: (pair: KeyPair) => void,
  log: Logger,
): Promise<void> {
  // Not loaded where certificates come from files, as nothing has to be made then.
  const { SelfSigned } = await import('./self-signed.ts')
  const api = new KubeApi(selfSigned.serviceAccountFolder, process.env)
  await new SelfSigned(api, selfSigned, present, log).run()
}

function stopOnSignal(webhook: Webhook, drainMs: number, log: Logger): void {
  let isStopping = false
  const stop = async (signal: NodeJS.Signals) => {
    if (isStopping) process.exit(1)
    isStopping = true
    log.info({ signal }, 'draining')
    webhook.drain()
    await delay(drainMs)
    await webhook.close()
    log.info('stopped')
    process.exit(0)
  }
  // In place of what they did before.
  for (const signal of ['SIGTERM', 'SIGINT']) process.removeAllListeners(signal).on(signal, stop)
}
