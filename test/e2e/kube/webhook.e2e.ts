/** The webhook, asked by a real API server. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import { json } from 'node:stream/consumers'
import tls from 'node:tls'
import { podOfFixture, refusals } from '../../inject/pods.ts'
import { certificate } from '../../support/certificates.ts'
import { KubectlError, type Kubernetes, startKubernetes, until } from '../../support/kubernetes.ts'
import { listen } from '../../support/sidecars.ts'
import { suite } from '../../support/suite.ts'
import { addNamespace, apply, deployInjector, PRESENTED, SERVICE_ADDRESS } from './cluster.ts'
import {
  BAD,
  create,
  essence,
  expected,
  LABELS,
  PRIVILEGED,
  podOf,
  RESTRICTED,
  refusal,
  SECURE,
  type ServerPod,
  testGood,
  unlabelled,
} from './pods.ts'

const test = suite('webhook of a cluster')
const WEBHOOK = '0-mte-sidecar-injector'
const LONG_MS = 120_000

let kubernetes: Kubernetes
let injector: Awaited<ReturnType<typeof deployInjector>>

test.before(async () => {
  kubernetes = await startKubernetes()
  await addNamespace(kubernetes, RESTRICTED, 'restricted')
  await addNamespace(kubernetes, PRIVILEGED, 'privileged')
  injector = await deployInjector(kubernetes)
  // The API server has to learn of the webhook, and of its certificate.
  await until(async () => {
    const { spec } = await create(kubernetes, podOf(), RESTRICTED).catch(() => podOf())
    return spec.initContainers !== undefined
  })
})
test.after(() => injector?.stop())
test.after(() => kubernetes?.stop())

testGood(test, () => kubernetes)

test('pods of a Deployment, which come without a name, get the sidecar', async () => {
  const template = podOf()
  const deployment = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'orders', namespace: RESTRICTED },
    spec: { replicas: 2, selector: { matchLabels: { app: 'app' } }, template },
  }
  await apply(kubernetes, [deployment])
  let pods: ServerPod[] = []
  await until(async () => (pods = await podsOf('app=app')).length === 2)
  const { spec } = await expected(kubernetes, template, RESTRICTED)
  for (const pod of pods) assert.deepEqual({ ...pod.spec, serviceAccountName: 'default' }, spec)
})

test('a Deployment whose pods cannot have the sidecar says why, and makes none', async () => {
  const template = podOf({ 'log-level': 'verbose' })
  template.metadata.labels = { ...LABELS, app: 'bad' }
  await apply(kubernetes, [
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'bad', namespace: RESTRICTED },
      spec: { selector: { matchLabels: { app: 'bad' } }, template },
    },
  ])
  let message: string | undefined
  await until(async () => {
    const { status } = await get('deployment', 'bad')
    const failure = status.conditions?.find(({ type }: { type: string }) => type === 'ReplicaFailure')
    return (message = failure?.message) !== undefined
  })
  assert.match(message!, /denied the request: mte.sidecar\/log-level must be one of /)
  assert.deepEqual(await podsOf('app=bad'), [])
})

for (const [sentence, pod] of Object.entries(BAD)) {
  test(`a pod ${sentence} is denied, with the reason in the answer`, async () => {
    const said = await refusal(kubernetes, pod, PRIVILEGED)
    const reasons = refusals(pod).join('; ')
    assert.ok(said.endsWith(`admission webhook "inject.mte.sidecar" denied the request: ${reasons}`), said)
  })
}

test('pods without the label are none of its business, nor those that say they want no sidecar', async () => {
  for (const pod of [
    unlabelled(podOf()),
    unlabelled(BAD['on the network of its node']!),
    podOf({ inject: 'false' }),
  ]) {
    const { spec } = await create(kubernetes, pod, PRIVILEGED)
    assert.equal(spec.initContainers, undefined)
  }
})

test('a pod without containers is denied before the API server itself says so', async () => {
  const said = await refusal(kubernetes, podOf({}, { containers: [] }), RESTRICTED)
  assert.match(
    said,
    /denied the request: spec\.containers must hold a container: there is no app to stand beside$/,
  )
})

test('a namespace that there is not is told by the API server', async () => {
  assert.match(await refusal(kubernetes, podOf(), 'nowhere'), /namespaces "nowhere" not found/)
})

test('a pod of almost 3 MB gets the sidecar', async () => {
  const pod = podOf({}, {}, { args: ['x'.repeat(2_900_000)] })
  const { spec } = await create(kubernetes, pod, RESTRICTED)
  assert.deepEqual(
    spec.initContainers?.map(({ name }) => name),
    ['mte-sidecar'],
  )
})

test('a dry run leaves nothing, and the same pod comes of it', async () => {
  const pod = podOf()
  pod.metadata.name = 'dry'
  const dry = await create(kubernetes, pod, RESTRICTED)
  await assert.rejects(get('pod', 'dry'), KubectlError)
  assert.deepEqual(essence(await create(kubernetes, pod, RESTRICTED, false)), essence(dry))
})

test('ephemeral containers are let in', async () => {
  const pod = podOf()
  pod.metadata.name = 'debugged'
  await create(kubernetes, pod, RESTRICTED, false)
  const change = {
    spec: { ephemeralContainers: [{ name: 'debug', image: 'example/debug:1', securityContext: SECURE }] },
  }
  await kubernetes.kubectl([
    ...['patch', 'pod', 'debugged', '--namespace', RESTRICTED, '--subresource', 'ephemeralcontainers'],
    ...['--type', 'strategic', '--patch', JSON.stringify(change)],
  ])
  const { spec } = await get('pod', 'debugged')
  assert.equal(spec.ephemeralContainers.length, 1)
  assert.equal(spec.initContainers.length, 1)
})

for (const [sentence, name, isFirst] of [
  ['later', 'istio-sidecar-injector', false],
  ['first', '0-istio', true],
] as const) {
  test(`where a mesh is injected ${sentence}, the sidecar comes behind its proxy`, async () => {
    const mesh = await startMesh(name)
    try {
      const pod = podOf({}, { initContainers: [{ name: 'setup', image: 'example/setup:1' }] })
      const after = await create(kubernetes, pod, PRIVILEGED)
      const names = after.spec.initContainers!.map(({ name }) => name)
      assert.deepEqual(names, ['istio-init', 'istio-proxy', 'mte-sidecar', 'setup'])
      const [seen] = mesh.seen.map(({ metadata }) => metadata?.annotations ?? {})
      const exclusion = seen!['traffic.sidecar.istio.io/excludeInboundPorts']
      assert.equal(exclusion, isFirst ? undefined : '7782')
      if (isFirst) {
        const meshed = await create(kubernetes, unlabelled(mesh.injected(pod)), PRIVILEGED)
        const wanted = await expected(
          kubernetes,
          { ...meshed, metadata: { ...meshed.metadata, ...pod.metadata } },
          PRIVILEGED,
        )
        assert.deepEqual(after.spec, wanted.spec)
      }
    } finally {
      await mesh.stop()
    }
  })
}

test(
  'a certificate is renewed, and no review fails meanwhile',
  async () => {
    const { replicas } = injector
    const before = await presented()
    let isOver = false
    let reviews = 0
    const load = async () => {
      for (; !isOver; reviews++) {
        const { spec } = await create(kubernetes, podOf(), RESTRICTED)
        assert.equal(spec.initContainers?.length, 1)
      }
    }
    const loads = Promise.all([load(), load()])
    const empty = JSON.stringify({ data: { 'tls.crt': null, 'tls.key': null } })
    await kubernetes.kubectl([
      ...[
        'patch',
        'secret',
        'mte-sidecar-injector',
        '--namespace',
        'mte-sidecar',
        '--type',
        'merge',
        '--patch',
        empty,
      ],
    ])
    await Promise.race([loads, Promise.all(replicas.map(({ logged }) => logged(PRESENTED, 2)))])
    isOver = true
    await loads
    assert.notEqual(await presented(), before)
    assert.ok(reviews > 10, `${reviews} reviews`)
    const { webhooks } = await get('mutatingwebhookconfiguration', WEBHOOK)
    const bundle = Buffer.from(webhooks[0].clientConfig.caBundle, 'base64').toString()
    assert.equal(bundle.match(/BEGIN CERTIFICATE/g)?.length, 2)
  },
  LONG_MS,
)

test('its account may do what it needs and no more', async () => {
  const account = 'system:serviceaccount:mte-sidecar:mte-sidecar-injector'
  const own = await kubernetes.kubectl([
    'auth',
    'can-i',
    '--list',
    '--namespace',
    'mte-sidecar',
    '--as',
    account,
  ])
  const rights = own
    .split('\n')
    .filter((line) => /secrets|webhook/.test(line))
    .map((line) => line.trim().split(/ {2,}/))
  assert.deepEqual(rights.sort(), [
    ['mutatingwebhookconfigurations.admissionregistration.k8s.io', '[]', `[${WEBHOOK}]`, '[get patch]'],
    ['secrets', '[]', '[mte-sidecar-injector]', '[get update]'],
  ])
  const elsewhere = kubernetes.kubectl([
    'auth',
    'can-i',
    'get',
    'secrets',
    '--namespace',
    RESTRICTED,
    '--as',
    account,
  ])
  await assert.rejects(elsewhere, KubectlError)
})

test('while nothing answers, pods that ask for the sidecar are refused, and kube-system is not', async () => {
  await injector.stop()
  const said = await refusal(kubernetes, podOf(), RESTRICTED)
  assert.match(said, /failed calling webhook "inject.mte.sidecar"/)
  await create(kubernetes, podOf(), 'kube-system')
  await create(kubernetes, unlabelled(podOf()), RESTRICTED)
})

test.run()

async function get(kind: string, name: string) {
  return JSON.parse(
    await kubernetes.kubectl(['get', kind, name, '--namespace', RESTRICTED, '--output', 'json']),
  )
}

async function podsOf(selector: string): Promise<ServerPod[]> {
  const args = ['get', 'pods', '--namespace', RESTRICTED, '--selector', selector, '--output', 'json']
  return JSON.parse(await kubernetes.kubectl(args)).items
}

/** The fingerprint of the certificate that the Service presents. */
async function presented(): Promise<string> {
  const socket = tls.connect({
    host: SERVICE_ADDRESS,
    port: injector.service.port,
    rejectUnauthorized: false,
  })
  await once(socket, 'secureConnect')
  const { fingerprint256 } = socket.getPeerCertificate()
  socket.destroy()
  return fingerprint256
}

/** A webhook that puts into pods what Istio's does, and remembers what it was given. */
async function startMesh(name: string) {
  const { key, cert } = certificate('IP:127.0.0.1')
  const { initContainers, volumes } = podOfFixture('istio-native').spec
  const containers = initContainers!.filter(({ name }) => name.startsWith('istio-'))
  const seen: ServerPod[] = []
  const server = https.createServer({ key, cert }, async (request, response) => {
    const { request: asked } = (await json(request)) as { request: { uid: string; object: ServerPod } }
    const { spec } = asked.object
    seen.push(asked.object)
    const hasIt = spec.initContainers?.some(({ name }) => name === 'istio-proxy')
    const operations = [
      ...(spec.initContainers ? [] : [{ op: 'add', path: '/spec/initContainers', value: [] }]),
      ...containers.toReversed().map((value) => ({ op: 'add', path: '/spec/initContainers/0', value })),
      ...(spec.volumes ? [] : [{ op: 'add', path: '/spec/volumes', value: [] }]),
      ...volumes!.map((value) => ({ op: 'add', path: '/spec/volumes/-', value })),
    ]
    const patch = Buffer.from(JSON.stringify(operations)).toString('base64')
    const answer = { uid: asked.uid, allowed: true, ...(!hasIt && { patchType: 'JSONPatch', patch }) }
    response.setHeader('content-type', 'application/json')
    response.end(
      JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: answer }),
    )
  })
  const url = `https://127.0.0.1:${await listen(server)}/`
  const webhook = {
    name: 'mesh.example.com',
    admissionReviewVersions: ['v1'],
    sideEffects: 'None',
    reinvocationPolicy: 'IfNeeded',
    objectSelector: { matchLabels: { app: 'app' } },
    rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
    clientConfig: { url, caBundle: Buffer.from(cert).toString('base64') },
  }
  const metadata = { name }
  await apply(kubernetes, [
    {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'MutatingWebhookConfiguration',
      metadata,
      webhooks: [webhook],
    },
  ])
  await until(async () => {
    await create(kubernetes, podOf(), PRIVILEGED)
    return seen.length > 0
  })
  seen.length = 0
  return {
    seen,
    /** what it makes of a pod that it is the first to be given */
    injected: (pod: ServerPod): ServerPod => ({
      ...pod,
      spec: {
        ...pod.spec,
        initContainers: [...containers, ...(pod.spec.initContainers ?? [])],
        volumes: [...(pod.spec.volumes ?? []), ...volumes!],
      },
    }),
    async stop() {
      await kubernetes.kubectl(['delete', 'mutatingwebhookconfiguration', name])
      server.close()
      server.closeAllConnections()
    },
  }
}
