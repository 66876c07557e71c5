import assert from 'node:assert/strict'
import type { Answer } from '../../sidecar/call.ts'
import { ERRORS, type ErrorCode, SidecarError } from '../../sidecar/errors.ts'
import { checkResponseHead, contentLength, field } from '../../sidecar/http/fields.ts'
import { json, problem } from '../../sidecar/http/problem.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/problem')
const CODES = Object.keys(ERRORS) as ErrorCode[]
/** Error types that RFC 9209 section 2.3 registers. */
const ERROR_TYPES = [
  ...[
    'dns_timeout',
    'dns_error',
    'destination_not_found',
    'destination_unavailable',
    'destination_ip_prohibited',
  ],
  ...['destination_ip_unroutable', 'connection_refused', 'connection_terminated', 'connection_timeout'],
  ...[
    'connection_read_timeout',
    'connection_write_timeout',
    'connection_limit_reached',
    'tls_protocol_error',
  ],
  ...['tls_certificate_error', 'tls_alert_received', 'http_request_error', 'http_request_denied'],
  ...['http_response_incomplete', 'http_response_header_section_size', 'http_response_header_size'],
  ...['http_response_body_size', 'http_response_trailer_section_size', 'http_response_trailer_size'],
  ...['http_response_transfer_coding', 'http_response_content_coding', 'http_response_timeout'],
  ...['http_upgrade_failed', 'http_protocol_error', 'proxy_internal_response', 'proxy_internal_error'],
  ...['proxy_configuration_error', 'proxy_loop_detected'],
]

/** The body of an answer, which its Content-Length must fit. */
function bodyOf({ head, body }: Answer): string {
  const whole = body.whole(65536)
  assert.ok(whole)
  assert.equal(contentLength(head.fields), whole.length)
  return whole.toString('utf8')
}

test('every error is an answer in the form of RFC 9457', () => {
  for (const code of CODES) {
    const answer = problem(new SidecarError(code, 'What happened – this time.'))
    const status = ERRORS[code].status || 502
    assert.equal(answer.head.status, status)
    checkResponseHead(answer.head, 65536)
    assert.equal(field(answer.head.fields, 'content-type'), 'application/problem+json')
    assert.equal(field(answer.head.fields, 'mte-error'), code)
    assert.equal(field(answer.head.fields, 'cache-control'), 'no-store')
    assert.deepEqual(JSON.parse(bodyOf(answer)), {
      type: `urn:mte-sidecar:error:${code}`,
      title: ERRORS[code].title,
      status,
      detail: 'What happened – this time.',
      code,
    })
    assert.ok(URL.canParse(`urn:mte-sidecar:error:${code}`))
  }
})

test('Proxy-Status is an item with an error type of RFC 9209', () => {
  for (const code of CODES) {
    const value = field(problem(new SidecarError(code, 'x')).head.fields, 'proxy-status') ?? ''
    const [, type] = /^mte-sidecar; error=([a-z_]+)$/.exec(value) ?? []
    assert.ok(type !== undefined && ERROR_TYPES.includes(type), value)
  }
})

test('a status that is not that of the row is the one that is answered', () => {
  const answer = problem(new SidecarError('peer-unreachable', 'too slow', { status: 504 }))
  assert.equal(answer.head.status, 504)
  assert.equal(JSON.parse(bodyOf(answer)).status, 504)
})

test('what caused an error is not in its answer', () => {
  const cause = new Error('hunter2 in a message')
  const answer = problem(new SidecarError('internal-error', 'The sidecar failed.', { cause }))
  assert.ok(!/hunter2|\.ts/.test(bodyOf(answer) + answer.head.fields.join()))
})

test('fields that one answer has besides come last', () => {
  const { fields } = problem(new SidecarError('token-missing', 'x'), ['proxy-authenticate', 'Basic']).head
  assert.deepEqual(fields.slice(-2), ['proxy-authenticate', 'Basic'])
})

test('an answer in JSON has its length in bytes, and stays out of caches', () => {
  const answer = json({ a: 'é' }, 201)
  assert.equal(answer.head.status, 201)
  assert.deepEqual(JSON.parse(bodyOf(answer)), { a: 'é' })
  assert.equal(field(answer.head.fields, 'content-type'), 'application/json')
  assert.equal(field(answer.head.fields, 'cache-control'), 'no-store')
  assert.equal(json([]).head.status, 200)
})

test.run()
