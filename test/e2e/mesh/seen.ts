/** What is looked at of calls: all but what each hop has for itself. */
import { createHash } from 'node:crypto'
import type { Fields } from '../../../sidecar/call.ts'
import type { WholeAnswer } from '../../support/app-client.ts'

/** Tell the app of which kind a call is, and which one of its kind. */
export const KIND_FIELD = 'x-kind'
export const NUMBER_FIELD = 'x-number'
/** Fields of each hop, and those that node:http adds by itself. */
const OF_HOPS = ['connection', 'keep-alive', 'transfer-encoding', 'date', 'host', KIND_FIELD, NUMBER_FIELD]
/** Of a body, in what was seen; instead of longer ones there is a digest. */
const SHOWN_BYTES = 100

/**
 * The fields of a message without what is of a hop.
 * @param bytes of its body: a message whose body is known when it leaves may get the length that it has
 */
export function withoutHops(fields: readonly string[], bytes?: number): Fields {
  const isOfHop = (name: string, value: string) =>
    OF_HOPS.includes(name) || name.startsWith(':') || (name === 'content-length' && value === String(bytes))
  return fields.filter((_, i) => {
    const start = i - (i % 2)
    return !isOfHop(fields[start]!.toLowerCase(), fields[start + 1]!)
  })
}

/** Of an answer, what is to be the same, whatever is between. */
export interface AppAnswer {
  status: number
  fields: Fields
  body: string
  trailers: Fields
  interim: unknown[]
}

/** What an app sees of an answer. */
export function seen({ status, fields, body, trailers, interim }: WholeAnswer): AppAnswer {
  return {
    status,
    fields: withoutHops(fields, body.length),
    body: body.length < SHOWN_BYTES ? body.toString() : digest(body),
    trailers,
    interim: interim.map(({ status, fields }) => [status, withoutHops(fields)]),
  }
}

function digest(body: Buffer): string {
  return `${body.length} bytes, ${createHash('sha256').update(body).digest('hex')}`
}
