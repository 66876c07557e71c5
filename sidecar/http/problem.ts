import { type Answer, type Fields, WholeBody } from '../call.ts'
import { ERRORS, type ErrorCode, type SidecarError } from '../errors.ts'
import { field } from './fields.ts'

/** Where the codes are explained. */
const TYPE_BASE = 'urn:mte-sidecar:error:'

/**
 * The answer that an error makes: `application/problem+json` (RFC 9457) with the code in `mte-error` and in
 * Proxy-Status (RFC 9209).
 * @param extra fields that this one answer carries besides, such as Proxy-Authenticate
 */
export function problem(error: SidecarError, extra: Fields = []): Answer {
  const row = ERRORS[error.code]
  const status = error.status || 502
  const body = Buffer.from(
    `${JSON.stringify({ type: TYPE_BASE + error.code, title: row.title, status, detail: error.message, code: error.code })}\n`,
  )
  const fields = [
    'content-type',
    'application/problem+json',
    'content-length',
    String(body.length),
    'cache-control',
    'no-store',
    'mte-error',
    error.code,
    'proxy-status',
    `mte-sidecar; error=${row.proxyStatus}`,
    ...extra,
  ]
  return { head: { status, fields }, body: new WholeBody(body) }
}

/** An answer in JSON. */
export function json(value: unknown, status = 200): Answer {
  const body = Buffer.from(`${JSON.stringify(value)}\n`)
  return {
    head: {
      status,
      fields: [
        'content-type',
        'application/json',
        'content-length',
        String(body.length),
        'cache-control',
        'no-store',
      ],
    },
    body: new WholeBody(body),
  }
}

/** The code of an answer that the a sidecar made itself; empty for one of its app. */
export function problemCode(fields: Fields): ErrorCode | '' {
  const code = field(fields, 'mte-error')
  return code !== undefined && Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : ''
}
