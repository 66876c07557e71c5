/** A real Jaeger for tests, and what it knows of a trace. It does not outlive its test. */
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type AttributeValue,
  formatTree,
  type SpanKindName,
  type TraceNode,
  type TraceSpan,
  traceTrees,
} from '../../sidecar/trace-tree.ts'
import { collectorBinary, startProgram, unusedEndpoints } from './collector.ts'
import { type GoProgram, goProgram } from './go-program.ts'

const POLL_MS = 50
const TRACES_MAX = 1000
const CONFIG = path.join(import.meta.dirname, '../../otel/jaeger/jaeger.yaml')

/** Among Go's modules its version 2.13.0 goes by the number 1.76.0. */
const JAEGER: GoProgram = {
  name: 'jaeger',
  version: '2.13.0',
  variable: 'JAEGER_BIN',
  origin: 'https://www.jaegertracing.io/download',
  requires: ['github.com/jaegertracing/jaeger/cmd/jaeger@v1.76.0'],
  main: 'github.com/jaegertracing/jaeger/cmd/jaeger',
}

export interface Jaeger {
  /** base URL of OTLP over HTTP */
  otlpUrl: string
  /** host:port of OTLP over gRPC */
  otlpEndpoint: string
  /**
   * Waits for a trace to come in.
   * @returns its tree, once that has so many spans, all below one root
   * @throws Error that shows what has come, when that is not so in time
   */
  waitForTree(traceId: string, spans: number, deadlineMs?: number): Promise<TraceNode>
  /** ids of the traces that a service took part in */
  traceIds(service: string): Promise<string[]>
  stop(): Promise<void>
}

/**
 * Builds Jaeger and the collector where they are not there. Where that cannot be done it says so, and leaves it to
 * tests to fail.
 */
export async function buildTracingPrograms(say: (line: string) => void): Promise<void> {
  try {
    await goProgram(JAEGER, say)
    await collectorBinary(say)
  } catch (error) {
    say(`What needs Jaeger or a collector will fail: ${(error as Error).message}`)
  }
}

/** @returns the path of Jaeger's binary. @throws Error that says how to get one */
export const jaegerBinary = (): Promise<string> => goProgram(JAEGER, console.error)

/** Starts Jaeger with otel/jaeger/jaeger.yaml, on free ports. */
export async function startJaeger(): Promise<Jaeger> {
  const [grpc, http, query, queryGrpc, health] = await unusedEndpoints(5)
  const program = await startProgram(await jaegerBinary(), {
    config: CONFIG,
    settings: {
      'receivers.otlp.protocols.grpc.endpoint': grpc!,
      'receivers.otlp.protocols.http.endpoint': http!,
      'extensions.jaeger_query.http.endpoint': query!,
      'extensions.jaeger_query.grpc.endpoint': queryGrpc!,
      'extensions.healthcheckv2.http.endpoint': health!,
    },
    readyUrl: `http://${health}/status`,
  })
  const api = new URL(`http://${query}/api/v3/`)
  return {
    otlpUrl: `http://${http}`,
    otlpEndpoint: grpc!,
    waitForTree: (traceId, spans, deadlineMs = 20_000) => waitForTree(api, traceId, spans, deadlineMs),
    async traceIds(service) {
      const query = new URLSearchParams({
        'query.service_name': service,
        'query.start_time_min': new Date(0).toISOString(),
        'query.start_time_max': new Date(Date.now() + 60_000).toISOString(),
        'query.num_traces': String(TRACES_MAX),
      })
      const spans = await ask(new URL(`traces?${query}`, api))
      return [...new Set(spans.map(({ traceId }) => traceId))]
    },
    stop: program.stop,
  }
}

/**
 * Waits for a trace to come in.
 * @param api base URL of version 3 of the query API
 * @returns its tree, once that has so many spans, all below one root
 * @throws Error that shows what has come, when that is not so in time
 */
export async function waitForTree(
  api: URL,
  traceId: string,
  count: number,
  deadlineMs: number,
): Promise<TraceNode> {
  const endMs = performance.now() + deadlineMs
  for (;;) {
    // As they were sent: otherwise it shifts them in time, and adds what it thinks of them.
    const spans = await ask(new URL(`traces/${traceId}?raw_traces=true`, api))
    const trees = traceTrees(spans)
    if (spans.length === count && trees.length === 1) return trees[0]!
    if (performance.now() > endMs)
      throw new Error(
        `not ${count} spans below one root after ${deadlineMs} ms, but ${spans.length} below ${trees.length}:\n` +
          trees.map(formatTree).join('\n'),
      )
    await sleep(POLL_MS)
  }
}

/** A value in OTLP's JSON. */
interface OtlpValue {
  stringValue?: string
  boolValue?: boolean
  /** 64 bits, as decimal digits */
  intValue?: string
  doubleValue?: number
}

interface OtlpAttribute {
  key: string
  value: OtlpValue
}

interface OtlpSpan {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  kind?: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes?: OtlpAttribute[]
  links?: { spanId: string }[]
  status?: { code?: number }
}

interface OtlpTraces {
  resourceSpans: { resource: { attributes: OtlpAttribute[] }; scopeSpans: { spans: OtlpSpan[] }[] }[]
}

/** By their numbers in OTLP. */
const KINDS: readonly SpanKindName[] = ['INTERNAL', 'INTERNAL', 'SERVER', 'CLIENT', 'PRODUCER', 'CONSUMER']
const STATUSES = ['UNSET', 'OK', 'ERROR'] as const

/** What the query API answers; nothing where it knows of no such trace. */
async function ask(url: URL): Promise<(TraceSpan & { traceId: string })[]> {
  const answer = await fetch(url)
  if (answer.status === 404) return []
  if (!answer.ok) throw new Error(`Jaeger answered ${answer.status}: ${await answer.text()}`)
  const { result } = (await answer.json()) as { result: OtlpTraces }
  return result.resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const service = String(attributesOf(resource.attributes)['service.name'])
    return scopeSpans.flatMap(({ spans }) => spans.map((span) => spanOf(service, span)))
  })
}

function spanOf(service: string, span: OtlpSpan): TraceSpan & { traceId: string } {
  const startUs = Number(BigInt(span.startTimeUnixNano) / 1000n)
  return {
    traceId: span.traceId,
    spanId: span.spanId,
    parentId: span.parentSpanId || undefined,
    service,
    name: span.name,
    kind: KINDS[span.kind ?? 0]!,
    attributes: attributesOf(span.attributes),
    status: STATUSES[span.status?.code ?? 0]!,
    startUs,
    durationUs: Number(BigInt(span.endTimeUnixNano) / 1000n) - startUs,
    links: (span.links ?? []).map((link) => link.spanId),
  }
}

function attributesOf(attributes: OtlpAttribute[] = []): Record<string, AttributeValue> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, plainValue(value)]))
}

/** As a number, a boolean or text: JSON where it is a list. */
function plainValue(value: OtlpValue): AttributeValue {
  const { stringValue, boolValue, intValue, doubleValue } = value
  const scalar = stringValue ?? boolValue ?? doubleValue
  return scalar ?? (intValue === undefined ? JSON.stringify(value) : Number(intValue))
}
