/** Spans that are kept instead of exported, and what it takes to look at the traces that they make. */
import { randomBytes } from 'node:crypto'
import { type SpanContext, SpanKind, TraceFlags } from '@opentelemetry/api'
import { hrTimeToMicroseconds } from '@opentelemetry/core'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { AlwaysOnSampler, type ReadableSpan } from '@opentelemetry/sdk-trace'
import { createTracing, type Sampling } from '../../otel/tracing.ts'
import type { Span, Tracing } from '../../sidecar/telemetry/tracing.ts'

export interface KeptSpans {
  /** Makes spans in the name of a service. */
  tracing(service: string): Tracing
  /** that have ended, in the order in which they did */
  ended(): ReadableSpan[]
  /** that have begun, and not ended */
  open(): ReadableSpan[]
  /**
   * The spans of a trace, once so many of its calls are over: the SERVER span of a call is the last one of those that
   * its sidecar makes.
   */
  trace(traceId: string, calls: number): Promise<ReadableSpan[]>
}

const EVERY: Sampling = { parentBased: true, root: new AlwaysOnSampler() }

/** @param sampling by default all are sampled that are not unsampled */
export function keepSpans(sampling: Sampling = EVERY): KeptSpans {
  const ended: ReadableSpan[] = []
  const open = new Set<ReadableSpan>()
  const onEnd = new Set<() => void>()
  return {
    tracing: (service) =>
      createTracing({
        resource: resourceFromAttributes({ 'service.name': service }),
        scope: { name: 'test' },
        sampling,
        onStart: (span) => open.add(span),
        onEnd(span) {
          open.delete(span)
          ended.push(span)
          for (const callback of onEnd) callback()
        },
      }),
    ended: () => [...ended],
    open: () => [...open],
    trace: (traceId, calls) =>
      new Promise((resolve) => {
        const look = () => {
          const spans = ended.filter((span) => span.spanContext().traceId === traceId)
          if (spans.filter(({ kind }) => kind === SpanKind.SERVER).length < calls) return
          onEnd.delete(look)
          resolve(spans)
        }
        onEnd.add(look)
        look()
      }),
  }
}

/** Begins a span by hand, as an app would: below a context, or of a new trace. */
export function begin(tracing: Tracing, name: string, kind: SpanKind, parent?: SpanContext): Span {
  const context = tracing.contextBelow(parent)
  return tracing.begin({ name, kind, context, parent, startMs: performance.now(), attributes: {} })
}

/** A context that an app may have: of a trace of its own, sampled unless said otherwise. */
export function newContext(traceFlags = TraceFlags.SAMPLED): SpanContext {
  return { traceId: randomBytes(16).toString('hex'), spanId: randomBytes(8).toString('hex'), traceFlags }
}

export function traceparent({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-0${traceFlags}`
}

/** A span as trees and tests name it: its service, its name and its kind. */
export function labelOf(span: ReadableSpan): string {
  return `${span.resource.attributes['service.name']} ${span.name} ${SpanKind[span.kind]}`
}

/**
 * Spans as a tree: a line each, one space further in than its parent, and those of one parent as they began.
 * @param tell what the line of a span says
 */
export function treeOf(spans: readonly ReadableSpan[], tell = labelOf): string[] {
  const here = new Set(spans.map((span) => span.spanContext().spanId))
  const parentOf = ({ parentSpanContext }: ReadableSpan) =>
    parentSpanContext && here.has(parentSpanContext.spanId) ? parentSpanContext.spanId : undefined
  const below = (parent: string | undefined): string[] =>
    spans
      .filter((span) => parentOf(span) === parent)
      .sort(byStart)
      .flatMap((span) => [tell(span), ...below(span.spanContext().spanId).map((line) => ` ${line}`)])
  return below(undefined)
}

/** The span with this label; the first one that began, where there are more. */
export function spanOf(spans: readonly ReadableSpan[], label: string, nth = 0): ReadableSpan {
  const found = spans.filter((span) => labelOf(span) === label).sort(byStart)[nth]
  if (!found) throw new Error(`no ${label} in\n${treeOf(spans).join('\n')}`)
  return found
}

/** Of two that began in the same microsecond, that comes first which is no sending. */
function byStart(a: ReadableSpan, b: ReadableSpan): number {
  return hrTimeToMicroseconds(a.startTime) - hrTimeToMicroseconds(b.startTime) || a.kind - b.kind
}
