/** What the sidecar needs of OpenTelemetry to make spans: given to it where traces are exported, and only there. */
import type { Attributes, SpanContext, SpanKind } from '@opentelemetry/api'
import type { Fields } from '../call.ts'

/** How a call may say which trace it belongs to. */
export type ContextFormat = 'w3c' | 'b3' | 'b3multi' | 'jaeger'

/** A trace context, as one format told it. */
export interface Extracted {
  format: ContextFormat
  context: SpanContext
}

/** A span that begins. */
export interface NewSpan {
  name: string
  kind: SpanKind
  context: SpanContext
  /** undefined: the trace begins with it */
  parent: SpanContext | undefined
  /** of performance.now() */
  startMs: number
  /** the span's own from here on */
  attributes: Attributes
}

/** A span that has begun. */
export interface Span {
  readonly context: SpanContext
  set(name: string, value: string | number): void
  link(context: SpanContext): void
  /** @param endMs of performance.now() */
  end(endMs: number, isError: boolean): void
}

export interface Tracing {
  /**
   * A context for what is called by somebody else.
   * @param parent undefined: nobody said which trace it belongs to
   * @returns below the parent, or of a new trace; the sampler has set its flag. Where that says no there is nothing to
   * be told of it, and it may be the parent's own
   */
  contextBelow(parent: SpanContext | undefined): SpanContext
  /** A context below one that is sampled. */
  childOf(parent: SpanContext): SpanContext
  /** Begins a span; only of a context that is sampled. */
  begin(span: NewSpan): Span
  /** Every valid context among the fields of a head, W3C first; those that are malformed are left out. Never throws. */
  extract(fields: Fields): Extracted[]
  /** The fields that tell a context: W3C's always, and those of the formats named. */
  inject(context: SpanContext, formats: readonly ContextFormat[]): Fields
  /** Is it a field, in lower case, by which a call says which trace it belongs to? */
  isContextField(name: string): boolean
}
