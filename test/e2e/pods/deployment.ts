import type { PodNode } from '../../support/pods.ts'
import { Replica, type Setup } from './replica.ts'

const REPLICAS = 2

/** The pods of an app, two of them. */
export class Deployment {
  #replicas: Replica[] = []
  #started = 0
  readonly #node: PodNode
  readonly #name: string
  readonly #setup: Setup

  constructor(node: PodNode, name: string, setup: Setup) {
    this.#node = node
    this.#name = name
    this.#setup = setup
  }

  /** Those that run. */
  get replicas(): readonly Replica[] {
    return this.#replicas
  }

  /** Resolves when all are ready. */
  async start(): Promise<void> {
    await Promise.all(Array.from({ length: REPLICAS }, () => this.#add()))
  }

  /** Replaces each pod by a new one, with maxSurge 1 and maxUnavailable 0. */
  async roll(): Promise<void> {
    for (const old of this.#replicas) {
      await this.#add()
      await old.terminate()
      this.#replicas = this.#replicas.filter((replica) => replica !== old)
    }
  }

  async #add(): Promise<void> {
    const replica = new Replica(this.#node.addPod(`${this.#name}-${++this.#started}`), this.#setup)
    await replica.start()
    this.#replicas.push(replica)
    this.#setup.onReady?.(replica)
  }
}
