/** Contexts that are none: they make no call fail, and a trace of its own begins. */
import assert from 'node:assert/strict'
import { call } from './support/call.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type Pair, startPair } from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { keepSpans, labelOf, spanOf, treeOf } from './support/tracing.ts'

const test = suite('traces: malformed contexts')

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const SPAN = 'b7ad6b7169203331'
const VALID = `00-${TRACE}-${SPAN}-01`
const ZEROS = '0'.repeat(32)

const spans = keepSpans()
let app: Recorder
let pair: Pair

test.before(async () => {
  app = await startRecorder('done')
  pair = await startPair(
    app.port,
    {},
    {
      orders: spans.tracing('orders-mte'),
      billing: spans.tracing('billing-mte'),
    },
  )
  await call(pair.orders.port('outbound'))
})

test.after(async () => {
  await pair.close()
  await app.close()
  assert.deepEqual(spans.open().map(labelOf), [], 'spans that never ended')
})

/** Makes a call; what the called app got, the trace that it says it is of, and what is above that. */
async function traced(headers: string[]) {
  const answer = await call(pair.orders.port('outbound'), { headers })
  assert.deepEqual([answer.status, answer.text], [200, 'done'])
  const got = app.last().headers
  const [, traceId] = (got.traceparent as string).split('-')
  const all = await spans.trace(traceId!, 2)
  return { got, traceId, all, parent: spanOf(all, 'orders-mte GET SERVER').parentSpanContext }
}

const LONG = 'a'.repeat(10_000)

const NONE: Record<string, string[][]> = {
  traceparent: [
    ...['', ' ', '-', '---', '00', 'x', LONG, VALID.slice(0, -1), `${VALID}0`, `${VALID}-`, `${VALID}-00`],
    ...[
      VALID.toUpperCase(),
      `ff-${TRACE}-${SPAN}-01`,
      `00-${ZEROS}-${SPAN}-01`,
      `00-${TRACE}-${'0'.repeat(16)}-01`,
    ],
    ...[
      `00-${TRACE.slice(1)}-${SPAN}-01`,
      `00-${TRACE}-${SPAN}-0g`,
      `00-${TRACE}-${SPAN}-1`,
      `0-${TRACE}-${SPAN}-01`,
    ],
    ...[
      `00_${TRACE}_${SPAN}_01`,
      `${VALID}, ${VALID}`,
      `"${VALID}"`,
      `00-${TRACE}-${SPAN}-\xff\xfe`,
      `cc-${TRACE}-${SPAN}-01.x`,
    ],
  ]
    .map((value) => ['traceparent', value])
    .concat([['traceparent', VALID, 'traceparent', VALID.replace('b7', 'b8')]]),
  b3: [
    ...['', '0', '1', 'd', 'x', LONG, `${TRACE}`, `${TRACE}-`, `${TRACE}-${SPAN}-2`, `${TRACE}-${SPAN}-1-x`],
    ...[
      `${TRACE.toUpperCase()}-${SPAN}-1`,
      `${ZEROS}-${SPAN}-1`,
      `${TRACE}-${'0'.repeat(16)}-1`,
      `${TRACE}0-${SPAN}-1`,
    ],
    ...[`x${TRACE}-${SPAN}-1`, `${TRACE}-${SPAN}-1 `.repeat(2), `${TRACE}:${SPAN}:1`],
  ]
    .map((value) => ['b3', value])
    .concat([['b3', `${TRACE}-${SPAN}-1`, 'b3', `${TRACE}-${SPAN}-1`]]),
  'B3 in several fields': [
    ['x-b3-traceid', TRACE],
    ['x-b3-spanid', SPAN],
    ['x-b3-sampled', '1'],
    ['x-b3-traceid', TRACE, 'x-b3-spanid', 'x', 'x-b3-sampled', '1'],
    ['x-b3-traceid', ZEROS, 'x-b3-spanid', SPAN, 'x-b3-sampled', '1'],
    ['x-b3-traceid', TRACE, 'x-b3-spanid', SPAN, 'x-b3-sampled', 'perhaps'],
    ['x-b3-traceid', TRACE, 'x-b3-traceid', TRACE, 'x-b3-spanid', SPAN, 'x-b3-sampled', '1'],
  ],
  'uber-trace-id': [
    ...['', ':', ':::', 'x', LONG, TRACE, `${TRACE}:${SPAN}`, `${TRACE}:${SPAN}:0`, `${TRACE}:${SPAN}:0:`],
    ...[
      `${ZEROS}:${SPAN}:0:1`,
      `${TRACE}:0:0:1`,
      `${TRACE}0:${SPAN}:0:1`,
      `${TRACE}:${SPAN}0:0:1`,
      `${TRACE}:${SPAN}:0:xyz`,
    ],
  ].map((value) => ['uber-trace-id', value]),
}

for (const [name, table] of Object.entries(NONE)) {
  test(`what is no ${name} fails no call, and begins a trace that says nothing of it`, async () => {
    for (const headers of table) {
      const { got, traceId, all, parent } = await traced(headers)
      const why = JSON.stringify(headers).slice(0, 100)
      assert.notEqual(traceId, TRACE, why)
      assert.equal(parent, undefined, why)
      assert.equal(treeOf(all).length, 8, why)
      for (const [i, name] of headers.entries())
        if (i % 2 === 0 && name !== 'traceparent') assert.equal(got[name], undefined, why)
    }
  })
}

test('a traceparent of a version to come counts as far as it is known', async () => {
  for (const value of [VALID.replace(/^00/, 'cc'), `${VALID.replace(/^00/, '01')}-more-of-it`]) {
    const { got, traceId, parent } = await traced(['traceparent', value])
    assert.deepEqual([traceId, parent?.spanId], [TRACE, SPAN])
    assert.match(got.traceparent as string, /^00-.{49}-01$/)
  }
})

test('an invalid tracestate is left out, and the trace goes on', async () => {
  const table = [
    [
      '',
      '=',
      'x',
      'x=',
      '=x',
      'X=1',
      'a=1,b',
      'a b=1',
      'a=1=2',
      'é=1',
      'a=\xe9',
      `a=${'x'.repeat(257)}`,
      LONG,
    ],
    [
      `a=1,${'b'.repeat(300)}=2`,
      Array.from({ length: 33 }, (_, i) => `k${i}=1`).join(),
      `a=1,b=${'x'.repeat(510)}`,
    ],
  ].flat()
  for (const tracestate of table) {
    const { got, traceId, parent } = await traced(['traceparent', VALID, 'tracestate', tracestate])
    assert.deepEqual([traceId, parent?.spanId], [TRACE, SPAN])
    assert.equal(got.tracestate, undefined, tracestate.slice(0, 100))
  }
})

test('a tracestate in several fields is one, of 32 members and 512 characters at most', async () => {
  const members = (count: number) => Array.from({ length: count }, (_, i) => `k${i}=1`)
  for (const fields of [['a=1, b=2 ,,c=3'], ['a=1', 'b=2', 'c=3']]) {
    const headers = fields.flatMap((value) => ['tracestate', value])
    const { got } = await traced(['traceparent', VALID, ...headers])
    assert.equal(got.tracestate, 'a=1,b=2,c=3')
  }
  for (const whole of [members(32).join(), `a=${'x'.repeat(256)},b=${'y'.repeat(251)}`]) {
    const { got } = await traced(['traceparent', VALID, 'tracestate', whole])
    assert.equal(got.tracestate, whole)
  }
})

test('a tracestate without a traceparent says nothing', async () => {
  const { got, parent } = await traced(['tracestate', 'a=1'])
  assert.deepEqual([got.tracestate, parent], [undefined, undefined])
})

test('baggage is none of ours: it arrives as it was sent, whatever it is', async () => {
  for (const baggage of ['', '=', 'a', 'a=1,,b', '%%%', '\xff\xfe', '{"a":1}', LONG]) {
    const { got, traceId } = await traced(['traceparent', VALID, 'baggage', baggage])
    assert.deepEqual([got.baggage, traceId], [baggage, TRACE])
  }
})

test.run()
