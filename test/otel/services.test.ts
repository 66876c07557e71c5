import assert from 'node:assert/strict'
import { SpanKind, TraceFlags } from '@opentelemetry/api'
import { Services, traceSpan } from '../../otel/services.ts'
import { suite } from '../support/suite.ts'
import { begin } from '../support/tracing.ts'

const test = suite('services in one process')

test('spans are kept in the name of their services, once all have ended', async () => {
  const services = new Services('orders')
  const call = begin(services.tracing('orders'), 'POST', SpanKind.CLIENT)
  const served = begin(services.tracing('billing'), 'POST', SpanKind.SERVER, call.context)
  call.end(performance.now(), false)
  let isOver = false
  const ended = services.ended().finally(() => {
    isOver = true
  })
  await new Promise(setImmediate)
  assert.equal(isOver, false)
  served.set('http.response.status_code', 201)
  served.end(performance.now(), false)
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
  const call = services.tracing('orders-mte').contextBelow(undefined)
  assert.equal(call.traceFlags, TraceFlags.NONE)
  assert.equal(services.tracing('billing').contextBelow(call).traceFlags, TraceFlags.NONE)
  assert.deepEqual(await services.ended(), [])
})

test.run()
