import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { startRedis } from '../support/redis.ts'
import { unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import {
  attributesOf,
  type Collector,
  metricsOf,
  resourceOf,
  spansOf,
  startCollector,
  startGrpcCollector,
} from './collector.ts'
import { type SdkProcess, startSdkProcess } from './sdk-process.ts'

const test = suite('register')
/** Nothing is exported until it is asked for. */
const LATER = { OTEL_BSP_SCHEDULE_DELAY: '1000000', OTEL_METRIC_EXPORT_INTERVAL: '1000000' }
/** Each span is exported as it ends. */
const AT_ONCE = {
  OTEL_BSP_SCHEDULE_DELAY: '1',
  OTEL_BSP_MAX_EXPORT_BATCH_SIZE: '1',
  OTEL_METRICS_EXPORTER: 'none',
}
const JSON_TO = (collector: Collector) => ({
  OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
  OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
})
const NOTHING_SAMPLED = { OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0' }

async function withSdk<T>(env: Record<string, string>, work: (sdk: SdkProcess) => Promise<T>): Promise<T> {
  const sdk = await startSdkProcess(env)
  try {
    return await work(sdk)
  } finally {
    await sdk.stop()
  }
}

test('traces and metrics arrive with who sends them, and without what the process was started with', async () => {
  const collector = await startCollector()
  await withSdk({ ...LATER, ...JSON_TO(collector) }, async (sdk) => {
    await sdk.ask('spans', 2)
    await sdk.ask('shutdown', 10_000)
    assert.equal(await sdk.ask('trouble'), null)
  })
  collector.close()
  assert.equal(spansOf(collector.exports).length, 2)
  assert.deepEqual(collector.exports.map(({ path }) => path).sort(), ['/v1/metrics', '/v1/traces'])
  for (const one of collector.exports) {
    const resource = resourceOf(one)
    assert.equal(resource['service.name'], 'orders-mte')
    assert.equal(resource['service.version'], '1.2.3')
    assert.match(String(resource['service.instance.id']), /^[0-9a-f-]{36}$/)
    assert.equal(resource['telemetry.sdk.language'], 'nodejs')
    assert.deepEqual(
      Object.keys(resource).filter((name) => name.startsWith('process.')),
      [],
    )
  }
})

test("OpenTelemetry's variables name the service, with the others of the environment", async () => {
  const collector = await startCollector()
  for (const [env, name] of [
    [{ OTEL_SERVICE_NAME: 'a', OTEL_RESOURCE_ATTRIBUTES: 'service.name=b,team=c' }, 'a'],
    [{ OTEL_RESOURCE_ATTRIBUTES: 'service.name=b,team=c' }, 'b'],
  ] as const) {
    await withSdk({ ...LATER, ...JSON_TO(collector), OTEL_METRICS_EXPORTER: 'none', ...env }, async (sdk) => {
      await sdk.ask('spans', 1)
      await sdk.ask('shutdown', 10_000)
    })
    const resource = resourceOf(await collector.next())
    assert.equal(resource['service.name'], name)
    assert.equal(resource.team, 'c')
  }
  collector.close()
})

test('metrics over OTLP are those of the sidecar, cumulative, and those of the runtime', async () => {
  const collector = await startCollector()
  await withSdk({ ...LATER, ...JSON_TO(collector), OTEL_TRACES_EXPORTER: 'none' }, async (sdk) => {
    assert.equal(await sdk.ask('traced'), false)
    await sdk.ask('shutdown', 10_000)
  })
  collector.close()
  const metrics = metricsOf(collector.exports)
  const named = (name: string) => metrics.find((metric) => metric.name === name)!
  const cumulative = 2
  const { sum } = named('mte.messages')
  assert.equal(named('mte.messages').unit, '{message}')
  assert.equal(named('mte.messages').description, 'Messages that were encoded or decoded')
  assert.equal(sum?.aggregationTemporality, cumulative)
  assert.equal(sum.isMonotonic, true)
  assert.equal(sum.dataPoints[0]!.asDouble, 7)
  assert.deepEqual(attributesOf(sum.dataPoints[0]!.attributes), { operation: 'encode' })
  assert.equal(sum.dataPoints[0]!.startTimeUnixNano, '1700000000123000000')
  assert.equal(named('mte.calls.open').gauge!.dataPoints[0]!.asDouble, 3)
  const { histogram } = named('http.server.request.duration')
  assert.equal(histogram!.aggregationTemporality, cumulative)
  const point = histogram!.dataPoints[0]!
  assert.deepEqual(
    [point.count, point.sum, point.bucketCounts, point.explicitBounds],
    [5, 3.5, [4, 0, 1], [0.5, 1]],
  )
  assert.ok(
    metrics.some(({ name }) => /^(nodejs|v8js)\./.test(name)),
    'those of the runtime',
  )
  assert.deepEqual(spansOf(collector.exports), [])
})

test('metrics that cannot be read now leave the others to be exported', async () => {
  const collector = await startCollector()
  await withSdk({ ...LATER, ...JSON_TO(collector), OTEL_TRACES_EXPORTER: 'none' }, async (sdk) => {
    await sdk.ask('breakFamilies')
    await sdk.ask('shutdown', 10_000)
    assert.match((await sdk.logged()).msg, /metrics collection/)
  })
  collector.close()
  const names = metricsOf(collector.exports).map(({ name }) => name)
  assert.ok(names.length > 0)
  assert.ok(!names.includes('mte.messages'))
})

test('spans go over http/protobuf by default, with the headers that are configured', async () => {
  const collector = await startCollector()
  const env = {
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_EXPORTER_OTLP_HEADERS: 'authorization=secret',
    OTEL_METRICS_EXPORTER: 'none',
  }
  await withSdk({ ...LATER, ...env }, async (sdk) => {
    await sdk.ask('spans', 1)
    await sdk.ask('shutdown', 10_000)
  })
  const { path, headers, body } = await collector.next()
  collector.close()
  assert.equal(path, '/v1/traces')
  assert.equal(headers['content-type'], 'application/x-protobuf')
  assert.equal(headers.authorization, 'secret')
  assert.ok(body.includes('orders-mte'))
})

test('spans and metrics go over gRPC', async () => {
  const collector = await startGrpcCollector()
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }
  await withSdk({ ...LATER, ...env }, async (sdk) => {
    await sdk.ask('spans', 1)
    await sdk.ask('shutdown', 10_000)
    assert.equal(await sdk.ask('trouble'), null)
  })
  collector.close()
  const paths = collector.exports.map(({ path }) => path.split('.').at(-1)).sort()
  assert.deepEqual(paths, ['MetricsService/Export', 'TraceService/Export'])
  for (const { body } of collector.exports) assert.ok(body.includes('orders-mte'))
})

test('a trace is sampled as its parent is, and else by the ratio', async () => {
  const above = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', isRemote: true }
  const collector = await startCollector()
  await withSdk(
    { ...LATER, ...JSON_TO(collector), ...NOTHING_SAMPLED, OTEL_METRICS_EXPORTER: 'none' },
    async (sdk) => {
      await sdk.ask('spans', 100)
      await sdk.ask('spans', 1, { ...above, traceFlags: 1 })
      await sdk.ask('shutdown', 10_000)
    },
  )
  const [span, ...others] = spansOf(collector.exports)
  assert.deepEqual(others, [])
  assert.deepEqual([span?.traceId, span?.parentSpanId], [above.traceId, above.spanId])
  await withSdk({ ...LATER, ...JSON_TO(collector), OTEL_METRICS_EXPORTER: 'none' }, async (sdk) => {
    await sdk.ask('spans', 100)
    await sdk.ask('spans', 1, { ...above, traceFlags: 0 })
    await sdk.ask('shutdown', 10_000)
  })
  collector.close()
  assert.equal(spansOf(collector.exports).length, 1 + 100)
})

test('commands to Redis within a span are spans, without what they send and what it answers', async () => {
  const server = await startRedis()
  const collector = await startCollector()
  const commands = [
    ['SET', 'KEY-CANARY', 'VALUE-CANARY'],
    ['EVAL', "return redis.error_reply('ERR ' .. ARGV[1])", '1', 'KEY-CANARY', 'VALUE-CANARY'],
    ['NOSUCHCOMMAND', 'KEY-CANARY'],
  ]
  const parent = await withSdk(
    { ...LATER, ...JSON_TO(collector), OTEL_METRICS_EXPORTER: 'none' },
    async (sdk) => {
      const context = await sdk.ask<{ spanId: string; traceId: string }>('redis', server.url, commands)
      await sdk.ask('shutdown', 10_000)
      return context
    },
  )
  collector.close()
  await server.stop()
  const spans = spansOf(collector.exports)
  assert.deepEqual(spans.map(({ name }) => name.toUpperCase()).sort(), [
    'EVAL',
    'NOSUCHCOMMAND',
    'POST',
    'SET',
  ])
  for (const span of spans.filter(({ name }) => name !== 'POST')) {
    assert.deepEqual([span.traceId, span.parentSpanId], [parent.traceId, parent.spanId])
    const failed = span.name.toUpperCase() !== 'SET'
    assert.deepEqual(span.status, { code: failed ? 2 : 0 })
    assert.equal(attributesOf(span.attributes)['db.query.text'], span.name)
  }
  for (const { body } of collector.exports) assert.ok(!body.includes('CANARY'))
})

test('calls over HTTP are no spans and are given no context, except where their instrumentation is named', async () => {
  const server = await startCollector()
  for (const [env, names] of [
    [{}, ['POST']],
    [{ OTEL_NODE_ENABLED_INSTRUMENTATIONS: 'undici' }, ['GET', 'POST']],
  ] as const) {
    const collector = await startCollector()
    await withSdk({ ...LATER, ...JSON_TO(collector), OTEL_METRICS_EXPORTER: 'none', ...env }, async (sdk) => {
      await sdk.ask('fetch', server.url)
      await sdk.ask('shutdown', 10_000)
    })
    collector.close()
    assert.deepEqual(
      spansOf(collector.exports)
        .map(({ name }) => name)
        .sort(),
      names,
    )
    assert.equal((await server.next()).headers.traceparent, undefined)
  }
  server.close()
})

test('a collector that refuses is told of once a minute, without what is secret, until it takes what it gets', async () => {
  let refuses = true
  const collector = await startCollector((response) => {
    if (refuses) response.writeHead(401, 'CANARY').end('CANARY')
    else response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
  })
  const secret = collector.url.replace('//', '//user:CANARY@')
  const env = { ...JSON_TO(collector), OTEL_EXPORTER_OTLP_ENDPOINT: secret, ...AT_ONCE }
  await withSdk(env, async (sdk) => {
    await sdk.ask('spans', 1)
    const line = await sdk.logged()
    const told = `traces cannot be exported to ${collector.url}: it refuses the credentials; look at OTEL_EXPORTER_OTLP_HEADERS (status 401)`
    assert.deepEqual(line, { level: 'warn', msg: told, fields: {} })
    assert.equal(await sdk.ask('trouble'), told)
    await collector.next()
    for (let i = 0; i < 5; i++) {
      await sdk.ask('spans', 1)
      await collector.next()
    }
    refuses = false
    await sdk.ask('spans', 1)
    await sdk.ask('shutdown', 10_000)
    assert.equal(await sdk.ask('trouble'), null)
    const second = await Promise.race([sdk.logged(), sdk.ask('traced')])
    assert.equal(second, true, 'no line but the first')
  })
  collector.close()
})

test('a collector that is not there fails nothing, and is told of once', async () => {
  const endpoint = `http://127.0.0.1:${await unusedPort()}`
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_TIMEOUT: '1', ...AT_ONCE }
  await withSdk(env, async (sdk) => {
    await sdk.ask('spans', 20)
    const { msg } = await sdk.logged()
    const told = `traces cannot be exported to ${endpoint}: it cannot be reached; look at OTEL_EXPORTER_OTLP_ENDPOINT, and whether the collector runs (ECONNREFUSED)`
    assert.equal(msg, told)
    await sdk.ask('shutdown', 5000)
    assert.equal(await sdk.ask('trouble'), told)
    assert.equal(await Promise.race([sdk.logged(), sdk.ask('traced')]), true, 'no line but the first')
  })
})

test('a gRPC collector that is not there is told of in the same words', async () => {
  const endpoint = `http://127.0.0.1:${await unusedPort()}`
  const env = {
    OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    OTEL_EXPORTER_OTLP_TIMEOUT: '1000',
    ...AT_ONCE,
  }
  await withSdk(env, async (sdk) => {
    await sdk.ask('spans', 1)
    const { msg } = await sdk.logged()
    assert.match(
      msg,
      /^traces cannot be exported to http:\/\/127\.0\.0\.1:\d+: it cannot be reached; .* \(gRPC code 14\)$/,
    )
  })
})

test('whatever a collector fails with, it is told what that means and what to look at', async () => {
  const status = (code: number) => (response: ServerResponse) => response.writeHead(code).end()
  const cases: [(response: ServerResponse) => void, RegExp][] = [
    [status(404), /it takes no OTLP there; look at OTEL_EXPORTER_OTLP_ENDPOINT .* \(status 404\)$/],
    [status(413), /too large for it; look at OTEL_BSP_MAX_EXPORT_BATCH_SIZE \(status 413\)$/],
    [status(500), /it refused; look at what the collector logs \(status 500\)$/],
    [status(503), /it asks to be left alone for now; look at how busy the collector is$/],
    [(response) => response.socket!.write('SSH-2.0\r\n\r\n'), /it takes no OTLP there; .* \(HPE_[A-Z_]+\)$/],
    [(response) => response.destroy(), /it broke the connection off; .* \(ECONNRESET\)$/],
    [() => {}, /it did not answer in time; .* OTEL_EXPORTER_OTLP_TIMEOUT$/],
  ]
  for (const [answer, told] of cases) {
    const collector = await startCollector(answer)
    const env = { ...JSON_TO(collector), ...AT_ONCE, OTEL_EXPORTER_OTLP_TIMEOUT: '300' }
    await withSdk(env, async (sdk) => {
      await sdk.ask('spans', 1)
      assert.match((await sdk.logged()).msg, told)
    })
    collector.close()
  }
})

test('a collector that never answers holds the end up no longer than the deadline', async () => {
  const collector = await startCollector(() => {})
  await withSdk({ ...LATER, ...JSON_TO(collector) }, async (sdk) => {
    await sdk.ask('spans', 1)
    const tookMs = await sdk.ask<number>('shutdown', 300)
    assert.ok(tookMs < 2000, `${tookMs} ms`)
    assert.match((await sdk.logged()).msg, /could not be exported in time/)
  })
  collector.close()
})

test('a collector that is slow leaves no more spans waiting than the queue has room for', async () => {
  const held: (() => void)[] = []
  let holds = true
  const collector = await startCollector((response) => {
    const answer = () => response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    if (holds) held.push(answer)
    else answer()
  })
  const env = {
    ...JSON_TO(collector),
    OTEL_METRICS_EXPORTER: 'none',
    OTEL_BSP_SCHEDULE_DELAY: '1',
    OTEL_BSP_MAX_QUEUE_SIZE: '10',
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE: '5',
  }
  await withSdk(env, async (sdk) => {
    await sdk.ask('spans', 5)
    await collector.next()
    await sdk.ask('spans', 1000)
    holds = false
    for (const answer of held) answer()
    await sdk.ask('shutdown', 10_000)
  })
  collector.close()
  assert.equal(spansOf(collector.exports).length, 5 + 10)
})

test('OTEL_LOG_LEVEL shows more of what the SDK says', async () => {
  const collector = await startCollector()
  await withSdk({ ...LATER, ...JSON_TO(collector), OTEL_LOG_LEVEL: 'debug' }, async (sdk) => {
    const { level, msg } = await sdk.logged()
    assert.equal(level, 'debug')
    assert.match(msg, /^OpenTelemetry: /)
  })
  collector.close()
})

test('the console takes spans where it is named', async () => {
  const sdk = await startSdkProcess({ OTEL_TRACES_EXPORTER: 'console', ...LATER })
  assert.equal(await sdk.ask('traced'), true)
  const { traceId } = await sdk.ask<{ traceId: string }>('spans', 1)
  await sdk.ask('shutdown', 5000)
  assert.equal(await sdk.ask('trouble'), null)
  assert.match(await sdk.stop(), new RegExp(traceId))
})

test.run()
