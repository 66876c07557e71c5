/** What running a call twice does (RFC 9110 section 9.2): nothing, no harm, or perhaps harm. */
export type Repeatability = 'safe' | 'idempotent' | 'unsafe'

/** @param hasIdempotencyKey does the call carry an Idempotency-Key? */
export function repeatability(method: string, hasIdempotencyKey: boolean): Repeatability {
  if (method === 'GET' || method === 'HEAD' || method === 'OPTIONS' || method === 'TRACE') return 'safe'
  return method === 'PUT' || method === 'DELETE' || hasIdempotencyKey ? 'idempotent' : 'unsafe'
}
