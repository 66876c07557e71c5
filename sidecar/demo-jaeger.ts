/** A Jaeger for the demonstration, which does not outlive it. */
import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import net, { type AddressInfo } from 'node:net'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { printable } from './printable.ts'

/** Jaeger 2; its ports, in the container. */
const IMAGE = 'cr.jaegertracing.io/jaegertracing/jaeger:2.13.0'
const IMAGE_OTLP = 4318
const IMAGE_UI = 16686

const READY_MS = 30_000
/** with the time to fetch the image */
const READY_IN_DOCKER_MS = 10 * 60_000
const ARRIVED_MS = 20_000
const DOCKER_ANSWERS_MS = 3_000
const API_ANSWERS_MS = 2_000
const STOPPED_MS = 3_000
const POLL_MS = 50
const LAST_WORDS_CHARACTERS = 4_000
const COMPLAINT_CHARACTERS = 300

/** Its program; that of Jaeger 2 has another name. */
const JAEGER_1 = /all-in-one/

/** How to run a Jaeger. */
export interface JaegerProgram {
  /** as a sentence for people */
  about: string
  readyMs: number
  command(otlpPort: number, uiPort: number): Command
}

interface Command {
  file: string
  args: string[]
  env?: Record<string, string>
  /** what to run where it does not end by itself */
  remove?: [file: string, ...args: string[]]
}

export interface Jaeger {
  /** base URL of its page */
  url: string
  /** base URL of OTLP over HTTP */
  otlpUrl: string
  /** Does it know all spans of a trace, or get to know them soon? */
  hasTrace(traceId: string, spans: number): Promise<boolean>
  /** Resolves with how it ended, in plain words. */
  gone: Promise<string>
  close(): Promise<void>
}

/** @param binary path of a Jaeger; without it there is one in docker, where that answers */
export async function findJaeger(binary: string | undefined): Promise<JaegerProgram | undefined> {
  if (binary) return jaegerBinary(binary)
  return (await dockerAnswers()) ? JAEGER_IN_DOCKER : undefined
}

/**
 * Starts a Jaeger on free ports, and resolves when it is ready.
 * @throws Error that says in plain words why it is not
 */
export async function startJaeger(program: JaegerProgram): Promise<Jaeger> {
  const [otlpPort, uiPort] = await freePorts(2)
  const command = program.command(otlpPort!, uiPort!)
  const child = spawn(command.file, command.args, {
    // It would trace itself, and try for ten seconds to export that when it stops.
    env: { ...process.env, OTEL_TRACES_SAMPLER: 'always_off', ...command.env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let lastWords = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    lastWords = (lastWords + text).slice(-LAST_WORDS_CHARACTERS)
  })
  let isGone = false
  const gone = new Promise<string>((resolve) => {
    child.once('error', ({ message }) => resolve(`it cannot be run: ${message}`))
    child.once('close', (status, signal) => {
      const line = printable(lastWords.trim().split('\n').at(-1)!).slice(0, COMPLAINT_CHARACTERS)
      resolve(`it ended with ${signal ?? `status ${status}`}${line ? `: ${line}` : ''}`)
    })
  }).finally(() => {
    isGone = true
  })
  if (child.pid !== undefined) endWithThisProcess(child.pid, gone)
  const close = async () => {
    if (isGone) return
    child.kill('SIGTERM')
    if (await within(STOPPED_MS, gone)) return
    if (command.remove) await removed(command.remove)
    child.kill('SIGKILL')
    await gone
  }
  const url = `http://127.0.0.1:${uiPort}`
  const reaches = async (ms: number, isSo: () => Promise<boolean>) =>
    (await poll(ms, async () => isGone || isSo())) && !isGone
  if (!(await reaches(program.readyMs, async () => (await ask(`${url}/api/v3/services`)) !== undefined))) {
    const why = isGone ? await gone : `it was not ready after ${program.readyMs / 1000} seconds`
    await close()
    throw new Error(why)
  }
  return {
    url,
    otlpUrl: `http://127.0.0.1:${otlpPort}`,
    hasTrace(traceId, spans) {
      const page = `${url}/api/v3/traces/${traceId}`
      return reaches(
        ARRIVED_MS,
        async () => countSpans((await ask(page)) as TraceAnswer | undefined) === spans,
      )
    },
    gone,
    close,
  }
}

interface TraceAnswer {
  result?: { resourceSpans?: { scopeSpans: { spans: unknown[] }[] }[] }
}

function countSpans(answer: TraceAnswer | undefined): number {
  const scopes = answer?.result?.resourceSpans?.flatMap(({ scopeSpans }) => scopeSpans) ?? []
  return scopes.flatMap(({ spans }) => spans).length
}

function jaegerBinary(file: string): JaegerProgram {
  return {
    about: `Jaeger starts: JAEGER_BIN is ${printable(file)}.`,
    readyMs: READY_MS,
    command(otlpPort, uiPort) {
      const [otlp, ui, any] = [otlpPort, uiPort, 0].map((port) => `127.0.0.1:${port}`) as [
        string,
        string,
        string,
      ]
      if (!JAEGER_1.test(path.basename(file))) return { file, args: [configuration(otlp, ui)] }
      const env = {
        SPAN_STORAGE_TYPE: 'memory',
        COLLECTOR_OTLP_ENABLED: 'true',
        COLLECTOR_OTLP_HTTP_HOST_PORT: otlp,
        COLLECTOR_OTLP_GRPC_HOST_PORT: any,
        COLLECTOR_HTTP_SERVER_HOST_PORT: any,
        COLLECTOR_GRPC_SERVER_HOST_PORT: any,
        QUERY_HTTP_SERVER_HOST_PORT: ui,
        QUERY_GRPC_SERVER_HOST_PORT: any,
        ADMIN_HTTP_HOST_PORT: any,
        HTTP_SERVER_HOST_PORT: any,
      }
      return { file, args: [], env }
    },
  }
}

const JAEGER_IN_DOCKER: JaegerProgram = {
  about: `docker starts Jaeger. Where it does not have the image it fetches it first, which may\ntake minutes (${IMAGE}); Ctrl-C ends it.`,
  readyMs: READY_IN_DOCKER_MS,
  command(otlpPort, uiPort) {
    const name = `mte-sidecar-demo-${randomBytes(4).toString('hex')}`
    const publish = [`127.0.0.1:${otlpPort}:${IMAGE_OTLP}`, `127.0.0.1:${uiPort}:${IMAGE_UI}`]
    return {
      file: 'docker',
      args: [
        ...['run', '--rm', '--name', name, '--env', 'OTEL_TRACES_SAMPLER'],
        ...publish.flatMap((ports) => ['--publish', ports]),
        ...[IMAGE, configuration(`0.0.0.0:${IMAGE_OTLP}`, `0.0.0.0:${IMAGE_UI}`)],
      ],
      remove: ['docker', 'rm', '--force', name],
    }
  },
}

/** The least of a Jaeger 2, as an argument: JSON is YAML too. */
function configuration(otlp: string, ui: string): string {
  const storage = 'memory'
  const config = {
    receivers: { otlp: { protocols: { http: { endpoint: otlp } } } },
    exporters: { jaeger_storage_exporter: { trace_storage: storage } },
    extensions: {
      jaeger_storage: { backends: { [storage]: { memory: { max_traces: 1000 } } } },
      jaeger_query: {
        storage: { traces: storage },
        http: { endpoint: ui },
        grpc: { endpoint: '127.0.0.1:0' },
      },
    },
    service: {
      extensions: ['jaeger_storage', 'jaeger_query'],
      pipelines: { traces: { receivers: ['otlp'], exporters: ['jaeger_storage_exporter'] } },
      telemetry: { metrics: { level: 'none' }, logs: { level: 'warn' } },
    },
  }
  return `--config=yaml:${JSON.stringify(config)}`
}

/** However this process ends, be it by SIGKILL: a shell waits for the end of its input, and then ends the other. */
function endWithThisProcess(pid: number, gone: Promise<unknown>): void {
  const script = 'trap "" INT TERM HUP; read -r _; kill "$0"'
  const guard = spawn('sh', ['-c', script, String(pid)], { stdio: ['pipe', 'ignore', 'ignore'] })
  guard.on('error', () => {}) // there is no shell on Windows, where the demonstration ends what it started itself
  void gone.then(() => guard.kill('SIGKILL'))
}

async function dockerAnswers(): Promise<boolean> {
  const args = ['info', '--format', '{{.ServerVersion}}']
  try {
    const { stdout } = await promisify(execFile)('docker', args, { timeout: DOCKER_ANSWERS_MS })
    return stdout.trim() !== ''
  } catch {
    return false
  }
}

async function removed([file, ...args]: [string, ...string[]]): Promise<void> {
  await promisify(execFile)(file, args, { timeout: STOPPED_MS }).catch(() => {})
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => net.createServer())
  const listening = servers.map(
    (server) =>
      new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve)),
  )
  await Promise.all(listening)
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

/** What Jaeger answers, as JSON; undefined where it does not, or with a failure. */
async function ask(url: string): Promise<unknown> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(API_ANSWERS_MS) })
    const text = await answer.text()
    return answer.ok ? JSON.parse(text) : undefined
  } catch {
    return undefined
  }
}

/** @returns whether it was so in time */
async function poll(ms: number, isSo: () => Promise<boolean>): Promise<boolean> {
  const endMs = performance.now() + ms
  while (!(await isSo())) {
    if (performance.now() > endMs) return false
    await delay(POLL_MS)
  }
  return true
}

async function within(ms: number, event: Promise<unknown>): Promise<boolean> {
  const over = new AbortController()
  const late = delay(ms, false, { signal: over.signal }).catch(() => false)
  const inTime = await Promise.race([event.then(() => true), late])
  over.abort()
  return inTime
}
