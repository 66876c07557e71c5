import cluster, { type Worker } from 'node:cluster'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Role } from '../app.ts'
import { Channel, ChannelClosedError, type Verbs } from './channel.ts'
import type { Counted, FirstVerbs, WorkerVerbs } from './worker.ts'

/** A worker that does not answer by then is too busy, in ms. */
const ANSWER_MS = 1000

export interface End {
  /** such as `status 1` or `SIGKILL` */
  how: string
  /** why, as far as it could tell */
  why: string | undefined
}

/** One of WORKERS, as the first process has it. */
export class Member {
  readonly id: number
  /** Resolves with where it listens. */
  readonly started: Promise<ReadonlyMap<Role, AddressInfo>>
  readonly ended: Promise<End>
  /** what it had counted when it was last asked */
  counted: Counted | undefined
  #isStarted = false
  readonly #worker: Worker
  readonly #channel: Channel<WorkerVerbs>

  /**
   * Starts a process.
   * @param verbs what it may ask, besides telling how it starts
   */
  constructor(verbs: Verbs, env: NodeJS.ProcessEnv) {
    const started = Promise.withResolvers<ReadonlyMap<Role, AddressInfo>>()
    const ended = Promise.withResolvers<End>()
    let why: string | undefined
    const telling: FirstVerbs = {
      started: (ports) => {
        this.#isStarted = true
        started.resolve(ports)
      },
      failed: (told) => {
        why = told
      },
    }
    this.#worker = cluster.fork(env)
    this.id = this.#worker.id
    this.started = started.promise
    this.ended = ended.promise
    this.#channel = new Channel(this.#worker, { ...verbs, ...telling })
    this.#worker.on('error', (error) => ended.resolve({ how: error.message, why }))
    this.#worker.on('exit', (status, signal) => {
      this.#channel.close()
      ended.resolve({ how: signal ?? `status ${status}`, why })
    })
  }

  /** @returns undefined when it has ended, or is too busy */
  async ask<V extends keyof WorkerVerbs>(
    verb: V,
    ...args: Parameters<WorkerVerbs[V]>
  ): Promise<Awaited<ReturnType<WorkerVerbs[V]>> | undefined> {
    return Promise.race([this.#answer(verb, ...args), delay(ANSWER_MS, undefined, { ref: false })])
  }

  /** Resolves when all of its calls have been answered, or it has ended. */
  async leave(): Promise<void> {
    if (!this.#isStarted) return this.#kill()
    await this.#answer('leave')
  }

  /** Has it reset what is still open, and resolves when it has ended. */
  async end(msMax: number): Promise<void> {
    if (!this.#isStarted) return this.#kill()
    void this.#answer('end')
    const late = new AbortController()
    delay(msMax, undefined, late).then(
      () => this.#kill(),
      () => {},
    )
    await this.ended
    late.abort()
  }

  async #kill(): Promise<void> {
    this.#worker.process.kill('SIGKILL')
    await this.ended
  }

  async #answer<V extends keyof WorkerVerbs>(
    verb: V,
    ...args: Parameters<WorkerVerbs[V]>
  ): Promise<Awaited<ReturnType<WorkerVerbs[V]>> | undefined> {
    try {
      return await this.#channel.ask(verb, ...args)
    } catch (error) {
      if (!(error instanceof ChannelClosedError)) throw error
      return undefined
    }
  }
}
