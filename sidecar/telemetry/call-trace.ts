/** The place of a call in its trace: the span of this sidecar, and what is below it. */
import {
  type Attributes,
  type Context,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api'
import type { Fields } from '../call.ts'
import { hrTime } from './hr-time.ts'
import type { ContextFormat, Extracted, Tracing } from './tracing.ts'

export class CallTrace {
  readonly #tracing: Tracing
  readonly #span: Span
  readonly #context: Context
  readonly #formats: ContextFormat[]
  /** Is it sampled? If not, nothing is below the one span, which is only what is told to the next service. */
  readonly sampled: boolean

  /**
   * @param inner contexts of the call itself, as its app or the peer's sidecar wrote them
   * @param outer contexts of what carried it: proxies in between may have added spans, in one format or another
   */
  constructor(
    tracing: Tracing,
    span: { name: string; startMs: number; attributes: Attributes },
    inner: Extracted[],
    outer: Extracted[],
  ) {
    const parent = parentOf(inner, outer)
    const above = parent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT
    const { name, startMs, attributes } = span
    const startTime = hrTime(startMs)
    this.#tracing = tracing
    this.#span = tracing.tracer.startSpan(name, { kind: SpanKind.SERVER, startTime, attributes }, above)
    this.#context = trace.setSpan(ROOT_CONTEXT, this.#span)
    this.#formats = inner.map(({ format }) => format)
    this.sampled = this.#span.isRecording()
  }

  get spanContext(): SpanContext {
    return this.#span.spanContext()
  }

  /** The context in which others' spans are below this one. */
  get context(): Context {
    return this.#context
  }

  /** The fields with this context, or another one of the same trace, in place of those that they have. */
  inject(fields: Fields, context: SpanContext): Fields {
    const injected = this.contextFields(context)
    for (let i = 0; i < fields.length; i += 2)
      if (!this.#tracing.isContextField(fields[i]!)) injected.push(fields[i]!, fields[i + 1]!)
    return injected
  }

  /** The fields that tell a context: in W3C's format, and in those in which the call told its own. */
  contextFields(context: SpanContext): Fields {
    return this.#tracing.inject(context, this.#formats)
  }

  /** Begins a span below; only of a trace that is sampled. */
  begin(name: string, kind: SpanKind, startMs: number, attributes: Attributes, above?: Context): Span {
    return this.#tracing.tracer.startSpan(
      name,
      { kind, startTime: hrTime(startMs), attributes },
      above ?? this.#context,
    )
  }

  link(context: SpanContext): void {
    this.#span.addLink({ context })
  }

  set(name: string, value: string): void {
    this.#span.setAttribute(name, value)
  }

  end(endMs: number, attributes: Attributes, isError: boolean): void {
    endSpan(this.#span, endMs, attributes, isError)
  }
}

/** Ends a span with what became of it. */
export function endSpan(span: Span, endMs: number, attributes: Attributes, isError: boolean): void {
  span.setAttributes(attributes)
  if (isError) span.setStatus({ code: SpanStatusCode.ERROR })
  span.end(hrTime(endMs))
}

/**
 * The one of several contexts that is the newest: a proxy writes it in the formats that it knows, and leaves the
 * others, which are then as the peer's sidecar wrote them, inside of the message too.
 */
function parentOf(inner: Extracted[], outer: Extracted[]): SpanContext | undefined {
  const own = inner[0]?.context
  if (!own) return outer[0]?.context
  const continued = outer.find(
    ({ context: { traceId, spanId } }) => traceId === own.traceId && spanId !== own.spanId,
  )
  return continued ? continued.context : own
}
