import assert from 'node:assert/strict'
import { contextFields, withOuterContext } from '../../sidecar/telemetry/context-fields.ts'
import { suite } from '../support/suite.ts'

const test = suite('context fields')

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const VALID = `00-${TRACE}-b7ad6b7169203331-01`
const MESH = `00-${TRACE}-00f067aa0ba902b7-01`
const OTHER = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'

test('of the fields of a head those go outside that tell its context, and no others', () => {
  const fields = [
    'accept',
    '*/*',
    'traceparent',
    VALID,
    'baggage',
    'a=1',
    'tracestate',
    'a=1',
    'tracestate',
    'b=2',
  ]
  assert.deepEqual(contextFields(fields), ['traceparent', VALID, 'tracestate', 'a=1,b=2'])
  assert.deepEqual(contextFields(['traceparent', VALID, 'b3', 'x']), ['traceparent', VALID])
})

test('a version to come goes outside as it is', () => {
  for (const value of [VALID.replace(/^00/, 'cc'), `${VALID.replace(/^00/, '01')}-more`])
    assert.deepEqual(contextFields(['traceparent', value]), ['traceparent', value])
})

test('what is no context stays inside', () => {
  const zeros = '0'.repeat(32)
  const values = [
    '',
    'x',
    VALID.toUpperCase(),
    VALID.slice(1),
    `${VALID}-more`,
    `${VALID}0`,
    VALID.replace(/^00/, 'ff'),
  ]
  for (const value of [
    ...values,
    VALID.replace(TRACE, zeros),
    VALID.replace('b7ad6b7169203331', zeros.slice(16)),
  ])
    assert.deepEqual(contextFields(['traceparent', value, 'tracestate', 'a=1']), [], value)
  assert.deepEqual(contextFields([]), [])
  assert.deepEqual(contextFields(['tracestate', 'a=1']), [])
  assert.deepEqual(contextFields(['traceparent', VALID, 'traceparent', MESH]), [])
})

test('a tracestate that is too long stays inside, and the traceparent does not', () => {
  const state = (length: number) => ['traceparent', VALID, 'tracestate', `a=${'x'.repeat(length - 2)}`]
  assert.deepEqual(contextFields(state(512)), state(512))
  assert.deepEqual(contextFields(state(513)), ['traceparent', VALID])
})

test('what the network made of a context takes its place inside, with all else as it was', () => {
  const inner = [
    'traceparent',
    VALID,
    'accept',
    '*/*',
    'tracestate',
    'a=1',
    'baggage',
    'b=2',
    'accept',
    'text/plain',
  ]
  assert.deepEqual(
    withOuterContext(inner, ['traceparent', MESH, 'x-request-id', '1', 'tracestate', 'm=1,a=1']),
    ['accept', '*/*', 'baggage', 'b=2', 'accept', 'text/plain', 'traceparent', MESH, 'tracestate', 'm=1,a=1'],
  )
})

test('the network cannot bring in a context, nor put another trace in place of one', () => {
  const own = ['traceparent', VALID, 'tracestate', 'a=1']
  for (const outer of [
    [],
    ['traceparent', OTHER],
    ['traceparent', 'x'],
    ['traceparent', MESH, 'traceparent', MESH],
  ])
    assert.deepEqual(withOuterContext(own, outer), own)
  for (const inner of [
    ['accept', '*/*'],
    ['traceparent', 'x'],
    ['traceparent', VALID, 'traceparent', VALID],
  ])
    assert.deepEqual(withOuterContext(inner, ['traceparent', MESH]), inner)
})

test.run()
