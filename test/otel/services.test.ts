import assert from 'node:assert/strict'
import { ROOT_CONTEXT, SpanKind, trace } from '@opentelemetry/api'
import { Services, traceSpan } from '../../otel/services.ts'
import { suite } from '../support/suite.ts'

const test = suite('services in one process')

test('spans are kept in the name of their services, once all have ended', async () => {
  const services = new Services('orders')
  const call = services.tracing('orders').tracer.startSpan('POST', { kind: SpanKind.CLIENT })
  const above = trace.setSpan(ROOT_CONTEXT, call)
  const served = services.tracing('billing').tracer.startSpan('POST', { kind: SpanKind.SERVER }, above)
  call.end()
  let isOver = false
  const ended = services.ended().finally(() => {
    isOver = true
  })
  await new Promise(setImmediate)
  assert.equal(isOver, false)
  served.setAttribute('http.response.status_code', 201).end()
  const [first, second, ...more] = (await ended).map(traceSpan)
  assert.deepEqual(more, [])
  assert.deepEqual(
    [first!.service, first!.name, first!.kind, first!.parentId, first!.status],
    ['orders', 'POST', 'CLIENT', undefined, 'UNSET'],
  )
  assert.deepEqual(
    [second!.service, second!.kind, second!.parentId, second!.attributes],
    ['billing', 'SERVER', first!.spanId, { 'http.response.status_code': 201 }],
  )
  assert.ok(first!.durationUs >= 0 && second!.startUs >= first!.startUs)
})

test('a trace that begins at another service is not sampled, nor what is below it', async () => {
  const services = new Services('orders')
  const call = services.tracing('orders-mte').tracer.startSpan('POST')
  assert.equal(call.isRecording(), false)
  const below = services.tracing('billing').tracer.startSpan('POST', {}, trace.setSpan(ROOT_CONTEXT, call))
  assert.equal(below.isRecording(), false)
  below.end()
  call.end()
  assert.deepEqual(await services.ended(), [])
})

test.run()
