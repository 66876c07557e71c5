/** What can be said about the sidecar of a pod: by its annotations `mte.sidecar/…`, and for all pods by whoever injects. */
import { FORMATS, Mistake } from '../formats.ts'
import { meantName } from '../misspelt.ts'
import { describe, parseRedisUrl } from '../redis/redis-url.ts'
import { VERSION } from '../version.ts'

interface Option<T, D extends string | null> {
  /** @throws Mistake */
  parse(raw: string): T
  /** as it would be written; null: none */
  default: D
  doc: string
}

/** Where Redis is: a URL without a password, or a Secret whose key REDIS_URL holds one. */
type Redis = { url: string; ports: readonly number[] } | { secret: string }

/** The ports of the sidecar, the same in every pod, by their variables. */
export const PORTS = { PORT: 7781, OUTBOUND_PORT: 7780, ADMIN_PORT: 7782 } as const

export const ANNOTATION_PREFIX = 'mte.sidecar/'
const HTTPS_PORT = 443
/** A DNS name, as those of Secrets are. */
const DNS_NAME =
  /^(?=.{1,253}$)[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)*$/
/** https://github.com/distribution/reference/blob/main/reference.go */
export const IMAGE =
  /^(?:[a-zA-Z0-9.-]+(?::[0-9]{1,5})?\/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$/
export const IMAGE_CHARACTERS_MAX = 512
export const QUANTITY = /^([0-9]{1,15}(?:\.[0-9]{1,3})?)(m|k|Ki|M|Mi|G|Gi)?$/
const FACTORS: Record<string, number> = {
  m: 1e-3,
  '': 1,
  k: 1e3,
  Ki: 2 ** 10,
  M: 1e6,
  Mi: 2 ** 20,
  G: 1e9,
  Gi: 2 ** 30,
}

/** All of them, in the order in which they are told. */
export const OPTIONS = {
  inject: option(flag, 'true', 'false leaves the pod as it is'),
  'upstream-port': option(
    upstreamPort,
    null,
    'port of the app, or none for an app that only calls others; needed unless the containers declare one port',
  ),
  peers: option(
    asWritten(FORMATS.peers),
    null,
    'as PEERS: billing=http://billing, comma-separated; authority that the app calls = base URL of its sidecar',
  ),
  'pass-through-hosts': option(
    asWritten(FORMATS.authorities),
    null,
    'as PASS_THROUGH_HOSTS: host or host:port, comma-separated, that the app may call in plain',
  ),
  'pass-through-routes': option(
    asWritten(FORMATS.pathPrefixes),
    null,
    'as PASS_THROUGH_ROUTES: path prefixes such as /healthz that port 7781 forwards in plain to the app, for its probes',
  ),
  name: option(
    FORMATS.name,
    null,
    'as NAME: what the sidecar calls itself to its peers; needed beside redis, and then the same for the replicas of one app alone',
  ),
  secret: option(
    secretName,
    'mte-sidecar',
    'Secret whose key CLIENT_ID_SECRET holds the secret, and CLIENT_ID_SECRET_PREVIOUS the one before',
  ),
  'outbound-token': option(
    flag,
    'false',
    'true has outbound calls show the token that the key OUTBOUND_TOKEN of that Secret holds, or OUTBOUND_TOKEN_PREVIOUS',
  ),
  redis: option(
    redis,
    null,
    'where replicas share pairs: secret/NAME for a Secret whose key REDIS_URL says it, or a URL without password; unset: pairs are kept in memory',
  ),
  image: option(image, `mte-sidecar:${VERSION}`, 'image of the sidecar'),
  redirect: option(
    redirectedPorts,
    null,
    'ports such as 80, comma-separated: what the app calls there is led to the sidecar, by an init container that needs NET_ADMIN; unset: the app calls the sidecar itself',
  ),
  'redirect-image': option(
    image,
    `mte-sidecar-redirect:${VERSION}`,
    'image of that init container: it has nft, and nothing else is asked of it',
  ),
  native: option(
    flag,
    'true',
    'true makes a native sidecar, for Kubernetes 1.29 or newer; false one more container',
  ),
  'log-level': option(
    FORMATS.logLevel,
    null,
    'as LOG_LEVEL: fatal, error, warn, info, debug, trace or silent',
  ),
  'drain-seconds': option(
    FORMATS.seconds,
    '25',
    'as DRAIN_SECONDS: time for open calls to finish, before the app stops and once more after it',
  ),
  cpu: option(quantity('50m'), '50m', 'CPU that is requested'),
  memory: option(quantity('96Mi'), '96Mi', 'memory that is requested'),
  'memory-limit': option(quantity('256Mi'), '256Mi', 'memory at which the sidecar is killed'),
  'otlp-endpoint': option(
    FORMATS.baseUrl,
    null,
    'as OTEL_EXPORTER_OTLP_ENDPOINT: base URL of the collector for traces and metrics, such as http://collector:4318',
  ),
  'admin-host': option(
    oneOf('0.0.0.0', '::'),
    '0.0.0.0',
    'where the kubelet reaches the probes; :: in a cluster of IPv6 alone',
  ),
} as const

export type OptionName = keyof typeof OPTIONS

/** What each option means; undefined: it is not set, and has no default. */
export type Options = {
  [N in OptionName]: (typeof OPTIONS)[N] extends Option<infer T, infer D>
    ? T | (D extends null ? undefined : never)
    : never
}

/** What is wrong with an option: `what` goes on where the option's name ends. */
interface Told {
  name: OptionName
  what: string
}

/** Those that can be given for all pods at once: the others are of one pod alone. */
export const DEFAULT_NAMES = (Object.keys(OPTIONS) as OptionName[]).filter(
  (name) => name !== 'inject' && name !== 'name',
)

/**
 * Reads options; an empty one is as good as unset.
 * @returns those that are set and right, and a sentence for each that is wrong, without its name
 */
export function readOptions(raw: Readonly<Partial<Record<OptionName, string>>>): {
  options: Partial<Options>
  told: Told[]
} {
  const told: Told[] = []
  const options: Partial<Record<OptionName, unknown>> = {}
  for (const [name, text] of Object.entries(raw) as [OptionName, string][]) {
    if (text === '') continue
    try {
      options[name] = OPTIONS[name].parse(text)
    } catch (error) {
      if (!(error instanceof Mistake)) throw error
      told.push({ name, what: error.message })
    }
  }
  return { options: options as Partial<Options>, told }
}

/**
 * Reads the options in a pod's annotations.
 * @param defaults for all pods, instead of those of the table
 * @returns what is set by either, and each mistake with the annotation that it is about
 */
export function readAnnotations(
  annotations: Readonly<Record<string, string>>,
  defaults: Partial<Options>,
): { options: Options; mistakes: { annotation: string; text: string }[] } {
  const raw: Partial<Record<OptionName, string>> = {}
  const mistakes: { annotation: string; text: string }[] = []
  for (const [annotation, text] of Object.entries(annotations)) {
    if (!annotation.startsWith(ANNOTATION_PREFIX)) continue
    const name = annotation.slice(ANNOTATION_PREFIX.length)
    if (isOptionName(name)) raw[name] = text
    else mistakes.push({ annotation, text: `${annotation} is no annotation of mte-sidecar; ${meant(name)}` })
  }
  const read = readOptions(raw)
  const options = { ...BUILT_IN, ...defaults, ...read.options } as Options
  for (const { name, what } of [...read.told, ...contradictions(options)]) {
    mistakes.push({ annotation: annotationOf(name), text: `${annotationOf(name)} ${what}` })
  }
  return { options, mistakes }
}

export function annotationOf(name: OptionName): string {
  return `${ANNOTATION_PREFIX}${name}`
}

const BUILT_IN = readOptions(
  Object.fromEntries(Object.entries(OPTIONS).map(([name, { default: value }]) => [name, value ?? ''])),
).options

/** What is wrong only in the light of another option. */
function* contradictions(options: Options): Generator<Told> {
  if (options.redis && options.name === undefined) {
    const what = `must be set beside ${annotationOf('redis')}: the replicas of one app, and they alone, share a name`
    yield { name: 'name', what }
  }
  if (options.redirect && options['outbound-token']) {
    const what = `must not be true beside ${annotationOf('redirect')}: an app that does not know of the sidecar shows it no token`
    yield { name: 'outbound-token', what }
  }
  if (amount(options.memory) > amount(options['memory-limit'])) {
    yield {
      name: 'memory',
      what: `must not be more than ${annotationOf('memory-limit')}, which is ${options['memory-limit']}`,
    }
  }
}

function meant(name: string): string {
  const names = Object.keys(OPTIONS)
  const asVariable = (text: string) => text.replaceAll('-', '_').toUpperCase()
  const near = meantName(asVariable(name), names.map(asVariable))
  const found = names.find((one) => asVariable(one) === near)
  return found ? `${annotationOf(found as OptionName)} is` : `there are ${names.join(', ')}`
}

function isOptionName(name: string): name is OptionName {
  return Object.hasOwn(OPTIONS, name)
}

function option<T, D extends string | null>(
  parse: (raw: string) => T,
  fallback: D,
  doc: string,
): Option<T, D> {
  return { parse, default: fallback, doc }
}

function flag(raw: string): boolean {
  return oneOf('true', 'false')(raw) === 'true'
}

function oneOf<T extends string>(...values: T[]): (raw: string) => T {
  return (raw) => {
    const found = values.find((value) => value === raw)
    if (found === undefined) throw new Mistake(`must be ${values.map((value) => `"${value}"`).join(' or ')}`)
    return found
  }
}

/** Checks a value that is handed on in the form in which it is written. */
function asWritten(parse: (raw: string) => unknown): (raw: string) => string {
  return (raw) => {
    parse(raw)
    return raw
  }
}

function upstreamPort(raw: string): number | 'none' {
  if (raw === 'none') return raw
  const port = portFrom(raw)
  if (port === undefined) throw new Mistake('must be a port from 1 to 65535, or none')
  if (isOwn(port)) {
    throw new Mistake(`must be the port of the app, and not ${port}, which is the sidecar's own`)
  }
  return port
}

function redirectedPorts(raw: string): readonly number[] {
  const ports = raw.split(',').map((entry) => {
    const port = portFrom(entry.trim())
    if (port === undefined) throw new Mistake('must be ports from 1 to 65535, comma-separated, such as 80')
    if (isOwn(port)) throw new Mistake(`must be without ${port}, which is the sidecar's own`)
    if (port === HTTPS_PORT)
      throw new Mistake(`must be without ${port}: what an app has encrypted cannot be routed by its Host`)
    return port
  })
  return [...new Set(ports)]
}

function portFrom(text: string): number | undefined {
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0
  return port >= 1 && port <= 65535 ? port : undefined
}

function isOwn(port: number): boolean {
  return Object.values<number>(PORTS).includes(port)
}

function secretName(raw: string): string {
  if (DNS_NAME.test(raw)) return raw
  throw new Mistake('must be the name of a Secret: lower-case letters, digits, - and .')
}

function redis(raw: string): Redis {
  if (raw.startsWith('secret/')) return { secret: secretName(raw.slice('secret/'.length)) }
  const address = parseRedisUrl(raw)
  if (address.password !== undefined) {
    throw new Mistake(
      'must be without password: put such a URL into a Secret as REDIS_URL, and name that as secret/NAME',
    )
  }
  if (address.socketPath !== undefined)
    throw new Mistake('must be reachable by network: no socket is mounted')
  return { url: describe(address), ports: address.nodes.map(({ port }) => port) }
}

function image(raw: string): string {
  if (raw.length <= IMAGE_CHARACTERS_MAX && IMAGE.test(raw)) return raw
  throw new Mistake('must be an image such as registry.example.com/mte-sidecar:0.1.0')
}

function quantity(example: string): (raw: string) => string {
  return (raw) => {
    if (amount(raw) > 0) return raw
    throw new Mistake(`must be a quantity of Kubernetes such as ${example}, more than 0`)
  }
}

/** What a quantity stands for; NaN: it is none. */
function amount(text: string): number {
  const [, digits, suffix = ''] = QUANTITY.exec(text) ?? []
  return Number(digits) * FACTORS[suffix]!
}
