/** What is sent to collectors must be what the SDK itself would send, byte by byte. */
import assert from 'node:assert/strict'
import { type Attributes, SpanKind } from '@opentelemetry/api'
import { TraceState } from '@opentelemetry/core'
import { ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer'
import { resourceFromAttributes } from '@opentelemetry/resources'
import {
  AlwaysOnSampler,
  type ReadableSpan,
  SimpleSpanProcessor,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import fc from 'fast-check'
import { traceSerializer } from '../../otel/trace-serializer.ts'
import { createTracing } from '../../otel/tracing.ts'
import { suite } from '../support/suite.ts'

const test = suite('trace serializer')

const SEED = { seed: 20_261_125 }
const resource = resourceFromAttributes({
  'service.name': 'orders-mte',
  'host.cpus': 2,
  edge: true,
  ratio: 0.5,
})

function collecting(): { spans: ReadableSpan[]; tracing: ReturnType<typeof createTracing> } {
  const spans: ReadableSpan[] = []
  const tracing = createTracing({
    resource,
    scope: { name: 'mte-sidecar', version: '1.2.3' },
    sampling: { parentBased: true, root: new AlwaysOnSampler() },
    onEnd: (span) => spans.push(span),
  })
  return { spans, tracing }
}

function assertSame(spans: ReadableSpan[]): void {
  const [ours, theirs] = [traceSerializer, ProtobufTraceSerializer].map((serializer) =>
    Buffer.from(serializer.serializeRequest(spans)!).toString('hex'),
  )
  assert.equal(ours, theirs)
}

test('any spans are written as the SDK writes them', () => {
  const value = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.nat(),
    fc.double({ noNaN: true }),
    fc.maxSafeNat(),
    fc.boolean(),
    fc.constantFrom(-1, 0, 127, 128, 2 ** 32),
  )
  const span = fc.record({
    name: fc.string({ unit: 'binary', maxLength: 200 }),
    kind: fc.constantFrom(SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT),
    attributes: fc.dictionary(fc.stringMatching(/^[a-z.]{1,40}$/), value, { maxKeys: 12 }),
    remote: fc.constantFrom(undefined, true, false),
    state: fc.option(fc.stringMatching(/^[a-z]{1,9}=[!-+]{1,99}$/), { nil: undefined }),
    startMs: fc.double({ min: 0, max: 1e9, noNaN: true }),
    lastedMs: fc.double({ min: 0, max: 1e7, noNaN: true }),
    isError: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(span, { minLength: 1, maxLength: 20 }), (all) => {
      const { spans, tracing } = collecting()
      for (const { name, kind, attributes, remote, state, startMs, lastedMs, isError } of all) {
        const above = tracing.contextBelow(undefined)
        const parent =
          remote === undefined
            ? undefined
            : { ...above, isRemote: remote, ...(state ? { traceState: new TraceState(state) } : {}) }
        const context = tracing.contextBelow(parent)
        const begun = { name, kind, context, parent, startMs, attributes: { ...attributes } as Attributes }
        tracing.begin(begun).end(startMs + lastedMs, isError)
      }
      assertSame(spans)
    }),
    { ...SEED, numRuns: 300 },
  )
})

test('so are more spans than were thought to be', () => {
  const { spans, tracing } = collecting()
  for (let i = 0; i < 50; i++) {
    const context = tracing.contextBelow(undefined)
    const attributes = { [`a${i}`]: 'x'.repeat(20_000) }
    const kind = SpanKind.INTERNAL
    tracing.begin({ name: 'long', kind, context, parent: undefined, startMs: 1, attributes }).end(2, false)
  }
  assertSame(spans)
})

test('spans with links, and those of instrumented packages, go with the others', () => {
  const { spans, tracing } = collecting()
  const processor = new SimpleSpanProcessor({
    exporter: { export: (ended) => spans.push(...ended), shutdown: async () => {} },
  })
  const provider = new TracerProvider({ resource, spanProcessors: [processor] })
  const begin = (name: string) => {
    const context = tracing.contextBelow(undefined)
    return tracing.begin({
      name,
      kind: SpanKind.SERVER,
      context,
      parent: undefined,
      startMs: 1,
      attributes: {},
    })
  }
  begin('first').end(2, false)
  provider.getTracer('ioredis').startSpan('get').end()
  const linked = begin('linked')
  linked.link(tracing.contextBelow(undefined))
  linked.end(2, false)
  begin('last').end(2, true)
  assert.equal(spans.length, 4)
  const [first, get, other, last] = spans as [ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan]
  const request = Buffer.from(traceSerializer.serializeRequest(spans)!)
  const expected = [
    ProtobufTraceSerializer.serializeRequest([first, last])!,
    ProtobufTraceSerializer.serializeRequest([get, other])!,
  ]
  assert.deepEqual(request, Buffer.concat(expected))
  const alone = Buffer.from(traceSerializer.serializeRequest([get])!)
  assert.deepEqual(alone, Buffer.from(ProtobufTraceSerializer.serializeRequest([get])!))
})

test.run()
