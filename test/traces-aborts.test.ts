/** Calls that last, and calls that end before their time, as they are traced. */
import assert from 'node:assert/strict'
import { hrTimeToMilliseconds } from '@opentelemetry/core'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { beginCall } from './support/app-client.ts'
import { type AppServer, abandoned, startAppServer } from './support/app-server.ts'
import { call, once } from './support/call.ts'
import { pass, startMiddle } from './support/middle.ts'
import { startSidecar } from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { outcomesOf, type TracedPair, withTracedPair } from './support/traced-pair.ts'
import { keepSpans, labelOf, newContext, spanOf, traceparent } from './support/tracing.ts'

const test = suite('traces: aborts')

let app: AppServer

test.before(async () => {
  app = await startAppServer()
})

test.after(() => app.close())

/** Runs a body with two sidecars that trace, and have paired. */
function traced(body: (pair: TracedPair) => Promise<void>): Promise<void> {
  app.handler = (_request, response) => response.end('done')
  return withTracedPair(app.port, {}, async (pair) => {
    assert.equal((await call(pair.port)).text, 'done')
    await body(pair)
  })
}

test('a caller that goes away while it waits ends every span, and is told as the reason', () =>
  traced(async ({ port, spans }) => {
    const reached = app.next()
    const context = newContext()
    const sent = beginCall('h2c', port, {
      method: 'POST',
      fields: ['traceparent', traceparent(context)],
    }).end('x')
    sent.request.on('error', () => {})
    const [, response] = await reached
    sent.abort()
    await abandoned(response)
    assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 2)), [
      'orders-mte POST SERVER | caller-gone | ERROR',
      ' orders-mte mte.encode request INTERNAL',
      ' orders-mte POST CLIENT | caller-gone | ERROR',
      '  billing-mte POST SERVER | caller-gone | ERROR',
      '   billing-mte mte.decode request INTERNAL',
      '   billing-mte POST CLIENT | caller-gone | ERROR',
    ])
  }))

test('a caller that goes away within the answer, and one within its request, leave what was not complete as failed', () =>
  traced(async ({ port, spans }) => {
    for (const within of ['answer', 'request'] as const) {
      const reached = app.next()
      const context = newContext()
      const fields = ['traceparent', traceparent(context)]
      const sent = beginCall('HTTP/1.1', port, {
        method: 'POST',
        fields: [...fields, 'transfer-encoding', 'chunked'],
      })
      sent.request.on('error', () => {})
      sent.request.write('first')
      const [request, response] = await reached
      assert.equal(String(await once(request, 'data')), 'first')
      if (within === 'answer') {
        sent.end()
        await once(request, 'end')
        response.write('hello')
        assert.equal(String(await sent.read()), 'hello')
      }
      sent.abort()
      await abandoned(response)
      const isLate = within === 'request'
      const cut = ' | caller-gone | ERROR'
      assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 2)), [
        `orders-mte POST SERVER${isLate ? '' : ' | 200'}${cut}`,
        ` orders-mte mte.encode request INTERNAL${isLate ? cut : ''}`,
        ` orders-mte POST CLIENT${isLate ? '' : ' | 200'}${cut}`,
        `  billing-mte POST SERVER${isLate ? '' : ' | 200'}${cut}`,
        `   billing-mte mte.decode request INTERNAL${isLate ? cut : ''}`,
        `   billing-mte POST CLIENT${isLate ? '' : ' | 200'}${cut}`,
        ...(isLate ? [] : [`   billing-mte mte.encode response INTERNAL${cut}`]),
        ...(isLate ? [] : [` orders-mte mte.decode response INTERNAL${cut}`]),
      ])
    }
  }))

test('a caller that goes away while a pairing is made ends its call; the pairing goes on', async () => {
  const spans = keepSpans()
  app.handler = (_request, response) => response.end('done')
  const UPSTREAM = `http://127.0.0.1:${app.port}`
  const billing = await startSidecar({ NAME: 'billing', UPSTREAM }, spans.tracing('billing-mte'))
  const middle = await startMiddle(billing.port('inbound'))
  const orders = await startSidecar(
    { NAME: 'orders', PEERS: `billing=${middle.url}`, CARRIAGE: 'message' },
    spans.tracing('orders-mte'),
  )
  const mayPass = Promise.withResolvers<void>()
  const came = new Promise<void>((resolve) => {
    middle.onPairing = async (passing) => {
      resolve()
      await mayPass.promise
      return pass(passing)
    }
  })
  const port = orders.port('outbound')
  const context = newContext()
  const sent = beginCall('HTTP/1.1', port, { fields: ['traceparent', traceparent(context)] }).end()
  sent.request.on('error', () => {})
  await came
  sent.abort()
  assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 1)), [
    'orders-mte GET SERVER | caller-gone | ERROR',
  ])
  const next = newContext()
  const answered = call(port, { headers: { traceparent: traceparent(next) } })
  mayPass.resolve()
  assert.equal((await answered).text, 'done')
  await spans.trace(next.traceId, 2)
  for (const part of [orders, middle, billing]) await part.close()
  assert.deepEqual(spans.open().map(labelOf), [])
  assert.deepEqual(
    outcomesOf(spans.ended().filter((span) => span.spanContext().traceId === context.traceId)),
    [
      'orders-mte GET SERVER | caller-gone | ERROR',
      ' orders-mte mte.handshake INTERNAL',
      '  orders-mte POST CLIENT | 200',
    ],
  )
})

test('an app that breaks off in the middle of its answer fails whatever was on the way', () =>
  traced(async ({ port, spans }) => {
    const reached = app.next()
    const context = newContext()
    const sent = beginCall('HTTP/1.1', port, { fields: ['traceparent', traceparent(context)] }).end()
    sent.request.on('error', () => {})
    const [, response] = await reached
    response.write('hello')
    assert.equal(String(await sent.read()), 'hello')
    response.socket!.resetAndDestroy()
    await assert.rejects(() => sent.read())
    const cut = '200 | message-truncated | ERROR'
    assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 2)), [
      `orders-mte GET SERVER | ${cut}`,
      ' orders-mte mte.encode request INTERNAL',
      ` orders-mte GET CLIENT | ${cut}`,
      `  billing-mte GET SERVER | ${cut}`,
      '   billing-mte mte.decode request INTERNAL',
      `   billing-mte GET CLIENT | ${cut}`,
      '   billing-mte mte.encode response INTERNAL | message-truncated | ERROR',
      ' orders-mte mte.decode response INTERNAL | message-truncated | ERROR',
    ])
  }))

test('a stream that lasts has no span that ends before it does', () =>
  traced(async ({ port, spans }) => {
    const reached = app.next()
    const context = newContext()
    const sent = beginCall('h2c', port, { fields: ['traceparent', traceparent(context)] }).end()
    const [, response] = await reached
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
      response.write(event)
      assert.equal(String(await sent.read()), event)
    }
    const isOfCall = (span: ReadableSpan) => span.spanContext().traceId === context.traceId
    assert.deepEqual(spans.ended().filter(isOfCall).map(labelOf), [])
    assert.equal(spans.open().filter(isOfCall).length, 4)
    const lastMs = performance.timeOrigin + performance.now()
    response.end()
    assert.equal(await sent.read(), undefined)
    const all = await spans.trace(context.traceId, 2)
    for (const label of [
      'orders-mte GET SERVER',
      'orders-mte GET CLIENT',
      'orders-mte mte.decode response INTERNAL',
      'billing-mte GET SERVER',
      'billing-mte GET CLIENT',
      'billing-mte mte.encode response INTERNAL',
    ])
      assert.ok(hrTimeToMilliseconds(spanOf(all, label).endTime) >= lastMs, label)
    for (const label of ['orders-mte mte.encode request INTERNAL', 'billing-mte mte.decode request INTERNAL'])
      assert.ok(hrTimeToMilliseconds(spanOf(all, label).endTime) < lastMs, label)
  }))

test.run()
