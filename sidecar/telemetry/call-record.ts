/** One call at a port of this sidecar, as its spans, its metrics and its line in the log will tell it. */
import { type Attributes, context, ROOT_CONTEXT, type SpanContext, SpanKind, trace } from '@opentelemetry/api'
import type { Fields, RequestHead, Watcher } from '../call.ts'
import type { SidecarError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { CallTrace } from './call-trace.ts'
import { Coding, type CodingListener } from './coding.ts'
import { contextFields, withOuterContext } from './context-fields.ts'
import { Forward, type ForwardListener, type Target } from './forward.ts'
import { methodName, spanName } from './method-name.ts'
import type { CallLabels, Carriage, Direction, Metrics } from './metrics.ts'
import type { Recent } from './recent.ts'
import type { Tracing } from './tracing.ts'

/** Where records go. */
export interface RecordOptions {
  /** undefined: no spans are made here */
  tracing: Tracing | undefined
  /** Are trace contexts told inside of messages alone? */
  contextInside: boolean
  /** undefined: there is no line a call */
  accessLog: Pick<Logger, 'info'> | undefined
  metrics: Metrics
  recent: Recent
}

const NONE: Fields = []

export class CallRecord implements Watcher, CodingListener, ForwardListener {
  readonly #options: RecordOptions
  readonly #startMs = performance.now()
  /** undefined: it is none that is counted, such as a pairing */
  #direction: Direction | undefined
  #carriage: Carriage = 'message'
  #method = 'POST'
  #peer = ''
  #status = 0
  #error = ''
  /** of what carried a message of a peer */
  #outerFields: Fields = NONE
  #trace: CallTrace | undefined
  /** the last ones; each knows the one before it */
  #coding: Coding | undefined
  #forward: Forward | undefined
  #forwardedS = 0
  /** Then nothing begins any more, though something may still be under way. */
  #isOver = false

  constructor(options: RecordOptions) {
    this.#options = options
  }

  /** How it is carried from sidecar to sidecar: as a message, unless said. */
  by(carriage: Carriage): void {
    this.#carriage = carriage
  }

  /** It is a call of the app. */
  outbound({ method, fields }: RequestHead): void {
    this.#direction = 'outbound'
    this.#method = methodName(method)
    this.#begin(fields)
  }

  /** It is carried by a request of a peer's sidecar, of which nothing has authenticated yet. */
  carried(outerFields: Fields): void {
    this.#outerFields = outerFields
  }

  /**
   * It is a message of a peer, which has authenticated.
   * @param peer what its sender calls itself
   */
  inbound({ method, fields }: RequestHead, peer: string): void {
    this.#direction = 'inbound'
    this.#method = methodName(method)
    this.#peer = peer
    this.#begin(fields)
  }

  /** It is a pairing. */
  pairing(outerFields: Fields): void {
    this.carried(outerFields)
    this.#begin(NONE)
  }

  /** It is a message, or a pairing, that this sidecar refuses. */
  refused(code: string, status: number): void {
    const { metrics, recent } = this.#options
    metrics.rejected('sent', code)
    recent.rejected('sent', code)
    if (!this.#trace) this.#begin(NONE)
    this.#trace?.set('mte.reject.code', code)
    this.#status = status
    this.#error = code === 'state_unavailable' ? 'state-unavailable' : 'message-refused'
  }

  /**
   * Where an outbound call goes.
   * @param peer as the store of the pairs lists it
   */
  towards(peer: string): void {
    this.#peer = peer
  }

  /** @param error code of the error table, where the answer is a sidecar's own; else empty */
  answered(status: number, error: string): void {
    this.#status = status
    this.#error = error
  }

  /** The encoding or decoding of one of its messages. */
  coding(operation: 'encode' | 'decode', what: 'request' | 'response'): Coding {
    this.#coding = new Coding(operation, what, this, this.#coding)
    return this.#coding
  }

  onCoded({ operation, what, workMs, plaintextBytes, messageBytes }: Coding): void {
    const seconds = this.#carriage === 'message' ? workMs / 1000 : undefined
    this.#options.metrics.coded(operation, what, seconds, plaintextBytes, messageBytes)
  }

  /** The call, or a message of it, is sent. */
  forward(target: Target): Forward {
    const callTrace = this.#isOver ? undefined : this.#trace
    this.#forward = new Forward(callTrace, this.#method, target, this, this.#forward)
    return this.#forward
  }

  onForwarded(status: number, error: string, seconds: number): void {
    this.#forwardedS += seconds
    if (!this.#direction) return
    this.#options.metrics.forwarded({ ...this.#labels, status, error }, seconds, this.#sampledTraceId)
  }

  /** The fields of the call's head as they are sent on. */
  fieldsInside(fields: Fields, forward: Forward): Fields {
    if (!this.#trace) return withOuterContext(fields, this.#outerFields)
    return this.#trace.inject(fields, forward.spanContext ?? this.#trace.context)
  }

  /** The fields that a message of the call has outside, where the network sees them. */
  fieldsOutside(fields: Fields, forward: Forward): Fields {
    if (this.#options.contextInside) return NONE
    if (!this.#trace) return contextFields(fields)
    return this.#trace.contextFields(forward.spanContext ?? this.#trace.context)
  }

  /** The place of the call in its trace; undefined where nothing is traced. */
  get trace(): CallTrace | undefined {
    return this.#trace
  }

  /** Does something of which the spans of instrumented packages are to be below the call's. */
  within<T>(work: () => T): T {
    if (!this.#trace?.sampled) return work()
    return context.with(trace.setSpanContext(ROOT_CONTEXT, this.#trace.context), work)
  }

  /** It waited for something that another call began. */
  waitedFor(spanContext: SpanContext | undefined): void {
    if (spanContext) this.#trace?.link(spanContext)
  }

  get ids(): { trace_id?: string; span_id?: string } {
    if (!this.#trace) return {}
    const { traceId, spanId } = this.#trace.context
    return { trace_id: traceId, span_id: spanId }
  }

  over(why: SidecarError | undefined): void {
    if (why) this.#error = why.code
    // What it was is not known, but that it was.
    if (why && !this.#trace) this.#begin(NONE)
    this.#isOver = true
    // What is not complete then was given up for what went wrong with the call, if anything did.
    const cut = this.#error
    for (let forward = this.#forward; forward; forward = forward.earlier) forward.end(cut)
    const endMs = performance.now()
    // Not before: which trace a message belongs to is known once it has been decoded.
    if (this.#trace?.sampled) for (const coding of this.#codings) this.#codingSpan(coding, endMs, cut)
    const status = this.#status
    const error = this.#error || (status >= 500 ? String(status) : '')
    this.#tell({ ...this.#labels, status, error }, endMs)
    if (status > 0) this.#trace?.set('http.response.status_code', status)
    if (error) this.#trace?.set('error.type', error)
    this.#trace?.end(endMs, why !== undefined || status >= 500)
  }

  /** In the order in which they began. */
  get #codings(): Coding[] {
    const codings: Coding[] = []
    for (let coding = this.#coding; coding; coding = coding.earlier) codings.unshift(coding)
    return codings
  }

  #begin(inner: Fields): void {
    const { tracing } = this.#options
    if (!tracing || this.#isOver) return
    const span = {
      name: spanName(this.#method),
      startMs: this.#startMs,
      attributes: () => this.#attributes(),
    }
    this.#trace = new CallTrace(tracing, span, tracing.extract(inner), tracing.extract(this.#outerFields))
  }

  #attributes(): Attributes {
    const attributes: Attributes = {
      'http.request.method': this.#method,
      'url.scheme': 'http',
      'mte.direction': this.#direction ?? 'inbound',
    }
    if (this.#direction === 'inbound') attributes['service.peer.name'] = serviceName(this.#peer)
    return attributes
  }

  #codingSpan(coding: Coding, overMs: number, cut: string): void {
    const { operation, what, startMs, plaintextBytes, messageBytes, chunks } = coding
    const [input, output] =
      operation === 'encode' ? [plaintextBytes, messageBytes] : [messageBytes, plaintextBytes]
    const span = this.#trace!.begin(`mte.${operation} ${what}`, SpanKind.INTERNAL, startMs, {
      'mte.carriage': this.#carriage,
      'mte.message.type': what,
      'mte.input.size': input,
      'mte.output.size': output,
      'mte.chunk.count': chunks,
    })
    const error = coding.endMs === undefined ? cut : ''
    if (error) span.set('error.type', error)
    span.end(coding.endMs ?? overMs, error !== '')
  }

  get #labels(): CallLabels {
    return {
      direction: this.#direction ?? 'inbound',
      peer: this.#peer,
      method: this.#method,
      status: this.#status,
      error: '',
    }
  }

  get #sampledTraceId(): string | undefined {
    return this.#trace?.sampled ? this.#trace.context.traceId : undefined
  }

  #tell(call: CallLabels, endMs: number): void {
    if (!this.#direction) return
    const { metrics, recent, accessLog } = this.#options
    const seconds = (endMs - this.#startMs) / 1000
    metrics.served(call, seconds, this.#sampledTraceId)
    // One that was passed through in plain, or refused before, was not carried.
    if (this.#coding) metrics.carried(call.direction, this.#carriage)
    recent.served(call, seconds)
    accessLog?.info({ ...this.#accessFields(call), totalMs: rounded(1000 * seconds), ...this.ids }, 'call')
  }

  #accessFields({ direction, peer, method, status, error }: CallLabels): object {
    const codings = this.#codings
    const workMs = (operation: string) =>
      sum(codings.filter((coding) => coding.operation === operation).map(({ workMs }) => workMs))
    const bytes = (what: string) =>
      sum(codings.filter((coding) => coding.what === what).map(({ plaintextBytes }) => plaintextBytes))
    return {
      direction,
      peer,
      method,
      status,
      ...(error ? { error } : {}),
      requestBytes: bytes('request'),
      responseBytes: bytes('response'),
      encodeMs: rounded(workMs('encode')),
      forwardMs: rounded(1000 * this.#forwardedS),
      decodeMs: rounded(workMs('decode')),
    }
  }
}

/** What a sidecar calls its service, by the NAME of the sidecar. */
export function serviceName(name: string): string {
  return `${name}-mte`
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

/** To whole microseconds. */
function rounded(ms: number): number {
  return Math.round(1000 * ms) / 1000
}
