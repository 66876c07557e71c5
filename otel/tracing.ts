/**
 * Spans of the sidecar. They are plain objects, as the SDK's exporters take them: the SDK's own spans, which check and
 * copy whatever they are given, would cost twice as much of each call.
 */
import { randomFillSync } from 'node:crypto'
import {
  type Attributes,
  type HrTime,
  type Link,
  ROOT_CONTEXT,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
} from '@opentelemetry/api'
import { hrTimeDuration, type InstrumentationScope } from '@opentelemetry/core'
import type { Resource } from '@opentelemetry/resources'
import { type ReadableSpan, type Sampler, SamplingDecision, type TimedEvent } from '@opentelemetry/sdk-trace'
import type { NewSpan, Span, Tracing } from '../sidecar/telemetry/tracing.ts'
import { hrTime } from './hr-time.ts'
import { extract, inject, isContextField } from './propagation.ts'

export interface TracingOptions {
  resource: Resource
  scope: InstrumentationScope
  sampling: Sampling
  /** told of every span that has ended */
  onEnd(span: ReadableSpan): void
  /** told of every span that begins */
  onStart?(span: ReadableSpan): void
}

/** Which calls are sampled. */
export interface Sampling {
  /** Is a call sampled where what it comes from is, and not where that is not? */
  parentBased: boolean
  /** decides on all others, by their trace ids alone */
  root: Sampler
}

const pool = Buffer.allocUnsafeSlow(4096)
let poolAt = pool.length

/** What the sidecar makes its spans with. */
export function createTracing(options: TracingOptions): Tracing {
  const { sampling } = options
  return {
    contextBelow(parent) {
      const traceId = parent?.traceId ?? newId(16)
      const sampled = isSampled(sampling, traceId, parent)
      if (!sampled && parent?.traceFlags === TraceFlags.NONE) return parent
      return contextOf(traceId, sampled ? TraceFlags.SAMPLED : TraceFlags.NONE, parent)
    },
    childOf: (parent) => contextOf(parent.traceId, parent.traceFlags, parent),
    begin(span) {
      const begun = new PlainSpan(span, options)
      options.onStart?.(begun)
      return begun
    },
    extract,
    inject,
    isContextField,
  }
}

function isSampled(
  { parentBased, root }: Sampling,
  traceId: string,
  parent: SpanContext | undefined,
): boolean {
  if (parentBased && parent) return (parent.traceFlags & TraceFlags.SAMPLED) !== 0
  const { decision } = root.shouldSample(ROOT_CONTEXT, traceId, '', SpanKind.SERVER, NO_ATTRIBUTES, NO_LINKS)
  return decision === SamplingDecision.RECORD_AND_SAMPLED
}

function contextOf(traceId: string, traceFlags: number, parent: SpanContext | undefined): SpanContext {
  const { traceState } = parent ?? {}
  const context = { traceId, spanId: newId(8), traceFlags }
  return traceState ? { ...context, traceState } : context
}

/** Random bytes in hex; a pool full of them costs as much as a few. */
function newId(bytes: number): string {
  if (poolAt + bytes > pool.length) {
    randomFillSync(pool)
    poolAt = 0
  }
  const id = pool.toString('hex', poolAt, poolAt + bytes)
  poolAt += bytes
  return id
}

const NO_ATTRIBUTES: Attributes = {}
const NO_LINKS: Link[] = []
const NO_EVENTS: TimedEvent[] = []
const NO_TIME: HrTime = [0, 0]
const UNSET = { code: SpanStatusCode.UNSET }
const ERROR = { code: SpanStatusCode.ERROR }

export class PlainSpan implements Span, ReadableSpan {
  readonly name: string
  readonly kind: SpanKind
  readonly context: SpanContext
  readonly attributes: Attributes
  readonly startTime: HrTime
  endTime = NO_TIME
  duration = NO_TIME
  status = UNSET
  links = NO_LINKS
  ended = false
  readonly events = NO_EVENTS
  readonly droppedAttributesCount = 0
  readonly droppedEventsCount = 0
  readonly droppedLinksCount = 0
  declare readonly parentSpanContext?: SpanContext
  readonly #options: TracingOptions

  constructor({ name, kind, context, parent, startMs, attributes }: NewSpan, options: TracingOptions) {
    this.name = name
    this.kind = kind
    this.context = context
    this.attributes = attributes
    this.startTime = hrTime(startMs)
    if (parent) this.parentSpanContext = parent
    this.#options = options
  }

  get resource(): Resource {
    return this.#options.resource
  }

  get instrumentationScope(): InstrumentationScope {
    return this.#options.scope
  }

  spanContext(): SpanContext {
    return this.context
  }

  set(name: string, value: string | number): void {
    this.attributes[name] = value
  }

  link(context: SpanContext): void {
    this.links = [...this.links, { context }]
  }

  end(endMs: number, isError: boolean): void {
    this.endTime = hrTime(endMs)
    this.duration = hrTimeDuration(this.startTime, this.endTime)
    if (isError) this.status = ERROR
    this.ended = true
    this.#options.onEnd(this)
  }
}
