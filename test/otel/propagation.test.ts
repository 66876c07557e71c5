/** After the test cases of W3C (https://github.com/w3c/trace-context/blob/main/test/test.py), and those of B3 and Jaeger. */
import assert from 'node:assert/strict'
import type { SpanContext } from '@opentelemetry/api'
import fc from 'fast-check'
import { extract, inject, isContextField } from '../../otel/propagation.ts'
import type { ContextFormat, Extracted } from '../../sidecar/telemetry/tracing.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('propagation')
const TRACE = '12345678901234567890123456789012'
const SPAN = '1234567890123456'
const PARENT = `00-${TRACE}-${SPAN}-01`
const FORMATS: ContextFormat[] = ['w3c', 'b3', 'b3multi', 'jaeger']

/** The only context of these fields, as text; '' when there is none. */
function told(...fields: string[]): string {
  const [found, ...others] = extract(fields)
  assert.deepEqual(others, [])
  return found ? text(found) : ''
}

function text({ format, context: { traceId, spanId, traceFlags, isRemote } }: Extracted): string {
  assert.equal(isRemote, true)
  return `${format} ${traceId} ${spanId} ${traceFlags}`
}

function state(...fields: string[]): string | undefined {
  return extract(['traceparent', PARENT, ...fields])[0]!.context.traceState?.serialize()
}

test('a head without a context has none', () => {
  assert.deepEqual(extract([]), [])
  assert.deepEqual(extract(['content-type', 'text/plain', 'baggage', 'a=b', 'tracestate', 'a=b']), [])
})

test('traceparent is read as W3C says', () => {
  const sampled = `w3c ${TRACE} ${SPAN} 1`
  const cases: [string, string][] = [
    [PARENT, sampled],
    [`00-${TRACE}-${SPAN}-00`, `w3c ${TRACE} ${SPAN} 0`],
    [`00-${TRACE}-${SPAN}-ff`, sampled],
    [`00-${TRACE}-${SPAN}-02`, `w3c ${TRACE} ${SPAN} 0`],
    // of a version to come
    [`cc-${TRACE}-${SPAN}-01`, sampled],
    [`cc-${TRACE}-${SPAN}-01-what-the-future-will-be-like`, sampled],
    [`cc-${TRACE}-${SPAN}-01.what-the-future-will-not-be-like`, ''],
    [`00-${TRACE}-${SPAN}-01-what-the-future-will-be-like`, ''],
    [`00-${TRACE}-${SPAN}-01-`, ''],
    [`ff-${TRACE}-${SPAN}-01`, ''],
    // of another form
    ['', ''],
    [`.0-${TRACE}-${SPAN}-01`, ''],
    [`0-${TRACE}-${SPAN}-01`, ''],
    [`000-${TRACE}-${SPAN}-01`, ''],
    [`00-${TRACE.replace('1', '.')}-${SPAN}-01`, ''],
    [`00-${TRACE.slice(1)}-${SPAN}-01`, ''],
    [`00-${TRACE}1-${SPAN}-01`, ''],
    [`00-${'0'.repeat(32)}-${SPAN}-01`, ''],
    [`00-${TRACE}-${SPAN.replace('1', '.')}-01`, ''],
    [`00-${TRACE}-${SPAN.slice(1)}-01`, ''],
    [`00-${TRACE}-${SPAN}1-01`, ''],
    [`00-${TRACE}-${'0'.repeat(16)}-01`, ''],
    [`00-${TRACE}-${SPAN}-.0`, ''],
    [`00-${TRACE}-${SPAN}-1`, ''],
    [`00-${TRACE}-${SPAN}-001`, ''],
    [`00-${TRACE}-${SPAN}`, ''],
    [`00-${TRACE.replace('1', 'A')}-${SPAN}-01`, ''],
    [`00-${TRACE}-${SPAN.replace('1', 'A')}-01`, ''],
    [`0A-${TRACE}-${SPAN}-01`, ''],
    [`00-${TRACE}-${SPAN}-0A`, ''],
    [`00${TRACE}${SPAN}01`, ''],
  ]
  for (const [value, expected] of cases) assert.equal(told('traceparent', value), expected, value)
})

test('a head with two traceparents has none, equal ones too', () => {
  assert.equal(told('traceparent', PARENT, 'traceparent', PARENT), '')
  assert.equal(told('traceparent', PARENT, 'traceparent', ''), '')
})

test('tracestate is read as W3C says, and dropped as a whole where it is malformed or beyond the limits', () => {
  const keyOf = (length: number) => 'z'.repeat(length)
  const members = (count: number) => Array.from({ length: count }, (_, i) => `bar${i}=${i}`).join()
  const cases: [string, string | undefined][] = [
    ['foo=1', 'foo=1'],
    ['foo=1,bar=2', 'foo=1,bar=2'],
    [' \t foo=1 \t , \t bar=2, \t baz=3', 'foo=1,bar=2,baz=3'],
    ['foo=1,,bar=2,', 'foo=1,bar=2'],
    ['fw529a3039@dt=FfUMr, a-_*/0=!~ x', 'fw529a3039@dt=FfUMr,a-_*/0=!~ x'],
    [`${keyOf(256)}=1`, `${keyOf(256)}=1`],
    [`${'t'.repeat(241)}@${'v'.repeat(14)}=1`, `${'t'.repeat(241)}@${'v'.repeat(14)}=1`],
    [`foo=${'x'.repeat(256)}`, `foo=${'x'.repeat(256)}`],
    [members(32), members(32)],
    // of keys that are there twice the first counts
    ['foo=1,foo=1', 'foo=1'],
    ['foo=1,bar=3,foo=2', 'foo=1,bar=3'],
    // malformed
    ['foo', undefined],
    ['foo=', undefined],
    ['=1', undefined],
    ['foo =1', undefined],
    ['FOO=1', undefined],
    ['foo.bar=1', undefined],
    ['foo@=1,bar=2', undefined],
    ['@foo=1,bar=2', undefined],
    ['foo@@bar=1,bar=2', undefined],
    ['foo@bar@baz=1,bar=2', undefined],
    ['foo=1,bar=2=3', undefined],
    ['foo=\u00e4', undefined],
    ['foo=1;bar', 'foo=1;bar'],
    // beyond the limits
    [`foo=1,${keyOf(257)}=1`, undefined],
    [`foo=1,${'t'.repeat(242)}@v=1`, undefined],
    [`foo=1,t@${'v'.repeat(15)}=1`, undefined],
    [`foo=1,bar=${'x'.repeat(257)}`, undefined],
    [members(33), undefined],
    [`a=${'x'.repeat(250)},b=${'x'.repeat(256)}`, `a=${'x'.repeat(250)},b=${'x'.repeat(256)}`],
    [`a=${'x'.repeat(251)},b=${'x'.repeat(256)}`, `a=${'x'.repeat(251)},b=${'x'.repeat(256)}`],
    [`a=${'x'.repeat(252)},b=${'x'.repeat(256)}`, undefined],
  ]
  for (const [value, expected] of cases) assert.equal(state('tracestate', value), expected, value)
  assert.equal(state('tracestate', 'foo=1', 'tracestate', '', 'tracestate', 'bar=2'), 'foo=1,bar=2')
  assert.equal(state(), undefined)
  assert.equal(state('tracestate', ' , '), undefined)
})

test('b3 in one field is read, and 64 bits of a trace id are padded', () => {
  const short = `b3 ${SPAN.padStart(32, '0')} ${SPAN}`
  const cases: [string, string][] = [
    [`${TRACE}-${SPAN}-1`, `b3 ${TRACE} ${SPAN} 1`],
    [`${TRACE}-${SPAN}-d`, `b3 ${TRACE} ${SPAN} 1`],
    [`${TRACE}-${SPAN}-0`, `b3 ${TRACE} ${SPAN} 0`],
    [`${TRACE}-${SPAN}`, `b3 ${TRACE} ${SPAN} 0`],
    [`${TRACE}-${SPAN}-1-05e3ac9a4f6e3b90`, `b3 ${TRACE} ${SPAN} 1`],
    [`${SPAN}-${SPAN}-1`, `${short} 1`],
    ['0', ''],
    ['1', ''],
    ['d', ''],
    [`${TRACE}-${SPAN}-2`, ''],
    [`${TRACE}-${SPAN}-1-`, ''],
    [`${TRACE}-${SPAN}-1-05e3`, ''],
    [`${TRACE}-${SPAN}-1-05e3ac9a4f6e3b90-1`, ''],
    [`junk${TRACE}-${SPAN}-1junk`, ''],
    [`${TRACE.replace('1', 'A')}-${SPAN}-1`, ''],
    [`${TRACE.slice(1)}-${SPAN}-1`, ''],
    [`${'0'.repeat(32)}-${SPAN}-1`, ''],
    [`${'0'.repeat(16)}-${SPAN}-1`, ''],
    [`${TRACE}-${'0'.repeat(16)}-1`, ''],
  ]
  for (const [value, expected] of cases) assert.equal(told('b3', value), expected, value)
  assert.equal(told('b3', `${TRACE}-${SPAN}-1`, 'b3', `${TRACE}-${SPAN}-1`), '')
})

test('b3 in several fields is read', () => {
  const ids = ['x-b3-traceid', TRACE, 'x-b3-spanid', SPAN]
  const cases: [string[], string][] = [
    [[...ids, 'x-b3-sampled', '1'], `b3multi ${TRACE} ${SPAN} 1`],
    [[...ids, 'x-b3-sampled', 'true'], `b3multi ${TRACE} ${SPAN} 1`],
    [[...ids, 'x-b3-sampled', '0'], `b3multi ${TRACE} ${SPAN} 0`],
    [[...ids, 'x-b3-sampled', 'false', 'x-b3-parentspanid', SPAN], `b3multi ${TRACE} ${SPAN} 0`],
    [[...ids, 'x-b3-flags', '1'], `b3multi ${TRACE} ${SPAN} 1`],
    [[...ids, 'x-b3-flags', '0'], `b3multi ${TRACE} ${SPAN} 0`],
    [ids, `b3multi ${TRACE} ${SPAN} 0`],
    [['x-b3-traceid', SPAN, 'x-b3-spanid', SPAN], `b3multi ${SPAN.padStart(32, '0')} ${SPAN} 0`],
    [['x-b3-sampled', '0'], ''],
    [ids.slice(0, 2), ''],
    [ids.slice(2), ''],
    [[...ids, 'x-b3-sampled', 'd'], ''],
    [[...ids, 'x-b3-spanid', SPAN], ''],
    [['x-b3-traceid', TRACE.replace('1', 'A'), ...ids.slice(2)], ''],
    [['x-b3-traceid', '0'.repeat(32), ...ids.slice(2)], ''],
    [[...ids.slice(0, 2), 'x-b3-spanid', '0'.repeat(16)], ''],
    [[...ids.slice(0, 2), 'x-b3-spanid', TRACE], ''],
  ]
  for (const [fields, expected] of cases) assert.equal(told(...fields), expected, fields.join())
})

test("Jaeger's uber-trace-id is read, without leading zeros and percent-encoded too", () => {
  const cases: [string, string][] = [
    [`${TRACE}:${SPAN}:0:1`, `jaeger ${TRACE} ${SPAN} 1`],
    [`${TRACE}:${SPAN}:${SPAN}:03`, `jaeger ${TRACE} ${SPAN} 1`],
    [`${TRACE}:${SPAN}:0:0`, `jaeger ${TRACE} ${SPAN} 0`],
    [`${TRACE}%3A${SPAN}%3a0%3A1`, `jaeger ${TRACE} ${SPAN} 1`],
    ['ABC:1f:0:1', `jaeger ${'abc'.padStart(32, '0')} ${'1f'.padStart(16, '0')} 1`],
    [`${TRACE}:${SPAN}:0:100`, ''],
    [`${TRACE}:${SPAN}:0:x`, ''],
    [`${TRACE}:${SPAN}:0`, ''],
    [`${TRACE}:${SPAN}:0:1:1`, ''],
    [`${TRACE}1:${SPAN}:0:1`, ''],
    [`${TRACE}:${SPAN}1:0:1`, ''],
    [`0:${SPAN}:0:1`, ''],
    [`${TRACE}:00:0:1`, ''],
    ['%3A%3A%3A', ''],
  ]
  for (const [value, expected] of cases) assert.equal(told('uber-trace-id', value), expected, value)
})

test("contexts in several formats are all read, W3C's first", () => {
  const fields = [
    'uber-trace-id',
    '1:1:0:1',
    'x-b3-spanid',
    SPAN,
    'x-b3-traceid',
    SPAN,
    'b3',
    `${TRACE}-${SPAN}-1`,
  ]
  assert.deepEqual(
    extract([...fields, 'traceparent', PARENT]).map(({ format }) => format),
    FORMATS,
  )
  assert.deepEqual(
    extract([...fields, 'traceparent', 'x']).map(({ format }) => format),
    FORMATS.slice(1),
  )
})

test("a context is told in W3C's format once, and in those that are named", () => {
  const context = { traceId: TRACE, spanId: SPAN, traceFlags: 1 }
  const w3c = ['traceparent', PARENT]
  assert.deepEqual(inject(context, []), w3c)
  assert.deepEqual(inject(context, ['w3c']), w3c)
  assert.deepEqual(inject({ ...context, traceFlags: 0 }, []), ['traceparent', `00-${TRACE}-${SPAN}-00`])
  assert.deepEqual(inject({ ...context, traceFlags: 0xff }, []), w3c)
  assert.deepEqual(inject(context, FORMATS), [
    ...w3c,
    ...['b3', `${TRACE}-${SPAN}-1`],
    ...['x-b3-traceid', TRACE, 'x-b3-spanid', SPAN, 'x-b3-sampled', '1'],
    ...['uber-trace-id', `${TRACE}:${SPAN}:0:1`],
  ])
  const [received] = extract(['traceparent', PARENT, 'tracestate', 'foo=1, bar=2'])
  assert.deepEqual(inject(received!.context, []), [...w3c, 'tracestate', 'foo=1,bar=2'])
})

test('whatever is told is read as it was', () => {
  const hex = (length: number) =>
    fc
      .array(fc.constantFrom(...'0123456789abcdef'), { minLength: length, maxLength: length })
      .map((digits) => digits.join(''))
      .filter((id) => /[^0]/.test(id))
  const contexts = fc.record({ traceId: hex(32), spanId: hex(16), traceFlags: fc.constantFrom(0, 1) })
  fc.assert(
    fc.property(contexts, fc.subarray(FORMATS), (context: SpanContext, formats) => {
      const fields = inject(context, formats)
      for (let i = 0; i < fields.length; i += 2) assert.ok(isContextField(fields[i]!))
      const expected = FORMATS.filter((format) => format === 'w3c' || formats.includes(format))
      const remote = { ...context, isRemote: true }
      assert.deepEqual(
        extract(fields),
        expected.map((format) => ({ format, context: remote })),
      )
    }),
    runs(500),
  )
})

test('no text makes it throw, or gives a context that is not valid', () => {
  const names = [
    'traceparent',
    'tracestate',
    'b3',
    'x-b3-traceid',
    'x-b3-spanid',
    'x-b3-sampled',
    'uber-trace-id',
  ]
  const near = fc
    .array(
      fc.constantFrom('00', 'ff', TRACE, SPAN, '0'.repeat(16), '0', '1', 'd', '-', ':', '%3A', ',', '=', 'A'),
    )
    .map((parts) => parts.join(''))
  const broken = fc
    .tuple(
      fc.constantFrom(PARENT, `${TRACE}-${SPAN}-1`, `${TRACE}:${SPAN}:0:1`, 'foo=1,bar=2'),
      fc.nat(),
      fc.string(),
    )
    .map(([whole, at, piece]) => {
      const place = at % (whole.length + 1)
      return whole.slice(0, place) + piece + whole.slice(place + 1)
    })
  const field = fc.tuple(fc.constantFrom(...names), fc.oneof(near, broken, fc.string({ maxLength: 600 })))
  fc.assert(
    fc.property(fc.array(field, { maxLength: 8 }), (fields) => {
      for (const { context } of extract(['traceparent', PARENT, ...fields.flat()])) {
        assert.match(context.traceId, /^(?!0{32})[0-9a-f]{32}$/)
        assert.match(context.spanId, /^(?!0{16})[0-9a-f]{16}$/)
        assert.ok(context.traceFlags === 0 || context.traceFlags === 1)
        const again = extract(inject(context, [])).map((one) => one.context)
        assert.equal(again[0]!.traceState?.serialize() || '', context.traceState?.serialize() || '')
      }
    }),
    runs(2000),
  )
})

test('a sidecar reads the contexts of a call in less than it takes to notice', () => {
  const others = Array.from({ length: 28 }, (_, i) => (i % 2 === 0 ? `x-header-${i}` : 'value'))
  const fields = [...others, 'traceparent', PARENT, 'tracestate', 'congo=t61rcWkgMzE,rojo=00f067aa0ba902b7']
  const calls = 20_000
  let fastestMs = Number.POSITIVE_INFINITY
  for (let round = 0; round < 5; round++) {
    const beganMs = performance.now()
    for (let i = 0; i < calls; i++) inject(extract(fields)[0]!.context, ['w3c'])
    fastestMs = Math.min(fastestMs, performance.now() - beganMs)
  }
  const microseconds = (fastestMs / calls) * 1000
  assert.ok(microseconds < 20, `${microseconds} us, and it was 2 when this was written`)
})

test.run()
