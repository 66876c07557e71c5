/** Two sidecars that trace, and what became of their calls. */
import assert from 'node:assert/strict'
import { SpanStatusCode } from '@opentelemetry/api'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { type Pair, startPair } from './sidecars.ts'
import { type KeptSpans, keepSpans, labelOf, treeOf } from './tracing.ts'

export interface TracedPair extends Pair {
  spans: KeptSpans
  /** where the calling sidecar takes calls */
  port: number
}

export interface TracedOptions {
  env?: Parameters<typeof startPair>[1]
  spans?: KeptSpans
}

/**
 * Runs a body with two sidecars that trace, and that have not paired yet; once they have stopped, no span may be open.
 * @param app port of the app that is called
 */
export async function withTracedPair(
  app: number,
  { env, spans = keepSpans() }: TracedOptions,
  body: (pair: TracedPair) => Promise<void>,
): Promise<void> {
  const tracing = { orders: spans.tracing('orders-mte'), billing: spans.tracing('billing-mte') }
  const pair = await startPair(app, env, tracing)
  try {
    await body({ ...pair, spans, port: pair.orders.port('outbound') })
  } finally {
    await pair.close()
  }
  assert.deepEqual(spans.open().map(labelOf), [], 'spans that never ended')
}

/**
 * A tree of which each line says what became of the span: its status code, its type of error, how it was rejected, how
 * often it had been sent before, and whether it counts as failed.
 */
export function outcomesOf(spans: readonly ReadableSpan[]): string[] {
  return treeOf(spans, outcomeOf)
}

const TOLD = ['http.response.status_code', 'error.type', 'mte.reject.code', 'http.request.resend_count']

function outcomeOf(span: ReadableSpan): string {
  const { attributes, status } = span
  const told = TOLD.flatMap((name) => attributes[name] ?? [])
  assert.equal(status.message, undefined)
  const failed = status.code === SpanStatusCode.ERROR ? ['ERROR'] : []
  return [labelOf(span), ...told, ...failed].join(' | ')
}
