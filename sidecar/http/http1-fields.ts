/** The field lines of HTTP/1.1 messages: heads and trailers, one rule for both directions. */
import { FIELDS_MAX } from './fields.ts'

/** What was read is no message, or one that is refused. The message of the error holds nothing of what was read. */
export class Http1Error extends Error {
  readonly kind: 'malformed' | 'too-large'

  constructor(kind: 'malformed' | 'too-large', message: string) {
    super(message)
    this.name = 'Http1Error'
    this.kind = kind
  }
}

export function malformed(message: string): Http1Error {
  return new Http1Error('malformed', message)
}

/** A section of field lines, and what it says about its message and its connection. */
export class FieldSection {
  /** names in lower case and values, in turns */
  raw: string[] = []
  /** of names and values */
  bytes = 0
  host: string | undefined = undefined
  length: number | undefined = undefined
  chunked = false
  /** every value of Connection, and of Proxy-Connection, which parsers take for it, in lower case, joined by commas */
  connection: string | undefined = undefined
  expectsContinue = false
  upgrade: string | undefined = undefined
}

/** Fields that say how a message is framed, or something about its connection. */
type Role = 'host' | 'content-length' | 'transfer-encoding' | 'connection' | 'expect' | 'upgrade'

interface FieldName {
  lowerCase: string
  role: Role | undefined
}

const ROLES: ReadonlyMap<string, Role> = new Map([
  ['host', 'host'],
  ['content-length', 'content-length'],
  ['transfer-encoding', 'transfer-encoding'],
  ['connection', 'connection'],
  ['proxy-connection', 'connection'],
  ['expect', 'expect'],
  ['upgrade', 'upgrade'],
])
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const CONTENT_LENGTH = /^[0-9]{1,15}$/
/** Field lines of one section: of those that are passed on there are FIELDS_MAX at most, and others come with them. */
const READ_FIELDS_MAX = 2 * FIELDS_MAX
/** Names that are remembered, and how long they may be: apps send the same few over and over. */
const NAMES_MAX = 1000
const NAME_LENGTH_MAX = 64
const TAB = 0x09
const CR = 0x0d
const SPACE = 0x20

const names = new Map<string, FieldName>()

/**
 * Reads field lines up to the empty line (RFC 9112 section 5).
 * @param text Latin-1, whole lines that end with CRLF, the last one empty; without other control characters than tabs
 * @param at where the first line begins
 * @throws Http1Error
 */
export function readFields(text: string, at: number): FieldSection {
  const section = new FieldSection()
  const { raw } = section
  while (text.charCodeAt(at) !== CR) {
    const end = text.indexOf('\r', at)
    const colon = text.indexOf(':', at)
    if (colon < 0 || colon > end) throw malformed('A field line has no colon.')
    const { lowerCase, role } = fieldName(text.substring(at, colon))
    const first = firstOf(text, colon + 1, end)
    const last = lastOf(text, first, end)
    const value = text.substring(first, last)
    raw.push(lowerCase, value)
    section.bytes += lowerCase.length + value.length
    if (role !== undefined) {
      // Some readers take it for another coding then.
      if (role === 'transfer-encoding' && last < end)
        throw malformed('There is space behind the Transfer-Encoding.')
      note(section, role, value)
    }
    at = end + 2
  }
  if (raw.length > 2 * READ_FIELDS_MAX)
    throw new Http1Error('too-large', `There are more than ${READ_FIELDS_MAX} field lines.`)
  return section
}

/**
 * Reads trailer fields.
 * @returns names in lower case and values, in turns
 * @throws Http1Error also where one is about the framing, which is over, or about the connection
 */
export function readTrailers(text: string): string[] {
  const { raw, host, length, chunked, connection, upgrade } = readFields(text, 0)
  if (
    host !== undefined ||
    length !== undefined ||
    chunked ||
    connection !== undefined ||
    upgrade !== undefined
  )
    throw malformed('A trailer field belongs into the head.')
  return raw
}

function note(section: FieldSection, role: Role, value: string): void {
  switch (role) {
    case 'host':
      if (section.host !== undefined) throw malformed('There is more than one Host field.')
      section.host = value
      break
    case 'content-length':
      if (section.length !== undefined || section.chunked || !CONTENT_LENGTH.test(value))
        throw malformed('The Content-Length is not one number, or not the only framing.')
      section.length = Number(value)
      break
    case 'transfer-encoding':
      if (section.chunked || section.length !== undefined || value.toLowerCase() !== 'chunked')
        throw malformed('The Transfer-Encoding is not chunked, or not the only framing.')
      section.chunked = true
      break
    case 'connection': {
      const lowerCase = value.toLowerCase()
      section.connection = section.connection === undefined ? lowerCase : `${section.connection},${lowerCase}`
      break
    }
    case 'expect':
      section.expectsContinue = value.toLowerCase() === '100-continue'
      break
    case 'upgrade':
      section.upgrade ??= value
      break
  }
}

function fieldName(text: string): FieldName {
  return names.get(text) ?? newFieldName(text)
}

function newFieldName(text: string): FieldName {
  if (!TOKEN.test(text)) throw malformed('A field name is no token.')
  const lowerCase = text.toLowerCase()
  const name: FieldName = { lowerCase, role: ROLES.get(lowerCase) }
  if (text.length > NAME_LENGTH_MAX) return name
  if (names.size >= NAMES_MAX) names.clear()
  // Not a part of the head, which it would keep in memory with everything that is in there.
  const copy = Buffer.from(text, 'latin1').toString('latin1')
  name.lowerCase = copy.toLowerCase()
  names.set(copy, name)
  return name
}

/** Where the value begins, behind white space. */
function firstOf(text: string, at: number, end: number): number {
  while (at < end && isSpace(text.charCodeAt(at))) at++
  return at
}

/** Where the value ends, before white space. */
function lastOf(text: string, start: number, end: number): number {
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--
  return end
}

function isSpace(code: number): boolean {
  return code === SPACE || code === TAB
}
