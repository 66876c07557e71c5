/** The HTTPS server that the API server asks about new pods. */
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import type http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { Mistake } from '../formats.ts'
import type { Options } from '../inject/options.ts'
import type { Logger } from '../log.ts'
import { Counter, type Family, Gauge, Histogram } from '../telemetry/instruments.ts'
import { review } from './review.ts'
import type { KeyPair } from './settings.ts'

/** The API server takes no object of more than 3 MiB; escapes in JSON may make it longer. */
const BODY_BYTES_MAX = 8 * 1024 * 1024
/** Of all reviews that are being read. */
const BODIES_BYTES_MAX = 64 * 1024 * 1024
const REQUEST_DEADLINE_MS = 10_000
/** Longer than the 90 seconds after which the API server itself closes what is idle, so that no review meets a close. */
const KEEP_ALIVE_MS = 120_000
const DURATION_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1]

/** A request that is answered with a status of HTTP, as it is no review: the API server then does what failurePolicy says. */
class Refusal extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export class Webhook {
  readonly #server: https.Server
  readonly #defaults: Partial<Options>
  readonly #log: Logger
  readonly #counted = {
    reviews: new Counter({
      name: 'mte.injector.reviews',
      unit: '{review}',
      description: 'Reviews by what became of the pod, and requests that were no review (not-a-review).',
      attributes: ['outcome'],
    }),
    duration: new Histogram({
      name: 'mte.injector.review.duration',
      unit: 's',
      description: 'Duration of the answers to reviews, once they were read.',
      attributes: [],
      bounds: DURATION_BOUNDS,
    }),
    expiry: new Gauge({
      name: 'mte.injector.certificate.expiry',
      unit: 's',
      description: 'When the certificate expires, in seconds since 1970.',
      attributes: ['subject'],
    }),
  }
  #bytesHeld = 0
  #validUntilMs = 0
  #isDraining = false

  /** @param defaults of options that a pod's annotations do not set */
  constructor(defaults: Partial<Options>, log: Logger) {
    this.#defaults = defaults
    this.#log = log
    const options = {
      handshakeTimeout: REQUEST_DEADLINE_MS,
      requestTimeout: REQUEST_DEADLINE_MS,
      connectionsCheckingInterval: REQUEST_DEADLINE_MS / 10,
      keepAliveTimeout: KEEP_ALIVE_MS,
    }
    this.#server = https.createServer(options, (request, response) => void this.#answer(request, response))
    this.#counted.expiry.watch(() => (this.#validUntilMs ? { webhook: this.#validUntilMs / 1000 } : {}))
  }

  /** @returns the port */
  async listen(port: number): Promise<number> {
    this.#server.listen(port)
    await once(this.#server, 'listening')
    return (this.#server.address() as AddressInfo).port
  }

  /** Presents a certificate to whoever connects from now on. */
  present(pair: KeyPair): void {
    this.#server.setSecureContext(pair)
    this.#validUntilMs = new X509Certificate(pair.cert).validToDate.getTime()
  }

  /** Why it should get no reviews; none: it is ready. */
  notReady(): string[] {
    if (this.#isDraining) return ['draining']
    if (this.#validUntilMs === 0) return ['there is no certificate yet']
    return this.#validUntilMs < Date.now() ? ['the certificate has expired'] : []
  }

  families(): Promise<Family[]> {
    return Promise.all(Object.values(this.#counted).map((metric) => metric.family()))
  }

  /** Goes on, but is not ready any more, and has those that are connected connect anew. */
  drain(): void {
    this.#isDraining = true
  }

  /** Resolves when what was begun has been answered; nothing else is. */
  async close(): Promise<void> {
    this.#server.close()
    await once(this.#server, 'close')
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    request.on('error', () => {})
    if (this.#isDraining) response.setHeader('connection', 'close')
    try {
      const body = await this.#body(request)
      const beganMs = performance.now()
      send(response, 200, this.#reviewed(body))
      this.#counted.duration.record((performance.now() - beganMs) / 1000, undefined)
    } catch (error) {
      if (request.errored || response.destroyed) return
      const { status, message } =
        error instanceof Refusal ? error : new Refusal(500, 'It failed: its log says why.')
      if (!(error instanceof Refusal)) this.#log.error({ err: error }, 'a review failed')
      this.#counted.reviews.add(1, 'not-a-review')
      this.#log.warn({ status }, `what came is no review: ${message}`)
      // What is left of the body is not waited for.
      response.setHeader('connection', 'close')
      send(response, status, { error: message })
    }
  }

  #reviewed(body: Buffer): object {
    const { outcome, title, messages, answer } = reviewOf(body, this.#defaults)
    this.#counted.reviews.add(1, outcome)
    const fields = { pod: title, outcome, ...(messages.length > 0 && { messages }) }
    if (outcome === 'refused') this.#log.warn(fields, 'a pod was refused')
    else this.#log.debug(fields, 'a pod was reviewed')
    return answer
  }

  async #body(request: http.IncomingMessage): Promise<Buffer> {
    const { method, url } = request
    if (url?.split('?')[0] !== '/inject') throw new Refusal(404, 'There is /inject.')
    if (method !== 'POST') throw new Refusal(405, 'Reviews come by POST.')
    const pieces: Buffer[] = []
    let bytes = 0
    let bytesHeld = 0
    let refusal: Refusal | undefined
    try {
      // Even what is refused is read to its end, or its sender might not read why; the deadline ends what has none.
      for await (const piece of request as AsyncIterable<Buffer>) {
        bytes += piece.length
        if (bytes > BODY_BYTES_MAX) {
          refusal ??= new Refusal(413, `The body must be at most ${BODY_BYTES_MAX} bytes long.`)
        } else if (this.#bytesHeld + piece.length > BODIES_BYTES_MAX) {
          refusal ??= new Refusal(503, 'More reviews are being read than there is room for.')
        }
        if (refusal) continue
        pieces.push(piece)
        bytesHeld += piece.length
        this.#bytesHeld += piece.length
      }
    } finally {
      this.#bytesHeld -= bytesHeld
    }
    if (refusal) throw refusal
    return Buffer.concat(pieces)
  }
}

function reviewOf(body: Buffer, defaults: Partial<Options>): ReturnType<typeof review> {
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    throw new Refusal(400, 'The body must be JSON.')
  }
  try {
    return review(parsed, defaults)
  } catch (error) {
    if (!(error instanceof Mistake)) throw error
    throw new Refusal(400, `The body ${error.message}.`)
  }
}

function send(response: http.ServerResponse, status: number, answer: object): void {
  const body = Buffer.from(JSON.stringify(answer))
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length })
  response.end(body)
}
