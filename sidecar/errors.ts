/** Everything that the sidecar itself may answer with: one class, one table. */

interface Row {
  /** HTTP status; 0 when the only answer is to reset the stream */
  status: number
  /** one sentence for whoever meets it */
  title: string
  /** error type of Proxy-Status (RFC 9209 section 2.3) */
  proxyStatus: string
}

/** Every code, with the answer that it makes. Served by `GET /api/mte-errors`. */
export const ERRORS = {
  'token-missing': row(401, 'This call needs the outbound token', 'http_request_denied'),
  'token-wrong': row(401, 'The outbound token is not the right one', 'http_request_denied'),
  'bad-request': row(400, 'The request is malformed or ambiguous', 'http_request_error'),
  'not-found': row(404, 'There is nothing here', 'http_request_error'),
  'headers-too-large': row(431, 'The header fields are larger than MAX_HEADER_BYTES', 'http_request_error'),
  'body-too-large': row(413, 'The body is larger than MAX_BODY_BYTES', 'http_request_error'),
  'not-implemented': row(501, 'The sidecar does not carry this kind of call', 'http_request_error'),
  'no-peer': row(502, 'No peer is configured for this authority', 'destination_not_found'),
  'peer-unreachable': row(502, "The peer's sidecar cannot be reached", 'destination_unavailable'),
  'not-a-relay': row(502, 'Something answers there that is no relay', 'http_protocol_error'),
  'secret-mismatch': row(502, 'The peer has another CLIENT_ID_SECRET', 'proxy_configuration_error'),
  'pairing-refused': row(502, 'The peer refused to pair', 'http_request_denied'),
  'message-refused': row(502, 'The peer refused the message', 'http_request_denied'),
  'outcome-unknown': row(502, 'The call may or may not have been executed', 'connection_terminated'),
  'upstream-unreachable': row(502, 'The called app cannot be reached', 'destination_unavailable'),
  'upstream-timeout': row(504, 'The called app did not answer in time', 'http_response_timeout'),
  'message-truncated': row(0, 'The other side stopped in the middle', 'connection_terminated'),
  'idle-timeout': row(0, 'Nothing moved for IDLE_TIMEOUT_SECONDS', 'connection_read_timeout'),
  'caller-gone': row(0, 'The caller went away', 'connection_terminated'),
  'state-unavailable': row(503, 'The store of the pairs is away', 'proxy_internal_error'),
  draining: row(503, 'The sidecar is shutting down', 'proxy_internal_response'),
  'internal-error': row(500, 'The sidecar failed', 'proxy_internal_error'),
} as const satisfies Record<string, Row>

export type ErrorCode = keyof typeof ERRORS

/** A failure of a call, with the code that users meet. */
export class SidecarError extends Error {
  readonly code: ErrorCode
  /** HTTP status of the answer; 0 when the only answer is a reset */
  readonly status: number

  /**
   * @param code row of the table
   * @param detail what happened this time, in plain words, without anything secret or taken from the call
   * @param options `status` where it is not the row's, such as 504 for a peer that was too slow
   */
  constructor(code: ErrorCode, detail: string, options: { cause?: unknown; status?: number } = {}) {
    super(detail, { cause: options.cause })
    this.name = 'SidecarError'
    this.code = code
    this.status = options.status ?? ERRORS[code].status
  }
}

/** Makes a SidecarError of whatever was thrown: unknown ones become `internal-error` with the original as cause. */
export function asSidecarError(error: unknown): SidecarError {
  if (error instanceof SidecarError) return error
  return new SidecarError('internal-error', 'The sidecar failed in a way that it did not foresee.', {
    cause: error,
  })
}

function row(status: number, title: string, proxyStatus: string): Row {
  return { status, title, proxyStatus }
}
