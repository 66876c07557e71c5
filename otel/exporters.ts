/** Where traces and metrics go, and what becomes of each export. */
import { type ExportResult, ExportResultCode } from '@opentelemetry/core'
import { OTLPExporterBase } from '@opentelemetry/otlp-exporter-base'
import {
  convertLegacyHttpOptions,
  createOtlpHttpExportDelegate,
} from '@opentelemetry/otlp-exporter-base/node-http'
import { TraceExporterMetricsHelper } from '@opentelemetry/otlp-transformer'
import { ConsoleMetricExporter, type PushMetricExporter } from '@opentelemetry/sdk-metrics'
import { ConsoleSpanExporter, type ReadableSpan, type SpanExporter } from '@opentelemetry/sdk-trace'
import type { OtelExport } from '../sidecar/otel-settings.ts'
import type { Warnings } from './diagnostics.ts'
import { traceSerializer } from './trace-serializer.ts'

/** The codes of gRPC that say what to look at: https://grpc.io/docs/guides/status-codes/ */
const GRPC = {
  deadlineExceeded: 4,
  permissionDenied: 7,
  unimplemented: 12,
  unavailable: 14,
  unauthenticated: 16,
}
const REFUSED = 'it refuses the credentials; look at OTEL_EXPORTER_OTLP_HEADERS'
const UNREACHABLE =
  'it cannot be reached; look at OTEL_EXPORTER_OTLP_ENDPOINT, and whether the collector runs'
const SLOW = 'it did not answer in time; look at how busy the collector is, and at OTEL_EXPORTER_OTLP_TIMEOUT'
const BUSY = 'it asks to be left alone for now; look at how busy the collector is'
const NO_OTLP =
  'it takes no OTLP there; look at OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL: gRPC is at port 4317 as a rule, HTTP at 4318'

/** What becomes of the exports of all signals. */
export class Outcomes {
  readonly #warnings: Warnings
  readonly #failures = new Map<string, string>()

  constructor(warnings: Warnings) {
    this.#warnings = warnings
  }

  /** Why the last export of a signal failed; undefined once all succeed. */
  get trouble(): string | undefined {
    return this.#failures.values().next().value
  }

  tell(signal: string, to: OtelExport, result: ExportResult): void {
    if (result.code === ExportResultCode.SUCCESS) {
      this.#failures.delete(signal)
      return
    }
    const text = `${signal} cannot be exported to ${to.endpoint}: ${reasonOf(result.error)}`
    this.#failures.set(signal, text)
    this.#warnings.warn(text)
  }
}

/** The exporter of traces, which leaves the texts of errors out: they may quote what was sent to Redis, say. */
export async function traceExporter(to: OtelExport, outcomes: Outcomes): Promise<SpanExporter> {
  const exporter = to.exporter === 'console' ? new ConsoleSpanExporter() : await otlpTraceExporter(to)
  const send = exporter.export.bind(exporter)
  exporter.export = (spans: ReadableSpan[], done) =>
    send(spans.map(withoutErrorTexts), (result) => {
      outcomes.tell('traces', to, result)
      done(result)
    })
  return exporter
}

export async function metricExporter(to: OtelExport, outcomes: Outcomes): Promise<PushMetricExporter> {
  const exporter: PushMetricExporter =
    to.exporter === 'console' ? new ConsoleMetricExporter() : await otlpMetricExporter(to)
  const send = exporter.export.bind(exporter)
  exporter.export = (metrics, done) =>
    send(metrics, (result) => {
      outcomes.tell('metrics', to, result)
      done(result)
    })
  return exporter
}

async function otlpTraceExporter({ protocol }: OtelExport): Promise<SpanExporter> {
  if (protocol === 'grpc')
    return new (await import('@opentelemetry/exporter-trace-otlp-grpc')).OTLPTraceExporter()
  if (protocol === 'http/json')
    return new (await import('@opentelemetry/exporter-trace-otlp-http')).OTLPTraceExporter()
  return protobufTraceExporter()
}

/**
 * The exporter of traces over HTTP in Protocol Buffers, as the SDK has it, but with our serializer.
 * @param config where it is to be other than the variables say
 */
export function protobufTraceExporter(config: { url?: string; timeoutMillis?: number } = {}): SpanExporter {
  const contentType = { 'Content-Type': 'application/x-protobuf' }
  const options = convertLegacyHttpOptions(config, 'TRACES', 'v1/traces', contentType)
  const delegate = createOtlpHttpExportDelegate(
    options,
    traceSerializer,
    'otlp_http_span_exporter',
    TraceExporterMetricsHelper,
    undefined,
  )
  return new OTLPExporterBase(delegate)
}

async function otlpMetricExporter({ protocol }: OtelExport): Promise<PushMetricExporter> {
  if (protocol === 'grpc')
    return new (await import('@opentelemetry/exporter-metrics-otlp-grpc')).OTLPMetricExporter()
  if (protocol === 'http/json')
    return new (await import('@opentelemetry/exporter-metrics-otlp-http')).OTLPMetricExporter()
  return new (await import('@opentelemetry/exporter-metrics-otlp-proto')).OTLPMetricExporter()
}

function withoutErrorTexts(span: ReadableSpan): ReadableSpan {
  if (span.status.message === undefined && span.events.length === 0) return span
  return Object.create(span, {
    status: { value: { code: span.status.code } },
    events: { value: span.events.filter(({ name }) => name !== 'exception') },
  })
}

/** In plain words, with a code, and with nothing that the collector says, which may be anything. */
function reasonOf(error: (Error & { code?: unknown }) | undefined): string {
  const code = error?.code
  if (typeof code === 'number')
    return `${numberedReason(code)} (${code >= 100 ? 'status' : 'gRPC code'} ${code})`
  if (typeof code === 'string' && /^[A-Z0-9_]{1,64}$/.test(code)) return `${namedReason(code)} (${code})`
  if (/timed out|timeout/i.test(error?.message ?? '')) return SLOW
  if (/retryable/i.test(error?.message ?? '')) return BUSY
  if (/concurrent/i.test(error?.message ?? '')) return SLOW
  return `it failed (${error?.name ?? 'no reason given'})`
}

function numberedReason(code: number): string {
  if (code === 401 || code === 403) return REFUSED
  if (code === GRPC.unauthenticated || code === GRPC.permissionDenied) return REFUSED
  if (code === 404 || code === 405 || code === 415 || code === GRPC.unimplemented) return NO_OTLP
  if (code === 413) return 'the batch is too large for it; look at OTEL_BSP_MAX_EXPORT_BATCH_SIZE'
  if (code === GRPC.unavailable) return UNREACHABLE
  if (code === GRPC.deadlineExceeded) return SLOW
  return 'it refused; look at what the collector logs'
}

function namedReason(code: string): string {
  if (/^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT)$/.test(code)) return UNREACHABLE
  if (/^HPE_/.test(code)) return NO_OTLP
  if (/CERT|SSL|TLS|EPROTO|ISSUER/.test(code))
    return 'TLS with it fails; look at http:// and https:// in OTEL_EXPORTER_OTLP_ENDPOINT, and at OTEL_EXPORTER_OTLP_CERTIFICATE'
  if (/^(ECONNRESET|EPIPE)$/.test(code)) return `it broke the connection off; look at what the collector logs`
  return 'it failed'
}
