/** As much of the API server of Kubernetes as the injector needs, in the name of its pod's service account. */
import { readFile } from 'node:fs/promises'
import https from 'node:https'
import path from 'node:path'

/** An object of Kubernetes. */
export interface KubeObject {
  metadata: { name: string; resourceVersion: string }
  [field: string]: unknown
}

/** The API server did not do what it was asked. The message is its own, or says why it was not reached. */
export class KubeError extends Error {
  /** of HTTP; undefined: there was no answer */
  readonly status: number | undefined

  constructor(message: string, status?: number, options?: ErrorOptions) {
    super(message, options)
    this.name = 'KubeError'
    this.status = status
  }
}

const DEADLINE_MS = 10_000
const ANSWER_BYTES_MAX = 4 * 1024 * 1024
const STRATEGIC_MERGE_PATCH = 'application/strategic-merge-patch+json'

export class KubeApi {
  readonly #folder: string
  readonly #host: string
  readonly #port: string

  /**
   * @param folder with the token and the certificate authority; both are read for each call, as they change
   * @param env with KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, which every pod has
   */
  constructor(folder: string, env: Readonly<Record<string, string | undefined>>) {
    this.#folder = folder
    this.#host = env.KUBERNETES_SERVICE_HOST ?? 'kubernetes.default.svc'
    this.#port = env.KUBERNETES_SERVICE_PORT ?? '443'
  }

  /** The namespace of the pod. */
  namespace(): Promise<string> {
    return this.#read('namespace')
  }

  /** @throws KubeError */
  get(path: string): Promise<KubeObject> {
    return this.#call('GET', path)
  }

  /** Writes an object that has not changed since it was read. @throws KubeError, with status 409 if it has */
  replace(path: string, object: KubeObject): Promise<KubeObject> {
    return this.#call('PUT', path, 'application/json', object)
  }

  /** Changes some of an object; with a resourceVersion in it, of one that has not changed since. @throws KubeError */
  merge(path: string, change: object): Promise<KubeObject> {
    return this.#call('PATCH', path, STRATEGIC_MERGE_PATCH, change)
  }

  async #call(method: string, path: string, type?: string, body?: object): Promise<KubeObject> {
    const [token, ca] = await Promise.all([this.#read('token'), this.#read('ca.crt')])
    const headers = {
      authorization: `Bearer ${token}`,
      accept: 'application/json',
      ...(type && { 'content-type': type }),
    }
    const { status, text } = await this.#send({ method, path, ca, headers }, JSON.stringify(body))
    const answer = parse(text)
    if (status >= 200 && status < 300 && answer) return answer as KubeObject
    throw new KubeError(`${method} ${path}: ${answer?.message ?? `status ${status}`}`, status)
  }

  async #send(
    options: https.RequestOptions,
    body: string | undefined,
  ): Promise<{ status: number; text: string }> {
    try {
      const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>()
      const signal = AbortSignal.timeout(DEADLINE_MS)
      const request = https.request(
        { ...options, host: this.#host, port: this.#port, signal },
        (response) => {
          let text = ''
          response.setEncoding('utf8')
          response.on('data', (piece) => {
            text += piece
            if (text.length > ANSWER_BYTES_MAX) response.destroy(new Error('its answer is too long'))
          })
          response.on('error', reject)
          response.on('end', () => resolve({ status: response.statusCode!, text }))
        },
      )
      request.on('error', reject)
      request.end(body)
      return await promise
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      throw new KubeError(
        `the API server at ${this.#host}:${this.#port} could not be asked: ${code ?? message}`,
        undefined,
        { cause: error },
      )
    }
  }

  async #read(name: string): Promise<string> {
    const file = path.join(this.#folder, name)
    try {
      return (await readFile(file, 'utf8')).trim()
    } catch (error) {
      const why = (error as NodeJS.ErrnoException).code ?? 'unknown'
      const what = 'is the token of a service account mounted into this pod?'
      throw new KubeError(`${file} cannot be read (${why}): ${what}`, undefined, { cause: error })
    }
  }
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
