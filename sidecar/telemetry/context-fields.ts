/** Trace contexts of others, where this sidecar makes no spans: they are passed on, and joined with what a mesh makes of them. */
import type { Fields } from '../call.ts'
import { field } from '../http/fields.ts'

/** W3C Trace Context section 3.2: version, trace id, parent id, flags; later versions may say more after them. */
const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$/
const TRACESTATE_BYTES_MAX = 512

interface Found {
  traceId: string
  fields: Fields
}

/** The trace context of a head, which its proxies may see and continue; nothing where it has none that is valid. */
export function contextFields(fields: Fields): Fields {
  return find(fields)?.fields ?? NONE
}

/**
 * The fields of a message with the context that its outer head has, where that is of the same trace: then proxies
 * between the sidecars have added spans to it.
 */
export function withOuterContext(inner: Fields, outer: Fields): Fields {
  if (field(inner, 'traceparent') === undefined) return inner
  const own = find(inner)
  const continued = own && find(outer)
  if (!continued || continued.traceId !== own.traceId) return inner
  const rest: Fields = []
  for (let i = 0; i < inner.length; i += 2)
    if (!isContextField(inner[i]!)) rest.push(inner[i]!, inner[i + 1]!)
  return [...rest, ...continued.fields]
}

function find(fields: Fields): Found | undefined {
  let parent: string | undefined
  const states: string[] = []
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === 'tracestate') states.push(fields[i + 1]!)
    else if (fields[i] === 'traceparent') {
      if (parent !== undefined) return undefined
      parent = fields[i + 1]!
    }
  }
  const [, version, traceId, more] = (parent && TRACEPARENT.exec(parent)) || []
  if (traceId === undefined || (version === '00' && more !== undefined)) return undefined
  const state = states.join(',')
  const kept = state !== '' && state.length <= TRACESTATE_BYTES_MAX ? ['tracestate', state] : []
  return { traceId, fields: ['traceparent', parent!, ...kept] }
}

function isContextField(name: string): boolean {
  return name === 'traceparent' || name === 'tracestate'
}

const NONE: Fields = []
