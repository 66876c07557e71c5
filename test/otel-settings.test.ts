import assert from 'node:assert/strict'
import { readOtelSettings } from '../sidecar/otel-settings.ts'
import { suite } from './support/suite.ts'

const test = suite('otel-settings')
const ENDPOINT = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' }

test('only what is asked for is exported', () => {
  const cases: [Record<string, string>, string][] = [
    [{}, ''],
    [{ OTEL_SERVICE_NAME: 'orders', OTEL_TRACES_SAMPLER: 'always_on' }, ''],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: '' }, ''],
    [ENDPOINT, 'traces metrics'],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://collector:4318/v1/traces' }, 'traces'],
    [{ OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: 'http://collector:4318/v1/metrics' }, 'metrics'],
    [{ OTEL_TRACES_EXPORTER: 'otlp' }, 'traces'],
    [{ OTEL_METRICS_EXPORTER: 'console' }, 'metrics'],
    [{ OTEL_TRACES_EXPORTER: 'none' }, ''],
    [{ ...ENDPOINT, OTEL_TRACES_EXPORTER: 'none' }, 'metrics'],
    [{ ...ENDPOINT, OTEL_METRICS_EXPORTER: 'none' }, 'traces'],
    [{ ...ENDPOINT, OTEL_SDK_DISABLED: 'false' }, 'traces metrics'],
    [{ ...ENDPOINT, OTEL_SDK_DISABLED: 'true' }, ''],
    [{ OTEL_LOGS_EXPORTER: 'otlp', OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: 'http://collector:4318' }, ''],
  ]
  for (const [env, exported] of cases) {
    const { traces, metrics, mistakes } = readOtelSettings(env)
    const names = [traces && 'traces', metrics && 'metrics'].filter((one) => one !== undefined)
    assert.deepEqual([names.join(' '), mistakes], [exported, []], JSON.stringify(env))
  }
})

test('says where to and how, without what may be secret', () => {
  assert.deepEqual(readOtelSettings(ENDPOINT).traces, {
    exporter: 'otlp',
    protocol: 'http/protobuf',
    endpoint: 'http://collector:4318',
    parentBased: true,
    ratio: 1,
    batch: {},
  })
  const env = {
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'https://user:secret@collector/tenant-secret',
    OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: 'http/json',
    OTEL_METRICS_EXPORTER: 'otlp',
  }
  const { traces, metrics } = readOtelSettings(env)
  assert.deepEqual([traces?.protocol, traces?.endpoint], ['grpc', 'https://collector'])
  assert.deepEqual([metrics?.protocol, metrics?.endpoint], ['http/json', 'http://localhost:4318'])
})

test('each sampler says whether it keeps to its parent, and which share of the others it takes', () => {
  const sampling = (OTEL_TRACES_SAMPLER: string, OTEL_TRACES_SAMPLER_ARG = '') => {
    const { traces } = readOtelSettings({ ...ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG })
    return [traces!.parentBased, traces!.ratio]
  }
  assert.deepEqual(sampling(''), [true, 1])
  assert.deepEqual(sampling('', '0.25'), [true, 0.25])
  assert.deepEqual(sampling('always_on', '0.25'), [false, 1])
  assert.deepEqual(sampling('always_off'), [false, 0])
  assert.deepEqual(sampling('traceidratio', '0.25'), [false, 0.25])
  assert.deepEqual(sampling('parentbased_always_on'), [true, 1])
  assert.deepEqual(sampling('parentbased_always_off'), [true, 0])
  assert.deepEqual(sampling('parentbased_traceidratio', '0'), [true, 0])
})

test('how spans are gathered is read, as far as it is said', () => {
  const env = { ...ENDPOINT, OTEL_BSP_SCHEDULE_DELAY: '100', OTEL_BSP_MAX_QUEUE_SIZE: '64' }
  assert.deepEqual(readOtelSettings(env).traces!.batch, { scheduledDelayMillis: 100, maxQueueSize: 64 })
})

test('a timeout of metrics is never longer than their interval', () => {
  const times = (env: Record<string, string>) => {
    const { intervalMs, timeoutMs } = readOtelSettings({ ...ENDPOINT, ...env }).metrics!
    return [intervalMs, timeoutMs]
  }
  assert.deepEqual(times({}), [60_000, 30_000])
  assert.deepEqual(times({ OTEL_METRIC_EXPORT_INTERVAL: '1000' }), [1000, 1000])
  assert.deepEqual(
    times({ OTEL_METRIC_EXPORT_INTERVAL: '1000', OTEL_METRIC_EXPORT_TIMEOUT: '10' }),
    [1000, 10],
  )
})

test('each value that is wrong is told with what would be right, and is not shown', () => {
  const number = /must be a whole number of (milliseconds|spans), from 1 to 2147483647$/
  const cases: [string, string, RegExp][] = [
    ['OTEL_SDK_DISABLED', 'yes', /must be true or false$/],
    ['OTEL_TRACES_EXPORTER', 'zipkin', /must be one of otlp, console, none$/],
    ['OTEL_METRICS_EXPORTER', 'prometheus', /must be one of otlp, console, none; Prometheus reads \/metrics/],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318', /must begin with http:\/\/ or https:\/\/$/],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://', /must be a URL such as http:\/\/collector:4318$/],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://c?key=secret', /must be without a query/],
    ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'ftp://collector', /must begin with/],
    ['OTEL_EXPORTER_OTLP_METRICS_PROTOCOL', 'http', /must be one of http\/protobuf, grpc, http\/json$/],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'secret', /must be name=value, comma-separated$/],
    ['OTEL_EXPORTER_OTLP_COMPRESSION', 'brotli', /must be one of gzip, none$/],
    ['OTEL_EXPORTER_OTLP_TIMEOUT', '10s', number],
    ['OTEL_TRACES_SAMPLER', 'jaeger_remote', /must be one of always_on, /],
    ['OTEL_TRACES_SAMPLER_ARG', '1.5', /must be a number from 0 to 1, such as 0\.1$/],
    ['OTEL_TRACES_SAMPLER_ARG', '-0.1', /must be a number from 0 to 1/],
    ['OTEL_TRACES_SAMPLER_ARG', 'half', /must be a number from 0 to 1/],
    ['OTEL_BSP_SCHEDULE_DELAY', '0', number],
    ['OTEL_BSP_EXPORT_TIMEOUT', '-1', number],
    ['OTEL_BSP_MAX_QUEUE_SIZE', '1e9', number],
    ['OTEL_BSP_MAX_EXPORT_BATCH_SIZE', '9999999999', number],
    ['OTEL_METRIC_EXPORT_INTERVAL', '1.5', number],
    ['OTEL_METRIC_EXPORT_TIMEOUT', 'x', number],
    ['OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE', 'delta', /must be cumulative$/],
    ['OTEL_LOG_LEVEL', 'loud', /must be one of none, error, /],
  ]
  for (const [name, value, what] of cases) {
    const { mistakes } = readOtelSettings({ ...ENDPOINT, [name]: value })
    assert.equal(mistakes.length, 1, `${name}=${value}`)
    assert.match(mistakes[0]!, new RegExp(`^${name}: must `))
    assert.match(mistakes[0]!, what)
    assert.ok(!mistakes[0]!.includes(`secret`))
  }
})

test('all mistakes are told at once, and values that are right are none', () => {
  const wrong = {
    ...ENDPOINT,
    OTEL_TRACES_SAMPLER_ARG: '2',
    OTEL_METRIC_EXPORT_INTERVAL: 'x',
    OTEL_LOG_LEVEL: 'x',
  }
  assert.equal(readOtelSettings(wrong).mistakes.length, 3)
  const right = {
    ...ENDPOINT,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Basic%20abc, x-tenant=a',
    OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '.25',
    OTEL_BSP_MAX_QUEUE_SIZE: '4096',
    OTEL_LOG_LEVEL: 'DEBUG',
    OTEL_SDK_DISABLED: 'False',
  }
  assert.deepEqual(readOtelSettings(right).mistakes, [])
})

test('what is not used is not looked at', () => {
  const wrong = {
    OTEL_TRACES_SAMPLER: 'x',
    OTEL_EXPORTER_OTLP_PROTOCOL: 'x',
    OTEL_METRIC_EXPORT_INTERVAL: 'x',
    OTEL_LOG_LEVEL: 'x',
  }
  assert.deepEqual(readOtelSettings(wrong).mistakes, [])
  assert.deepEqual(readOtelSettings({ ...wrong, ...ENDPOINT, OTEL_SDK_DISABLED: 'true' }).mistakes, [])
  const tracesAlone = { OTEL_TRACES_EXPORTER: 'console', ...wrong }
  assert.deepEqual(
    readOtelSettings(tracesAlone).mistakes.map((line) => line.split(':')[0]),
    ['OTEL_TRACES_SAMPLER', 'OTEL_LOG_LEVEL'],
  )
})

test.run()
