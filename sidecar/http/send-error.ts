import { Http1Error } from './http1-reader.ts'

/** Why a request got no answer, as the client that sent it saw it. */
export type SendFailure = 'connect' | 'connect-timeout' | 'response-timeout' | 'reset'

/** A request that got no answer. Whoever sent it knows what that means for the call. */
export class SendError extends Error {
  readonly failure: SendFailure
  /** may a byte of the request have left? */
  readonly sent: boolean

  constructor(failure: SendFailure, sent: boolean, cause?: unknown) {
    super(describe(failure, cause), { cause })
    this.name = 'SendError'
    this.failure = failure
    this.sent = sent
  }

  get timedOut(): boolean {
    return this.failure === 'connect-timeout' || this.failure === 'response-timeout'
  }
}

function describe(failure: SendFailure, cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code
  const why = code ? ` (${code})` : ''
  switch (failure) {
    case 'connect':
      return `could not connect${why}`
    case 'connect-timeout':
      return 'no connection within CONNECT_TIMEOUT_SECONDS'
    case 'response-timeout':
      return 'no answer within RESPONSE_TIMEOUT_SECONDS'
    case 'reset':
      if (cause instanceof Http1Error) return 'what it sent is no valid HTTP/1.1'
      return `the connection broke before an answer came${why}`
  }
}
