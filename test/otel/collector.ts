/** Collectors of OTLP that tests look into, and such as fail. */
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'

/** What one export brought. */
export interface Export {
  path: string
  headers: http.IncomingHttpHeaders
  body: Buffer
}

export interface Collector {
  url: string
  readonly exports: readonly Export[]
  /** Resolves with the next export that is still to come, or has come since the last one that was asked for. */
  next(): Promise<Export>
  close(): void
}

export interface SpanJson {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  kind: number
  traceState?: string
  attributes: AttributeJson[]
  events: unknown[]
  status: { code: number; message?: string }
}

interface AttributeJson {
  key: string
  value: { stringValue?: string; intValue?: number; boolValue?: boolean; doubleValue?: number }
}

export interface MetricJson {
  name: string
  description: string
  unit: string
  sum?: { aggregationTemporality: number; isMonotonic: boolean; dataPoints: PointJson[] }
  gauge?: { dataPoints: PointJson[] }
  histogram?: { aggregationTemporality: number; dataPoints: PointJson[] }
}

interface PointJson {
  attributes: AttributeJson[]
  startTimeUnixNano: string
  timeUnixNano: string
  asDouble?: number
  count?: number
  sum?: number
  bucketCounts?: number[]
  explicitBounds?: number[]
}

/** Takes OTLP over HTTP, in either encoding. @param answer what becomes of each export; the default: it is taken */
export async function startCollector(
  answer: (response: http.ServerResponse, index: number) => void = (response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
  },
): Promise<Collector> {
  const exports: Export[] = []
  const { next, push } = queue<Export>()
  const server = http.createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray())
    const one = { path: request.url!, headers: request.headers, body }
    exports.push(one)
    answer(response, exports.length - 1)
    push(one)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    exports,
    next,
    close() {
      server.close()
      server.closeAllConnections()
    },
  }
}

/** Takes OTLP over gRPC. @param status what it answers, 0 for success */
export async function startGrpcCollector(status = 0): Promise<Collector> {
  const exports: Export[] = []
  const { next, push } = queue<Export>()
  const sessions = new Set<http2.ServerHttp2Session>()
  const server = http2.createServer()
  server.on('session', (session) => sessions.add(session))
  server.on('stream', async (stream: http2.ServerHttp2Stream, headers) => {
    const body = Buffer.concat(await stream.toArray())
    const one = { path: headers[':path']!, headers: headers as http.IncomingHttpHeaders, body }
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': String(status) }))
    stream.end(Buffer.alloc(status === 0 ? 5 : 0))
    exports.push(one)
    push(one)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    exports,
    next,
    close() {
      server.close()
      for (const session of sessions) session.destroy()
    },
  }
}

/** The spans of exports in http/json. */
export function spansOf(exports: readonly Export[]): SpanJson[] {
  return exports
    .filter(({ path }) => path === '/v1/traces')
    .flatMap(({ body }) => JSON.parse(body.toString()).resourceSpans)
    .flatMap(({ scopeSpans }) => scopeSpans)
    .flatMap(({ spans }) => spans)
}

/** The metrics of exports in http/json. */
export function metricsOf(exports: readonly Export[]): MetricJson[] {
  return exports
    .filter(({ path }) => path === '/v1/metrics')
    .flatMap(({ body }) => JSON.parse(body.toString()).resourceMetrics)
    .flatMap(({ scopeMetrics }) => scopeMetrics)
    .flatMap(({ metrics }) => metrics)
}

/** The resource of an export in http/json. */
export function resourceOf({ body }: Export): Record<string, unknown> {
  const { resourceSpans, resourceMetrics } = JSON.parse(body.toString())
  return attributesOf((resourceSpans ?? resourceMetrics)[0].resource.attributes)
}

export function attributesOf(attributes: AttributeJson[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))
}

function queue<T>(): { next(): Promise<T>; push(item: T): void } {
  const items: T[] = []
  const waiting: ((item: T) => void)[] = []
  return {
    next: () => {
      const item = items.shift()
      return item === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(item)
    },
    push(item) {
      const wake = waiting.shift()
      if (wake) wake(item)
      else items.push(item)
    },
  }
}
