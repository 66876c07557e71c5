import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Pod, PodService } from '../../support/pods.ts'
import { Container } from './container.ts'
import { SIDECAR_PORTS } from './ports.ts'

const APP_UID = 1000
/** As in the image. */
export const SIDECAR_UID = 65532
/** Until the last node has heard that a pod is to stop, and sends no new connections there. */
const ENDPOINTS_LAG_MS = 500
const POLL_MS = 50
const MAIN = path.join(import.meta.dirname, '../../../dist/sidecar/main.js')
const SIDECAR_ENV = {
  PORT: String(SIDECAR_PORTS.inbound),
  OUTBOUND_PORT: String(SIDECAR_PORTS.outbound),
  ADMIN_PORT: String(SIDECAR_PORTS.admin),
  ADMIN_HOST: '0.0.0.0',
}

export interface Setup {
  service: PodService
  /** the file of its app, which prints `listening` when it has started */
  app: string
  /** gets the lines that the app prints */
  onLine(line: string): void
  /** gets each that has become ready */
  onReady?(replica: Replica): void
  /** for how long the app sleeps before it is asked to leave */
  appPreStopMs: number
  /** of its sidecar */
  env: NodeJS.ProcessEnv
  /** what is done in its pod before the sidecar starts, and what it gives when the sidecar has left */
  prepare?: ((pod: Pod) => Promise<() => Promise<void>>) | undefined
}

/** A pod with an app and its sidecar. What is done to it is done in the order in which a kubelet does it. */
export class Replica {
  readonly #pod: Pod
  readonly #setup: Setup
  #sidecar!: Container
  #app!: Container
  #leave: (() => Promise<void>) | undefined

  constructor(pod: Pod, setup: Setup) {
    this.#pod = pod
    this.#setup = setup
  }

  get address(): string {
    return this.#pod.address
  }

  /** The app starts when its sidecar has. Resolves when the pod is ready. */
  async start(): Promise<void> {
    const { app, onLine, prepare, service } = this.#setup
    this.#leave = await prepare?.(this.#pod)
    await this.#startSidecar()
    this.#app = new Container(this.#pod, { command: [process.execPath, app], uid: APP_UID }, onLine)
    await this.#app.says('listening')
    await service.add(this.#pod)
  }

  /** Kills the sidecar alone, with -9, and starts it again. */
  async killSidecar(): Promise<void> {
    await this.#sidecar.kill()
    await this.#startSidecar()
  }

  /**
   * While nodes hear of it one after the other, the preStop hooks of both containers begin; the sidecar is asked to
   * leave when the app has left.
   * @throws Error when one of them does not leave with status 0
   */
  async terminate(): Promise<void> {
    const { appPreStopMs, service } = this.#setup
    await Promise.all([
      sleep(ENDPOINTS_LAG_MS).then(() => service.remove(this.#pod)),
      sleep(appPreStopMs).then(() => this.#app.stop()),
      this.#inSidecar('drain').succeeds(),
    ])
    await this.#sidecar.stop()
    await this.#leave?.()
    this.#pod.remove()
  }

  /** Runs one more program of the app. @param onLine gets the lines that it prints */
  run(command: readonly string[], onLine: (line: string) => void): Container {
    return new Container(this.#pod, { command: [process.execPath, ...command], uid: APP_UID }, onLine)
  }

  /** Gives the app a line to read. */
  tell(line: string): void {
    this.#app.tell(line)
  }

  /** Resolves when the app has printed a line in answer to another, or has ended. */
  async ask(line: string, answer: string): Promise<void> {
    const answered = this.#app.says(answer)
    this.#app.tell(line)
    await answered
  }

  /** Resolves when its startup probe succeeds. @throws Error when it ends before */
  async #startSidecar(): Promise<void> {
    this.#sidecar = this.#inSidecar('run')
    while ((await this.#inSidecar('healthcheck').ended) !== 0) {
      if (this.#sidecar.hasEnded) await this.#sidecar.succeeds()
      await sleep(POLL_MS)
    }
  }

  #inSidecar(command: string): Container {
    return new Container(this.#pod, {
      command: [process.execPath, MAIN, command],
      uid: SIDECAR_UID,
      env: { ...SIDECAR_ENV, ...this.#setup.env },
    })
  }
}
