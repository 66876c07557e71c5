/** Asks the sidecar that runs here, at its ADMIN_PORT. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Draining, ListedPair } from './admin.ts'
import { nodeHttp } from './http/node-http.ts'

/** How long it may take to answer, in ms. */
export const ADMIN_DEADLINE_MS = 2000
/** Callers have gone elsewhere when none of them has had a call open for so long, in ms. */
const EMPTY_MS = 1000
const DRAINING_POLL_MS = 100
/** status of /readyz */
const NOT_READY = 503

/** Why there is no answer that can be used: a sentence without its full stop, which may hold what was answered. */
export class AdminError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'AdminError'
  }
}

/** @throws AdminError from every verb */
export class AdminClient {
  readonly #host: string
  readonly #port: number

  /** @param address of ADMIN_HOST and ADMIN_PORT */
  constructor({ host, port }: { host: string; port: number }) {
    const loopback = new Map([
      ['0.0.0.0', '127.0.0.1'],
      ['::', '::1'],
    ])
    this.#host = loopback.get(host) ?? host
    this.#port = port
  }

  /** Resolves when the sidecar is alive. */
  async alive(): Promise<void> {
    await this.#ask('GET', '/livez')
  }

  /** What it calls itself, why it should get no new calls, and what it cannot do meanwhile. */
  async readiness(): Promise<{ name: string; reasons: string[]; degraded: string[] }> {
    const isNamed = (value: unknown) => typeof (value as { name?: unknown } | null)?.name === 'string'
    const { name } = this.#read(await this.#ask('GET', '/livez'), isNamed) as { name: string }
    const isReadiness = (value: unknown) => {
      const { reasons, degraded } = Object(value) as Record<string, unknown>
      return Array.isArray(reasons) && Array.isArray(degraded)
    }
    const answer = this.#read(await this.#ask('GET', '/readyz', NOT_READY), isReadiness)
    return { name, ...(answer as { reasons: string[]; degraded: string[] }) }
  }

  /**
   * Has it drain, and resolves when its inbound port has been empty for a moment, or its DRAIN_SECONDS are over.
   * @param leastMs how long to wait in any case
   * @returns how many calls are still open at its inbound port; undefined when it has stopped answering meanwhile
   */
  async drain(leastMs = 0): Promise<number | undefined> {
    const untilMs = performance.now() + leastMs
    const isDone = ({ emptyMs, leftMs }: Draining) =>
      leftMs <= 0 || (emptyMs >= EMPTY_MS && performance.now() >= untilMs)
    let draining: Draining | undefined = await this.#drain()
    while (draining && !isDone(draining)) {
      await delay(DRAINING_POLL_MS)
      draining = await this.#drain().catch(noneIfAdminError)
    }
    return draining?.openCalls
  }

  async #drain(): Promise<Draining> {
    const isDraining = (value: unknown) => {
      const { openCalls, emptyMs, leftMs } = Object(value) as Record<string, unknown>
      return [openCalls, emptyMs, leftMs].every((each) => typeof each === 'number')
    }
    return this.#read(await this.#ask('POST', '/drain'), isDraining) as Draining
  }

  async pairs(): Promise<ListedPair[]> {
    return this.#read(await this.#ask('GET', '/pairs'), Array.isArray) as ListedPair[]
  }

  /**
   * Has it forget all pairs with a peer.
   * @param peer as `pairs` names it
   * @returns how many they were
   */
  async dropPairs(peer: string): Promise<number> {
    const answer = await this.#ask('DELETE', `/pairs?peer=${encodeURIComponent(peer)}`)
    const isCount = (value: unknown) => typeof (value as { dropped?: unknown } | null)?.dropped === 'number'
    return (this.#read(answer, isCount) as { dropped: number }).dropped
  }

  /** @returns the body of an answer with the status 200, or another one that says what is asked */
  async #ask(method: string, path: string, alsoStatus = 200): Promise<string> {
    if (this.#port === 0)
      throw new AdminError('ADMIN_PORT is 0, so nobody knows where to ask; set it to a fixed port')
    const { status, body } = await this.#exchange(method, path)
    if (status === 200 || status === alsoStatus) return body
    const [route] = path.split('?', 1)
    const detail = detailOf(body)
    throw new AdminError(
      `${route} on ${this.#place} answered with status ${status}${detail === undefined ? '' : `: ${detail}`}`,
    )
  }

  #exchange(method: string, path: string): Promise<{ status: number | undefined; body: string }> {
    return new Promise((resolve, reject) => {
      const signal = AbortSignal.timeout(ADMIN_DEADLINE_MS)
      const fail = ({ message }: Error) => {
        const why = signal.aborted ? `within ${ADMIN_DEADLINE_MS / 1000} s` : `(${message})`
        reject(new AdminError(`nothing answered on ${this.#place} ${why}`))
      }
      // It serves /pairs to no other name; and without an agent no HTTP_PROXY of the environment is asked.
      const where = { host: this.#host, port: this.#port, headers: { host: 'localhost' }, agent: false }
      const request = nodeHttp.request({ ...where, method, path, signal }, async (response) => {
        try {
          let body = ''
          for await (const text of response.setEncoding('utf8')) body += text
          resolve({ status: response.statusCode, body })
        } catch (error) {
          fail(error as Error)
        }
      })
      request.on('error', fail)
      request.end()
    })
  }

  #read(body: string, isIt: (value: unknown) => boolean): unknown {
    const value = parsed(body)
    if (isIt(value)) return value
    throw new AdminError(
      `what answered on ${this.#place} is no mte-sidecar of this version: ADMIN_HOST and ADMIN_PORT must say where it is`,
    )
  }

  get #place(): string {
    return `${this.#host} port ${this.#port}`
  }
}

/** What a problem (RFC 9457) says of itself; undefined where there is none. */
function detailOf(body: string): string | undefined {
  const detail = (parsed(body) as { detail?: unknown } | null | undefined)?.detail
  return typeof detail === 'string' ? detail : undefined
}

function noneIfAdminError(error: unknown): undefined {
  if (!(error instanceof AdminError)) throw error
}

/** undefined where it is no JSON */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
