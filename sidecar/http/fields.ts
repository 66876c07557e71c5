/** The rules for heads and fields: what is taken from an app, what is passed on, and what is refused. */
import type { Fields, RequestHead, ResponseHead } from '../call.ts'

/** Field lines of one section. Beyond as many node:http drops what it reads in silence, so nothing like that is passed on. */
export const FIELDS_MAX = 2000

/** A head or trailer section that is refused. The message holds nothing that was taken from the call. */
export class HeadError extends Error {
  readonly kind: 'malformed' | 'too-large'

  constructor(kind: 'malformed' | 'too-large', message: string) {
    super(message)
    this.name = 'HeadError'
    this.kind = kind
  }
}

// A method with lower-case letters would be another one behind node:http, which sends capitals (`connect` above all).
const METHOD = /^[!#$%&'*+\-.^_`|~0-9A-Z]+$/
/** A field name, in lower case. */
export const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/
/** What no field value may hold: all but visible characters, SP, HTAB and bytes above 0x7F. */
export const UNFIT_IN_VALUE = /[^\t\x20-\x7e\x80-\xff]/
/** host[:port] of RFC 3986 section 3.2, without a comma: whoever splits Host at commas must see one. */
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+;=%]+)(?::[0-9]{0,5})?$/
/** Bytes above 0x7F pass as they are: node:http sends them, and what they mean is the app's. */
const PATH = /^\/[\x21\x22\x24-\x7e\x80-\xff]*$/
const CONTENT_LENGTH = /^[0-9]{1,15}$/
/** `.` or `..` between separators, and whatever servers are known to read as one: escaped, with `\`, before `;`. */
const DOT_SEGMENT = /(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:$|[/\\;]|%2f|%5c|%3b)/i

/**
 * The fields of a message as node:http and node:http2 read it, without what concerns its connection alone.
 *
 * Host is left out, as it belongs to the authority; so are pseudo-header fields, connection-specific fields and
 * whatever `Connection` names (RFC 9110 section 7.6.1).
 * @param raw names in any case and values, in turns: `rawHeaders` or `rawTrailers`
 */
export function fieldsFromRaw(raw: readonly string[]): Fields {
  const fields: Fields = []
  let connection = ''
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase()
    const value = raw[i + 1]!
    if (name === 'connection') connection += `${value},`
    else if (name !== 'host' && !isConnectionSpecific(name, value) && !name.startsWith(':'))
      fields.push(name, value)
  }
  if (connection === '' || connection === 'keep-alive,' || connection === 'close,') return fields
  const named = new Set(connection.toLowerCase().split(/[ \t,]+/))
  return withoutFields(fields, (name) => named.has(name))
}

/** The value of a field; the first one where there are several. */
export function field(fields: Fields, name: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === name) return fields[i + 1]
  }
  return undefined
}

/** The fields without those of some names; the very same array when there are none. */
export function withoutFields(fields: Fields, matches: (name: string) => boolean): Fields {
  let kept: Fields | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (matches(fields[i]!)) kept ??= fields.slice(0, i)
    else kept?.push(fields[i]!, fields[i + 1]!)
  }
  return kept ?? fields
}

/** The fields with one value, at the end, of a field that may have had others. */
export function withField(fields: Fields, name: string, value: string): Fields {
  return [...withoutFields(fields, (other) => other === name), name, value]
}

/** The head with another authority and other fields, if they are others. */
export function withChanged(head: RequestHead, authority: string, fields: Fields): RequestHead {
  return authority === head.authority && fields === head.fields ? head : { ...head, authority, fields }
}

/** Is it with this field that an app speaks to its own sidecar? It never leaves the machine, neither in a head nor as a trailer. */
export function isForSidecar(name: string): boolean {
  return name.startsWith('x-mte-') || name === 'proxy-authorization'
}

/** Is it with this field that a sidecar speaks for itself? An app's own answer never carries it. */
export function isFromSidecar(name: string): boolean {
  return name === 'mte-error'
}

/**
 * The announced length of a body in bytes, or undefined.
 * @throws HeadError malformed when there is more than one, or one that is not 1 to 15 decimal digits
 */
export function contentLength(fields: Fields): number | undefined {
  let length: number | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] !== 'content-length') continue
    if (length !== undefined || !CONTENT_LENGTH.test(fields[i + 1]!))
      throw malformed('The Content-Length is not one number.')
    length = Number(fields[i + 1])
  }
  return length
}

/** Does an answer to this method with this status end with its head (RFC 9112 section 6.3)? */
export function isBodyless(method: string, status: number): boolean {
  return method === 'HEAD' || status === 204 || status === 304
}

/**
 * Checks that a request can be understood in one way only, and that node:http sends it on as it is.
 *
 * A method is a token in capitals and not CONNECT; a path begins with `/`, or is `*` for OPTIONS.
 * @param bytesMax for method, scheme, authority, path, names and values together
 * @returns the head without a Host field: one that is there must equal the authority, or becomes it where that is empty
 * @throws HeadError
 * @see protocol.md section 4
 */
export function checkRequestHead(head: RequestHead, bytesMax: number): RequestHead {
  const { method, scheme, authority, path, fields } = head
  if (!METHOD.test(method) || method === 'CONNECT')
    throw malformed('The method is none that can be passed on.')
  if (scheme !== 'http' && scheme !== 'https') throw malformed('The scheme is neither http nor https.')
  if (!PATH.test(path) && (path !== '*' || method !== 'OPTIONS')) throw malformed('The path is not valid.')
  checkSection(fields, method.length + scheme.length + authority.length + path.length, bytesMax)
  contentLength(fields)
  const checked = hostAsAuthority(head)
  if (checked.authority !== '' && !AUTHORITY.test(checked.authority))
    throw malformed('The authority is not host[:port].')
  return checked
}

/**
 * Checks an interim (100 to 199, but not 101) or final (200 to 599) response in the same way.
 * @param bytesMax for names and values together
 * @throws HeadError
 */
export function checkResponseHead({ status, fields }: ResponseHead, bytesMax: number): void {
  if (!(Number.isInteger(status) && status >= 100 && status <= 599) || status === 101) {
    throw malformed('The status is none that can be passed on.')
  }
  checkSection(fields, 0, bytesMax)
  if (field(fields, 'host') !== undefined) throw malformed('A response has a Host field.')
  // Neither may announce a body (RFC 9110 section 8.6); who believes the field would take the next response for it.
  if ((contentLength(fields) ?? 0) !== 0 && (status < 200 || status === 204)) {
    throw malformed('A response that has no body announces one.')
  }
}

/** Is it a response that `checkResponseHead` takes? */
export function isValidResponse(head: ResponseHead, bytesMax: number): boolean {
  try {
    checkResponseHead(head, bytesMax)
    return true
  } catch (error) {
    if (!(error instanceof HeadError)) throw error
    return false
  }
}

/**
 * Checks trailer fields: as in heads, and without those that come too late there (RFC 9110 section 6.5.1).
 *
 * These are the fields of framing and routing (connection-specific ones, `te` with any value, Content-Length, Host)
 * and of authentication (Authorization, Proxy-Authorization).
 * @param bytesMax for names and values together
 * @throws HeadError
 */
export function checkTrailers(trailers: Fields, bytesMax: number): void {
  checkSection(trailers, 0, bytesMax)
  for (let i = 0; i < trailers.length; i += 2) {
    if (isTooLate(trailers[i]!)) throw malformed('A trailer field belongs into the head.')
  }
}

/**
 * The path below a base path, for an UPSTREAM that has one.
 *
 * Below `/` every path passes as it is. Below another base nothing passes that may climb out of it: no dot segments
 * in any spelling, and no `*`. A path is never normalised: the app sees what its caller wrote, or nothing.
 * @param base begins with `/`, as the pathname of a URL
 * @throws HeadError malformed
 */
export function joinPath(base: string, path: string): string {
  const prefix = base.endsWith('/') ? base.slice(0, -1) : base
  if (prefix === '') return path
  if (path === '*' || hasDotSegment(path)) throw malformed('The path may lead out of the base path.')
  return prefix + path
}

/** Is there a segment before the query that some server may read as `.` or `..`? */
export function hasDotSegment(path: string): boolean {
  const query = path.indexOf('?')
  return DOT_SEGMENT.test(query < 0 ? path : path.slice(0, query))
}

/** What holds for the fields of heads and trailers alike. */
function checkSection(fields: Fields, bytes: number, bytesMax: number): void {
  if (fields.length > 2 * FIELDS_MAX)
    throw new HeadError('too-large', `There are more than ${FIELDS_MAX} fields.`)
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    const value = fields[i + 1]!
    bytes += name.length + value.length
    if (!NAME.test(name)) throw malformed('A field name is no token in lower case.')
    if (UNFIT_IN_VALUE.test(value) || hasEdgeSpace(value))
      throw malformed('A field value holds what none may hold.')
    if (isConnectionSpecific(name, value)) throw malformed('A field belongs to a connection.')
  }
  if (bytes > bytesMax)
    throw new HeadError('too-large', `The names and values are more than ${bytesMax} bytes.`)
}

/** White space around a value is not part of it (RFC 9110 section 5.5): the next hop would see another value. */
function hasEdgeSpace(value: string): boolean {
  return isSpace(value.charCodeAt(0)) || isSpace(value.charCodeAt(value.length - 1))
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09
}

/** Fields of RFC 9110 section 7.6.1 and RFC 9113 section 8.2.2, by length first: this runs for every field of every call. */
function isConnectionSpecific(name: string, value: string): boolean {
  switch (name.length) {
    case 2:
      return name === 'te' && value.toLowerCase() !== 'trailers'
    case 7:
      return name === 'upgrade'
    case 10:
      return name === 'connection' || name === 'keep-alive'
    case 14:
      return name === 'http2-settings'
    case 16:
      return name === 'proxy-connection'
    case 17:
      return name === 'transfer-encoding'
    default:
      return false
  }
}

function isTooLate(name: string): boolean {
  return (
    name === 'te' ||
    name === 'host' ||
    name === 'content-length' ||
    name === 'authorization' ||
    name === 'proxy-authorization'
  )
}

function hostAsAuthority(head: RequestHead): RequestHead {
  const host = field(head.fields, 'host')
  if (host === undefined) return head
  const fields = withoutFields(head.fields, (name) => name === 'host')
  if (head.fields.length - fields.length > 2) throw malformed('There is more than one Host field.')
  if (head.authority !== '' && head.authority !== host) throw malformed('Host and authority differ.')
  return { ...head, authority: host, fields }
}

function malformed(message: string): HeadError {
  return new HeadError('malformed', message)
}
