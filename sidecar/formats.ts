/**
 * What the values of variables may be: each format takes the raw string and gives what it means.
 *
 * All of them are strict, and throw a Mistake that says what would be right. `12abc` is no number here.
 */
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import type { Fields } from './call.ts'
import { checkResponseHead, hasDotSegment, isForSidecar, isFromSidecar } from './http/fields.ts'
import { LOG_LEVELS, type LogLevel } from './log.ts'

/** What is wrong with a value: the rest of a sentence that begins with the variable's name. Never holds what may be secret. */
export class Mistake extends Error {}

/** What is parsed, or the mistake that was found. */
export function attempt<T>(parse: () => T): T | Mistake {
  try {
    return parse()
  } catch (error) {
    if (error instanceof Mistake) return error
    throw error
  }
}

/** The authorities that a key stands for. */
export interface Pattern {
  /** as it is written, in lower case: `billing`, `billing:9000`, `*.shop` */
  text: string
  /** lower case, at most one `*` in it; an IPv6 address in brackets */
  host: string
  /** undefined: every port */
  port: number | undefined
}

export interface Peer {
  pattern: Pattern
  /** base URL of the peer's sidecar without a slash at its end; may hold `{host}` and `{port}` */
  url: string
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9_][a-z0-9_-]{0,62}(?:\.[a-z0-9_][a-z0-9_-]{0,62})*$/
const HOST_AND_PORT = /^(\[[0-9a-f:.]+\]|[^:[\]]+)(?::([0-9]{1,5}))?$/
const BASE_URL =
  /^(https?:)\/\/(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?(\/[a-z0-9\-._~%!$&'()*+,;=:@/]*)?$/i
const PATH_PREFIX = /^\/[A-Za-z0-9\-._~!$&'()*+;=:@/]+$/
/** setTimeout fires at once beyond this many ms. */
const TIMER_MS_MAX = 2 ** 31 - 1
const HEADER_BYTES_MIN = 1024
const HEADER_BYTES_MAX = 16 * 1024 * 1024
const SECRET_CHARACTERS_MIN = 32
const WORKERS_MAX = 64

/** The format of each kind of variable, by name; that of REDIS_URL is in redis/redis-url.ts. */
export const FORMATS = {
  baseUrl,
  clientIdSecret,
  clientIdSecretFile: (path: string) => contentOf(path, clientIdSecret),
  clientIdSecretPreviousFile: (path: string) => contentIfAny(path, clientIdSecret),
  outboundToken,
  outboundTokenFile: (path: string) => contentOf(path, outboundToken),
  outboundTokenPreviousFile: (path: string) => contentIfAny(path, outboundToken),
  peers: (raw: string) => each(raw.split(','), 'entry', peer),
  peersFile: (path: string) => ({ path, peers: contentOf(path, peersOfFile) }),
  authorities: (raw: string) => each(raw.split(','), 'entry', pattern),
  pathPrefixes: (raw: string) => each(raw.split(','), 'entry', pathPrefix),
  port,
  portOrOff: (raw: string) => (raw === 'off' ? ('off' as const) : port(raw, ', or off')),
  listenHost,
  name,
  logLevel,
  flag,
  traceContext,
  carriage,
  headers,
  origins,
  methods: (raw: string) => each(raw.split(','), 'entry', method),
  fieldNames: (raw: string) => each(raw.split(','), 'entry', fieldName),
  seconds,
  headerBytes: (raw: string) => bytes(raw, HEADER_BYTES_MIN, HEADER_BYTES_MAX),
  bodyBytes: (raw: string) => bytes(raw, 1, Number.MAX_SAFE_INTEGER),
  workers,
  certificatesFile: (path: string) => contentOf(path, certificates),
} as const

/**
 * A base URL: http or https, no credentials, query or fragment; a path is a prefix.
 * @returns it in its normal form, without a slash at its end
 * @throws Mistake without anything taken from the value
 */
export function baseUrl(raw: string): string {
  if (!/^https?:\/\//i.test(raw)) throw new Mistake('must begin with http:// or https://')
  if (/^[^/]*\/\/[^/?#]*@/.test(raw)) throw new Mistake('must be without user name and password')
  if (/[?#]/.test(raw)) throw new Mistake('must be without a query (?) and a fragment (#)')
  const [, , host, portDigits] = BASE_URL.exec(raw) ?? []
  const ok = host !== undefined && isHost(host.toLowerCase()) && isPeerPort(portDigits) && URL.canParse(raw)
  if (!ok) throw new Mistake('must have the form http://host:port or http://host:port/path')
  return withoutSlash(new URL(raw).href)
}

/** The host, in its normal form, and the port of `host[:port]`; undefined where it is nothing like that. */
export function hostAndPort(authority: string): { host: string; port: number | undefined } | undefined {
  const [, name, portDigits] = HOST_AND_PORT.exec(authority.toLowerCase()) ?? []
  const host = name?.replace(/\.$/, '')
  if (host === undefined || !isHost(host) || !isPeerPort(portDigits)) return undefined
  return {
    host: host.startsWith('[') ? new URL(`http://${host}`).hostname : host,
    port: portDigits === undefined ? undefined : Number(portDigits),
  }
}

/**
 * The peers of a PEERS_FILE: `authority=baseURL`, one a line; empty lines and those that begin with # say nothing.
 * @throws Mistake
 */
function peersOfFile(text: string): Peer[] {
  const lines = text.split('\n').map((line) => line.trim().replace(/^#.*/, ''))
  return each(lines, 'line', (line) => (line === '' ? undefined : peer(line))).filter(
    (one) => one !== undefined,
  )
}

/**
 * Checks that each authority stands for one thing.
 * @throws Mistake
 */
export function checkOnce(patterns: readonly Pattern[]): void {
  const seen = new Set<string>()
  for (const { text } of patterns) {
    if (seen.has(text)) {
      throw new Mistake(
        `must not name "${text}" again: PEERS, PEERS_FILE and PASS_THROUGH_HOSTS together name each authority once`,
      )
    }
    seen.add(text)
  }
}

function peer(raw: string): Peer {
  const equals = raw.indexOf('=')
  if (equals < 0) throw new Mistake('must have the form authority=http://host:port')
  const key = pattern(raw.slice(0, equals).trim())
  const template = raw.slice(equals + 1).trim()
  try {
    const url = baseUrl(template.replaceAll('{host}', 'host').replaceAll('{port}', '80'))
    return { pattern: key, url: /[{}]/.test(template) ? withoutSlash(template) : url }
  } catch (error) {
    const why = (error as Error).message
    throw new Mistake(`must give a base URL for "${key.text}", which ${why}`, { cause: error })
  }
}

function pattern(raw: string): Pattern {
  const parts = raw.split('*')
  // A star is a piece of a name here, so that the rest is held to the rules of names.
  const parsed = parts.length <= 2 ? hostAndPort(parts.join('_')) : undefined
  if (!parsed) {
    throw new Mistake(
      'must begin with host, host:port or a pattern with one * such as *.shop, without http:// and path',
    )
  }
  const [hostText = ''] = HOST_AND_PORT.exec(raw.toLowerCase())?.slice(1) ?? []
  const host = parts.length === 2 ? hostText.replace(/\.$/, '') : parsed.host
  return { text: parsed.port === undefined ? host : `${host}:${parsed.port}`, host, port: parsed.port }
}

function pathPrefix(raw: string): string {
  if (!PATH_PREFIX.test(raw) || raw.includes('//') || hasDotSegment(raw)) {
    throw new Mistake(
      'must be a path prefix such as /healthz; / alone would let every call reach the app in plain',
    )
  }
  if (raw.startsWith('/api/mte-'))
    throw new Mistake("must not begin with /api/mte-, which is the sidecar's own")
  return raw
}

function port(raw: string, besides = ''): number {
  const number = /^[0-9]{1,5}$/.test(raw) ? Number(raw) : Number.NaN
  if (number <= 65535) return number
  if (raw.startsWith('tcp://')) {
    throw new Mistake(
      'was set by Kubernetes for a Service of that name: set enableServiceLinks: false in the pod',
    )
  }
  throw new Mistake(`must be a port from 0 to 65535${besides}`)
}

function listenHost(raw: string): string {
  if (net.isIP(raw) || HOST_NAME.test(raw.toLowerCase())) return raw
  throw new Mistake('must be an IP address or a host name, without brackets and port')
}

function name(raw: string): string {
  const size = Buffer.byteLength(raw)
  if (size >= 1 && size <= 255 && /^\P{C}+$/u.test(raw) && raw.trim() === raw) return raw
  throw new Mistake('must be 1 to 255 bytes of printable text')
}

function clientIdSecret(raw: string): string {
  if (/\p{Cc}/u.test(raw) || raw.trim() !== raw) {
    throw new Mistake('must be without control characters, and without space at its ends')
  }
  if ([...raw].length < SECRET_CHARACTERS_MIN) {
    throw new Mistake(`must have ${SECRET_CHARACTERS_MIN} characters or more: mte-sidecar keygen makes one`)
  }
  return raw
}

function outboundToken(raw: string): string {
  if (/^[\x21-\x7e]+$/.test(raw)) return raw
  throw new Mistake(
    'must be printable ASCII without space, as it travels in a header: mte-sidecar keygen makes one',
  )
}

function logLevel(raw: string): LogLevel {
  const level = LOG_LEVELS.find((one) => one === raw)
  if (level) return level
  throw new Mistake(`must be one of ${LOG_LEVELS.join(', ')}`)
}

function traceContext(raw: string): 'outside' | 'inside' {
  if (raw === 'outside' || raw === 'inside') return raw
  throw new Mistake('must be outside or inside')
}

function carriage(raw: string): 'auto' | 'message' | 'tunnel' {
  if (raw === 'auto' || raw === 'message' || raw === 'tunnel') return raw
  throw new Mistake('must be auto, message or tunnel')
}

function flag(raw: string): boolean {
  if (raw === 'true' || raw === 'false') return raw === 'true'
  throw new Mistake('must be true or false')
}

function seconds(raw: string): number {
  const ms = /^[0-9]{1,7}(?:\.[0-9]{1,3})?$/.test(raw) ? Math.round(Number(raw) * 1000) : Number.NaN
  if (ms > 0 && ms <= TIMER_MS_MAX) return ms
  throw new Mistake(
    `must be a number of seconds such as 5 or 0.5, more than 0 and at most ${Math.floor(TIMER_MS_MAX / 1000)}`,
  )
}

function bytes(raw: string, min: number, max: number): number {
  const number = /^[0-9]{1,16}$/.test(raw) ? Number(raw) : Number.NaN
  if (number >= min && number <= max) return number
  throw new Mistake(`must be a whole number of bytes such as 65536, from ${min} to ${max}`)
}

function workers(raw: string): number {
  const number = /^[0-9]{1,2}$/.test(raw) ? Number(raw) : Number.NaN
  if (number >= 1 && number <= WORKERS_MAX) return number
  throw new Mistake(`must be a whole number of processes, from 1 to ${WORKERS_MAX}`)
}

function headers(raw: string): Fields {
  const form = 'must be a JSON object of strings such as {"x-service-name":"billing"}'
  let parsed: unknown
  try {
    parsed = JSON.parse(raw)
  } catch {
    throw new Mistake(form)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw new Mistake(form)
  const entries = Object.entries(parsed).map(([key, value], i) => header(key, value, i + 1, form))
  const names = new Set(entries.map(([key]) => key))
  if (names.size < entries.length) throw new Mistake('must hold each name once, in whatever case')
  return entries.flat()
}

function header(key: string, value: unknown, position: number, form: string): [string, string] {
  // What is no name may be a whole header, its value included, and so is not shown.
  if (!TOKEN.test(key)) throw new Mistake(`must have names of headers as its keys; key ${position} is none`)
  const shown = JSON.stringify(key)
  if (typeof value !== 'string') throw new Mistake(`${form}; the value of ${shown} is none`)
  if (!/^[\t\x20-\x7e]*$/.test(value)) throw new Mistake(`must have printable ASCII as the value of ${shown}`)
  const lower = key.toLowerCase()
  if (lower === 'content-length' || lower === 'te' || isForSidecar(lower) || isFromSidecar(lower)) {
    throw new Mistake(`must not hold ${shown}, which is not yours to set`)
  }
  try {
    checkResponseHead({ status: 200, fields: [lower, value] }, Number.POSITIVE_INFINITY)
  } catch (error) {
    throw new Mistake(`must not hold ${shown}: ${(error as Error).message}`, { cause: error })
  }
  return [lower, value]
}

function origins(raw: string): string[] {
  if (raw.trim() === '*') return ['*']
  return each(raw.split(','), 'entry', origin)
}

function origin(raw: string): string {
  if (/^[a-z][a-z0-9+.-]*:\/\/[a-z0-9_.:[\]-]+$/.test(raw) && URL.canParse(raw)) {
    const { protocol, host } = new URL(raw)
    if (raw === `${protocol}//${host}`) return raw
  }
  const right = /^https?:/i.test(raw) && URL.canParse(raw) ? new URL(raw).origin : 'https://www.example.com'
  throw new Mistake(`must be an origin as browsers send it, such as ${right}, or * alone`)
}

function method(raw: string): string {
  if (TOKEN.test(raw) && raw !== '*' && raw === raw.toUpperCase()) return raw
  throw new Mistake('must be a method in capitals such as GET')
}

function fieldName(raw: string): string {
  if (TOKEN.test(raw) && raw !== '*') return raw.toLowerCase()
  throw new Mistake('must be the name of a header; leave the variable unset to allow whatever is asked for')
}

function certificates(text: string): string[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new Mistake('must hold a certificate in PEM form')
  return each(blocks, 'certificate', (block) => {
    try {
      return new X509Certificate(block).toString()
    } catch {
      throw new Mistake('must be a valid certificate')
    }
  })
}

/**
 * What the text of a file means that a variable names; line ends at the text's end are no part of it.
 * @throws Mistake
 */
export function contentOf<T>(path: string, parse: (text: string) => T): T {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path)).replace(/[\r\n]+$/, '')
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? 'unknown'
    throw new Mistake(`must name a file of UTF-8 text that can be read (${why})`, { cause: error })
  }
  try {
    return parse(text)
  } catch (error) {
    throw new Mistake(`names a file that holds a mistake: ${(error as Error).message}`, { cause: error })
  }
}

/**
 * Like `contentOf`, of a file that need not be there.
 * @returns undefined when it is not, or is empty
 * @throws Mistake
 */
function contentIfAny<T>(path: string, parse: (text: string) => T): T | undefined {
  try {
    return contentOf(path, (text) => (text === '' ? undefined : parse(text)))
  } catch (error) {
    const { cause } = error as { cause?: NodeJS.ErrnoException }
    if (cause?.code === 'ENOENT') return undefined
    throw error
  }
}

/**
 * Parses the parts of a list.
 * @param word what a part is called: each that is wrong is named by it and its position
 * @throws Mistake
 */
export function each<T>(parts: readonly string[], word: string, parse: (part: string) => T): T[] {
  const mistakes: string[] = []
  const parsed = parts.flatMap((part, i) => {
    try {
      return [parse(part.trim())]
    } catch (error) {
      if (!(error instanceof Mistake)) throw error
      mistakes.push(`${word} ${i + 1} ${error.message}`)
      return []
    }
  })
  if (mistakes.length > 0) throw new Mistake(mistakes.join('; '))
  return parsed
}

function isHost(host: string): boolean {
  return host.startsWith('[') ? net.isIPv6(host.slice(1, -1)) : HOST_NAME.test(host)
}

function isPeerPort(digits: string | undefined): boolean {
  return digits === undefined || (Number(digits) >= 1 && Number(digits) <= 65535)
}

function withoutSlash(url: string): string {
  return url.endsWith('/') ? url.slice(0, -1) : url
}
