/** Calls that fail, as they are traced: what went wrong is told at every span that it went wrong for. */
import assert from 'node:assert/strict'
import type { SpanContext } from '@opentelemetry/api'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { beginStream, connectH2c } from './support/app-client.ts'
import { type AppServer, startAppServer } from './support/app-server.ts'
import { call } from './support/call.ts'
import { pass, startMiddle } from './support/middle.ts'
import { TestPeer } from './support/peer.ts'
import { startSidecar, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'
import { outcomesOf, type TracedOptions, type TracedPair, withTracedPair } from './support/traced-pair.ts'
import { labelOf, newContext, spanOf, traceparent } from './support/tracing.ts'

const test = suite('traces: failures')

let app: AppServer

test.before(async () => {
  app = await startAppServer()
})

test.after(() => app.close())

/** Runs a body with two sidecars that trace, and have paired unless that is not to be. */
function traced(
  body: (pair: TracedPair) => Promise<void>,
  env: TracedOptions['env'] = {},
  paired = true,
): Promise<void> {
  app.handler = (_request, response) => response.end('done')
  return withTracedPair(app.port, { env }, async (pair) => {
    if (paired) assert.equal((await call(pair.port)).text, 'done')
    await body(pair)
  })
}

test('an answer 4xx of the app is an error of whoever called, not of whoever was called', () =>
  traced(async ({ port, spans }) => {
    app.handler = (_request, response) => response.writeHead(404).end()
    const context = newContext()
    await call(port, { headers: { traceparent: traceparent(context) } })
    assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 2)), [
      'orders-mte GET SERVER | 404',
      ' orders-mte mte.encode request INTERNAL',
      ' orders-mte GET CLIENT | 404 | 404 | ERROR',
      '  billing-mte GET SERVER | 404',
      '   billing-mte mte.decode request INTERNAL',
      '   billing-mte GET CLIENT | 404 | 404 | ERROR',
      '   billing-mte mte.encode response INTERNAL',
      ' orders-mte mte.decode response INTERNAL',
    ])
  }))

test('an answer 5xx of the app is an error of everybody', () =>
  traced(async ({ port, spans }) => {
    app.handler = (_request, response) => response.writeHead(500).end()
    const context = newContext()
    await call(port, { headers: { traceparent: traceparent(context) } })
    assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 2)), [
      'orders-mte GET SERVER | 500 | 500 | ERROR',
      ' orders-mte mte.encode request INTERNAL',
      ' orders-mte GET CLIENT | 500 | 500 | ERROR',
      '  billing-mte GET SERVER | 500 | 500 | ERROR',
      '   billing-mte mte.decode request INTERNAL',
      '   billing-mte GET CLIENT | 500 | 500 | ERROR',
      '   billing-mte mte.encode response INTERNAL',
      ' orders-mte mte.decode response INTERNAL',
    ])
  }))

test('an app that is down is told from one end to the other', async () => {
  const billing = { UPSTREAM: `http://127.0.0.1:${await unusedPort()}` }
  const why = '502 | upstream-unreachable | ERROR'
  await traced(
    async ({ port, spans }) => {
      assert.equal((await call(port)).code, 'upstream-unreachable')
      const context = newContext()
      await call(port, { method: 'POST', headers: { traceparent: traceparent(context) }, body: 'x' })
      assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 2)), [
        `orders-mte POST SERVER | ${why}`,
        ' orders-mte mte.encode request INTERNAL',
        ` orders-mte POST CLIENT | ${why}`,
        `  billing-mte POST SERVER | ${why}`,
        '   billing-mte mte.decode request INTERNAL',
        '   billing-mte POST CLIENT | upstream-unreachable | ERROR',
        '   billing-mte mte.encode response INTERNAL',
        ' orders-mte mte.decode response INTERNAL',
      ])
    },
    { billing },
    false,
  )
})

test('a sidecar without an app says so itself', async () => {
  const billing = { UPSTREAM: '' }
  await traced(
    async ({ port, spans }) => {
      await call(port)
      const context = newContext()
      await call(port, { headers: { traceparent: traceparent(context) } })
      const why = '502 | upstream-unreachable | ERROR'
      assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 2)), [
        `orders-mte GET SERVER | ${why}`,
        ' orders-mte mte.encode request INTERNAL',
        ` orders-mte GET CLIENT | ${why}`,
        `  billing-mte GET SERVER | ${why}`,
        '   billing-mte mte.decode request INTERNAL',
        '   billing-mte mte.encode response INTERNAL',
        ' orders-mte mte.decode response INTERNAL',
      ])
    },
    { billing },
    false,
  )
})

test('a peer that was never there fails the pairing, and so the call', async () => {
  const orders = { PEERS: `billing=http://127.0.0.1:${await unusedPort()}`, CARRIAGE: 'message' }
  await traced(
    async ({ port, spans }) => {
      const context = newContext()
      await call(port, { headers: { traceparent: traceparent(context) } })
      const [server, handshake, ...sent] = outcomesOf(await spans.trace(context.traceId, 1))
      assert.equal(server, 'orders-mte GET SERVER | 502 | peer-unreachable | ERROR')
      assert.equal(handshake, ' orders-mte mte.handshake INTERNAL | peer-unreachable | ERROR')
      assert.ok(sent.length > 0)
      for (const line of sent) assert.equal(line, '  orders-mte POST CLIENT | peer-unreachable | ERROR')
    },
    { orders },
    false,
  )
})

test('a peer that is gone shows each time that the message was sent', () =>
  traced(
    async ({ port, spans, billing }) => {
      await billing.close()
      const context = newContext()
      const answer = await call(port, { headers: { traceparent: traceparent(context) } })
      assert.equal(answer.code, 'peer-unreachable')
      assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 1)), [
        'orders-mte GET SERVER | 502 | peer-unreachable | ERROR',
        ' orders-mte mte.encode request INTERNAL',
        ' orders-mte GET CLIENT | peer-unreachable | ERROR',
        ' orders-mte GET CLIENT | peer-unreachable | 1 | ERROR',
        ' orders-mte GET CLIENT | peer-unreachable | 2 | ERROR',
      ])
    },
    { orders: { CARRIAGE: 'message' } },
  ))

test('a peer with another secret fails the pairing, on both sides', async () => {
  const orders = { CARRIAGE: 'message' }
  const billing = { CLIENT_ID_SECRET: 'quite another secret, of more than 32 characters' }
  await traced(
    async ({ port, spans }) => {
      const context = newContext()
      await call(port, { headers: { traceparent: traceparent(context) } })
      assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 2)), [
        'orders-mte GET SERVER | 502 | secret-mismatch | ERROR',
        ' orders-mte mte.handshake INTERNAL | secret-mismatch | ERROR',
        '  orders-mte POST CLIENT | 401 | 401 | ERROR',
        '   billing-mte POST SERVER | 401 | message-refused | psk_unknown',
        '    billing-mte mte.handshake INTERNAL | pairing-refused | ERROR',
      ])
    },
    { orders, billing },
    false,
  )
})

test('a peer that restarted costs a message and a pairing, and that is to be seen', () =>
  traced(
    async ({ port, spans, billing }) => {
      await billing.close()
      const again = await startSidecar(
        { NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}`, PORT: billing.port('inbound') },
        spans.tracing('billing-mte'),
      )
      try {
        const context = newContext()
        const headers = { traceparent: traceparent(context) }
        assert.equal((await call(port, { method: 'PUT', headers, body: 'x' })).text, 'done')
        const all = await spans.trace(context.traceId, 4)
        assert.deepEqual(outcomesOf(all), [
          'orders-mte PUT SERVER | 200',
          ' orders-mte mte.encode request INTERNAL',
          ' orders-mte PUT CLIENT | 421 | message-refused | state_lost | ERROR',
          '  billing-mte POST SERVER | 421 | message-refused | state_lost',
          '   billing-mte mte.decode request INTERNAL | message-refused | ERROR',
          ' orders-mte mte.handshake INTERNAL',
          '  orders-mte POST CLIENT | 200',
          '   billing-mte POST SERVER | 200',
          '    billing-mte mte.handshake INTERNAL',
          ' orders-mte mte.encode request INTERNAL',
          ' orders-mte PUT CLIENT | 200 | 1',
          '  billing-mte PUT SERVER | 200',
          '   billing-mte mte.decode request INTERNAL',
          '   billing-mte PUT CLIENT | 200',
          '   billing-mte mte.encode response INTERNAL',
          ' orders-mte mte.decode response INTERNAL',
        ])
      } finally {
        await again.close()
      }
    },
    { orders: { CARRIAGE: 'message' } },
  ))

test('a message that was replayed is refused in a trace of its own, whatever trace it names inside', () =>
  traced(async ({ spans, billing }) => {
    const peer = await TestPeer.pair(billing.port('inbound'))
    const context = newContext()
    const head = {
      method: 'POST',
      scheme: 'http',
      authority: 'billing',
      path: '/',
      fields: ['traceparent', traceparent(context)],
    }
    const message = peer.whole(0, 'x', head)
    assert.equal((await peer.send(message)).reject, undefined)
    const before = await spans.trace(context.traceId, 1)
    assert.equal(spanOf(before, 'billing-mte POST SERVER').attributes['service.peer.name'], 'tester-mte')
    assert.equal((await peer.send(message)).reject?.name, 'replayed')
    await billing.close()
    const refused = spans.ended().find(({ attributes }) => attributes['mte.reject.code'] === 'replayed')!
    const { traceId } = refused.spanContext()
    assert.notEqual(traceId, context.traceId)
    assert.deepEqual(outcomesOf(await spans.trace(traceId, 1)), [
      'billing-mte POST SERVER | 409 | message-refused | replayed',
      ' billing-mte mte.decode request INTERNAL | message-refused | ERROR',
    ])
    assert.deepEqual(await spans.trace(context.traceId, 1), before)
  }))

test('calls that wait for one pairing are linked to it', async () => {
  const billingPort = await unusedPort()
  const middle = await startMiddle(billingPort)
  const mayPass = Promise.withResolvers<void>()
  middle.onPairing = async (passing) => {
    await mayPass.promise
    return pass(passing)
  }
  await traced(
    async ({ port, spans }) => {
      const session = connectH2c(port)
      const contexts = Array.from({ length: 20 }, () => newContext())
      const ask = (context: SpanContext, authority = 'billing') =>
        beginStream(session, { authority, fields: ['traceparent', traceparent(context)] })
          .end()
          .whole()
      const answers = contexts.map((context) => ask(context))
      // It is answered at once, and so after the others have come.
      assert.equal((await ask(newContext(), 'elsewhere')).code, 'no-peer')
      mayPass.resolve()
      for (const { text } of await Promise.all(answers)) assert.equal(text, 'done')
      session.close()
      const [cause, ...waited] = await Promise.all(contexts.map(({ traceId }) => spans.trace(traceId, 2)))
      const isPairing = (span: ReadableSpan) => labelOf(span) === 'orders-mte mte.handshake INTERNAL'
      const pairings = spans.ended().filter(isPairing)
      assert.deepEqual(pairings, cause!.filter(isPairing))
      const linked = (all: ReadableSpan[]) =>
        spanOf(all, 'orders-mte GET SERVER').links.map(({ context }) => context)
      assert.deepEqual(linked(cause!), [])
      for (const all of waited) assert.deepEqual(linked(all), [pairings[0]!.spanContext()])
      const later = newContext()
      await call(port, { headers: { traceparent: traceparent(later) } })
      assert.deepEqual(linked(await spans.trace(later.traceId, 2)), [])
    },
    { orders: { PEERS: `billing=${middle.url}`, CARRIAGE: 'message' }, billing: { PORT: billingPort } },
    false,
  )
  await middle.close()
})

test('what the sidecar refuses by itself has a SERVER span, and nothing below', async () => {
  const orders = { OUTBOUND_TOKEN: 'a-token-for-tests-of-32-characters-or-more', MAX_HEADER_BYTES: 1024 }
  const token = { 'x-mte-outbound-token': orders.OUTBOUND_TOKEN }
  const refusals: [Record<string, string>, string][] = [
    [{}, '401 | token-missing'],
    [{ 'x-mte-outbound-token': 'x' }, '401 | token-wrong'],
    [{ ...token, host: 'elsewhere' }, '502 | no-peer | ERROR'],
    [{ ...token, 'x-mte-upstream': 'nonsense' }, '400 | bad-request'],
  ]
  await traced(
    async ({ port, spans }) => {
      for (const [headers, outcome] of refusals) {
        const context = newContext()
        await call(port, { headers: { ...headers, traceparent: traceparent(context) } })
        assert.deepEqual(outcomesOf(await spans.trace(context.traceId, 1)), [
          `orders-mte GET SERVER | ${outcome}`,
        ])
      }
    },
    { orders },
    false,
  )
})

test.run()
