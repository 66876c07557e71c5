import type { RequestHead } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { badRequest, headTooLarge } from './exchange.ts'
import { FIELDS_MAX, fieldsFromRaw } from './fields.ts'
import type { Http1RequestHead } from './http1-reader.ts'

/** What the head of a request says. */
export interface Http1Head {
  head: RequestHead
  /** Was the target a whole URL, as it is sent to a forward proxy? */
  absoluteForm: boolean
}

/**
 * The head of a request that the reader let through, if it is one that is carried.
 * @throws SidecarError headers-too-large, bad-request, or not-implemented for CONNECT and a WebSocket
 */
export function readHttp1Head(read: Http1RequestHead, headBytesMax: number): Http1Head {
  const { method, target, raw, host } = read
  if (method === 'CONNECT') throw notCarried('CONNECT is not carried: call http:// URLs through the sidecar.')
  if (read.upgrade !== undefined && /\bwebsocket\b/i.test(read.upgrade))
    throw notCarried('WebSocket connections are not carried.')
  if (read.bytes > headBytesMax || raw.length > 2 * FIELDS_MAX) throw headTooLarge(headBytesMax)
  const fields = fieldsFromRaw(raw)
  if (target.startsWith('/') || target === '*')
    return {
      head: { method, scheme: 'http', authority: host ?? '', path: target, fields },
      absoluteForm: false,
    }
  const absolute = /^(https?):\/\/([^/?#]+)([/?]?[^#]*)$/i.exec(target)
  if (!absolute) throw badRequest('The target is neither a path nor an http:// or https:// URL.')
  const [, scheme, authority, rest] = absolute as unknown as [string, string, string, string]
  // Host is ignored then (RFC 9112 section 3.2.2).
  const path = rest.startsWith('/') ? rest : `/${rest}`
  return { head: { method, scheme: scheme.toLowerCase(), authority, path, fields }, absoluteForm: true }
}

function notCarried(detail: string): SidecarError {
  return new SidecarError('not-implemented', detail)
}
