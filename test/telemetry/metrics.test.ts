import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import fc from 'fast-check'
import { register } from 'prom-client'
import { ERRORS } from '../../sidecar/errors.ts'
import { type CallLabels, Metrics } from '../../sidecar/telemetry/metrics.ts'
import { suite } from '../support/suite.ts'

const test = suite('metrics')

const OPEN_METRICS = 'application/openmetrics-text;version=1.0.0'
const TRACE_ID = '0af7651916cd43dd8448eb211c80319c'
const CALL: CallLabels = { direction: 'outbound', peer: 'billing', method: 'POST', status: 200, error: '' }
const SERVED = 'http_server_request_duration_seconds'

test('counts a call in each bucket that it fits in, bounds included', async () => {
  const metrics = new Metrics()
  for (const seconds of [0.005, 0.006, 0.6, 11]) metrics.served(CALL, seconds)
  const { samples } = (await prometheus(metrics)).get(SERVED)!
  const buckets = samples.filter(({ name }) => name === `${SERVED}_bucket`)
  const bounds = '0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 +Inf'
  assert.equal(buckets.map(({ labels }) => labels.le).join(' '), bounds)
  const cumulative = [1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4]
  assert.deepEqual(
    buckets.map(({ value }) => value),
    cumulative,
  )
  assert.equal(onlyValue(samples, `${SERVED}_count`), 4)
  assert.equal(onlyValue(samples, `${SERVED}_sum`), 0.005 + 0.006 + 0.6 + 11)
})

test('tells of a call what it is, and leaves out what there is not', async () => {
  const metrics = new Metrics()
  metrics.served(CALL, 1)
  metrics.served({ direction: 'inbound', peer: '', method: 'GET', status: 0, error: 'caller-gone' }, 1)
  metrics.forwarded({ ...CALL, status: 500, error: '500' }, 1)
  const families = await prometheus(metrics)
  const counts = (name: string) =>
    families.get(name)!.samples.filter((sample) => sample.name === `${name}_count`)
  assert.deepEqual(
    counts(SERVED).map(({ labels }) => labels),
    [
      {
        http_request_method: 'POST',
        http_response_status_code: '200',
        mte_direction: 'outbound',
        mte_peer: 'billing',
      },
      { http_request_method: 'GET', error_type: 'caller-gone', mte_direction: 'inbound' },
    ],
  )
  assert.deepEqual(
    counts('http_client_request_duration_seconds').map(({ labels }) => labels),
    [
      {
        http_request_method: 'POST',
        http_response_status_code: '500',
        error_type: '500',
        mte_direction: 'outbound',
        mte_peer: 'billing',
      },
    ],
  )
})

for (const [format, accept, total] of [
  ['Prometheus text', '', '_total'],
  ['OpenMetrics', OPEN_METRICS, ''],
] as const)
  test(`names every metric as ${format} wants it`, async () => {
    const families = await prometheus(new Metrics(), accept)
    const types = [...families].map(([name, { type }]) => [name, type])
    assert.deepEqual(
      types.filter(([name]) => /^(http|mte)_/.test(name!)),
      [
        [SERVED, 'histogram'],
        ['http_client_request_duration_seconds', 'histogram'],
        ['mte_operation_duration_seconds', 'histogram'],
        [`mte_messages${total}`, 'counter'],
        [`mte_plaintext_bytes${total}`, 'counter'],
        [`mte_message_bytes${total}`, 'counter'],
        [`mte_handshakes${total}`, 'counter'],
        [`mte_rejects${total}`, 'counter'],
        [`mte_replays_refused${total}`, 'counter'],
        [`mte_resends${total}`, 'counter'],
        ['mte_store_operation_duration_seconds', 'histogram'],
        [`mte_store_errors${total}`, 'counter'],
        ['mte_calls_open', 'gauge'],
        [`mte_calls${total}`, 'counter'],
        [`mte_tunnel_records${total}`, 'counter'],
        ['mte_tunnels', 'gauge'],
        ['mte_pairs', 'gauge'],
      ],
    )
    const ofProcess = new Map(types as [string, string][])
    assert.equal(ofProcess.get(`process_cpu_seconds${total}`), 'counter')
    assert.equal(ofProcess.get('nodejs_eventloop_lag_p99_seconds'), 'gauge')
    assert.equal(ofProcess.get('nodejs_heap_size_used_bytes'), 'gauge')
    assert.equal(ofProcess.get('nodejs_gc_duration_seconds'), 'histogram')
  })

test('says the same in both formats, whichever is asked for first, and at the same time', async () => {
  const metrics = new Metrics()
  metrics.resent('same')
  metrics.resent('anew')
  metrics.resent('anew')
  const accepts = [OPEN_METRICS, '', OPEN_METRICS, '']
  const all = await Promise.all(accepts.map((accept) => prometheus(metrics, accept)))
  all.push(await prometheus(metrics, ''))
  for (const [i, families] of all.entries()) {
    const { samples } = families.get(accepts[i] ? 'mte_resends' : 'mte_resends_total')!
    assert.deepEqual(samples, [
      { name: 'mte_resends_total', labels: { how: 'same' }, value: 1 },
      { name: 'mte_resends_total', labels: { how: 'anew' }, value: 2 },
    ])
  }
})

for (const [accept, isOpenMetrics] of [
  ['', false],
  ['*/*', false],
  ['text/plain', false],
  ['application/json', false],
  [OPEN_METRICS, true],
  ['Application/OpenMetrics-Text', true],
  [`${OPEN_METRICS};q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;q=0.3,*/*;q=0.2`, true],
  ['text/plain;q=0.9, application/openmetrics-text;q=0.1', false],
  ['application/openmetrics-text;q=0', false],
  ['application/openmetrics-text;q=lots', false],
  ['application/openmetrics-textual', false],
] as const)
  test(`answers "${accept}" with ${isOpenMetrics ? 'OpenMetrics' : 'Prometheus text'}`, async () => {
    const { contentType, body } = await new Metrics().text(accept)
    assert.equal(
      contentType,
      isOpenMetrics
        ? 'application/openmetrics-text; version=1.0.0; charset=utf-8'
        : 'text/plain; version=0.0.4; charset=utf-8',
    )
    assert.equal(body.endsWith('\n# EOF\n'), isOpenMetrics)
  })

test('tells the last sampled call of a bucket as an exemplar, in OpenMetrics alone', async () => {
  const metrics = new Metrics()
  const beforeS = Date.now() / 1000
  metrics.served(CALL, 0.03, 'f'.repeat(32))
  metrics.served(CALL, 0.04, TRACE_ID)
  metrics.served(CALL, 0.045)
  metrics.served(CALL, 20, TRACE_ID)
  const { samples } = (await prometheus(metrics, OPEN_METRICS)).get(SERVED)!
  const afterS = Date.now() / 1000
  const exemplars = samples.filter(({ exemplar }) => exemplar)
  assert.deepEqual(
    exemplars.map(({ labels, exemplar }) => [labels.le, exemplar!.labels, exemplar!.value]),
    [
      ['0.05', { trace_id: TRACE_ID }, 0.04],
      ['+Inf', { trace_id: TRACE_ID }, 20],
    ],
  )
  for (const { exemplar } of exemplars)
    assert.ok(exemplar!.timestampS >= beforeS && exemplar!.timestampS <= afterS)
  assert.ok(!(await metrics.text('')).body.includes(TRACE_ID))
})

test('escapes what peers call themselves, and keeps it on its line', async () => {
  const metrics = new Metrics()
  const hostile = [
    'a"b',
    'a\\b',
    'a\nb 1',
    '"} 1\nmte_pairs{role="x"} 9',
    'a\r\x1b[31mb',
    'a\u202eb',
    '\ud800',
  ]
  for (const peer of hostile) metrics.served({ ...CALL, peer }, 1)
  for (const accept of ['', OPEN_METRICS]) {
    const families = await prometheus(metrics, accept)
    const peers = families
      .get(SERVED)!
      .samples.filter(({ name }) => name.endsWith('_count'))
      .map(({ labels }) => labels.mte_peer)
    assert.deepEqual(peers, [
      'a"b',
      'a\\b',
      'a\\u000ab 1',
      '"} 1\\u000amte_pairs{role="x"} 9',
      'a\\u000d\\u001b[31mb',
      'a\\u202eb',
      '\\ud800',
    ])
    assert.deepEqual(families.get('mte_pairs')!.samples, [])
  }
})

test('tells 100 peers apart, and calls all others "other"', async () => {
  const metrics = new Metrics()
  for (let i = 0; i < 10_000; i++) {
    metrics.served({ ...CALL, peer: `peer${i}` }, 1)
    metrics.forwarded({ ...CALL, peer: `peer${i}` }, 1)
  }
  metrics.served({ ...CALL, peer: 'peer7' }, 1)
  const families = await prometheus(metrics)
  for (const name of [SERVED, 'http_client_request_duration_seconds']) {
    const counts = families.get(name)!.samples.filter((sample) => sample.name === `${name}_count`)
    assert.equal(counts.length, 101)
    assert.equal(counts.find(({ labels }) => labels.mte_peer === 'other')!.value, 9900)
    const peer7 = counts.find(({ labels }) => labels.mte_peer === 'peer7')!.value
    assert.equal(peer7, name === SERVED ? 2 : 1)
  }
})

test('cuts names that are too long', async () => {
  const metrics = new Metrics()
  metrics.served({ ...CALL, peer: 'p'.repeat(100_000) }, 1)
  metrics.served({ ...CALL, peer: 'p'.repeat(99_000) }, 1)
  metrics.served({ ...CALL, peer: 'p'.repeat(100) }, 1)
  const [point, ...more] = pointsOf(await metrics.families(), 'http.server.request.duration')
  assert.equal(point!.attributes['mte.peer'], 'p'.repeat(100))
  assert.deepEqual(more, [])
})

test('knows the methods of HTTP, and calls all others "_OTHER"', async () => {
  const metrics = new Metrics()
  for (const method of ['GET', 'PATCH', 'get', 'BREW', '"\n']) metrics.served({ ...CALL, method }, 1)
  const points = pointsOf(await metrics.families(), 'http.server.request.duration')
  assert.deepEqual(
    points.map(({ attributes }) => attributes['http.request.method']),
    ['GET', 'PATCH', '_OTHER'],
  )
})

test('keeps its own error codes, whatever others are told to it', async () => {
  const metrics = new Metrics()
  for (let i = 0; i < 1000; i++) metrics.served({ ...CALL, error: `e${i}` }, 1)
  for (const error of Object.keys(ERRORS)) metrics.served({ ...CALL, error }, 1)
  const points = pointsOf(await metrics.families(), 'http.server.request.duration')
  const errors = points.map(({ attributes }) => attributes['error.type'])
  assert.equal(errors.length, 101)
  for (const error of [...Object.keys(ERRORS), '_OTHER']) assert.ok(errors.includes(error), error)
})

for (const [what, name, count] of [
  ['codes of rejects', 'mte.rejects', (metrics, code) => metrics.rejected('received', code)],
  ['errors of handshakes', 'mte.handshakes', (metrics, error) => metrics.paired('responder', 1, error)],
  ['operations of stores', 'mte.store.errors', (metrics, operation) => metrics.stored(operation, 1, true)],
] as [string, string, (metrics: Metrics, value: string) => void][])
  test(`bounds the ${what}`, async () => {
    const metrics = new Metrics()
    for (let i = 0; i < 1000; i++) count(metrics, `"${i}\n`)
    const points = pointsOf(await metrics.families(), name)
    assert.ok(points.length <= 101, `${points.length}`)
    assert.ok(points.some(({ attributes }) => Object.values(attributes).includes('_OTHER')))
    await prometheus(metrics)
  })

test('has 2,000 series of a metric at most, and counts all others in one', async () => {
  const metrics = new Metrics()
  for (let i = 0; i < 20_000; i++)
    metrics.served({ ...CALL, peer: `peer${Math.floor(i / 900)}`, status: 100 + (i % 900) }, 1, TRACE_ID)
  for (let i = 0; i < 10; i++) metrics.served({ ...CALL, peer: 'peer0', status: 100 }, 1)
  const points = pointsOf(await metrics.families(), 'http.server.request.duration')
  assert.ok(points.length <= 2000, `${points.length}`)
  const total = points.reduce((sum, point) => sum + ('count' in point ? point.count : 0), 0)
  assert.equal(total, 20_010)
  assert.deepEqual(points.at(-1)!.attributes, { 'otel.metric.overflow': true })
  const { samples } = (await prometheus(metrics, OPEN_METRICS)).get(SERVED)!
  assert.deepEqual(samples.at(-1)!.labels, { otel_metric_overflow: 'true' })
})

test('counts messages, their bytes, and the work with them', async () => {
  const metrics = new Metrics()
  metrics.coded('encode', 'request', 0.00002, 300, 1000)
  metrics.coded('encode', 'request', 0.00004, 10, 500)
  metrics.coded('decode', 'response', 0.2, 0, 70)
  const families = await prometheus(metrics)
  const encoded = { operation: 'encode', what: 'request' }
  const decoded = { operation: 'decode', what: 'response' }
  for (const [name, values] of Object.entries({
    mte_messages_total: [2, 1],
    mte_plaintext_bytes_total: [310, 0],
    mte_message_bytes_total: [1500, 70],
  }))
    assert.deepEqual(families.get(name)!.samples, [
      { name, labels: encoded, value: values[0] },
      { name, labels: decoded, value: values[1] },
    ])
  const { samples } = families.get('mte_operation_duration_seconds')!
  const encodes = samples.filter(({ labels }) => labels.operation === 'encode')
  assert.deepEqual(
    encodes.slice(0, 4).map(({ labels, value }) => [labels.le, value]),
    [
      ['0.00001', 0],
      ['0.000025', 1],
      ['0.00005', 2],
      ['0.0001', 2],
    ],
  )
  assert.deepEqual(
    samples.filter(({ name }) => name.endsWith('_sum')).map(({ value }) => value),
    [0.00002 + 0.00004, 0.2],
  )
})

test('counts handshakes, rejects, replays, resends and what the store does', async () => {
  const metrics = new Metrics()
  assert.equal(onlyValue((await prometheus(metrics)).get('mte_replays_refused_total')!.samples), 0)
  metrics.paired('initiator', 0.02, '')
  metrics.paired('responder', 0.03, 'psk_unknown')
  metrics.rejected('sent', 'replayed')
  metrics.rejected('received', 'replayed')
  metrics.rejected('sent', 'malformed')
  metrics.resent('same')
  metrics.carried('outbound', 'tunnel')
  metrics.record('sent', 0.0001)
  metrics.record('sent', 0.0001)
  metrics.stored('take', 0.001, false)
  metrics.stored('take', 0.002, true)
  const families = await prometheus(metrics)
  const values = (name: string) =>
    families.get(name)!.samples.map(({ labels, value }) => [...Object.values(labels), value])
  assert.deepEqual(values('mte_handshakes_total'), [
    ['initiator', 1],
    ['responder', 'psk_unknown', 1],
  ])
  const isBucket = (sample: unknown[]) => sample.length === 3
  assert.deepEqual(
    values('mte_operation_duration_seconds').filter((sample) => !isBucket(sample)),
    [
      ['handshake', 0.05],
      ['handshake', 2],
      ['encode', 0.0002],
      ['encode', 2],
    ],
  )
  assert.deepEqual(values('mte_rejects_total'), [
    ['sent', 'replayed', 1],
    ['received', 'replayed', 1],
    ['sent', 'malformed', 1],
  ])
  assert.deepEqual(values('mte_replays_refused_total'), [[1]])
  assert.deepEqual(values('mte_resends_total'), [['same', 1]])
  assert.deepEqual(values('mte_calls_total'), [['outbound', 'tunnel', 1]])
  assert.deepEqual(values('mte_tunnel_records_total'), [['sent', 2]])
  assert.deepEqual(values('mte_store_operation_duration_seconds').slice(-1), [['take', 2]])
  assert.deepEqual(values('mte_store_errors_total'), [['take', 1]])
})

test('reads what goes up and down when it is asked, and tells the rest where that fails', async () => {
  const metrics = new Metrics()
  let open = 3
  let isAway = false
  metrics.watch({
    openCalls: () => ({ outbound: open, inbound: 0 }),
    tunnels: () => ({ initiator: 2, responder: 0 }),
    pairs: async () => {
      if (isAway) throw new Error('the store is away')
      return { initiator: 2, responder: 5 }
    },
  })
  const gauges = async () => {
    const families = await prometheus(metrics)
    return ['mte_calls_open', 'mte_pairs'].map((name) =>
      families.get(name)!.samples.map(({ labels, value }) => [...Object.values(labels), value]),
    )
  }
  const pairs = [
    ['initiator', 2],
    ['responder', 5],
  ]
  const calls = (outbound: number) => [
    ['outbound', outbound],
    ['inbound', 0],
  ]
  assert.deepEqual(await gauges(), [calls(3), pairs])
  open = 4
  isAway = true
  assert.deepEqual(await gauges(), [calls(4), []])
  isAway = false
  assert.deepEqual(await gauges(), [calls(4), pairs])
})

test('gives OpenTelemetry the same under its own names, as it stands at that time', async () => {
  const beforeMs = Date.now()
  const metrics = new Metrics()
  const afterMs = Date.now()
  metrics.watch({
    openCalls: () => ({ outbound: 1, inbound: 2 }),
    tunnels: () => ({ initiator: 0, responder: 3 }),
    pairs: async () => ({ initiator: 0, responder: 0 }),
  })
  metrics.served({ ...CALL, status: 503, error: '503' }, 0.25, TRACE_ID)
  metrics.served({ ...CALL, status: 503, error: '503' }, 100)
  metrics.resent('anew')
  const families = await metrics.families()
  metrics.served({ ...CALL, status: 503, error: '503' }, 0.25)
  metrics.resent('anew')

  const served = families.find(({ name }) => name === 'http.server.request.duration')!
  assert.ok(served.kind === 'histogram')
  assert.equal(served.unit, 's')
  assert.deepEqual(served.bounds, [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10])
  const [{ attributes, startMs, counts, sum, count }] = served.points as [(typeof served.points)[0]]
  assert.deepEqual(attributes, {
    'http.request.method': 'POST',
    'http.response.status_code': 503,
    'error.type': '503',
    'mte.direction': 'outbound',
    'mte.peer': 'billing',
  })
  assert.deepEqual(counts, [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1])
  assert.deepEqual([sum, count], [100.25, 2])
  assert.ok(startMs >= beforeMs && startMs <= afterMs)

  const resends = families.find(({ name }) => name === 'mte.resends')!
  assert.equal(resends.kind, 'counter')
  // Each metric has been counted from its own start on.
  const sinceMs = resends.points[0]!.startMs
  assert.ok(sinceMs >= beforeMs && sinceMs <= afterMs)
  assert.deepEqual(resends.points, [{ attributes: { how: 'anew' }, startMs: sinceMs, value: 1 }])
  const open = pointsOf(families, 'mte.calls.open').map((point) => [
    point.attributes,
    'value' in point && point.value,
  ])
  assert.deepEqual(open, [
    [{ direction: 'outbound' }, 1],
    [{ direction: 'inbound' }, 2],
  ])
  assert.equal(families.find(({ name }) => name === 'mte.message.bytes')!.unit, 'By')
  for (const { name, description } of families) {
    assert.match(name, /^(http|mte)\./)
    assert.match(description, /^[A-Z].*\.$/)
  }
})

test('counts for one sidecar alone, and nothing in the registry of the process', async () => {
  const [one, other] = [new Metrics(), new Metrics()]
  one.served(CALL, 1)
  assert.deepEqual(pointsOf(await other.families(), 'http.server.request.duration'), [])
  assert.deepEqual(register.getMetricsAsArray(), [])
})

test('keeps no process alive', () => {
  const module = new URL('../../sidecar/telemetry/metrics.ts', import.meta.url)
  const script = `const { Metrics } = await import('${module}'); await new Metrics().text(''); console.log('over')`
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    timeout: 20_000,
    encoding: 'utf8',
  })
  assert.deepEqual([status, stdout], [0, 'over\n'])
})

test('makes text that can be read, whatever it is told', async () => {
  const call = fc.record({
    direction: fc.constantFrom('outbound', 'inbound'),
    peer: fc.string({ unit: 'binary', maxLength: 200 }),
    method: fc.oneof(fc.constantFrom('GET', 'PUT'), fc.string()),
    status: fc.integer({ min: 0, max: 999 }),
    error: fc.oneof(fc.constant(''), fc.string({ unit: 'binary' })),
  })
  const seconds = fc.double({ min: 0, max: 1e6, noNaN: true })
  const calls = fc.array(fc.tuple(call, seconds, fc.boolean()), { maxLength: 50 })
  await fc.assert(
    fc.asyncProperty(calls, fc.constantFrom('', OPEN_METRICS), async (calls, accept) => {
      const metrics = new Metrics()
      for (const [labels, seconds, isSampled] of calls)
        metrics.served(labels as CallLabels, seconds, isSampled ? TRACE_ID : undefined)
      const { samples } = (await prometheus(metrics, accept)).get(SERVED)!
      const counts = samples.filter(({ name }) => name === `${SERVED}_count`)
      assert.equal(
        counts.reduce((sum, { value }) => sum + value, 0),
        calls.length,
      )
    }),
    { numRuns: 30, seed: 6 },
  )
})

interface Sample {
  name: string
  labels: Record<string, string>
  value: number
  exemplar?: { labels: Record<string, string>; value: number; timestampS: number }
}

type Parsed = Map<string, { type: string; samples: Sample[] }>

function onlyValue(samples: Sample[], name?: string): number {
  const found = samples.filter((sample) => name === undefined || sample.name === name)
  assert.equal(found.length, 1)
  return found[0]!.value
}

function pointsOf(families: Awaited<ReturnType<Metrics['families']>>, name: string) {
  return families.find((family) => family.name === name)!.points
}

async function prometheus(metrics: Metrics, accept = ''): Promise<Parsed> {
  const { contentType, body } = await metrics.text(accept)
  return parse(body, contentType.startsWith('application/openmetrics-text'))
}

/** Reads Prometheus text 0.0.4 or OpenMetrics 1.0, and takes nothing that they do not allow. */
function parse(text: string, isOpenMetrics: boolean): Parsed {
  const families: Parsed = new Map()
  const seen = new Set<string>()
  assert.ok(text.endsWith(isOpenMetrics ? '\n# EOF\n' : '\n'))
  const lines = text.slice(0, isOpenMetrics ? -'# EOF\n'.length : undefined).split('\n')
  assert.equal(lines.pop(), '')
  let current = ''
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!
    if (line === '' && !isOpenMetrics) continue
    const [, helped] = /^# HELP ([a-z_][a-z0-9_]*) \S[^"\r]*$/.exec(line) ?? []
    if (helped) {
      const [, typed, type] = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(lines[++i]!) ?? []
      assert.equal(typed, helped)
      assert.ok(!families.has(helped), `${helped} is there twice`)
      families.set((current = helped), { type: type!, samples: [] })
      continue
    }
    const family = families.get(current)!
    const sample = parseSample(line, isOpenMetrics)
    const suffixes = family.type === 'histogram' ? ['_bucket', '_sum', '_count'] : ['']
    if (family.type === 'counter' && isOpenMetrics) suffixes[0] = '_total'
    assert.ok(
      suffixes.some((suffix) => sample.name === current + suffix),
      line,
    )
    assert.ok(!sample.exemplar || sample.name.endsWith('_bucket') || sample.name.endsWith('_total'))
    const series = JSON.stringify([sample.name, Object.entries(sample.labels).sort()])
    assert.ok(!seen.has(series), `${series} is there twice`)
    seen.add(series)
    family.samples.push(sample)
  }
  for (const [name, { type, samples }] of families) if (type === 'histogram') checkHistogram(name, samples)
  return families
}

const LABEL = /([a-z_][a-z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"/y
const NUMBER = '[-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|Inf|nan)'
const VALUE = new RegExp(` (${NUMBER})(?= |$)`, 'iy')
const TIMESTAMP = / ([0-9]+(?:\.[0-9]+)?)$/y
const NAME = /[a-z_][a-z0-9_]*/y

function parseSample(line: string, isOpenMetrics: boolean): Sample {
  let at = 0
  const take = (pattern: RegExp): RegExpExecArray => {
    pattern.lastIndex = at
    const match = pattern.exec(line)
    assert.ok(match, `${line} is wrong at ${at}`)
    at = pattern.lastIndex
    return match
  }
  const labels = () => {
    const found: Record<string, string> = {}
    while (line[++at - 1] !== '}') {
      const [, name, value] = take(LABEL)
      assert.ok(!Object.hasOwn(found, name!), `${line} has ${name} twice`)
      found[name!] = value!.replace(/\\(.)/g, (_, character) => (character === 'n' ? '\n' : character))
      assert.match(line[at]!, /[,}]/)
      if (line[at] === ',') assert.notEqual(line[at + 1], '}')
    }
    return found
  }
  const number = () => Number(take(VALUE)[1]!.replace(/inf/i, 'Infinity'))
  const [name] = take(NAME)
  const sample: Sample = { name, labels: line[at] === '{' ? labels() : {}, value: NaN }
  sample.value = number()
  if (isOpenMetrics && line.startsWith(' # {', at)) {
    at += ' # '.length
    sample.exemplar = { labels: labels(), value: number(), timestampS: Number(take(TIMESTAMP)[1]) }
  }
  assert.equal(at, line.length, `${line} has more than it should`)
  return sample
}

/** Buckets are cumulative and ascending, and the last one has all that is counted. */
function checkHistogram(name: string, samples: Sample[]): void {
  let bound = -Infinity
  let inBuckets = 0
  for (const { name: part, labels, value, exemplar } of samples) {
    if (part === `${name}_bucket`) {
      const next = Number(labels.le!.replace('+Inf', 'Infinity'))
      assert.ok(next > bound && value >= inBuckets, `${name}: bucket ${labels.le}`)
      if (exemplar) assert.ok(exemplar.value > bound && exemplar.value <= next)
      bound = next
      inBuckets = value
    } else {
      assert.equal(bound, Infinity)
      if (part === `${name}_sum`) continue
      assert.equal(value, inBuckets)
      bound = -Infinity
      inBuckets = 0
    }
  }
}

test.run()
