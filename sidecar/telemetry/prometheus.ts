/** Metrics as Prometheus reads them. */
import {
  AggregatorRegistry,
  collectDefaultMetrics,
  type Metric,
  Registry,
  type RegistryContentType,
} from 'prom-client'
import type { Family, HistogramPoint, MetricAttributes } from './instruments.ts'

/** A metric as prom-client renders it. May be cloned. */
export interface PromMetric {
  name: string
  help: string
  type: string
  values: PromValue[]
}

interface PromValue {
  /** where it is not the metric's */
  metricName?: string
  value: number
  labels: Record<string, string | number>
  /** those that several values have in common */
  sharedLabels?: Record<string, string | number>
  exemplar?: { labelSet: { trace_id: string }; value: number; timestamp: number } | undefined
}

/**
 * What prom-client tells of the process: event-loop delay, heap, garbage collection, CPU. There is one for a
 * process, however many sidecars run in it: what watches cannot be stopped.
 */
let processMetrics: Registry | undefined

/** Begins to watch the process, if nobody has. */
export function watchProcess(): void {
  if (processMetrics) return
  processMetrics = new Registry()
  collectDefaultMetrics({ register: processMetrics })
}

/** The metrics of this process as they stand; none if it is not watched. */
export async function metricsOfProcess(): Promise<PromMetric[]> {
  return ((await processMetrics?.getMetricsAsJSON()) ?? []) as unknown as PromMetric[]
}

/** The metrics of processes as those of one: counters and sizes added up, delays as prom-client has it. */
export async function metricsOfProcesses(all: readonly PromMetric[][]): Promise<PromMetric[]> {
  return (await AggregatorRegistry.aggregate([...all]).getMetricsAsJSON()) as unknown as PromMetric[]
}

/**
 * Renders families, and the metrics of the process with them.
 * @param accept the Accept header; the text is Prometheus 0.0.4 unless that prefers OpenMetrics 1.0, which has exemplars
 * @param ofProcess unless given, those of this process if it is watched
 */
export async function prometheusText(
  families: readonly Family[],
  accept: string,
  ofProcess?: readonly PromMetric[],
): Promise<{ contentType: string; body: string }> {
  const isOpenMetrics = prefersOpenMetrics(accept)
  const registry = new Registry<RegistryContentType>()
  if (isOpenMetrics) registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
  for (const metric of [...families.map(promMetric), ...(ofProcess ?? (await metricsOfProcess()))]) {
    // OpenMetrics has _total at samples alone, and there prom-client appends it
    if (isOpenMetrics && metric.type === 'counter') metric.name = metric.name.replace(/_total$/, '')
    registry.registerMetric({ ...metric, get: async () => metric } as unknown as Metric)
  }
  return { contentType: registry.contentType, body: await registry.metrics() }
}

/** RFC 9110 section 12.5.1, as far as the two types need it. */
function prefersOpenMetrics(accept: string): boolean {
  const quality = { 'application/openmetrics-text': 0, 'text/plain': 0 }
  for (const range of accept.toLowerCase().split(',')) {
    const [type, ...parameters] = range.split(';').map((part) => part.trim())
    if (type !== 'application/openmetrics-text' && type !== 'text/plain') continue
    const weight = parameters.find((parameter) => parameter.startsWith('q='))
    quality[type] = Math.max(quality[type], weight ? Number(weight.slice(2)) || 0 : 1)
  }
  const { 'application/openmetrics-text': openMetrics, 'text/plain': text } = quality
  return openMetrics > 0 && openMetrics >= text
}

function promMetric(family: Family): PromMetric {
  const name = promName(family)
  const values =
    family.kind === 'histogram'
      ? family.points.flatMap((point) => promBuckets(name, family.bounds, point))
      : family.points.map(({ attributes, value }) => ({ value, labels: promLabels(attributes) }))
  return { name, help: family.description, type: family.kind, values }
}

function promBuckets(name: string, bounds: readonly number[], point: HistogramPoint): PromValue[] {
  const { attributes, counts, sum, count, exemplars } = point
  const sharedLabels = promLabels(attributes)
  let cumulative = 0
  const buckets = counts.map((inBucket, i) => {
    const exemplar = exemplars[i]
    return {
      metricName: `${name}_bucket`,
      value: (cumulative += inBucket),
      labels: { le: bounds[i] ?? '+Inf' },
      sharedLabels,
      exemplar: exemplar && {
        labelSet: { trace_id: exemplar.traceId },
        value: exemplar.value,
        timestamp: exemplar.timeMs / 1000,
      },
    }
  })
  return [
    ...buckets,
    { metricName: `${name}_sum`, value: sum, labels: {}, sharedLabels },
    { metricName: `${name}_count`, value: count, labels: {}, sharedLabels },
  ]
}

const UNITS: Record<string, string> = { s: '_seconds', By: '_bytes' }

/** OpenTelemetry, "Prometheus and OpenMetrics Compatibility": units that are annotations are left out. */
function promName({ name, unit, kind }: Family): string {
  const base = snake(name)
  const suffix = UNITS[unit] ?? ''
  return base + (base.endsWith(suffix) ? '' : suffix) + (kind === 'counter' ? '_total' : '')
}

function promLabels(attributes: MetricAttributes): Record<string, string | number> {
  return Object.fromEntries(
    Object.entries(attributes).map(([name, value]) => [
      snake(name),
      typeof value === 'boolean' ? String(value) : value,
    ]),
  )
}

function snake(name: string): string {
  return name.replaceAll('.', '_')
}
