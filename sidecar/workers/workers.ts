/** The first of several processes: starts the others, keeps as many, and is to the outside what they are together. */
import cluster from 'node:cluster'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { Admin } from '../admin.ts'
import type { Role } from '../app.ts'
import type { Config } from '../config.ts'
import { Listener } from '../http/listener.ts'
import type { Logger } from '../log.ts'
import { asStartError, StartError } from '../start.ts'
import { aboutOf, type Listening } from '../status.ts'
import { watchProcess } from '../telemetry/prometheus.ts'
import { AllWorkers } from './all-workers.ts'
import { Member } from './member.ts'
import { PairHub } from './pair-hub.ts'

/** How often the keys of what has ended are erased. */
const SWEEP_MS = 10_000
/** The first and the longest pause before a worker is started again that ended within STEADY_MS. */
const PAUSE_MS_MIN = 500
const PAUSE_MS_MAX = 30_000
const STEADY_MS = 60_000
/** A worker that is to end exports what is left of its traces and metrics, and is killed after so long. */
const END_MS_MAX = 3000

export class Workers {
  readonly #config: Config
  readonly #log: Logger
  /** undefined: pairs are in Redis */
  readonly #hub: PairHub | undefined
  readonly #all: AllWorkers
  readonly #members = new Set<Member>()
  readonly #ports = new Map<Role, AddressInfo>()
  #admin: Listener | undefined
  readonly #sweeper: NodeJS.Timeout
  #started = 0
  #stops = false

  constructor(config: Config, log: Logger) {
    this.#config = config
    this.#log = log
    this.#hub = config.redis ? undefined : new PairHub(() => performance.now())
    this.#all = new AllWorkers(config.workers)
    this.#sweeper = setInterval(() => this.#hub?.sweep(), SWEEP_MS).unref()
    watchProcess()
    // Keys are among what they tell each other: so they are bytes, which can be erased.
    cluster.setupPrimary({ serialization: 'advanced' })
  }

  /**
   * Resolves when all workers listen, and the admin port does.
   * @throws StartError
   */
  async start(): Promise<void> {
    const members = Array.from({ length: this.#config.workers }, () => this.#fork())
    for (const member of members) {
      const failure = await this.#listens(member)
      if (failure !== undefined) throw new StartError(failure)
      void this.#keep(member)
    }
    await this.#listenForAdmin().catch(asStartError(this.#config))
  }

  /** Has callers leave, and resolves when all calls have been answered. */
  async drain(): Promise<void> {
    this.#stops = true
    await Promise.all([...this.#members].map((member) => member.leave()))
  }

  /** Resets what is still open, and resolves when all workers have ended. */
  async close(): Promise<void> {
    this.#stops = true
    clearInterval(this.#sweeper)
    this.#admin?.close()
    await Promise.all([...this.#members].map((member) => member.end(END_MS_MAX)))
    this.#hub?.close()
  }

  #fork(): Member {
    const user = {}
    const member = new Member(this.#hub?.verbs(user) ?? {}, instanceEnv(++this.#started))
    this.#members.add(member)
    void member.ended.then(() => {
      this.#members.delete(member)
      this.#hub?.leave(user)
    })
    return member
  }

  /** @returns why it ended before it listened; undefined: it listens */
  async #listens(member: Member): Promise<string | undefined> {
    const ended = member.ended.then(({ how, why }) => why ?? `a worker ended before it listened: ${how}`)
    const ports = await Promise.race([member.started, ended])
    if (typeof ports === 'string') return ports
    this.#all.add(member)
    for (const [role, address] of ports) this.#tellPort(role, address)
    return undefined
  }

  /** Starts a worker again whenever it ends, until all are to stop. */
  async #keep(first: Member): Promise<void> {
    let member = first
    let pauseMs = 0
    for (;;) {
      const startedMs = performance.now()
      const { how, why } = await member.ended
      if (this.#stops) return
      const isSteady = performance.now() - startedMs >= STEADY_MS
      pauseMs = isSteady ? 0 : Math.min(Math.max(2 * pauseMs, PAUSE_MS_MIN), PAUSE_MS_MAX)
      this.#log.error(
        { worker: member.id, how, why, againInMs: pauseMs },
        'a worker ended, and its calls with it',
      )
      await delay(pauseMs)
      if (this.#stops) return
      member = this.#fork()
      await this.#listens(member)
    }
  }

  /** Says where a port is, once: where all workers ended at once, a port that is free may be another one afterwards. */
  #tellPort(role: Role, { address, port, family }: AddressInfo): void {
    if (this.#ports.get(role)?.port === port) return
    this.#ports.set(role, { address, port, family })
    this.#log.info({ role, address, port }, 'listening')
  }

  async #listenForAdmin(): Promise<void> {
    const { adminHost, adminPort, maxHeaderBytes, idleTimeoutMs } = this.#config
    const admin = new Admin({
      about: aboutOf(this.#config),
      listening: (): Listening[] =>
        [...this.#ports].map(([role, { address, port }]) => ({ role, address, port })),
      sidecar: this.#all,
      log: this.#log,
    })
    this.#admin = new Listener({
      handler: (arrival) => admin.answer(arrival),
      headBytesMax: maxHeaderBytes,
      idleTimeoutMs,
      onFault: (error, ids) =>
        this.#log.error({ err: error, ...ids }, 'a call failed in a way that was not foreseen'),
    })
    const [address] = await this.#admin.listen([adminHost], adminPort)
    this.#tellPort('admin', address!)
  }
}

/** OpenTelemetry's service.instance.id: where it is set, each process needs one of its own. */
function instanceEnv(worker: number): NodeJS.ProcessEnv {
  const attributes = process.env.OTEL_RESOURCE_ATTRIBUTES
  if (!attributes) return {}
  return {
    OTEL_RESOURCE_ATTRIBUTES: attributes.replace(
      /(?<=(?:^|,)\s*service\.instance\.id=)[^,]*/,
      `$&-${worker}`,
    ),
  }
}
