import type { IncomingMessage } from 'node:http'
import type { RequestHead } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { badRequest, headTooLarge } from './exchange.ts'
import { FIELDS_MAX, fieldsFromRaw } from './fields.ts'

/** What the head of a request says. */
export interface Http1Head {
  head: RequestHead
  /** may a body follow? */
  hasBody: boolean
  /** Was the target a whole URL, as it is sent to a forward proxy? */
  absoluteForm: boolean
}

/**
 * The head of a request that the parser of node:http let through, if it means one thing only.
 * @throws SidecarError headers-too-large, bad-request, or not-implemented for a WebSocket
 */
export function readHttp1Head(request: IncomingMessage, headBytesMax: number): Http1Head {
  const { rawHeaders } = request
  let bytes = 0
  let hosts = 0
  let host = ''
  let hasBody = false
  let codings = ''
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    const value = rawHeaders[i + 1]!
    bytes += name.length + value.length
    switch (name.length) {
      case 4:
        if (name.toLowerCase() !== 'host') break
        hosts++
        host = value
        break
      case 7:
        if (name.toLowerCase() === 'upgrade' && /\bwebsocket\b/i.test(value)) throw webSocket()
        break
      case 14:
        if (name.toLowerCase() === 'content-length' && value !== '0') hasBody = true
        break
      case 17:
        if (name.toLowerCase() !== 'transfer-encoding') break
        hasBody = true
        codings += `${value.toLowerCase()},`
        break
    }
  }
  if (bytes > headBytesMax || rawHeaders.length > 2 * FIELDS_MAX) throw headTooLarge(headBytesMax)
  const isHttp11 = request.httpVersion === '1.1'
  if (!isHttp11 && request.httpVersion !== '1.0')
    throw badRequest('The version is neither HTTP/1.1 nor HTTP/1.0.')
  if (hosts > 1 || (hosts === 0 && isHttp11)) throw badRequest('A request has one Host field.')
  if (codings !== '' && (codings !== 'chunked,' || !isHttp11))
    throw badRequest('The only Transfer-Encoding is chunked, in HTTP/1.1.')
  return { ...readTarget(request, host), hasBody }
}

function readTarget(request: IncomingMessage, host: string): Omit<Http1Head, 'hasBody'> {
  const target = request.url!
  const method = request.method!
  const fields = fieldsFromRaw(request.rawHeaders)
  if (target.startsWith('/') || (target === '*' && method === 'OPTIONS'))
    return { head: { method, scheme: 'http', authority: host, path: target, fields }, absoluteForm: false }
  const absolute = /^(https?):\/\/([^/?#]+)([/?]?[^#]*)$/i.exec(target)
  if (!absolute) throw badRequest('The target is neither a path nor an http:// or https:// URL.')
  const [, scheme, authority, rest] = absolute as unknown as [string, string, string, string]
  // Host is ignored then (RFC 9112 section 3.2.2).
  const path = rest.startsWith('/') ? rest : `/${rest}`
  return { head: { method, scheme: scheme.toLowerCase(), authority, path, fields }, absoluteForm: true }
}

function webSocket(): SidecarError {
  return new SidecarError('not-implemented', 'WebSocket connections are not carried.')
}
