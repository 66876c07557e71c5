/**
 * A certificate of the injector's own making: shared by its replicas in a Secret, trusted by the API server as the
 * webhook's caBundle says, renewed long before it expires.
 *
 * No review fails while it is renewed: first the Secret holds the new one, with the authorities of both; then the
 * caBundle does; only when every API server has had the time to see that, a replica presents the new one. An authority
 * leaves the caBundle when it has expired. Its key was never stored, so that it vouches for nothing else.
 */
import { X509Certificate } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../log.ts'
import { issue } from './authority.ts'
import { type KubeApi, KubeError, type KubeObject } from './kube-api.ts'
import { checkKeyPair, type KeyPair, type SelfSignedSettings } from './settings.ts'

const DAY_MS = 24 * 60 * 60_000
const VALID_MS = 90 * DAY_MS
const RENEWED_BEFORE_MS = 30 * DAY_MS
/** When things are done, in ms. */
const TIMES = {
  look: 10_000,
  retry: 1_000,
  /** how long API servers may take to see a caBundle that was changed */
  settling: 5_000,
}

/** What the Secret holds. */
interface Shared extends KeyPair {
  /** PEM certificates of the authorities: this one's first, and those before it that have not expired */
  authorities: string[]
}

interface WebhookConfiguration extends KubeObject {
  webhooks?: { name: string; clientConfig: { caBundle?: string } }[]
}

/** Makes and keeps the certificate. */
export class SelfSigned {
  readonly #api: Pick<KubeApi, 'namespace' | 'get' | 'replace' | 'merge'>
  readonly #settings: SelfSignedSettings
  readonly #use: (pair: KeyPair) => void
  readonly #log: Logger
  readonly #times: typeof TIMES
  #used: string | undefined
  #told: string | undefined

  /** @param use presents a certificate from now on */
  constructor(
    api: Pick<KubeApi, 'namespace' | 'get' | 'replace' | 'merge'>,
    settings: SelfSignedSettings,
    use: (pair: KeyPair) => void,
    log: Logger,
    times = TIMES,
  ) {
    this.#api = api
    this.#settings = settings
    this.#use = use
    this.#log = log
    this.#times = times
  }

  /** Goes on until the process ends. What fails is logged, and tried again. */
  async run(): Promise<never> {
    for (;;) {
      let pauseMs = this.#times.look
      try {
        await this.#look()
        this.#told = undefined
      } catch (error) {
        if (!(error instanceof KubeError)) throw error
        pauseMs = this.#times.retry
        // Another replica was faster: what it wrote is read again.
        if (error.status !== 409) this.#tell(error.message)
      }
      await delay(pauseMs)
    }
  }

  /** Once for each thing that goes wrong, however often it does. */
  #tell(trouble: string): void {
    if (trouble !== this.#told) this.#log.warn(`the certificate could not be looked after: ${trouble}`)
    this.#told = trouble
  }

  async #look(): Promise<void> {
    const namespace = await this.#api.namespace()
    const shared = await this.#shared(namespace)
    const isNew = await this.#haveTrusted(shared.authorities)
    if (shared.cert === this.#used) return
    if (isNew || this.#used !== undefined) await delay(this.#times.settling)
    this.#use(shared)
    this.#used = shared.cert
    const { validTo } = new X509Certificate(shared.cert)
    this.#log.info({ validTo }, 'the certificate is one of its own making')
  }

  /** The certificate in the Secret, or a new one that is put there. */
  async #shared(namespace: string): Promise<Shared> {
    const { secret: name, service } = this.#settings
    const path = `/api/v1/namespaces/${namespace}/secrets/${name}`
    const dnsName = `${service}.${namespace}.svc`
    const secret = await this.#api.get(path)
    const data = secret.data as Record<string, string> | undefined
    const authorities = certificatesIn(fromBase64(data?.['ca.crt'])).filter(isValid)
    const found = { cert: fromBase64(data?.['tls.crt']), key: fromBase64(data?.['tls.key']), authorities }
    if (isUsable(found, dnsName)) return found
    const { ca, cert, key } = await issue(dnsName, Date.now(), VALID_MS)
    const made = { cert, key, authorities: [ca, ...authorities] }
    const fresh = { 'tls.crt': cert, 'tls.key': key, 'ca.crt': made.authorities.join('') }
    const encoded = Object.entries(fresh).map(([key, text]) => [key, toBase64(text)])
    await this.#api.replace(path, { ...secret, data: { ...data, ...Object.fromEntries(encoded) } })
    this.#log.info({ secret: name }, 'a new certificate was made')
    return made
  }

  /**
   * Has the webhook trust these authorities, beside those that it trusts.
   * @returns whether it did not before
   */
  async #haveTrusted(authorities: readonly string[]): Promise<boolean> {
    const path = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${this.#settings.webhookConfiguration}`
    const { metadata, webhooks = [] } = (await this.#api.get(path)) as WebhookConfiguration
    const changes = webhooks.flatMap(({ name, clientConfig }) => {
      const before = fromBase64(clientConfig.caBundle)
      const others = certificatesIn(before).filter((cert) => isValid(cert) && !authorities.includes(cert))
      const bundle = [...authorities, ...others].join('')
      const trusted = certificatesIn(before)
      if (authorities.every((one) => trusted.includes(one)) && trusted.every(isValid)) return []
      return [{ name, clientConfig: { caBundle: toBase64(bundle) } }]
    })
    if (changes.length === 0) return false
    const { resourceVersion } = metadata
    await this.#api.merge(path, { metadata: { resourceVersion }, webhooks: changes })
    this.#log.info({ authorities: authorities.length }, "the webhook's caBundle was set")
    return true
  }
}

function isUsable({ cert, key, authorities }: Shared, dnsName: string): boolean {
  const [certificate] = certificatesIn(cert)
  const [authority] = authorities
  if (!certificate || !authority) return false
  try {
    checkKeyPair({ cert, key })
    const x509 = new X509Certificate(certificate)
    const isFresh = x509.validToDate.getTime() - Date.now() > RENEWED_BEFORE_MS
    const isVouchedFor = x509.verify(new X509Certificate(authority).publicKey)
    return isFresh && isVouchedFor && x509.checkHost(dnsName) !== undefined
  } catch {
    return false
  }
}

/** The certificates of a PEM text, each in the one form that it is compared in; what is none is left out. */
function certificatesIn(text: string): string[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return blocks.flatMap((block) => {
    try {
      return [new X509Certificate(block).toString()]
    } catch {
      return []
    }
  })
}

function isValid(certificate: string): boolean {
  return new X509Certificate(certificate).validToDate.getTime() > Date.now()
}

function fromBase64(text: string | undefined): string {
  return Buffer.from(text ?? '', 'base64').toString()
}

function toBase64(text: string): string {
  return Buffer.from(text).toString('base64')
}
