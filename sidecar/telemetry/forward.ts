import type { Socket } from 'node:net'
import { type Attributes, type SpanContext, SpanKind } from '@opentelemetry/api'
import type { CallTrace } from './call-trace.ts'
import type { Coding, CodingListener } from './coding.ts'
import { spanName } from './method-name.ts'
import type { Span } from './tracing.ts'

/** Where something is sent. */
export interface Target {
  /** base URL or origin */
  url: string
  /** what the peer calls itself, where it is one */
  peer?: string
  /** how often the call was sent before */
  resends?: number
}

/** Told what became of something that was sent. */
export interface ForwardListener {
  /**
   * @param status 0: there was no answer
   * @param error empty: none
   */
  onForwarded(status: number, error: string, seconds: number): void
}

/** The step in which a call leaves this sidecar, once for each time that it is sent: until its answer is complete. */
export class Forward implements CodingListener {
  readonly #startMs = performance.now()
  readonly #span: Span | undefined
  /** the one of the same call that began before it */
  readonly earlier: Forward | undefined
  readonly #listener: ForwardListener | undefined
  #status = 0
  #error = ''
  #rejected: string | undefined
  #over = false

  /**
   * @param callTrace undefined: nothing is traced
   * @param listener told of its end
   * @param parent where it is not directly below the call
   */
  constructor(
    callTrace: CallTrace | undefined,
    method: string,
    target: Target,
    listener?: ForwardListener,
    earlier?: Forward,
    parent?: SpanContext,
  ) {
    this.#listener = listener
    this.earlier = earlier
    this.#span = callTrace?.sampled
      ? callTrace.begin(
          spanName(method),
          SpanKind.CLIENT,
          this.#startMs,
          attributesOf(method, target),
          parent,
        )
      : undefined
  }

  /** of its span; undefined where it has none */
  get spanContext(): SpanContext | undefined {
    return this.#span?.context
  }

  /**
   * @param socket the connection that the answer came on
   * @param error code of the error table, where the answer is a sidecar's own
   */
  answered(status: number, socket?: Socket, error = ''): void {
    this.#status = status
    this.#error = error
    if (!this.#span || !socket?.remoteAddress) return
    this.#span.set('network.peer.address', socket.remoteAddress)
    this.#span.set('network.peer.port', socket.remotePort!)
  }

  /** The peer's sidecar refused what it was sent. */
  rejected(code: string): void {
    this.#rejected = code
  }

  /** It ends with the message of its answer. */
  endWith(answer: Coding): void {
    answer.alsoTell(this)
  }

  /** The message of its answer is complete. */
  onCoded(): void {
    this.end('')
  }

  /** @param error empty: none but what the answer tells */
  end(error: string): void {
    if (this.#over) return
    this.#over = true
    const endMs = performance.now()
    const status = this.#status
    error ||= this.#error || (status >= 400 ? String(status) : '')
    this.#listener?.onForwarded(status, error, (endMs - this.#startMs) / 1000)
    if (!this.#span) return
    if (status > 0) this.#span.set('http.response.status_code', status)
    if (error) this.#span.set('error.type', error)
    if (this.#rejected) this.#span.set('mte.reject.code', this.#rejected)
    this.#span.end(endMs, error !== '')
  }
}

function attributesOf(method: string, { url, peer, resends = 0 }: Target): Attributes {
  const { hostname, port, protocol } = new URL(url)
  return {
    'http.request.method': method,
    'server.address': hostname.replace(/^\[|\]$/g, ''),
    'server.port': Number(port) || (protocol === 'https:' ? 443 : 80),
    ...(peer === undefined ? {} : { 'service.peer.name': `${peer}-mte` }),
    ...(resends > 0 ? { 'http.request.resend_count': resends } : {}),
  }
}
