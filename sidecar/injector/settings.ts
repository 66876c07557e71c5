/** What the injector runs with: variables of its own, and the options of the sidecars, by flags or by variables. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { ConfigError } from '../config.ts'
import { attempt, contentOf, FORMATS, Mistake } from '../formats.ts'
import { DEFAULT_NAMES, type OptionName, type Options, readOptions } from '../inject/options.ts'
import { patchFor } from '../inject/patch.ts'
import type { LogLevel } from '../log.ts'
import { meantName } from '../misspelt.ts'

/** A certificate with those between it and its authority, and its key, in PEM. */
export interface KeyPair {
  cert: string
  key: string
}

/** The files that hold them. */
export interface KeyPairFiles {
  cert: string
  key: string
}

export interface Settings {
  port: number
  adminPort: number
  drainMs: number
  logLevel: LogLevel
  /** undefined: the injector makes its own certificate */
  files: KeyPairFiles | undefined
  selfSigned: SelfSignedSettings
  /** of pods that do not say them by annotations */
  defaults: Partial<Options>
}

/** What an injector that makes its own certificate has to know of the cluster. */
export interface SelfSignedSettings {
  service: string
  /** name of the Secret in which replicas share the certificate */
  secret: string
  webhookConfiguration: string
  /** where Kubernetes puts what the pod may do at the API server: token, ca.crt and namespace */
  serviceAccountFolder: string
}

/** Options as they are written. */
export type RawOptions = Readonly<Partial<Record<OptionName, string>>>

type Env = Readonly<Record<string, string | undefined>>

const SERVICE_ACCOUNT_FOLDER = '/var/run/secrets/kubernetes.io/serviceaccount'
/** Before the names of options, as variables. */
const PREFIX = 'SIDECAR_'

/** The variables of the injector, in the order in which they are told. */
export const INJECTOR_VARIABLES = {
  PORT: { default: '8443', doc: 'where the API server reaches it, by HTTPS, on all addresses' },
  ADMIN_PORT: { default: '8082', doc: '/livez, /readyz and /metrics, in plain, on all addresses' },
  TLS_CERT_FILE: {
    default: null,
    doc: 'PEM file with its certificate, read again when it changes; unset: it makes its own, and has the API server trust it',
  },
  TLS_KEY_FILE: { default: null, doc: 'PEM file with the key, read again when it changes' },
  SERVICE: { default: 'mte-sidecar-injector', doc: 'name of its Service, for its own certificate' },
  CERTIFICATE_SECRET: {
    default: 'mte-sidecar-injector',
    doc: 'name of the Secret in which its replicas share their own certificate',
  },
  WEBHOOK_CONFIGURATION: {
    default: '0-mte-sidecar-injector',
    doc: 'name of the MutatingWebhookConfiguration that is to trust its own certificate',
  },
  SERVICE_ACCOUNT_FOLDER: {
    default: SERVICE_ACCOUNT_FOLDER,
    doc: 'folder with the token, ca.crt and namespace for the API server',
  },
  LOG_LEVEL: { default: 'info', doc: 'fatal, error, warn, info, debug, trace or silent' },
  DRAIN_SECONDS: {
    default: '5',
    doc: 'how long it goes on after SIGTERM, until no API server sends it reviews any more',
  },
} as const

type Name = keyof typeof INJECTOR_VARIABLES

/** The variable that says an option for all pods: `log-level` is SIDECAR_LOG_LEVEL. */
export function optionVariable(name: OptionName): string {
  return PREFIX + name.replaceAll('-', '_').toUpperCase()
}

/**
 * Reads all that the injector runs with.
 * @param flags options as the command line has them, which win over those of the environment
 * @throws ConfigError with every mistake there is
 */
export function readSettings(flags: RawOptions, env: Env): Settings {
  const mistakes: string[] = []
  const value = <T>(name: Name, parse: (raw: string) => T): T => {
    const read = attempt(() => parse(env[name] || (INJECTOR_VARIABLES[name].default ?? '')))
    if (read instanceof Mistake) mistakes.push(`${name}: ${read.message}`)
    // What is not right is not used: it is thrown below.
    return read as T
  }
  const settings = {
    port: value('PORT', FORMATS.port),
    adminPort: value('ADMIN_PORT', FORMATS.port),
    drainMs: value('DRAIN_SECONDS', FORMATS.seconds),
    logLevel: value('LOG_LEVEL', FORMATS.logLevel),
    files: readFiles(env, mistakes),
    selfSigned: {
      service: value('SERVICE', resourceName),
      secret: value('CERTIFICATE_SECRET', resourceName),
      webhookConfiguration: value('WEBHOOK_CONFIGURATION', resourceName),
      serviceAccountFolder: value('SERVICE_ACCOUNT_FOLDER', (path) => path),
    },
    defaults: readDefaults(flags, env, mistakes).options,
  }
  if (settings.port === settings.adminPort && settings.port !== 0)
    mistakes.push(`ADMIN_PORT: must be another port than PORT, which is ${settings.port}`)
  if (mistakes.length > 0) throw new ConfigError(mistakes, [])
  return settings
}

/**
 * Reads the options of the sidecars alone.
 * @returns them as they are written
 * @throws ConfigError with every mistake there is
 */
export function readSidecarOptions(flags: RawOptions, env: Env): RawOptions {
  const mistakes: string[] = []
  const { raw } = readDefaults(flags, env, mistakes)
  if (mistakes.length > 0) throw new ConfigError(mistakes, [])
  return raw
}

/**
 * Reads a certificate and its key.
 * @throws Mistake where one of them cannot be used, or they do not belong together
 */
export function readKeyPair({ cert, key }: KeyPairFiles): KeyPair {
  const pair = { cert: contentOf(cert, (text) => text), key: contentOf(key, (text) => text) }
  checkKeyPair(pair)
  return pair
}

/** @throws Mistake */
export function checkKeyPair({ cert, key }: KeyPair): void {
  let belongs: boolean
  try {
    belongs = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? 'unknown'
    throw new Mistake(`must hold a certificate and its key in PEM form (${why})`, { cause: error })
  }
  if (!belongs) throw new Mistake('must belong together: the key is that of another certificate')
}

function readFiles(env: Env, mistakes: string[]): KeyPairFiles | undefined {
  const { TLS_CERT_FILE: cert, TLS_KEY_FILE: key } = env
  if (!cert && !key) return undefined
  if (!cert || !key) {
    const [missing, given] = cert ? ['TLS_KEY_FILE', 'TLS_CERT_FILE'] : ['TLS_CERT_FILE', 'TLS_KEY_FILE']
    mistakes.push(`${missing}: must be set beside ${given}`)
    return undefined
  }
  const read = attempt(() => readKeyPair({ cert, key }))
  if (read instanceof Mistake) mistakes.push(`TLS_CERT_FILE and TLS_KEY_FILE: ${read.message}`)
  return { cert, key }
}

function readDefaults(
  flags: RawOptions,
  env: Env,
  mistakes: string[],
): { raw: RawOptions; options: Partial<Options> } {
  const raw: Partial<Record<OptionName, string>> = {}
  for (const name of DEFAULT_NAMES) raw[name] = flags[name] || env[optionVariable(name)] || ''
  const { options, told } = readOptions(raw)
  for (const { name, what } of told) {
    mistakes.push(flags[name] ? `--${name} ${what}` : `${optionVariable(name)}: ${what}`)
  }
  mistakes.push(...misspelt(env))
  if (mistakes.length === 0) mistakes.push(...contradictions(options))
  return { raw, options }
}

/** What no pod could be injected with. */
function contradictions(options: Partial<Options>): string[] {
  const trial = {
    metadata: { annotations: { 'mte.sidecar/name': 'trial', 'mte.sidecar/upstream-port': 'none' } },
    spec: { containers: [{ name: 'app' }] },
  }
  const patch = patchFor(trial, options)
  return patch.outcome === 'refused' ? patch.refusals.map(({ text }) => text) : []
}

function misspelt(env: Env): string[] {
  const known = DEFAULT_NAMES.map(optionVariable)
  return Object.keys(env).flatMap((name) => {
    if (!name.startsWith(PREFIX) || !env[name] || known.includes(name)) return []
    const meant = meantName(name, known)
    return [
      `${name}: is no variable of the injector; ${meant ? `${meant} is` : `there are ${known.join(', ')}`}`,
    ]
  })
}

function resourceName(raw: string): string {
  if (/^(?=.{1,253}$)[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?$/.test(raw)) return raw
  throw new Mistake('must be a name as Kubernetes has them: lower-case letters, digits, - and .')
}
