/** One of WORKERS: answers calls at the ports that it shares with the others, and does what the first process asks. */
import cluster from 'node:cluster'
import type { AddressInfo } from 'node:net'
import type { Administered } from '../admin.ts'
import type { Role } from '../app.ts'
import { collectAtRest } from '../collect-at-rest.ts'
import type { Config } from '../config.ts'
import type { Logger } from '../log.ts'
import { StartError, start } from '../start.ts'
import { onStopSignal } from '../stop-signals.ts'
import type { Family } from '../telemetry/instruments.ts'
import { metricsOfProcess, type PromMetric } from '../telemetry/prometheus.ts'
import { Channel } from './channel.ts'
import type { PairVerbs } from './pair-hub.ts'
import { SharedStore } from './shared-store.ts'

/** What the first process is told, besides what it is asked for pairs. */
export type FirstVerbs = {
  started(ports: ReadonlyMap<Role, AddressInfo>): void
  /** It cannot start, and why: it ends as soon as this is heard. */
  failed(why: string): void
}

/** What a worker that has started may be asked. */
export type WorkerVerbs = Omit<Administered, 'metricsText'> & {
  metrics(): Promise<Counted>
  /** As App.drain. */
  leave(): Promise<void>
  /** Resets what is still open, and ends the process. */
  end(): Promise<never>
}

/** What a process has counted. */
export interface Counted {
  families: Family[]
  ofProcess: PromMetric[]
}

export async function runWorker(config: Config, log: Logger): Promise<void> {
  // Whoever stops a process group, or all of a unit, means the first process: it says what is to be done here.
  onStopSignal(() => {})
  const first = new Channel<PairVerbs & FirstVerbs>(process)
  try {
    const store = new SharedStore(first, () => performance.now())
    const { app, metrics, close } = await start(config, log, { store })
    // node:cluster ends the process then: what the system would do with open answers could pass for their end.
    cluster.worker!.on('disconnect', () => void app.close())
    collectAtRest(() => app.quietMs())
    const verbs: WorkerVerbs = {
      ...app.administered,
      metrics: async () => ({ families: await metrics.families(), ofProcess: await metricsOfProcess() }),
      leave: () => app.drain(),
      end: async () => {
        await close()
        process.exit(0)
      },
    }
    first.serve(verbs)
    await first.ask('started', app.ports)
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    await first.ask('failed', error.message)
    process.exit(1)
  }
}
