/** Telemetry of a sidecar, for tests that make its parts themselves. */
import type { RecordOptions } from '../../sidecar/telemetry/call-record.ts'
import { Metrics } from '../../sidecar/telemetry/metrics.ts'
import { Recent } from '../../sidecar/telemetry/recent.ts'
import { Telemetry } from '../../sidecar/telemetry/telemetry.ts'

/** It traces nothing, unless the options say so. */
export function testTelemetry(options: Partial<RecordOptions> = {}): Telemetry {
  return new Telemetry({
    tracing: undefined,
    contextInside: false,
    accessLog: undefined,
    metrics: new Metrics(),
    recent: new Recent(() => performance.now()),
    ...options,
  })
}
