/**
 * OpenTelemetry's SDK, which makes and exports spans, and exports metrics.
 *
 * This is the one place that loads it, and it is loaded only where something is exported: it takes a third of a second
 * and 50 MB. It must be started before ioredis is imported, whose calls it makes spans of.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { getNodeAutoInstrumentations } from '@opentelemetry/auto-instrumentations-node'
import {
  type DetectedResource,
  defaultResource,
  detectResources,
  envDetector,
  hostDetector,
  osDetector,
  resourceFromAttributes,
  serviceInstanceIdDetector,
} from '@opentelemetry/resources'
import { PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics'
import { NodeSDK } from '@opentelemetry/sdk-node'
import { BatchSpanProcessor, TraceIdRatioBasedSampler } from '@opentelemetry/sdk-trace'
import { register, supportsSyncHooks } from 'import-in-the-middle/register-hooks.mjs'
import type { Logger } from '../sidecar/log.ts'
import { type OtelSettings, readOtelSettings } from '../sidecar/otel-settings.ts'
import type { Family } from '../sidecar/telemetry/instruments.ts'
import type { Tracing } from '../sidecar/telemetry/tracing.ts'
import { logDiagnostics, Warnings } from './diagnostics.ts'
import { metricExporter, Outcomes, traceExporter } from './exporters.ts'
import { MetricBridge } from './metric-bridge.ts'
import { createTracing } from './tracing.ts'

export interface SdkOptions {
  /** what the sidecar calls itself; its service is `<name>-mte`, unless OpenTelemetry's variables name it */
  name: string
  version: string
  log: Logger
  /** the sidecar's metrics as they stand */
  families(): Promise<Family[]>
}

export interface Sdk {
  /** undefined: traces are not exported */
  readonly tracing: Tracing | undefined
  /** Why the last export failed, in plain words and without a secret; undefined once one succeeds. */
  trouble(): string | undefined
  /** Exports what is left, as far as that can be done within the deadline. Never fails. */
  shutdown(deadlineMs: number): Promise<void>
}

const SCOPE = 'mte-sidecar'
/** Without that of the process, which tells its arguments and its owner. */
const DETECTORS = [serviceInstanceIdDetector, { detect: hostWithoutId }, osDetector, envDetector]

/** Starts the SDK, once a process, with what OpenTelemetry's variables say; they have been checked. */
export async function startSdk({ name, version, log, families }: SdkOptions): Promise<Sdk> {
  const settings = readOtelSettings(process.env)
  const { traces, metrics } = settings
  const warnings = new Warnings(log)
  const outcomes = new Outcomes(warnings)
  logDiagnostics(log, warnings, process.env.OTEL_LOG_LEVEL)
  setEnvironment(settings)
  // Modules are patched as they are imported; without a list, Node's own http would be patched twice.
  if (traces && supportsSyncHooks()) register({ include: ['ioredis'] })
  const instrumentations = getNodeAutoInstrumentations({
    '@opentelemetry/instrumentation-ioredis': { dbStatementSerializer: (command) => String(command) },
  })
  const resource = defaultResource()
    .merge(resourceFromAttributes({ 'service.name': `${name}-mte`, 'service.version': version }))
    .merge(detectResources({ detectors: DETECTORS }))
  const processor =
    traces && new BatchSpanProcessor({ exporter: await traceExporter(traces, outcomes), ...traces.batch })
  const reader =
    metrics &&
    new PeriodicExportingMetricReader({
      exporter: await metricExporter(metrics, outcomes),
      exportIntervalMillis: metrics.intervalMs,
      exportTimeoutMillis: metrics.timeoutMs,
      metricProducers: [new MetricBridge({ name: SCOPE, version }, families)],
    })
  const sdk = new NodeSDK({
    resource,
    autoDetectResources: false,
    instrumentations,
    spanProcessors: processor ? [processor] : [],
    metricReaders: reader ? [reader] : [],
    // What a call says of its trace is written by the sidecar alone.
    textMapPropagator: null,
  })
  sdk.start()
  return {
    tracing:
      traces &&
      createTracing({
        resource,
        scope: { name: SCOPE, version },
        sampling: { parentBased: traces.parentBased, root: new TraceIdRatioBasedSampler(traces.ratio) },
        onEnd: (span) => processor!.onEnd(span),
      }),
    trouble: () => outcomes.trouble,
    shutdown: (deadlineMs) => shutdown(sdk, deadlineMs, warnings),
  }
}

/** A container has no id of its host, and the SDK would warn of that. */
function hostWithoutId(): DetectedResource {
  const { 'host.id': _id, ...attributes } = hostDetector.detect().attributes ?? {}
  return { attributes }
}

/** The SDK reads the environment itself: what is not said there, or not meant for it. */
function setEnvironment({ traces, metrics }: OtelSettings): void {
  const { env } = process
  env.OTEL_TRACES_SAMPLER ||= 'parentbased_traceidratio'
  env.OTEL_TRACES_SAMPLER_ARG ||= '1'
  env.OTEL_NODE_ENABLED_INSTRUMENTATIONS ||= [traces && 'ioredis', metrics && 'runtime-node']
    .filter((one) => one !== undefined)
    .join()
  env.OTEL_LOGS_EXPORTER = 'none'
  // It would set a logger of its own.
  delete env.OTEL_LOG_LEVEL
}

/** A collector that is away holds the SDK up for ten seconds. */
async function shutdown(sdk: NodeSDK, deadlineMs: number, warnings: Warnings): Promise<void> {
  const over = new AbortController()
  const flushed = sdk.shutdown().then(
    () => true,
    () => true, // it has been told as the failure of an export
  )
  const late = delay(deadlineMs, false, { signal: over.signal }).catch(() => false)
  if (!(await Promise.race([flushed, late]))) {
    warnings.warn('the last traces and metrics could not be exported in time, and are lost')
  }
  over.abort()
}
