/** The place of a call in its trace: the span of this sidecar, and what is below it. */
import { type Attributes, type SpanContext, SpanKind, TraceFlags } from '@opentelemetry/api'
import type { Fields } from '../call.ts'
import type { ContextFormat, Extracted, Span, Tracing } from './tracing.ts'

export class CallTrace {
  /** of the span; of the parent or of nobody where there is none, as the call is not sampled */
  readonly context: SpanContext
  readonly #tracing: Tracing
  readonly #span: Span | undefined
  readonly #formats: readonly ContextFormat[]
  /** as fields, once they have been asked for */
  #contextFields: Fields | undefined

  /**
   * @param inner contexts of the call itself, as its app or the peer's sidecar wrote them
   * @param outer contexts of what carried it: proxies in between may have added spans, in one format or another
   * @param attributes gives those of the span, if there is to be one
   */
  constructor(
    tracing: Tracing,
    span: { name: string; startMs: number; attributes: () => Attributes },
    inner: Extracted[],
    outer: Extracted[],
  ) {
    const parent = parentOf(inner, outer)
    this.#tracing = tracing
    this.#formats = inner.length > 0 ? inner.map(({ format }) => format) : NO_FORMATS
    this.context = tracing.contextBelow(parent)
    if ((this.context.traceFlags & TraceFlags.SAMPLED) === 0) return
    const { name, startMs, attributes } = span
    this.#span = tracing.begin({
      name,
      kind: SpanKind.SERVER,
      context: this.context,
      parent,
      startMs,
      attributes: attributes(),
    })
  }

  /** Is it sampled? If not, it has no span, and there is nothing below it. */
  get sampled(): boolean {
    return this.#span !== undefined
  }

  /** The fields with this context, or another one of the same trace, in place of those that they have. */
  inject(fields: Fields, context: SpanContext): Fields {
    const injected = [...this.contextFields(context)]
    for (let i = 0; i < fields.length; i += 2)
      if (!this.#tracing.isContextField(fields[i]!)) injected.push(fields[i]!, fields[i + 1]!)
    return injected
  }

  /** The fields that tell a context: in W3C's format, and in those in which the call told its own. */
  contextFields(context: SpanContext): Fields {
    if (context !== this.context) return this.#tracing.inject(context, this.#formats)
    this.#contextFields ??= this.#tracing.inject(context, this.#formats)
    return this.#contextFields
  }

  /** Begins a span below the call's, or below another one of the same trace; only of a call that is sampled. */
  begin(name: string, kind: SpanKind, startMs: number, attributes: Attributes, parent = this.context): Span {
    return this.#tracing.begin({
      name,
      kind,
      context: this.#tracing.childOf(parent),
      parent,
      startMs,
      attributes,
    })
  }

  link(context: SpanContext): void {
    this.#span?.link(context)
  }

  set(name: string, value: string | number): void {
    this.#span?.set(name, value)
  }

  end(endMs: number, isError: boolean): void {
    this.#span?.end(endMs, isError)
  }
}

const NO_FORMATS: readonly ContextFormat[] = []

/**
 * The one of several contexts that is the newest: a proxy writes it in the formats that it knows, and leaves the
 * others, which are then as the peer's sidecar wrote them, inside of the message too.
 */
function parentOf(inner: Extracted[], outer: Extracted[]): SpanContext | undefined {
  const own = inner[0]?.context
  if (!own) return outer[0]?.context
  for (const { context } of outer)
    if (context.traceId === own.traceId && context.spanId !== own.spanId) return context
  return own
}
