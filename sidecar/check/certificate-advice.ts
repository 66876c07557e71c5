import { SendError } from '../http/send-error.ts'

/** What to do where a certificate is why a connection was not made, by the code of Node's error (OpenSSL's name of it). */
const ADVICE: readonly [RegExp, string][] = [
  [/^CERT_(HAS_EXPIRED|NOT_YET_VALID)$/, 'Renew its certificate; or is the clock of this machine off?'],
  [/ALTNAME_INVALID$/, 'Its certificate must name the host of this URL.'],
  [/CERT|SIGNATURE/, 'CA_FILE must hold the authority of its certificate, in PEM.'],
]

/** What to do about a certificate; undefined where none is to blame. */
export function certificateAdvice(error: unknown): string | undefined {
  const cause = error instanceof SendError ? (error.cause as NodeJS.ErrnoException | undefined) : undefined
  return ADVICE.find(([pattern]) => pattern.test(cause?.code ?? ''))?.[1]
}
