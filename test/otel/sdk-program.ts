/** The other end of sdk-process.ts: does what it is asked with the SDK, and tells what it logs. */
import { context, type SpanContext, SpanKind, TraceFlags, trace } from '@opentelemetry/api'
import { type Sdk, startSdk } from '../../otel/register.ts'
import type { Family } from '../../sidecar/telemetry/instruments.ts'
import type { Span } from '../../sidecar/telemetry/tracing.ts'
import type { LogLine } from '../support/sidecars.ts'

const families: Family[] = [
  {
    name: 'mte.messages',
    description: 'Messages that were encoded or decoded',
    unit: '{message}',
    kind: 'counter',
    points: [{ attributes: { operation: 'encode' }, startMs: 1_700_000_000_123, value: 7 }],
  },
  {
    name: 'mte.calls.open',
    description: 'Calls that are open',
    unit: '{call}',
    kind: 'gauge',
    points: [{ attributes: { direction: 'outbound' }, startMs: 1_700_000_000_123, value: 3 }],
  },
  {
    name: 'http.server.request.duration',
    description: 'Duration of calls',
    unit: 's',
    kind: 'histogram',
    bounds: [0.5, 1],
    points: [
      {
        attributes: { 'http.request.method': 'POST' },
        startMs: 1_700_000_000_123,
        counts: [4, 0, 1],
        sum: 3.5,
        count: 5,
        exemplars: [],
      },
    ],
  },
]

const write = (level: string) => (fields: object | string, msg?: string) => {
  const line =
    typeof fields === 'string'
      ? { level, msg: fields, fields: {} }
      : { level, msg: msg!, fields: { ...fields } }
  process.send!({ line: line satisfies LogLine })
}
let readable = true
const sdk: Sdk = await startSdk({
  name: 'orders',
  version: '1.2.3',
  log: { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug') },
  families: async () => {
    if (!readable) throw new Error('the store is away')
    return families
  },
})

function begin(spanContext: SpanContext, parent?: SpanContext): Span {
  const startMs = performance.now()
  return sdk.tracing!.begin({
    name: 'POST',
    kind: SpanKind.SERVER,
    context: spanContext,
    parent,
    startMs,
    attributes: {},
  })
}

const deeds: Record<string, (...args: never[]) => unknown> = {
  traced: () => sdk.tracing !== undefined,
  trouble: () => sdk.trouble() ?? null,
  breakFamilies: () => {
    readable = false
  },
  /** Makes and ends spans, below a context if there is one; gives the context of the last. */
  spans: (count: number, above: SpanContext | null = null): SpanContext => {
    let last: SpanContext | undefined
    for (let i = 0; i < count; i++) {
      last = sdk.tracing!.contextBelow(above ?? undefined)
      if (last.traceFlags === TraceFlags.SAMPLED)
        begin(last, above ?? undefined).end(performance.now(), false)
    }
    return last!
  },
  /** Sends commands within a span, and one outside of it. */
  redis: async (url: string, commands: string[][]) => {
    const { Redis } = await import('ioredis')
    const redis = new Redis(url, { lazyConnect: true })
    await redis.connect()
    await redis.call('GET', 'outside')
    const span = begin(sdk.tracing!.contextBelow(undefined))
    await context.with(trace.setSpanContext(context.active(), span.context), async () => {
      for (const [name, ...args] of commands) await redis.call(name!, ...args).catch(() => {})
    })
    span.end(performance.now(), false)
    redis.disconnect()
    return span.context
  },
  /** Calls a server within a span. */
  fetch: async (url: string) => {
    const span = begin(sdk.tracing!.contextBelow(undefined))
    await context.with(trace.setSpanContext(context.active(), span.context), async () =>
      (await fetch(url)).text(),
    )
    span.end(performance.now(), false)
  },
  /** @returns how long it took, in ms */
  shutdown: async (deadlineMs: number) => {
    const beganMs = performance.now()
    await sdk.shutdown(deadlineMs)
    return performance.now() - beganMs
  },
}
process.on('message', async ([what, ...args]: [string, ...never[]]) => {
  process.send!({ answer: (await deeds[what]!(...args)) ?? null })
})
process.on('disconnect', () => process.exit(0))
process.send!({ answer: 'ready' })
