/** What the demonstration shows of traces: the call as a tree of spans, here and in a Jaeger where there is one. */
import type { IncomingHttpHeaders } from 'node:http'
import { type Attributes, type SpanContext, SpanKind } from '@opentelemetry/api'
import { exportAsConfigured, exportTo, Services, traceSpan } from '../otel/services.ts'
import { findJaeger, type Jaeger, startJaeger } from './demo-jaeger.ts'
import { baseUrl, Mistake } from './formats.ts'
import { type OtelExport, readOtelSettings } from './otel-settings.ts'
import type { Tracing } from './telemetry/tracing.ts'
import { formatTree, type TraceNode, type TraceSpan, traceTrees } from './trace-tree.ts'

type Spans = Awaited<ReturnType<Services['ended']>>
type Print = (line: string) => void

/** in the order in which a call goes through them */
const SERVICES = ['orders', 'orders-mte', 'billing-mte', 'billing']

/** The attributes that tell the story, as the tree names them: in full a line would not fit. */
const SHOWN: Readonly<Record<string, string>> = {
  'mte.direction': 'direction',
  'mte.role': 'role',
  'mte.input.size': 'in',
  'mte.output.size': 'out',
  'mte.chunk.count': 'chunks',
  'service.peer.name': 'peer',
  'server.address': 'server',
  'http.response.status_code': 'status',
  'mte.reject.code': 'reject',
  'error.type': 'error',
}

/** A span that an app makes. */
export interface AppSpan {
  /** that tell the next one which trace the call belongs to */
  headers: Record<string, string>
  end(status: number): void
}

/** Loads OpenTelemetry's SDK: to be imported only where something is traced. */
export class DemoTraces {
  readonly #services = new Services('orders')
  readonly #orders = this.#services.tracing('orders')
  readonly #billing = this.#services.tracing('billing')
  #spans: Spans = []
  #jaeger: Jaeger | undefined

  /** @param name of a sidecar */
  sidecar(name: string): Tracing {
    return this.#services.tracing(`${name}-mte`)
  }

  /** orders sends a call. */
  calls(method: string, host: string): AppSpan {
    const attributes = { 'http.request.method': method, 'server.address': host }
    return appSpan(this.#orders, method, SpanKind.CLIENT, attributes)
  }

  /** billing gets one. */
  serves(method: string, route: string, headers: IncomingHttpHeaders): AppSpan {
    const fields = Object.entries(headers).flatMap(([name, value]) => [name, String(value)])
    const attributes = { 'http.request.method': method, 'http.route': route }
    const [parent] = this.#billing.extract(fields)
    return appSpan(this.#billing, `${method} ${route}`, SpanKind.SERVER, attributes, parent?.context)
  }

  /**
   * Prints the trace of the first call.
   * @returns how many spans it has; 0 where they are not one tree through all services
   */
  async show(print: Print, columns: number): Promise<number> {
    this.#spans = await this.#services.ended()
    const spans = this.#spans.map(traceSpan)
    const trees = traceTrees(spans.map(inShort))
    print('The trace of the call. Each line is a span, below the one that caused it: who did')
    print('what, when that began and how long it took, in ms; in and out are bytes.\n')
    for (const tree of trees) print(formatTree(tree, columns))
    print('')
    return trees.length === 1 && goesThrough(trees[0]!, SERVICES) ? spans.length : 0
  }

  /** Hands the trace on: to where OpenTelemetry's variables say, or else to a Jaeger of its own. */
  async handOn(print: Print): Promise<void> {
    const { env } = process
    const { traces, mistakes } = readOtelSettings(env)
    if (mistakes.length > 0) print(`The trace is not exported:\n${mistakes.join('\n')}`)
    else if (traces?.exporter === 'otlp') await this.#export(print, traces, env.JAEGER_UI_URL)
    else await this.#handToJaeger(print, env.JAEGER_BIN)
    print('')
  }

  /** Leaves people time to look at Jaeger. @param atTerminal is there somebody to say when that is enough? */
  async wait(print: Print, atTerminal: boolean): Promise<void> {
    if (!this.#jaeger) return
    if (!atTerminal)
      return print('\nJaeger ends with the demo, as there is no terminal to wait for Ctrl-C at.')
    print('\nJaeger stays, with the trace at the address above. Ctrl-C ends it.')
    const interrupted = new Promise<undefined>((resolve) => {
      // Not once: Ctrl-C comes twice under npm, from the terminal and passed on.
      process.on('SIGINT', () => resolve(undefined))
    })
    const why = await Promise.race([interrupted, this.#jaeger.gone])
    if (why !== undefined) print(`Jaeger is not there any more: ${why}`)
  }

  async close(): Promise<void> {
    await this.#jaeger?.close()
  }

  async #export(print: Print, to: OtelExport, jaegerUiUrl: string | undefined): Promise<void> {
    const trouble = await exportAsConfigured(to, this.#spans)
    if (trouble !== undefined) return print(`The ${trouble}`)
    print(`The trace was sent to ${to.endpoint}: ${this.#traceId}`)
    if (!jaegerUiUrl) return
    try {
      print(this.#page(baseUrl(jaegerUiUrl)))
    } catch (error) {
      if (!(error instanceof Mistake)) throw error
      print(`JAEGER_UI_URL ${error.message}`)
    }
  }

  async #handToJaeger(print: Print, binary: string | undefined): Promise<void> {
    const program = await findJaeger(binary)
    if (!program) {
      print('To see it in Jaeger too, start docker, or set JAEGER_BIN to the program of Jaeger')
      print('(https://www.jaegertracing.io/download).')
      return
    }
    print(program.about)
    try {
      this.#jaeger = await startJaeger(program)
    } catch (error) {
      return print(`There is no Jaeger: ${(error as Error).message}`)
    }
    await exportTo(this.#jaeger.otlpUrl, this.#spans)
    if (await this.#jaeger.hasTrace(this.#traceId, this.#spans.length))
      print(`The trace is in Jaeger: ${this.#page(this.#jaeger.url)}`)
    else print('The trace has not arrived in Jaeger, or not all of it.')
  }

  get #traceId(): string {
    return this.#spans[0]!.spanContext().traceId
  }

  #page(jaegerUrl: string): string {
    return `${jaegerUrl}/trace/${this.#traceId}`
  }
}

function appSpan(
  tracing: Tracing,
  name: string,
  kind: SpanKind,
  attributes: Attributes,
  parent?: SpanContext,
): AppSpan {
  const context = tracing.contextBelow(parent)
  const span = tracing.begin({ name, kind, context, parent, startMs: performance.now(), attributes })
  const fields = tracing.inject(context, [])
  return {
    headers: { [fields[0]!]: fields[1]! },
    end(status) {
      span.set('http.response.status_code', status)
      span.end(performance.now(), false)
    },
  }
}

function inShort(span: TraceSpan): TraceSpan {
  const shown = Object.entries(SHOWN).filter(([name]) => span.attributes[name] !== undefined)
  return {
    ...span,
    attributes: Object.fromEntries(shown.map(([name, short]) => [short, span.attributes[name]!])),
  }
}

/** Is there a way down the tree that comes by all services in their order? */
function goesThrough({ service, children }: TraceNode, services: readonly string[]): boolean {
  const left = service === services[0] ? services.slice(1) : services
  return left.length === 0 || children.some((child) => goesThrough(child, left))
}
