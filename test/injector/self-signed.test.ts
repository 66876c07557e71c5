import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { issue } from '../../sidecar/injector/authority.ts'
import { KubeError, type KubeObject } from '../../sidecar/injector/kube-api.ts'
import { SelfSigned } from '../../sidecar/injector/self-signed.ts'
import type { KeyPair } from '../../sidecar/injector/settings.ts'
import { createLogger } from '../../sidecar/log.ts'
import { suite } from '../support/suite.ts'

const test = suite('own certificate')

const DAY_MS = 24 * 60 * 60_000
const NAME = 'mte-sidecar-injector.mte-sidecar.svc'
const SETTINGS = {
  service: 'mte-sidecar-injector',
  secret: 'certificate',
  webhookConfiguration: 'webhooks',
  serviceAccountFolder: '/',
}
const SECRET = '/api/v1/namespaces/mte-sidecar/secrets/certificate'
const WEBHOOKS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/webhooks'

interface Webhooks extends KubeObject {
  webhooks: { name: string; clientConfig: { caBundle?: string } }[]
}

/** Ends a replica. */
class Over extends Error {}

/** The two objects that an API server would hold, with what it does about two who write at once. */
class World {
  readonly objects: Record<string, KubeObject> = {
    [SECRET]: { metadata: { name: 'certificate', resourceVersion: '1' }, type: 'Opaque' },
    [WEBHOOKS]: {
      metadata: { name: 'webhooks', resourceVersion: '1' },
      webhooks: [{ name: 'inject.mte.sidecar', clientConfig: {} }],
    },
  }
  /** every write, in order */
  readonly writes: string[] = []
  /** fails the next calls */
  failures: KubeError[] = []
  /** every world, so that its replicas can be ended */
  static readonly all: World[] = []
  isOver = false

  constructor() {
    World.all.push(this)
  }

  readonly api = {
    namespace: async () => 'mte-sidecar',
    get: async (path: string) => {
      if (this.isOver) throw new Over()
      const failure = this.failures.shift()
      if (failure) throw failure
      return structuredClone(this.objects[path]!)
    },
    replace: async (path: string, object: KubeObject) => this.#write(path, object),
    merge: async (path: string, change: object) => {
      const { metadata, webhooks } = change as Webhooks
      const before = this.objects[path] as Webhooks
      const merged = before.webhooks.map((one) => ({
        ...one,
        ...webhooks.find(({ name }) => name === one.name),
      }))
      return this.#write(path, { ...before, metadata: { ...before.metadata, ...metadata }, webhooks: merged })
    },
  }

  get data(): Record<string, string> {
    const data = (this.objects[SECRET]!.data ?? {}) as Record<string, string>
    return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, fromBase64(value)]))
  }

  set data(data: Record<string, string>) {
    const encoded = Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')])
    this.objects[SECRET]!.data = Object.fromEntries(encoded)
  }

  get bundle(): string[] {
    const { webhooks } = this.objects[WEBHOOKS] as Webhooks
    return certificatesIn(fromBase64(webhooks[0]!.clientConfig.caBundle ?? ''))
  }

  async #write(path: string, object: KubeObject): Promise<KubeObject> {
    const { resourceVersion } = this.objects[path]!.metadata
    if (object.metadata.resourceVersion !== resourceVersion) throw new KubeError('it has changed', 409)
    this.writes.push(path)
    const metadata = { ...object.metadata, resourceVersion: String(Number(resourceVersion) + 1) }
    return (this.objects[path] = { ...object, metadata })
  }
}

/** An injector of that world; `presented` are the certificates that it has come to present. */
function replica(world: World) {
  const presented: KeyPair[] = []
  const waiting: (() => void)[] = []
  const use = (pair: KeyPair) => {
    // Whatever is presented, the webhook trusts it by then.
    assert.ok(world.bundle.some((ca) => verifies(pair.cert, ca)))
    presented.push(pair)
    for (const resolve of waiting.splice(0)) resolve()
  }
  const times = { look: 1, retry: 1, settling: 1 }
  new SelfSigned(world.api, SETTINGS, use, createLogger('silent'), times).run().catch((error) => {
    if (!(error instanceof Over)) throw error
  })
  const has = async (count: number) => {
    while (presented.length < count) await new Promise<void>((resolve) => waiting.push(resolve))
  }
  return { presented, has }
}

function verifies(cert: string, ca: string): boolean {
  return new X509Certificate(cert).verify(new X509Certificate(ca).publicKey)
}

function certificatesIn(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? []
}

function fromBase64(text: string): string {
  return Buffer.from(text, 'base64').toString()
}

async function pair(validMs: number, dnsName = NAME): Promise<Record<string, string>> {
  const { ca, cert, key } = await issue(dnsName, Date.now(), validMs)
  return { 'tls.crt': cert, 'tls.key': key, 'ca.crt': ca }
}

test.after(() => {
  for (const world of World.all) world.isOver = true
})

test('a certificate is for its name and for servers, and its authority for this one alone', async () => {
  const { ca, cert, key } = await issue(NAME, Date.now(), DAY_MS)
  const [authority, server] = [new X509Certificate(ca), new X509Certificate(cert)]
  assert.ok(server.checkIssued(authority) && verifies(cert, ca) && verifies(ca, ca))
  assert.deepEqual([authority.ca, server.ca], [true, false])
  assert.deepEqual([server.checkHost(NAME), server.checkHost('other.svc')], [NAME, undefined])
  assert.deepEqual(server.keyUsage, ['1.3.6.1.5.5.7.3.1'])
  assert.ok(Math.abs(server.validToDate.getTime() - Date.now() - DAY_MS) < 60_000)
  assert.match(key, /^-----BEGIN PRIVATE KEY-----\n/)
  assert.notEqual((await issue(NAME, Date.now(), DAY_MS)).cert, cert)
})

test('the first replica makes a certificate, and has the webhook trust it before it presents it', async () => {
  const world = new World()
  const { presented, has } = replica(world)
  await has(1)
  assert.deepEqual(world.writes, [SECRET, WEBHOOKS])
  assert.deepEqual(world.data['tls.crt'], presented[0]!.cert)
  assert.deepEqual(world.bundle, certificatesIn(world.data['ca.crt']!))
  assert.equal(world.objects[SECRET]!.type, 'Opaque')
})

test('replicas present the same, however they come together', async () => {
  const world = new World()
  const replicas = [replica(world), replica(world), replica(world)]
  await Promise.all(replicas.map(({ has }) => has(1)))
  const certs = replicas.map(({ presented }) => presented.at(-1)!.cert)
  assert.deepEqual(new Set(certs), new Set([world.data['tls.crt']]))
  assert.equal(world.bundle.length, 1)
})

test('one that is there, and trusted, is taken, and nothing is written', async () => {
  const world = new World()
  world.data = await pair(60 * DAY_MS)
  await replica(world).has(1)
  const before = world.writes.length
  const { presented, has } = replica(world)
  await has(1)
  assert.deepEqual([world.writes.length, before], [1, 1])
  assert.equal(presented[0]!.cert, world.data['tls.crt'])
})

for (const [sentence, made] of [
  ['that expires in less than 30 days', () => pair(29 * DAY_MS)],
  ['that is for another name', () => pair(60 * DAY_MS, 'other.mte-sidecar.svc')],
  [
    'with the key of another one',
    async () => ({ ...(await pair(60 * DAY_MS)), 'tls.key': (await pair(DAY_MS))['tls.key']! }),
  ],
  [
    'of another authority',
    async () => ({ ...(await pair(60 * DAY_MS)), 'ca.crt': (await pair(60 * DAY_MS))['ca.crt']! }),
  ],
  ['that is none', async () => ({ 'tls.crt': 'nonsense', 'tls.key': '', 'ca.crt': 'nonsense' })],
] as const) {
  test(`a certificate ${sentence} is replaced`, async () => {
    const world = new World()
    world.data = await made()
    const before = world.data['tls.crt']
    const { presented, has } = replica(world)
    await has(1)
    assert.notEqual(presented[0]!.cert, before)
    assert.equal(presented[0]!.cert, world.data['tls.crt'])
  })
}

test('a new certificate is presented by all, and the authorities of both are trusted meanwhile', async () => {
  const world = new World()
  const replicas = [replica(world), replica(world)]
  await Promise.all(replicas.map(({ has }) => has(1)))
  const [old] = world.bundle
  world.data = {}
  world.objects[SECRET]!.metadata.resourceVersion = '100'
  await Promise.all(replicas.map(({ has }) => has(2)))
  assert.equal(world.bundle.length, 2)
  assert.ok(world.bundle.includes(old!))
  for (const { presented } of replicas) assert.equal(presented.at(-1)!.cert, world.data['tls.crt'])
})

test('an authority that has expired is not trusted any more', async () => {
  const world = new World()
  const { ca } = await issue(NAME, Date.now(), -1)
  const [webhook] = (world.objects[WEBHOOKS] as Webhooks).webhooks
  webhook!.clientConfig.caBundle = Buffer.from(ca).toString('base64')
  await replica(world).has(1)
  assert.deepEqual(world.bundle, certificatesIn(world.data['ca.crt']!))
})

test('what fails is tried again', async () => {
  const world = new World()
  world.failures = [new KubeError('forbidden', 403), new KubeError('away'), new KubeError('changed', 409)]
  await replica(world).has(1)
  assert.deepEqual(world.writes, [SECRET, WEBHOOKS])
})

test.run()
