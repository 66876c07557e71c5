import { type Answer, type Fields, NO_BODY, type RequestHead, type ResponseHead } from './call.ts'
import { field, withoutFields } from './http/fields.ts'

export interface CorsOptions {
  /** origins as browsers send them, or `*` alone; none: no CORS */
  origins: readonly string[]
  methods: readonly string[]
  /** lower case; undefined: whatever is asked for */
  allowedHeaders: readonly string[] | undefined
}

/** How long browsers may remember a preflight, in seconds. */
const MAX_AGE_S = 600

/** Cross-origin resource sharing, on behalf of the app. */
export class Cors {
  readonly #options: CorsOptions
  readonly #any: boolean

  constructor(options: CorsOptions) {
    this.#options = options
    this.#any = options.origins[0] === '*'
  }

  /** The answer to a preflight; undefined for other calls, or where no origins are configured. */
  preflight({ method, fields }: RequestHead): Answer | undefined {
    if (this.#options.origins.length === 0 || method !== 'OPTIONS') return undefined
    const origin = field(fields, 'origin')
    if (origin === undefined || field(fields, 'access-control-request-method') === undefined) return undefined
    const answer: Fields = [
      'vary',
      'Origin, Access-Control-Request-Method, Access-Control-Request-Headers',
      'content-length',
      '0',
    ]
    if (this.#allows(origin)) {
      const asked = field(fields, 'access-control-request-headers')
      const allowed = this.#options.allowedHeaders?.join(', ') ?? asked
      answer.push('access-control-allow-origin', this.#any ? '*' : origin)
      answer.push('access-control-allow-methods', this.#options.methods.join(', '))
      if (allowed !== undefined) answer.push('access-control-allow-headers', allowed)
      answer.push('access-control-max-age', String(MAX_AGE_S))
    }
    // 204 has no Content-Length; 200 has one, and pleases old browsers too.
    return { head: { status: 200, fields: answer }, body: NO_BODY }
  }

  /**
   * The head of an answer with what lets the page that asked read it; an app's own such field is replaced.
   * @param origin of the request, if it has one
   */
  decorate(head: ResponseHead, origin: string | undefined): ResponseHead {
    const added = this.fields(origin)
    if (added.length === 0) return head
    const fields = withoutFields(head.fields, (name) => name === 'access-control-allow-origin')
    return { status: head.status, fields: [...fields, ...added] }
  }

  /** The fields that `decorate` adds. */
  fields(origin: string | undefined): Fields {
    if (this.#options.origins.length === 0) return []
    if (this.#any) return ['access-control-allow-origin', '*']
    const vary: Fields = ['vary', 'Origin']
    return origin !== undefined && this.#allows(origin)
      ? ['access-control-allow-origin', origin, ...vary]
      : vary
  }

  #allows(origin: string): boolean {
    return this.#any || this.#options.origins.includes(origin)
  }
}
