/** Injectors as processes of their own. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import https from 'node:https'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'

export interface Injector {
  pid: number
  /** where it answers reviews, and probes */
  ports: Record<'webhook' | 'admin', number>
  /** what it has logged so far */
  log: readonly { msg: string; [field: string]: unknown }[]
  /** Resolves when it has logged this so many times. */
  logged(message: string, times?: number): Promise<void>
  /** @returns exit status, or the signal that ended it */
  stop(): Promise<number | NodeJS.Signals | null>
}

/** Starts `mte-sidecar injector`, on free ports unless `env` says others. @throws Error with its log when it ends before it listens */
export async function startInjector(env: Record<string, string>, args: string[] = []): Promise<Injector> {
  const child = spawn(process.execPath, ['sidecar/main.ts', 'injector', ...args], {
    cwd: new URL('../..', import.meta.url),
    env: { PATH: process.env.PATH, PORT: '0', ADMIN_PORT: '0', DRAIN_SECONDS: '0.01', ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  const log: Injector['log'][number][] = []
  const ports = {} as Injector['ports']
  const waiting = new Set<() => void>()
  createInterface({ input: child.stderr! }).on('line', (line) => {
    const entry = line.startsWith('{') ? JSON.parse(line) : { msg: line }
    log.push(entry)
    if (entry.msg === 'listening') ports[entry.role as 'admin'] = entry.port
    for (const look of waiting) look()
  })
  const until = async (holds: () => boolean) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const look = () => holds() && resolve()
    waiting.add(look)
    look()
    const gone = ended.then(() => {
      if (!holds())
        throw new Error(`the injector has ended:\n${log.map((one) => JSON.stringify(one)).join('\n')}`)
    })
    await Promise.race([promise, gone])
    waiting.delete(look)
  }
  await until(() => Object.keys(ports).length === 2)
  return {
    pid: child.pid!,
    ports,
    log,
    logged: (message, times = 1) => until(() => log.filter(({ msg }) => msg === message).length >= times),
    async stop() {
      child.kill('SIGTERM')
      const [status, signal] = await ended
      return status ?? signal
    },
  }
}

export interface ReviewAnswer {
  response: {
    uid: string
    allowed: boolean
    patchType?: string
    patch?: string
    warnings?: string[]
    status?: { code: number; reason: string; message: string }
  }
}

/** Sends a review as the API server does. @param ca whom to trust @throws what the connection fails with */
export async function ask(
  port: number,
  ca: string,
  body: string | Buffer | object,
  options: https.RequestOptions = {},
): Promise<{ status: number; body: ReviewAnswer & { error?: string } }> {
  const request = https.request({
    host: '127.0.0.1',
    port,
    path: '/inject',
    method: 'POST',
    ca,
    agent: false,
    ...options,
  })
  request.end(typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body))
  const [response] = await once(request, 'response')
  return { status: response.statusCode, body: JSON.parse(await text(response)) }
}

/** A review of a new pod, as the API server sends it. */
export function reviewOf(object: unknown, request: object = {}): object {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'a3f1c7de-0b52-4b6e-9a60-2f1f1e0a5f11',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      namespace: 'shop',
      operation: 'CREATE',
      object,
      oldObject: null,
      dryRun: false,
      ...request,
    },
  }
}

/** The operations that an answer has for the pod; none: it is left as it is. */
export function operationsIn({ response }: ReviewAnswer): [] {
  return response.patch ? JSON.parse(Buffer.from(response.patch, 'base64').toString()) : []
}
