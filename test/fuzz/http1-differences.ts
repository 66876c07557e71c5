/** Finds where the readers of the sidecar and node:http take the same bytes for different things. */
import { isDeepStrictEqual } from 'node:util'
import {
  type Message,
  type Reading,
  requestsByNode,
  requestsBySidecar,
  responseByNode,
  responseBySidecar,
} from './http1-readings.ts'

export interface Comparison {
  bySidecar: Reading
  byNode: Reading
  /** what is wrong, or undefined if the sidecar takes nothing but what node:http takes in the same way */
  difference: string | undefined
}

export function compareRequests(text: string): Comparison {
  const bytes = Buffer.from(text, 'latin1')
  const bySidecar = requestsBySidecar(bytes, 1)
  const whole = requestsBySidecar(bytes, bytes.length)
  const last = bySidecar.messages.at(-1)
  // What comes behind the last request of a connection is not read, and no part of the comparison.
  const read = last?.keepAlive === false ? bytes.subarray(0, last.end) : bytes
  const byNode = requestsByNode(read, cuts(bySidecar))
  return { bySidecar, byNode, difference: inPieces(bySidecar, whole) ?? differs(bySidecar, byNode) }
}

export async function compareResponse(method: string, text: string): Promise<Comparison> {
  const bytes = Buffer.from(text, 'latin1')
  const bySidecar = responseBySidecar(method, bytes, 1)
  const last = bySidecar.messages.at(-1)
  // Nor is what comes behind a response: if it comes with it, that is refused.
  const read = last?.start.startsWith('1') === false ? bytes.subarray(0, last.end) : bytes
  const whole = responseBySidecar(method, read, read.length)
  const byNode = await responseByNode(method, read, cuts(bySidecar))
  return { bySidecar, byNode, difference: inPieces(bySidecar, whole) ?? differs(bySidecar, byNode) }
}

/** Such that it shows whether node:http finds the end of a message just there. */
function cuts({ messages }: Reading): number[] {
  return messages.flatMap(({ end }) => (end === undefined ? [] : [end - 1, end]))
}

/** Does the sidecar read the same whatever the pieces are? */
function inPieces(byteByByte: Reading, whole: Reading): string | undefined {
  const withoutEnds = ({ messages, refused }: Reading) => ({
    refused,
    messages: messages.map((message) => ({ ...message, end: message.end !== undefined })),
  })
  if (isDeepStrictEqual(withoutEnds(byteByByte), withoutEnds(whole))) return undefined
  return 'The sidecar reads it in another way when it comes byte by byte.'
}

function differs(bySidecar: Reading, byNode: Reading): string | undefined {
  for (const [i, message] of bySidecar.messages.entries()) {
    const other = byNode.messages[i]
    const difference = other ? messageDiffers(message, other) : 'node:http does not see it.'
    if (difference) return `Message ${i + 1}: ${difference}`
  }
  if (bySidecar.refused) return undefined
  if (byNode.refused) return 'node:http refuses something.'
  if (byNode.messages.length > bySidecar.messages.length) return 'node:http sees another message.'
  return undefined
}

function messageDiffers(message: Message, other: Message): string | undefined {
  if (message.start !== other.start) return 'The start lines differ.'
  if (!isDeepStrictEqual(message.fields, other.fields)) return 'The fields differ.'
  if (message.keepAlive && !other.keepAlive) return 'node:http closes the connection.'
  // Of a message that is not complete in the end, either may have seen less.
  if (message.end === undefined) return other.body.startsWith(message.body) ? undefined : 'The bodies differ.'
  if (message.end !== other.end) return 'The ends differ.'
  if (message.body !== other.body) return 'The bodies differ.'
  return isDeepStrictEqual(message.trailers, other.trailers) ? undefined : 'The trailers differ.'
}
