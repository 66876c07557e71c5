/**
 * What is exported to OpenTelemetry, and where to, by its standard variables. They are read by its SDK, which passes
 * over what it cannot read: so they are checked here first.
 *
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 */

/** Where the traces or the metrics go. */
export interface OtelExport {
  exporter: 'otlp' | 'console'
  protocol: (typeof PROTOCOLS)[number]
  /** scheme, host and port of the collector, as it may be shown */
  endpoint: string
}

/** Which traces are sampled, and how their spans are gathered before they are sent. */
export interface OtelTraces extends OtelExport {
  /** Is a call sampled where what it comes from is? */
  parentBased: boolean
  /** the share of the others, from 0 to 1 */
  ratio: number
  /** as the SDK takes it; what is not there is as it finds right */
  batch: { [option in keyof typeof BATCH]?: number }
}

export interface OtelSettings {
  /** undefined: they are not exported */
  traces: OtelTraces | undefined
  /** undefined: they are not exported */
  metrics: (OtelExport & { intervalMs: number; timeoutMs: number }) | undefined
  /** a line each: `VARIABLE: what would be right`; never with anything of a value, which may be secret */
  mistakes: string[]
}

type Env = Readonly<Record<string, string | undefined>>
type Signal = 'TRACES' | 'METRICS'
type Check = (value: string) => string | undefined

const PROTOCOLS = ['http/protobuf', 'grpc', 'http/json'] as const
const SAMPLERS = [
  'always_on',
  'always_off',
  'traceidratio',
  'parentbased_always_on',
  'parentbased_always_off',
  'parentbased_traceidratio',
]
const LOG_LEVELS = ['none', 'error', 'warn', 'info', 'debug', 'verbose', 'all']
const TIMER_MS_MAX = 2 ** 31 - 1
const INTERVAL_MS = 60_000
const TIMEOUT_MS = 30_000

/** Options of the SDK's batch processor, by their variables. */
const BATCH = {
  scheduledDelayMillis: 'OTEL_BSP_SCHEDULE_DELAY',
  exportTimeoutMillis: 'OTEL_BSP_EXPORT_TIMEOUT',
  maxQueueSize: 'OTEL_BSP_MAX_QUEUE_SIZE',
  maxExportBatchSize: 'OTEL_BSP_MAX_EXPORT_BATCH_SIZE',
} as const

/** The checks of what is used where the signal is exported, and by it alone. */
const CHECKS: Record<Signal, Record<string, Check>> = {
  TRACES: {
    OTEL_TRACES_SAMPLER: oneOf(SAMPLERS),
    OTEL_TRACES_SAMPLER_ARG: ratio,
    OTEL_BSP_SCHEDULE_DELAY: wholeNumber('milliseconds'),
    OTEL_BSP_EXPORT_TIMEOUT: wholeNumber('milliseconds'),
    OTEL_BSP_MAX_QUEUE_SIZE: wholeNumber('spans'),
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE: wholeNumber('spans'),
  },
  METRICS: {
    OTEL_METRIC_EXPORT_INTERVAL: wholeNumber('milliseconds'),
    OTEL_METRIC_EXPORT_TIMEOUT: wholeNumber('milliseconds'),
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: oneOf(['cumulative']),
  },
}
const EXPORTERS: Record<Signal, Check> = {
  TRACES: oneOf(['otlp', 'console', 'none']),
  METRICS: oneOf(
    ['otlp', 'console', 'none'],
    '; Prometheus reads /metrics of ADMIN_PORT, whatever this says',
  ),
}
/** OTEL_EXPORTER_OTLP_… for both signals, and OTEL_EXPORTER_OTLP_TRACES_… or …_METRICS_… for one. */
const OTLP_CHECKS: Record<string, Check> = {
  ENDPOINT: endpointUrl,
  PROTOCOL: oneOf(PROTOCOLS),
  TIMEOUT: wholeNumber('milliseconds'),
  COMPRESSION: oneOf(['gzip', 'none']),
  HEADERS: nameValuePairs,
}

/**
 * Reads what is asked for: a signal is exported where its exporter is named and is not `none`, or else where an
 * endpoint is named. What is not used is not looked at.
 */
export function readOtelSettings(env: Env): OtelSettings {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value?.trim()))
  const mistakes = new Set<string>()
  const check = (name: string, what: Check) => {
    const mistake = set[name] === undefined ? undefined : what(set[name])
    if (mistake !== undefined) mistakes.add(`${name}: ${mistake}`)
  }
  check('OTEL_SDK_DISABLED', (value) =>
    isTrue(value) || isFalse(value) ? undefined : 'must be true or false',
  )
  if (isTrue(set.OTEL_SDK_DISABLED)) return { traces: undefined, metrics: undefined, mistakes: [] }
  const exported = (signal: Signal): OtelExport | undefined => {
    check(`OTEL_${signal}_EXPORTER`, EXPORTERS[signal])
    const exporter = exporterOf(set, signal)
    if (exporter === undefined) return undefined
    for (const [name, what] of Object.entries(CHECKS[signal])) check(name, what)
    check('OTEL_LOG_LEVEL', (value) => oneOf(LOG_LEVELS)(value.toLowerCase()))
    if (exporter === 'otlp') {
      for (const [name, what] of Object.entries(OTLP_CHECKS)) {
        check(`OTEL_EXPORTER_OTLP_${name}`, what)
        check(`OTEL_EXPORTER_OTLP_${signal}_${name}`, what)
      }
    }
    const protocol = PROTOCOLS.find((one) => one === otlp(set, signal, 'PROTOCOL')) ?? PROTOCOLS[0]
    return { exporter, protocol, endpoint: shownEndpoint(otlp(set, signal, 'ENDPOINT'), protocol) }
  }
  const traces = exported('TRACES')
  const metrics = exported('METRICS')
  return {
    traces: traces && { ...traces, ...samplingOf(set), batch: batchOf(set) },
    metrics: metrics && { ...metrics, ...metricTimes(set) },
    mistakes: [...mistakes],
  }
}

function exporterOf(set: Env, signal: Signal): 'otlp' | 'console' | undefined {
  const named = set[`OTEL_${signal}_EXPORTER`]
  if (named === 'otlp' || named === 'console') return named
  return named === undefined && otlp(set, signal, 'ENDPOINT') !== undefined ? 'otlp' : undefined
}

function otlp(set: Env, signal: Signal, name: string): string | undefined {
  return set[`OTEL_EXPORTER_OTLP_${signal}_${name}`] ?? set[`OTEL_EXPORTER_OTLP_${name}`]
}

function shownEndpoint(url: string | undefined, protocol: OtelExport['protocol']): string {
  if (url === undefined || !URL.canParse(url)) return `http://localhost:${protocol === 'grpc' ? 4317 : 4318}`
  return new URL(url).origin
}

/** Without a sampler it is parentbased_traceidratio. */
function samplingOf(set: Env): Pick<OtelTraces, 'parentBased' | 'ratio'> {
  const sampler = set.OTEL_TRACES_SAMPLER ?? 'parentbased_traceidratio'
  const ratios: Record<string, number> = { always_on: 1, always_off: 0 }
  const root = sampler.replace('parentbased_', '')
  return { parentBased: root !== sampler, ratio: ratios[root] ?? Number(set.OTEL_TRACES_SAMPLER_ARG ?? 1) }
}

function batchOf(set: Env): OtelTraces['batch'] {
  const named = Object.entries(BATCH).filter(([, name]) => set[name] !== undefined)
  return Object.fromEntries(named.map(([option, name]) => [option, Number(set[name])]))
}

/** A timeout that is longer than the interval is as long as that. */
function metricTimes(set: Env): { intervalMs: number; timeoutMs: number } {
  const intervalMs = Number(set.OTEL_METRIC_EXPORT_INTERVAL ?? INTERVAL_MS)
  const timeoutMs = Number(set.OTEL_METRIC_EXPORT_TIMEOUT ?? TIMEOUT_MS)
  return { intervalMs, timeoutMs: Math.min(timeoutMs, intervalMs) }
}

function oneOf(values: readonly string[], besides = ''): Check {
  const what = values.length === 1 ? values[0] : `one of ${values.join(', ')}`
  return (value) => (values.includes(value) ? undefined : `must be ${what}${besides}`)
}

function wholeNumber(unit: string): Check {
  const what = `must be a whole number of ${unit}, from 1 to ${TIMER_MS_MAX}`
  return (value) => {
    const number = /^[0-9]{1,10}$/.test(value) ? Number(value) : 0
    return number >= 1 && number <= TIMER_MS_MAX ? undefined : what
  }
}

function ratio(value: string): string | undefined {
  const number = /^[0-9]*\.?[0-9]+$/.test(value) ? Number(value) : Number.NaN
  return number >= 0 && number <= 1 ? undefined : 'must be a number from 0 to 1, such as 0.1'
}

function endpointUrl(value: string): string | undefined {
  if (!/^https?:\/\//i.test(value)) return 'must begin with http:// or https://'
  if (/[?#]/.test(value)) return 'must be without a query (?) and a fragment (#)'
  return URL.canParse(value) ? undefined : 'must be a URL such as http://collector:4318'
}

function nameValuePairs(value: string): string | undefined {
  const pairs = value.split(',').every((pair) => /^\s*[!#$%&'*+\-.^_`|~0-9A-Za-z]+\s*=\s*\S/.test(pair))
  return pairs ? undefined : 'must be name=value, comma-separated'
}

function isTrue(value: string | undefined): boolean {
  return value?.trim().toLowerCase() === 'true'
}

function isFalse(value: string): boolean {
  return value.trim().toLowerCase() === 'false'
}
