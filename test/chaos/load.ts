/** The load that goes on while faults happen: calls with unique ids, each with what its caller was told. */
import { randomUUID } from 'node:crypto'
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const CALLERS = 16
const CALLS_PER_SECOND = 400
/** What all ids begin with: nobody between the sidecars is to see it. */
export const ID_PREFIX = 'id-of-a-call'
/** Apps that call in processes of their own have ids of their own. */
const IDS = `${ID_PREFIX}-${randomUUID()}`
/** Every so many calls are one GET. */
const CALLS_PER_GET = 10
/** Every second caller leaves its connection after so many calls: others have it until the other end does. */
const CALLS_PER_CONNECTION = 20
/** A caller gives up after so long: longer than anything that a sidecar waits for here. */
const PATIENCE_MS = 10_000

/** A call that is over. Times are monotonic. */
export interface Call {
  id: string
  method: 'GET' | 'POST'
  startedMs: number
  endedMs: number
  /** was it answered with a 2xx and its own id? */
  answered: boolean
  /** of the answer, else 0 */
  status: number
  /** the mte-error of the answer, what else was wrong with it, or why there was none; empty when all is well */
  failure: string
  /** the body of an answer that is none */
  detail: string
}

export interface Load {
  /** those that are over so far */
  calls: readonly Call[]
  /** Lets the calls that are under way end, begins no others, and gives all that there were. */
  stop(): Promise<Call[]>
}

let ids = 0

/**
 * Calls the app as `billing`, with `POST /charges` and its id as the body, now and then `GET /charges/ID`.
 * @param port of the initiators' outbound side
 * @param callsPerSecond of all callers together, as long as they are answered
 * @param onCall is told of each call that is over
 */
export function startLoad(
  port: number,
  callsPerSecond = CALLS_PER_SECOND,
  onCall?: (call: Call) => void,
): Load {
  const calls: Call[] = []
  let stopped = false
  const callAgainAndAgain = async (leaves: boolean) => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    let nextMs = performance.now() + (Math.random() * 1000 * CALLERS) / callsPerSecond
    for (let count = 1; ; count++) {
      await sleep(Math.max(0, nextMs - performance.now()))
      if (stopped) break
      nextMs = performance.now() + (1000 * CALLERS) / callsPerSecond
      const over = await call(port, agent, count, leaves && count % CALLS_PER_CONNECTION === 0)
      calls.push(over)
      onCall?.(over)
    }
    agent.destroy()
  }
  const callers = Array.from({ length: CALLERS }, (_, i) => callAgainAndAgain(i % 2 === 0))
  return {
    calls,
    async stop() {
      stopped = true
      await Promise.all(callers)
      return calls
    },
  }
}

/** @param last is it the last one on its connection? */
async function call(port: number, agent: http.Agent, count: number, last: boolean): Promise<Call> {
  const id = `${IDS}-${++ids}`
  const method = count % CALLS_PER_GET === 0 ? 'GET' : 'POST'
  const startedMs = performance.now()
  const answer = await new Promise<Pick<Call, 'status' | 'failure' | 'detail'>>((resolve) => {
    const fail = (error: NodeJS.ErrnoException) =>
      resolve({ status: 0, failure: failureOf(error), detail: '' })
    const request = http.request({
      ...{ host: '127.0.0.1', port, agent, method, path: method === 'GET' ? `/charges/${id}` : '/charges' },
      headers: { host: 'billing', ...(last ? { connection: 'close' } : {}) },
      signal: AbortSignal.timeout(PATIENCE_MS),
    })
    request.on('error', fail)
    request.on('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (piece) => {
        text += piece
      })
      response.on('error', fail)
      response.on('end', () => {
        const status = response.statusCode!
        const wrong = status >= 300 ? `${status} of HAProxy` : text === id ? '' : 'the answer to another call'
        const failure = (response.headers['mte-error'] as string | undefined) ?? wrong
        resolve({ status, failure, detail: failure === '' ? '' : text })
      })
    })
    request.end(method === 'POST' ? id : undefined)
  })
  return { id, method, startedMs, endedMs: performance.now(), answered: answer.failure === '', ...answer }
}

function failureOf({ name, code }: NodeJS.ErrnoException): string {
  return name === 'AbortError' || name === 'TimeoutError' ? 'timeout' : `connection (${code})`
}
