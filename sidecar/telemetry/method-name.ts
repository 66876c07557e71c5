/** RFC 9110 section 9 and RFC 5789. */
const KNOWN: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'DELETE',
  'CONNECT',
  'OPTIONS',
  'TRACE',
  'PATCH',
])

/** A method as traces, metrics and logs tell it: others than those that are known may say anything, and be many. */
export function methodName(method: string): string {
  return KNOWN.has(method) ? method : '_OTHER'
}

/** What a span of a call is called, by its method as it is told: OpenTelemetry's semantic conventions for HTTP spans. */
export function spanName(method: string): string {
  return method === '_OTHER' ? 'HTTP' : method
}
