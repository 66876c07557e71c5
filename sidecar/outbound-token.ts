import { createHash, timingSafeEqual } from 'node:crypto'
import type { Fields } from './call.ts'
import { SidecarError } from './errors.ts'
import { field } from './http/fields.ts'

/** Guards outbound calls: who may use this sidecar's secret to call its peers. */
export class OutboundToken {
  /** SHA-256 of each: compared in constant time, whatever the length of what was shown */
  #hashes: readonly Buffer[] = []

  /** @param tokens the current one and the previous one; none: nothing is asked for */
  constructor(tokens: readonly string[]) {
    this.set(tokens)
  }

  /** Has these count, as those that were given to the constructor did. */
  set(tokens: readonly string[]): void {
    this.#hashes = tokens.map(sha256)
  }

  /** Is a token asked for? */
  get required(): boolean {
    return this.#hashes.length > 0
  }

  /**
   * Checks the token that a call shows: `x-mte-outbound-token: T`, `Proxy-Authorization: Bearer T`, or Basic with
   * T as the password.
   * @param proxy was the call sent as to a forward proxy? Then the refusal asks as a proxy does.
   * @throws SidecarError token-missing or token-wrong
   */
  check(fields: Fields, proxy: boolean): void {
    if (!this.required) return
    const status = proxy ? { status: 407 } : {}
    const shown = field(fields, 'x-mte-outbound-token') ?? proxyToken(fields)
    if (shown === undefined) {
      throw new SidecarError(
        'token-missing',
        'OUTBOUND_TOKEN is set: send it as x-mte-outbound-token, or as Proxy-Authorization (Bearer, or Basic with it as the password).',
        status,
      )
    }
    const hash = sha256(shown)
    let right = false
    for (const expected of this.#hashes) if (timingSafeEqual(hash, expected)) right = true
    if (!right)
      throw new SidecarError('token-wrong', 'The token that was sent is not OUTBOUND_TOKEN.', status)
  }
}

/** What a refusal with status 407 carries besides. */
export const PROXY_AUTHENTICATE: Fields = [
  'proxy-authenticate',
  'Basic realm="mte-sidecar"',
  'proxy-authenticate',
  'Bearer realm="mte-sidecar"',
]

function proxyToken(fields: Fields): string | undefined {
  const [, scheme, credentials] =
    /^([A-Za-z]+) +([^ ]+)$/.exec(field(fields, 'proxy-authorization') ?? '') ?? []
  if (credentials === undefined) return undefined
  if (scheme!.toLowerCase() === 'bearer') return credentials
  if (scheme!.toLowerCase() !== 'basic') return undefined
  const text = Buffer.from(credentials, 'base64').toString('latin1')
  const colon = text.indexOf(':')
  return colon < 0 ? undefined : text.slice(colon + 1)
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'latin1').digest()
}
