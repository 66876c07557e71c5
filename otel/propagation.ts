/**
 * How a call says which trace it belongs to: read from its fields, and written into them.
 *
 * The propagators of OpenTelemetry are not used. Its W3C propagator keeps parts of a tracestate that is malformed or
 * too long, and writes flags of two digits as three; its B3 propagator takes a context from the middle of any text,
 * and ids in upper case; that for Jaeger is no longer kept up. All need a copied context and a carrier for each call.
 */
import type { SpanContext } from '@opentelemetry/api'
import { TraceState } from '@opentelemetry/core'
import type { Fields } from '../sidecar/call.ts'
import type { ContextFormat, Extracted } from '../sidecar/telemetry/tracing.ts'

/** W3C Trace Context section 3.2; of a version to come, whatever it has besides. */
const TRACEPARENT =
  /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/
const TRACEPARENT_00_CHARACTERS = 55
/** W3C Trace Context section 3.3.1. */
const TRACESTATE_MEMBER =
  /^((?:[a-z][a-z0-9_\-*/]{0,255})|(?:[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}))=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/
const TRACESTATE_MEMBERS_MAX = 32
const TRACESTATE_CHARACTERS_MAX = 512
/** https://github.com/openzipkin/b3-propagation */
const B3 = /^(?!0+-)([0-9a-f]{16}|[0-9a-f]{32})-(?!0{16})([0-9a-f]{16})(?:-([01d]))?(?:-[0-9a-f]{16})?$/
const B3_TRACE_ID = /^(?!0+$)(?:[0-9a-f]{16}|[0-9a-f]{32})$/
const B3_SPAN_ID = /^(?!0+$)[0-9a-f]{16}$/
const B3_SAMPLED = /^(?:1|true)$/i
const B3_STATE = /^(?:[01]|true|false)$/i
/** https://www.jaegertracing.io/docs/1.76/sdk-migration/#propagation-format; leading zeros may be left out. */
const UBER_TRACE_ID =
  /^(?!0+[:%])([0-9a-f]{1,32})(?::|%3a)(?!0+[:%])([0-9a-f]{1,16})(?::|%3a)[0-9a-f]{1,16}(?::|%3a)([0-9a-f]{1,2})$/i

/** Every field of the formats, those too that others leave behind and that say nothing here. */
const CONTEXT_FIELDS = new Set([
  'traceparent',
  'tracestate',
  'b3',
  'x-b3-traceid',
  'x-b3-spanid',
  'x-b3-parentspanid',
  'x-b3-sampled',
  'x-b3-flags',
  'uber-trace-id',
])
const SAMPLED = 1

/** A field that a head has twice, where it may have it once: no format takes it. */
const TWICE = ''

type Values = Map<string, string>

/** As `Tracing.isContextField` promises. */
export function isContextField(name: string): boolean {
  return CONTEXT_FIELDS.has(name)
}

/** As `Tracing.extract` promises. */
export function extract(fields: Fields): Extracted[] {
  const values = contextValues(fields)
  if (!values) return NONE
  const found: Extracted[] = []
  for (const [format, read] of READERS) {
    const context = read(values)
    if (context) found.push({ format, context })
  }
  return found
}

/** As `Tracing.inject` promises; the fields are the caller's to add to. */
export function inject(context: SpanContext, formats: readonly ContextFormat[]): Fields {
  const { traceId, spanId, traceFlags, traceState } = context
  const sampled = traceFlags & SAMPLED
  const fields = ['traceparent', `00-${traceId}-${spanId}-0${sampled}`]
  const state = traceState?.serialize()
  if (state) fields.push('tracestate', state)
  for (const format of formats) {
    if (format === 'b3') fields.push('b3', `${traceId}-${spanId}-${sampled}`)
    else if (format === 'b3multi')
      fields.push('x-b3-traceid', traceId, 'x-b3-spanid', spanId, 'x-b3-sampled', String(sampled))
    else if (format === 'jaeger') fields.push('uber-trace-id', `${traceId}:${spanId}:0:${sampled}`)
  }
  return fields
}

const NONE: Extracted[] = []

const READERS: readonly [ContextFormat, (values: Values) => SpanContext | undefined][] = [
  ['w3c', w3c],
  ['b3', b3],
  ['b3multi', b3multi],
  ['jaeger', jaeger],
]

function contextValues(fields: Fields): Values | undefined {
  let values: Values | undefined
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    if (!CONTEXT_FIELDS.has(name)) continue
    values ??= new Map()
    const value = fields[i + 1]!
    const before = values.get(name)
    if (before === undefined) values.set(name, value)
    else values.set(name, name === 'tracestate' ? `${before},${value}` : TWICE)
  }
  return values
}

function w3c(values: Values): SpanContext | undefined {
  const value = values.get('traceparent')
  if (value === undefined) return undefined
  const context = traceparent(value)
  if (!context) return undefined
  const state = values.get('tracestate')
  const traceState = state === undefined ? undefined : tracestate(state)
  return traceState ? { ...context, traceState } : context
}

/** A message and the request that carries it say the same, one after the other. */
let last: { value: string; context: SpanContext | undefined } = { value: '', context: undefined }

function traceparent(value: string): SpanContext | undefined {
  if (value !== last.value) last = { value, context: parsed(value) }
  return last.context
}

function parsed(value: string): SpanContext | undefined {
  const [, version, traceId, spanId, flags] = TRACEPARENT.exec(value) ?? []
  if (version === undefined || (version === '00' && value.length !== TRACEPARENT_00_CHARACTERS))
    return undefined
  return remote(traceId!, spanId!, (Number.parseInt(flags!, 16) & SAMPLED) === SAMPLED)
}

/** Of members with one key the first is kept, which is the newest; undefined where there is none, any is malformed, or all too long. */
function tracestate(value: string): TraceState | undefined {
  if (value.length > TRACESTATE_CHARACTERS_MAX) return undefined
  const members = new Map<string, string>()
  let count = 0
  for (const part of value.split(',')) {
    const member = part.replace(/^[ \t]+|[ \t]+$/g, '')
    if (member === '') continue
    const key = TRACESTATE_MEMBER.exec(member)?.[1]
    if (key === undefined || ++count > TRACESTATE_MEMBERS_MAX) return undefined
    if (!members.has(key)) members.set(key, member)
  }
  return members.size === 0 ? undefined : new TraceState([...members.values()].join(','))
}

function b3(values: Values): SpanContext | undefined {
  const value = values.get('b3')
  if (value === undefined) return undefined
  const [, traceId, spanId, state] = B3.exec(value) ?? []
  return traceId === undefined ? undefined : remote(traceId, spanId!, state === '1' || state === 'd')
}

function b3multi(values: Values): SpanContext | undefined {
  const traceId = values.get('x-b3-traceid')
  const spanId = values.get('x-b3-spanid')
  if (traceId === undefined || spanId === undefined) return undefined
  if (!B3_TRACE_ID.test(traceId) || !B3_SPAN_ID.test(spanId)) return undefined
  const state = values.get('x-b3-sampled') ?? '0'
  if (!B3_STATE.test(state)) return undefined
  return remote(traceId, spanId, values.get('x-b3-flags') === '1' || B3_SAMPLED.test(state))
}

function jaeger(values: Values): SpanContext | undefined {
  const value = values.get('uber-trace-id')
  if (value === undefined) return undefined
  const [, traceId, spanId, flags] = UBER_TRACE_ID.exec(value) ?? []
  if (traceId === undefined) return undefined
  const isSampled = (Number.parseInt(flags!, 16) & SAMPLED) === SAMPLED
  return remote(traceId.toLowerCase(), spanId!.toLowerCase().padStart(16, '0'), isSampled)
}

function remote(traceId: string, spanId: string, isSampled: boolean): SpanContext {
  return { traceId: traceId.padStart(32, '0'), spanId, traceFlags: isSampled ? SAMPLED : 0, isRemote: true }
}
