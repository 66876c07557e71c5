/** Several services in one process, whose spans are kept and then looked at, or exported. NodeSDK knows only one. */
import { SpanKind, SpanStatusCode } from '@opentelemetry/api'
import { hrTimeToMicroseconds } from '@opentelemetry/core'
import { resourceFromAttributes } from '@opentelemetry/resources'
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  type ReadableSpan,
  type SpanExporter,
} from '@opentelemetry/sdk-trace'
import { createLogger } from '../sidecar/log.ts'
import type { OtelExport } from '../sidecar/otel-settings.ts'
import type { Tracing } from '../sidecar/telemetry/tracing.ts'
import type { SpanKindName, TraceSpan } from '../sidecar/trace-tree.ts'
import { Warnings } from './diagnostics.ts'
import { Outcomes, protobufTraceExporter, traceExporter } from './exporters.ts'
import { createTracing } from './tracing.ts'

/** For an export to a machine that is near, with all tries. */
const EXPORT_MS = 2_000

export class Services {
  readonly #first: string
  readonly #spans: ReadableSpan[] = []
  #open = 0
  #allEnded = Promise.withResolvers<void>()

  /** @param first the service whose traces are kept; those that begin at another one are not sampled */
  constructor(first: string) {
    this.#first = first
  }

  /** Makes spans in the name of a service. */
  tracing(service: string): Tracing {
    const root = service === this.#first ? new AlwaysOnSampler() : new AlwaysOffSampler()
    return createTracing({
      resource: resourceFromAttributes({ 'service.name': service }),
      scope: { name: 'mte-sidecar' },
      sampling: { parentBased: true, root },
      onStart: () => void this.#open++,
      onEnd: (span) => this.#ended(span),
    })
  }

  /** Every span, once all that began have ended: the caller of a service has its answer before that. */
  async ended(): Promise<readonly ReadableSpan[]> {
    if (this.#open > 0) await this.#allEnded.promise
    return this.#spans
  }

  #ended(span: ReadableSpan): void {
    this.#spans.push(span)
    if (--this.#open > 0) return
    this.#allEnded.resolve()
    this.#allEnded = Promise.withResolvers()
  }
}

export function traceSpan(span: ReadableSpan): TraceSpan {
  const { name, kind, status, resource, startTime, duration, attributes, links } = span
  const scalars = Object.entries(attributes).filter(
    (entry): entry is [string, string | number | boolean] => typeof entry[1] !== 'object',
  )
  return {
    spanId: span.spanContext().spanId,
    parentId: span.parentSpanContext?.spanId,
    service: String(resource.attributes['service.name']),
    name,
    kind: SpanKind[kind] as SpanKindName,
    attributes: Object.fromEntries(scalars),
    status: SpanStatusCode[status.code] as TraceSpan['status'],
    startUs: hrTimeToMicroseconds(startTime),
    durationUs: hrTimeToMicroseconds(duration),
    links: links.map(({ context }) => context.spanId),
  }
}

/** Sends spans to the base URL of OTLP over HTTP. Never fails: whoever has them to show knows whether they came. */
export async function exportTo(url: string, spans: readonly ReadableSpan[]): Promise<void> {
  await exportOnce(protobufTraceExporter({ url: `${url}/v1/traces`, timeoutMillis: EXPORT_MS }), spans)
}

/**
 * Sends spans where OpenTelemetry's variables say.
 * @returns why that failed, in plain words and without a secret; undefined where it did not
 */
export async function exportAsConfigured(
  to: OtelExport,
  spans: readonly ReadableSpan[],
): Promise<string | undefined> {
  const outcomes = new Outcomes(new Warnings(createLogger('silent')))
  await exportOnce(await traceExporter(to, outcomes), spans)
  return outcomes.trouble
}

async function exportOnce(exporter: SpanExporter, spans: readonly ReadableSpan[]): Promise<void> {
  await new Promise<void>((resolve) => exporter.export([...spans], () => resolve()))
  await exporter.shutdown()
}
