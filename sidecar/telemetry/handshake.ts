/** One pairing, as its spans and its metrics will tell it. */
import { type SpanContext, SpanKind } from '@opentelemetry/api'
import type { Fields } from '../call.ts'
import { type CallRecord, type RecordOptions, serviceName } from './call-record.ts'
import { Forward } from './forward.ts'
import type { Span } from './tracing.ts'

export class Handshake {
  readonly cause: CallRecord | undefined
  readonly #options: RecordOptions
  readonly #role: 'initiator' | 'responder'
  readonly #startMs = performance.now()
  readonly #span: Span | undefined
  #endMs: number | undefined

  /** @param cause the call that needs it, or the request that brings it */
  constructor(options: RecordOptions, role: 'initiator' | 'responder', cause: CallRecord | undefined) {
    this.#options = options
    this.#role = role
    this.cause = cause
    const above = cause?.trace
    this.#span = above?.sampled
      ? above.begin('mte.handshake', SpanKind.INTERNAL, this.#startMs, { 'mte.role': role })
      : undefined
  }

  /** When it ended, in ms of performance.now(); undefined as long as it goes on. */
  get endMs(): number | undefined {
    return this.#endMs
  }

  /** of its span; undefined where it has none */
  get spanContext(): SpanContext | undefined {
    return this.#span?.context
  }

  /** A pairing message is sent. */
  forward(url: string): Forward {
    return new Forward(
      this.#span && this.cause?.trace,
      'POST',
      { url },
      undefined,
      undefined,
      this.spanContext,
    )
  }

  /** The fields that a pairing message has outside, where the network sees them. */
  fieldsOutside(forward: Forward): Fields {
    const above = this.cause?.trace
    if (this.#options.contextInside || !above) return []
    // Where it is not sampled the peer is told so, or it would begin a trace.
    return above.contextFields(forward.spanContext ?? above.context)
  }

  /**
   * @param peer what the peer calls itself; empty where that is not known
   * @param error empty: there is a pair
   */
  ended(peer: string, error: string): void {
    this.#endMs = performance.now()
    this.#options.metrics.paired(this.#role, (this.#endMs - this.#startMs) / 1000, error)
    if (!this.#span) return
    if (peer) this.#span.set('service.peer.name', serviceName(peer))
    if (error) this.#span.set('error.type', error)
    this.#span.end(this.#endMs, error !== '')
  }
}
