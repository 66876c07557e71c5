/** Two apps that make spans of their own and export them: one that calls, and one that is called. */
import type http from 'node:http'
import { type Context, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { protobufTraceExporter } from '../../otel/exporters.ts'
import { hrTime } from '../../otel/hr-time.ts'
import { extract, inject } from '../../otel/propagation.ts'
import { fieldsFromRaw } from '../../sidecar/http/fields.ts'
import { type CallAnswer, type CallOptions, call } from './call.ts'
import { type Server, startServer } from './sidecars.ts'

/** What makes spans in the name of a service. */
class Service {
  readonly #tracer
  readonly #provider

  constructor(name: string, otlpUrl: string) {
    this.#provider = new TracerProvider({
      resource: resourceFromAttributes({ 'service.name': name }),
      spanProcessors: [
        new SimpleSpanProcessor({ exporter: protobufTraceExporter({ url: `${otlpUrl}/v1/traces` }) }),
      ],
    })
    this.#tracer = this.#provider.getTracer('test')
  }

  begin(name: string, kind: SpanKind, attributes: Record<string, string>, above: Context): Span {
    const startTime = hrTime(performance.now())
    return this.#tracer.startSpan(name, { kind, startTime, attributes }, above)
  }

  end(span: Span, status: number, isError: boolean): void {
    span.setAttribute('http.response.status_code', status)
    if (isError) span.setStatus({ code: SpanStatusCode.ERROR })
    span.end(hrTime(performance.now()))
  }

  close(): Promise<void> {
    return this.#provider.shutdown()
  }
}

export interface CallingApp {
  /** Makes a call of `billing` in a trace of its own. */
  call(port: number, options: CallOptions): Promise<{ traceId: string; answer: CallAnswer }>
  close(): Promise<void>
}

/** The app `orders`. @param otlpUrl base URL of OTLP over HTTP */
export function callingApp(otlpUrl: string): CallingApp {
  const service = new Service('orders', otlpUrl)
  return {
    async call(port, options) {
      const { method = 'GET' } = options
      const attributes = { 'http.request.method': method, 'server.address': 'billing' }
      const span = service.begin(method, SpanKind.CLIENT, attributes, ROOT_CONTEXT)
      const [name, value] = inject(span.spanContext(), [])
      const answer = await call(port, { ...options, headers: { [name!]: value! } })
      service.end(span, answer.status, answer.status >= 400)
      return { traceId: span.spanContext().traceId, answer }
    },
    close: () => service.close(),
  }
}

/** The app `billing`: reads what it is sent, and says how much that was. @param otlpUrl base URL of OTLP over HTTP */
export async function startCalledApp(otlpUrl: string): Promise<Server> {
  const service = new Service('billing', otlpUrl)
  const server = await startServer(async (request: http.IncomingMessage, response: http.ServerResponse) => {
    const [above] = extract(fieldsFromRaw(request.rawHeaders))
    const context = above ? trace.setSpanContext(ROOT_CONTEXT, above.context) : ROOT_CONTEXT
    const attributes = { 'http.request.method': request.method!, 'http.route': '/v1/charges' }
    const span = service.begin(`${request.method} /v1/charges`, SpanKind.SERVER, attributes, context)
    let bytes = 0
    for await (const piece of request) bytes += piece.length
    service.end(span, 200, false)
    response.end(String(bytes))
  })
  return {
    ...server,
    async close() {
      await server.close()
      await service.close()
    },
  }
}
