/** What is to be seen of sidecars that talk to each other: two paths, and bytes that nobody may keep or change. */
import type { Fields, RequestHead } from './call.ts'

export const PAIRING_PATH = '/api/mte-pair'
export const TUNNEL_PATH = '/api/mte-tunnel'
export const MESSAGE_PATH = '/api/mte-message'

/** The fields of requests and answers alike. */
export const OUTER_FIELDS: Fields = [
  'content-type',
  'application/octet-stream',
  'cache-control',
  'no-store, no-transform',
]

/** A head with more fields, which the network may see. */
export function withMore(head: RequestHead, fields: Fields): RequestHead {
  return fields.length === 0 ? head : { ...head, fields: [...head.fields, ...fields] }
}

/** The head of a request to a peer's sidecar. */
export function outerHead(path: string): RequestHead {
  return { method: 'POST', scheme: 'http', authority: '', path, fields: OUTER_FIELDS }
}
