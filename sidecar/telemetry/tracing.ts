/** What the sidecar needs of OpenTelemetry to make spans: given to it where traces are exported, and only there. */
import type { SpanContext, Tracer } from '@opentelemetry/api'
import type { Fields } from '../call.ts'

/** How a call may say which trace it belongs to. */
export type ContextFormat = 'w3c' | 'b3' | 'b3multi' | 'jaeger'

/** A trace context, as one format told it. */
export interface Extracted {
  format: ContextFormat
  context: SpanContext
}

export interface Tracing {
  tracer: Tracer
  /** Every valid context among the fields of a head, W3C first; those that are malformed are left out. Never throws. */
  extract(fields: Fields): Extracted[]
  /** The fields that tell a context: W3C's always, and those of the formats named. */
  inject(context: SpanContext, formats: readonly ContextFormat[]): Fields
  /** Is it one of the fields, in lower case, that `inject` may give? A call has each of them once. */
  isContextField(name: string): boolean
}
