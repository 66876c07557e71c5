/**
 * Spans of the sidecar as OTLP writes them in Protocol Buffers, byte by byte as the SDK's serializer would. That one
 * goes over everything twice, and writes names and values of attributes letter by letter, of which there are few.
 *
 * https://github.com/open-telemetry/opentelemetry-proto, trace/v1/trace.proto
 */
import type { HrTime, SpanContext } from '@opentelemetry/api'
import type { InstrumentationScope } from '@opentelemetry/core'
import {
  type IExportTraceServiceResponse,
  type ISerializer,
  ProtobufTraceSerializer,
} from '@opentelemetry/otlp-transformer'
import type { Resource } from '@opentelemetry/resources'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { PlainSpan } from './tracing.ts'

type Scalar = string | number | boolean

/** Tags: number of the field, and how its value is written. */
const RESOURCE_SPANS = 0x0a
const RESOURCE = 0x0a
const RESOURCE_ATTRIBUTE = 0x0a
const SCOPE_SPANS = 0x12
const SCOPE = 0x0a
const SPAN = 0x12
const SPAN_ATTRIBUTE = 0x4a
/** Bits of a span's flags besides W3C's: it is known whether the parent is another service's, and it is. */
const REMOTE_KNOWN = 0x100
const REMOTE = 0x200
const SPAN_BYTES = 512
/** Attributes of which the bytes are kept: most have one of few values. */
const KEPT_VALUES_MAX = 256
const KEPT_NAMES_MAX = 64

export const traceSerializer: ISerializer<ReadableSpan[], IExportTraceServiceResponse> = {
  serializeRequest(spans) {
    const plain: PlainSpan[] = []
    const others: ReadableSpan[] = []
    for (const span of spans) {
      if (span instanceof PlainSpan && span.links.length === 0 && span.resource === plain[0]?.resource)
        plain.push(span)
      else if (span instanceof PlainSpan && span.links.length === 0 && plain.length === 0) plain.push(span)
      else others.push(span)
    }
    if (plain.length === 0) return ProtobufTraceSerializer.serializeRequest(others)
    const request = serialized(plain)
    // One message behind the other is both of them together.
    const more = others.length > 0 ? ProtobufTraceSerializer.serializeRequest(others) : undefined
    return more ? Buffer.concat([request, more]) : request
  },
  deserializeResponse: (bytes) => ProtobufTraceSerializer.deserializeResponse(bytes),
}

function serialized(spans: readonly PlainSpan[]): Buffer {
  const { resource, instrumentationScope } = spans[0]!
  const writer = new Writer(spans.length * SPAN_BYTES)
  for (const span of spans) writer.span(span)
  const scope = scopeBytes(instrumentationScope)
  const resourceHead = resourceBytes(resource)
  const scopeSpans = prefixed(SCOPE_SPANS, scope.length + writer.at)
  return Buffer.concat([
    prefixed(RESOURCE_SPANS, resourceHead.length + scopeSpans.length + scope.length + writer.at),
    resourceHead,
    scopeSpans,
    scope,
    writer.bytes.subarray(0, writer.at),
  ])
}

function resourceBytes({ attributes }: Resource): Buffer {
  const pieces = Object.entries(attributes).map(([name, value]) =>
    keyValue(RESOURCE_ATTRIBUTE, name, value as Scalar),
  )
  return delimited(RESOURCE, ...pieces, Buffer.of(0x10, 0))
}

function scopeBytes({ name, version }: InstrumentationScope): Buffer {
  return delimited(SCOPE, string(0x0a, name), version ? string(0x12, version) : NOTHING)
}

/** Writes spans one behind the other. */
class Writer {
  bytes: Buffer
  at = 0

  constructor(size: number) {
    this.bytes = Buffer.allocUnsafe(size)
  }

  span(span: PlainSpan): void {
    const { context, parentSpanContext, name, kind, startTime, endTime, status, attributes } = span
    const state = context.traceState?.serialize()
    const values: Buffer[] = []
    // Ids, times, kind, counts, status and flags: at most 90 bytes.
    let size = 96 + 3 * name.length + (state ? 3 * state.length : 0)
    for (const key in attributes) {
      const bytes = attributeBytes(key, attributes[key] as Scalar)
      size += bytes.length
      values.push(bytes)
    }
    this.#room(size + 6)
    const start = this.at
    // For the tag, and a length of two bytes, as nearly every span has.
    this.at += 3
    this.#id(0x0a, context.traceId)
    this.#id(0x12, context.spanId)
    if (state) this.#string(0x1a, state)
    if (parentSpanContext) this.#id(0x22, parentSpanContext.spanId)
    this.#string(0x2a, name)
    this.bytes[this.at++] = 0x30
    this.bytes[this.at++] = kind + 1
    this.#time(0x39, startTime)
    this.#time(0x41, endTime)
    for (const bytes of values) {
      this.bytes.set(bytes, this.at)
      this.at += bytes.length
    }
    // Nothing was dropped: of attributes, events and links.
    for (const tag of [0x50, 0x60, 0x70]) {
      this.bytes[this.at++] = tag
      this.bytes[this.at++] = 0
    }
    this.bytes[this.at++] = 0x7a
    this.bytes[this.at++] = 2
    this.bytes[this.at++] = 0x18
    this.bytes[this.at++] = status.code
    this.#flags(context, parentSpanContext)
    this.#length(start)
  }

  /** Writes tag and length in front of what has been written since `start`. */
  #length(start: number): void {
    const length = this.at - start - 3
    const prefix = prefixed(SPAN, length)
    if (prefix.length !== 3) {
      this.bytes.copyWithin(start + prefix.length, start + 3, this.at)
      this.at += prefix.length - 3
    }
    this.bytes.set(prefix, start)
  }

  #room(size: number): void {
    if (this.at + size <= this.bytes.length) return
    const grown = Buffer.allocUnsafe(2 * this.bytes.length + size)
    grown.set(this.bytes.subarray(0, this.at))
    this.bytes = grown
  }

  #id(tag: number, hex: string): void {
    const { bytes } = this
    bytes[this.at++] = tag
    bytes[this.at++] = hex.length / 2
    for (let i = 0; i < hex.length; i += 2)
      bytes[this.at++] = (NIBBLES[hex.charCodeAt(i)]! << 4) | NIBBLES[hex.charCodeAt(i + 1)]!
  }

  #string(tag: number, text: string): void {
    const bytes = string(tag, text)
    this.bytes.set(bytes, this.at)
    this.at += bytes.length
  }

  /** In ns since 1970, which are more than a number holds: a second is 1,953,125 times 512 of them. */
  #time(tag: number, [seconds, nanos]: HrTime): void {
    const of512 = seconds * 1_953_125
    const low = (of512 % 2 ** 23) * 512 + nanos
    this.bytes[this.at++] = tag
    this.bytes.writeUInt32LE(low % 2 ** 32, this.at)
    this.bytes.writeUInt32LE(Math.floor(of512 / 2 ** 23) + (low >= 2 ** 32 ? 1 : 0), this.at + 4)
    this.at += 8
  }

  #flags({ traceFlags }: SpanContext, parent: SpanContext | undefined): void {
    this.bytes[this.at++] = 0x85
    this.bytes[this.at++] = 0x01
    this.bytes.writeUInt32LE((traceFlags & 0xff) | REMOTE_KNOWN | (parent?.isRemote ? REMOTE : 0), this.at)
    this.at += 4
  }
}

/** By name and value. */
const kept = new Map<string, Map<Scalar, Buffer>>()

function attributeBytes(name: string, value: Scalar): Buffer {
  let values = kept.get(name)
  const known = values?.get(value)
  if (known) return known
  const bytes = keyValue(SPAN_ATTRIBUTE, name, value)
  if (!values && kept.size < KEPT_NAMES_MAX) {
    values = new Map()
    kept.set(name, values)
  }
  if (values && values.size < KEPT_VALUES_MAX) values.set(value, bytes)
  return bytes
}

function keyValue(tag: number, name: string, value: Scalar): Buffer {
  return delimited(tag, string(0x0a, name), delimited(0x12, anyValue(value)))
}

function anyValue(value: Scalar): Buffer {
  if (typeof value === 'string') return string(0x0a, value)
  if (typeof value === 'boolean') return Buffer.of(0x10, value ? 1 : 0)
  if (Number.isSafeInteger(value) && value >= 0) return Buffer.of(0x18, ...varint(value))
  if (Number.isInteger(value) && Math.abs(value) < 2 ** 63) return Buffer.of(0x18, ...int64(value))
  const double = Buffer.alloc(9, 0x21)
  double.writeDoubleLE(value, 1)
  return double
}

function string(tag: number, text: string): Buffer {
  return delimited(tag, Buffer.from(text))
}

function delimited(tag: number, ...pieces: Buffer[]): Buffer {
  let length = 0
  for (const piece of pieces) length += piece.length
  return Buffer.concat([prefixed(tag, length), ...pieces])
}

function prefixed(tag: number, length: number): Buffer {
  return Buffer.of(tag, ...varint(length))
}

function varint(value: number): number[] {
  const bytes: number[] = []
  for (; value > 0x7f; value = Math.floor(value / 128)) bytes.push((value % 128) | 0x80)
  bytes.push(value)
  return bytes
}

/** What is negative, or too much for a number to be exact. */
function int64(value: number): number[] {
  const bytes: number[] = []
  let left = BigInt.asUintN(64, BigInt(value))
  for (; left > 0x7fn; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80)
  bytes.push(Number(left))
  return bytes
}

const NOTHING = Buffer.alloc(0)
const NIBBLES = new Uint8Array(0x80)
for (let nibble = 0; nibble < 16; nibble++) NIBBLES[nibble.toString(16).charCodeAt(0)] = nibble
