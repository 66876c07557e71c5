/** Reads the variables, and the files that they name: each by its format, and what they mean together. */
import os from 'node:os'
import convict from 'convict'
import type { Fields } from './call.ts'
import { attempt, checkOnce, FORMATS, Mistake, type Pattern, type Peer } from './formats.ts'
import type { LogLevel } from './log.ts'
import { meantName } from './misspelt.ts'
import { type OtelSettings, readOtelSettings } from './otel-settings.ts'
import { TUNNEL_HEAD_BYTES_MAX } from './pair/tunnel-frames.ts'
import type { RedisAddress } from './redis/redis-url.ts'
import { ALL_FORMATS, VARIABLES, type Values } from './variables.ts'

/** What is secret; what of it is in files may change while the sidecar runs. */
export interface Secrets {
  /** the current one first; one or two */
  readonly clientIdSecrets: readonly string[]
  /** the current one first; none: no token is asked for */
  readonly outboundTokens: readonly string[]
  /** undefined: pairs are kept in memory */
  readonly redis: RedisAddress | undefined
}

/** What the sidecar runs with. */
export interface Config extends Secrets {
  /** base URL without a slash at its end */
  readonly upstream: string | undefined
  /** the files that hold secrets; undefined: none is in a file */
  readonly secretFiles: SecretFiles | undefined
  /** without those of the file */
  readonly peers: readonly Peer[]
  /** and the peers that it held when it was read */
  readonly peersFile: { readonly path: string; readonly peers: readonly Peer[] } | undefined
  readonly passThroughHosts: readonly Pattern[]
  readonly passThroughRoutes: readonly string[]
  /** PEM certificates that are trusted besides those of the system and of Node */
  readonly ca: string[] | undefined
  readonly port: number
  readonly outboundPort: number | 'off'
  readonly adminPort: number
  readonly adminHost: string
  readonly name: string
  readonly logLevel: LogLevel
  readonly accessLog: boolean
  readonly traceContext: 'outside' | 'inside'
  readonly carriage: 'auto' | 'message' | 'tunnel'
  /** base URL without a slash at its end */
  readonly jaegerUiUrl: string | undefined
  /** what is to be exported, and where to */
  readonly otel: OtelSettings
  readonly headers: Fields
  readonly corsOrigins: readonly string[]
  readonly corsMethods: readonly string[]
  /** lower case; undefined: whatever is asked for */
  readonly corsAllowedHeaders: readonly string[] | undefined
  readonly connectTimeoutMs: number
  readonly responseTimeoutMs: number
  readonly idleTimeoutMs: number
  readonly maxHeaderBytes: number
  /** Infinity: no limit */
  readonly maxBodyBytes: number
  readonly drainMs: number
  /** processes that answer calls */
  readonly workers: number
}

export interface SecretFiles {
  readonly paths: readonly string[]
  /**
   * Reads all secrets again; those of the environment are what they were.
   * @throws ConfigError with every mistake there is
   */
  read(): Secrets
}

/** A configuration that cannot be used. */
export class ConfigError extends Error {
  /** all of them, a line each: `VARIABLE: what is wrong; what would be right` */
  readonly mistakes: readonly string[]
  /** as `loadConfig` gives them: a misspelt variable may be why another one is missing */
  readonly warnings: readonly string[]

  constructor(mistakes: readonly string[], warnings: readonly string[]) {
    super(mistakes.join('\n'))
    this.name = 'ConfigError'
    this.mistakes = mistakes
    this.warnings = warnings
  }
}

type Env = Readonly<Record<string, string | undefined>>
type Name = keyof typeof VARIABLES
type Secret = (typeof SECRETS)[number]
type Told = { name: Name; what: string }

const NAMES = Object.keys(VARIABLES) as Name[]
/** Each may be in a file instead; each, and the password in REDIS_URL, must differ from those before it. */
const SECRETS = [
  'CLIENT_ID_SECRET',
  'CLIENT_ID_SECRET_PREVIOUS',
  'OUTBOUND_TOKEN',
  'OUTBOUND_TOKEN_PREVIOUS',
  'REDIS_URL',
] as const
const SECRETS_AND_FILES = SECRETS.flatMap((name) => [name, `${name}_FILE`] as const)
const PORTS = ['PORT', 'OUTBOUND_PORT', 'ADMIN_PORT'] as const
const GUESSABLE_CHARACTERS = 16
/** Variables of MTE API Relay that say nothing here, and what does instead. */
const NOT_SUPPORTED = {
  MTE_ROUTES:
    'is not supported, and limits nothing: whoever holds CLIENT_ID_SECRET can call every route of UPSTREAM; let the app refuse those that peers must not call',
  DOMAIN_MAP:
    'is not supported; run a sidecar for each upstream, with its own UPSTREAM, NAME and CLIENT_ID_SECRET',
}

for (const [name, parse] of Object.entries(ALL_FORMATS)) {
  convict.addFormat({
    name,
    // A coerce that threw would hide the mistakes of the variables after it.
    coerce: (raw: string) => attempt(() => parse(raw)),
    validate: (value: unknown) => {
      if (value instanceof Mistake) throw value
    },
  })
}

/**
 * Reads the configuration, and the files that it names.
 * @returns it, and warnings in the form `VARIABLE: what is odd; what would be right`
 * @throws ConfigError with every mistake there is
 */
export function loadConfig(env: Env): { config: Config; warnings: string[] } {
  const set = withoutEmpty(env)
  const { values, told } = read(set, NAMES)
  const warnings = [...doubts(values, set), ...notSupported(set), ...misspelt(set)]
  const otel = readOtelSettings(set)
  const mistakes = [...lines([...told, ...contradictions(values, set)]), ...otel.mistakes]
  if (mistakes.length > 0) throw new ConfigError(mistakes, warnings)
  return { config: configOf(values as Values, set, otel), warnings }
}

/**
 * Reads where the admin port is, whatever the rest of the configuration is like by now.
 * @throws ConfigError
 */
export function loadAdminAddress(env: Env): { host: string; port: number } {
  const { values, told } = read(withoutEmpty(env), ['ADMIN_HOST', 'ADMIN_PORT'])
  if (told.length > 0) throw new ConfigError(lines(told), [])
  return { host: values.ADMIN_HOST!, port: values.ADMIN_PORT! }
}

/** Reads some of the variables. A value that is wrong is told, and undefined. */
function read(env: Env, names: readonly Name[]): { values: Partial<Values>; told: Told[] } {
  // Convict shows values that are wrong unless they are sensitive.
  const schema = Object.fromEntries(
    names.map((name) => [name, { ...VARIABLES[name], env: name, sensitive: true }]),
  )
  const loaded = convict<Record<string, unknown>>(schema, { env, args: [] })
  const told: Told[] = []
  try {
    loaded.validate({ allowed: 'strict' })
  } catch (error) {
    for (const line of (error as Error).message.split('\n')) {
      const colon = line.indexOf(': ')
      told.push({ name: line.slice(0, colon) as Name, what: line.slice(colon + 2) })
    }
  }
  const values = Object.entries(loaded.getProperties()).filter(
    ([, value]) => value !== null && !(value instanceof Mistake),
  )
  return { values: Object.fromEntries(values), told }
}

/** What is wrong with a secret only in the light of another variable. */
function* contradictorySecrets(values: Partial<Values>, set: Env): Generator<Told> {
  if (!isSet(set, 'CLIENT_ID_SECRET')) {
    yield {
      name: 'CLIENT_ID_SECRET',
      what: 'is required, or CLIENT_ID_SECRET_FILE: the same 32 characters or more for all sidecars that talk to each other; mte-sidecar keygen makes one',
    }
  }
  if (isSet(set, 'OUTBOUND_TOKEN_PREVIOUS') && !isSet(set, 'OUTBOUND_TOKEN')) {
    yield {
      name: 'OUTBOUND_TOKEN_PREVIOUS',
      what: 'must not be set without OUTBOUND_TOKEN, which it came before',
    }
  }
  for (const [i, name] of SECRETS.entries()) {
    const inFile = `${name}_FILE` as const
    const secret = secretOf(values, name)
    const same = SECRETS.slice(0, i).find(
      (other) => secret !== undefined && secretOf(values, other) === secret,
    )
    if (set[name] !== undefined && set[inFile] !== undefined) {
      yield { name: inFile, what: `must not be set beside ${name}: keep one of the two` }
    } else if (same) {
      const what = name === 'REDIS_URL' ? 'must have a password that differs' : 'must differ'
      yield { name, what: `${what} from ${same}; mte-sidecar keygen makes new ones` }
    }
  }
}

/** What is wrong only in the light of another variable. */
function* contradictions(values: Partial<Values>, set: Env): Generator<Told> {
  yield* contradictorySecrets(values, set)
  yield* namedTwice(values)
  for (const [i, name] of PORTS.entries()) {
    const port = values[name]
    const same = PORTS.slice(0, i).find((other) => values[other] === port)
    if (same && typeof port === 'number' && port !== 0) {
      yield { name, what: `must differ from ${same}, which is ${port} too; 0 takes a free port` }
    }
  }
  const upstream = values.UPSTREAM === undefined ? undefined : new URL(values.UPSTREAM)
  if (upstream && /^(localhost|127\.[0-9.]+|\[::1\])$/.test(upstream.hostname)) {
    const port = Number(upstream.port) || (upstream.protocol === 'https:' ? 443 : 80)
    const ours = PORTS.find((name) => values[name] === port)
    if (ours)
      yield {
        name: 'UPSTREAM',
        what: `must be the app and not this sidecar, of which ${port} is the ${ours}`,
      }
  }
  if (values.CARRIAGE === 'tunnel' && (values.MAX_HEADER_BYTES ?? 0) > TUNNEL_HEAD_BYTES_MAX) {
    yield {
      name: 'CARRIAGE',
      what: `must not be tunnel where MAX_HEADER_BYTES is more than ${TUNNEL_HEAD_BYTES_MAX}: such heads go as messages`,
    }
  }
  if (set.PASS_THROUGH_ROUTES !== undefined && set.UPSTREAM === undefined) {
    yield {
      name: 'PASS_THROUGH_ROUTES',
      what: 'must not be set without UPSTREAM, to which these routes lead',
    }
  }
}

function* namedTwice(values: Partial<Values>): Generator<Told> {
  const patterns: Pattern[] = []
  const peers = { PEERS: values.PEERS, PEERS_FILE: values.PEERS_FILE?.peers }
  for (const name of ['PEERS', 'PEERS_FILE', 'PASS_THROUGH_HOSTS'] as const) {
    const more = name === 'PASS_THROUGH_HOSTS' ? values[name] : peers[name]?.map((peer) => peer.pattern)
    patterns.push(...(more ?? []))
    const checked = attempt(() => checkOnce(patterns))
    if (checked instanceof Mistake) return yield { name, what: checked.message }
  }
}

/** What works, but is hardly meant. */
function doubts(values: Partial<Values>, set: Env): string[] {
  const told: Told[] = []
  const token = secretOf(values, 'OUTBOUND_TOKEN')
  if (token !== undefined && token.length < GUESSABLE_CHARACTERS) {
    const what = `is short enough to be guessed; ${GUESSABLE_CHARACTERS} characters or more are better, and mte-sidecar keygen makes one`
    told.push({ name: 'OUTBOUND_TOKEN', what })
  }
  if (values.DEBUG && set.LOG_LEVEL !== undefined && values.LOG_LEVEL !== 'debug') {
    told.push({ name: 'DEBUG', what: 'says nothing while LOG_LEVEL is set, which wins; set one of the two' })
  }
  if (isSet(set, 'REDIS_URL') && set.NAME === undefined) {
    told.push({
      name: 'NAME',
      what: 'is relay while it is unset beside REDIS_URL; set it: replicas that share pairs need one NAME, services that share a Redis different ones',
    })
  }
  return lines(told)
}

function notSupported(set: Env): string[] {
  return Object.entries(NOT_SUPPORTED).flatMap(([name, what]) => (set[name] ? [`${name}: ${what}`] : []))
}

/** Variables of the environment that are none of ours, but near to one that is not set. */
function misspelt(set: Env): string[] {
  const unset = NAMES.filter((name) => set[name] === undefined)
  return Object.keys(set).flatMap((name) => {
    const meant = name in VARIABLES ? undefined : meantName(name, unset)
    return meant ? [`${name}: is no variable of mte-sidecar; ${meant} is`] : []
  })
}

function configOf(values: Values, set: Env, otel: OtelSettings): Config {
  const logLevel = values.DEBUG && set.LOG_LEVEL === undefined ? 'debug' : values.LOG_LEVEL
  return {
    ...secretsOf(values),
    upstream: values.UPSTREAM,
    secretFiles: secretFiles(set),
    peers: values.PEERS ?? [],
    peersFile: values.PEERS_FILE,
    passThroughHosts: values.PASS_THROUGH_HOSTS ?? [],
    passThroughRoutes: values.PASS_THROUGH_ROUTES ?? [],
    ca: values.CA_FILE,
    port: values.PORT,
    outboundPort: values.OUTBOUND_PORT,
    adminPort: values.ADMIN_PORT,
    adminHost: values.ADMIN_HOST,
    name: values.NAME ?? (isSet(set, 'REDIS_URL') ? 'relay' : hostName()),
    logLevel,
    accessLog: values.ACCESS_LOG || logLevel === 'debug' || logLevel === 'trace',
    traceContext: values.TRACE_CONTEXT,
    carriage: values.CARRIAGE,
    jaegerUiUrl: values.JAEGER_UI_URL,
    otel,
    headers: values.HEADERS ?? [],
    corsOrigins: values.CORS_ORIGINS ?? [],
    corsMethods: values.CORS_METHODS,
    corsAllowedHeaders: values.CORS_ALLOWED_HEADERS,
    connectTimeoutMs: values.CONNECT_TIMEOUT_SECONDS,
    responseTimeoutMs: values.RESPONSE_TIMEOUT_SECONDS,
    idleTimeoutMs: values.IDLE_TIMEOUT_SECONDS,
    maxHeaderBytes: values.MAX_HEADER_BYTES,
    maxBodyBytes: values.MAX_BODY_BYTES ?? Number.POSITIVE_INFINITY,
    drainMs: values.DRAIN_SECONDS,
    workers: values.WORKERS,
  }
}

function secretsOf(values: Partial<Values>): Secrets {
  const secrets = (names: readonly Secret[]) =>
    names.map((name) => secretOf(values, name)).filter((secret) => secret !== undefined)
  return {
    clientIdSecrets: secrets(['CLIENT_ID_SECRET', 'CLIENT_ID_SECRET_PREVIOUS']),
    outboundTokens: secrets(['OUTBOUND_TOKEN', 'OUTBOUND_TOKEN_PREVIOUS']),
    redis: redisOf(values),
  }
}

function secretFiles(set: Env): SecretFiles | undefined {
  const paths = SECRETS.map((name) => set[`${name}_FILE`]).filter((path) => path !== undefined)
  if (paths.length === 0) return undefined
  return {
    paths,
    read() {
      const { values, told } = read(set, SECRETS_AND_FILES)
      const mistakes = lines([...told, ...contradictorySecrets(values, set)])
      if (mistakes.length > 0) throw new ConfigError(mistakes, [])
      return secretsOf(values)
    },
  }
}

/** The host name, which some systems let be anything, or `relay`. */
function hostName(): string {
  const name = attempt(() => FORMATS.name(os.hostname()))
  return name instanceof Mistake ? 'relay' : name
}

function isSet(set: Env, name: Secret): boolean {
  return set[name] !== undefined || set[`${name}_FILE`] !== undefined
}

function secretOf(values: Partial<Values>, name: Secret): string | undefined {
  return name === 'REDIS_URL' ? redisOf(values)?.password : (values[name] ?? values[`${name}_FILE`])
}

function redisOf(values: Partial<Values>): RedisAddress | undefined {
  return values.REDIS_URL ?? values.REDIS_URL_FILE
}

function withoutEmpty(env: Env): Env {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''))
}

function lines(told: readonly Told[]): string[] {
  return told
    .toSorted((a, b) => NAMES.indexOf(a.name) - NAMES.indexOf(b.name))
    .map(({ name, what }) => `${name}: ${what}`)
}
