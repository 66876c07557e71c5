/** The sidecar's metrics, as the SDK reads them: so OTLP tells what /metrics does. */
import { type HrTime, ValueType } from '@opentelemetry/api'
import { type InstrumentationScope, millisToHrTime } from '@opentelemetry/core'
import { emptyResource } from '@opentelemetry/resources'
import {
  AggregationTemporality,
  type CollectionResult,
  DataPointType,
  type MetricData,
  type MetricProducer,
} from '@opentelemetry/sdk-metrics'
import type { Family } from '../sidecar/telemetry/instruments.ts'

export class MetricBridge implements MetricProducer {
  readonly #scope: InstrumentationScope
  readonly #families: () => Promise<Family[]>

  constructor(scope: InstrumentationScope, families: () => Promise<Family[]>) {
    this.#scope = scope
    this.#families = families
  }

  /** What cannot be read now is an error of this collection, and there at the next one again. */
  async collect(): Promise<CollectionResult> {
    const resource = emptyResource()
    try {
      const families = await this.#families()
      const endTime = millisToHrTime(Date.now())
      const metrics = families.map((family) => metricData(family, endTime))
      return {
        resourceMetrics: { resource, scopeMetrics: [{ scope: this.#scope, metrics }] },
        errors: [],
      }
    } catch (error) {
      return { resourceMetrics: { resource, scopeMetrics: [] }, errors: [error] }
    }
  }
}

function metricData(family: Family, endTime: HrTime): MetricData {
  const { name, description, unit } = family
  const base = {
    descriptor: { name, description, unit, valueType: ValueType.DOUBLE },
    aggregationTemporality: AggregationTemporality.CUMULATIVE,
  }
  if (family.kind === 'histogram') {
    const boundaries = [...family.bounds]
    const dataPoints = family.points.map(({ attributes, startMs, counts, sum, count }) => ({
      attributes,
      startTime: millisToHrTime(startMs),
      endTime,
      value: { buckets: { boundaries, counts: [...counts] }, sum, count },
    }))
    return { ...base, dataPointType: DataPointType.HISTOGRAM, dataPoints }
  }
  const dataPoints = family.points.map(({ attributes, startMs, value }) => ({
    attributes,
    startTime: millisToHrTime(startMs),
    endTime,
    value,
  }))
  if (family.kind === 'gauge') return { ...base, dataPointType: DataPointType.GAUGE, dataPoints }
  return { ...base, dataPointType: DataPointType.SUM, isMonotonic: true, dataPoints }
}
