import assert from 'node:assert/strict'
import fc from 'fast-check'
import { loadConfig } from '../../sidecar/config.ts'
import { applyPatch } from '../../sidecar/inject/json-patch.ts'
import { readOptions } from '../../sidecar/inject/options.ts'
import { patchFor } from '../../sidecar/inject/patch.ts'
import { violations } from '../mesh-examples/pod-security.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'
import { anyPod, injected, MESHES, patchOf, podOfFixture, podWith, sidecarIn, variablesOf } from './pods.ts'

const test = suite('patch')

const names = (containers: readonly { name: string }[] = []) => containers.map(({ name }) => name)
const PLAIN = { native: false }

test('a native sidecar comes first of the init containers, with its ports, probes, secrets and time to drain', () => {
  const { spec } = injected(podWith({ initContainers: [{ name: 'setup', image: 'example/setup:1' }] }))
  assert.deepEqual(names(spec.initContainers), ['mte-sidecar', 'setup'])
  assert.equal(spec.terminationGracePeriodSeconds, 60)
  assert.deepEqual(spec.volumes, [
    { name: 'mte-sidecar', projected: { sources: [{ secret: { name: 'mte-sidecar' } }] } },
  ])
  const { env, ...sidecar } = spec.initContainers![0]!
  assert.deepEqual(sidecar, {
    name: 'mte-sidecar',
    image: 'mte-sidecar:0.1.0',
    restartPolicy: 'Always',
    ports: [
      { name: 'http-mte', containerPort: 7781 },
      { name: 'mte-admin', containerPort: 7782 },
    ],
    startupProbe: {
      exec: { command: ['mte-sidecar', 'healthcheck'] },
      periodSeconds: 1,
      timeoutSeconds: 5,
      failureThreshold: 120,
    },
    readinessProbe: { httpGet: { path: '/readyz', port: 7782 }, periodSeconds: 5, timeoutSeconds: 2 },
    livenessProbe: { httpGet: { path: '/livez', port: 7782 }, initialDelaySeconds: 10, timeoutSeconds: 5 },
    lifecycle: { preStop: { exec: { command: ['mte-sidecar', 'drain'] } } },
    resources: { requests: { cpu: '50m', memory: '96Mi' }, limits: { memory: '256Mi' } },
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumeMounts: [{ name: 'mte-sidecar', mountPath: '/run/secrets/mte-sidecar', readOnly: true }],
  })
  assert.deepEqual(Object.fromEntries(env!.map(({ name, value }) => [name, value])), {
    UPSTREAM: 'http://127.0.0.1:3000',
    PORT: '7781',
    OUTBOUND_PORT: '7780',
    ADMIN_PORT: '7782',
    ADMIN_HOST: '0.0.0.0',
    CLIENT_ID_SECRET_FILE: '/run/secrets/mte-sidecar/CLIENT_ID_SECRET',
    CLIENT_ID_SECRET_PREVIOUS_FILE: '/run/secrets/mte-sidecar/CLIENT_ID_SECRET_PREVIOUS',
    DRAIN_SECONDS: '25',
  })
})

test('its variables are ones that the sidecar runs with', () => {
  const annotations = {
    'mte.sidecar/peers': 'billing=http://billing',
    'mte.sidecar/pass-through-routes': '/healthz',
    'mte.sidecar/redis': 'redis://redis',
    'mte.sidecar/name': 'app',
    'mte.sidecar/log-level': 'warn',
    'mte.sidecar/otlp-endpoint': 'http://collector:4317',
  }
  const { CLIENT_ID_SECRET_FILE, ...variables } = variablesOf(sidecarIn(injected(podWith({ annotations }))))
  const { config, warnings } = loadConfig({ ...variables, CLIENT_ID_SECRET: 's'.repeat(32) })
  assert.equal(CLIENT_ID_SECRET_FILE, '/run/secrets/mte-sidecar/CLIENT_ID_SECRET')
  assert.deepEqual(warnings, [])
  const { upstream, name, logLevel, redis, drainMs, otel, passThroughRoutes, peers } = config
  assert.deepEqual(
    [upstream, name, logLevel, redis?.nodes, drainMs],
    ['http://127.0.0.1:3000', 'app', 'warn', [{ host: 'redis', port: 6379 }], 25_000],
  )
  assert.deepEqual([otel.traces?.protocol, otel.traces?.endpoint], ['grpc', 'http://collector:4317'])
  assert.deepEqual([passThroughRoutes, peers.map(({ url }) => url)], [['/healthz'], ['http://billing']])
})

test('an app that the one port is declared of needs no annotation; UDP is no port of it', () => {
  const containers = [
    {
      name: 'app',
      ports: [
        { containerPort: 53, protocol: 'UDP' },
        { containerPort: 9000, protocol: 'TCP' },
      ],
    },
  ]
  assert.equal(variablesOf(sidecarIn(injected(podWith({ containers })))).UPSTREAM, 'http://127.0.0.1:9000')
})

test('an app without a port is one that only calls others, if its annotation says so', () => {
  const containers = [{ name: 'worker' }]
  const pod = podWith({ containers, annotations: { 'mte.sidecar/upstream-port': 'none' } })
  assert.equal(variablesOf(sidecarIn(injected(pod))).UPSTREAM, undefined)
})

test('annotations win over the defaults of whoever injects, and those over the built-in ones', () => {
  const { options } = readOptions({
    image: 'registry.example.com/mte:2',
    secret: 'shared',
    'log-level': 'debug',
  })
  const { spec } = injected(
    podWith({ annotations: { 'mte.sidecar/secret': 'own', 'mte.sidecar/cpu': '1' } }),
    options,
  )
  const sidecar = spec.initContainers![0]!
  assert.equal(sidecar.image, 'registry.example.com/mte:2')
  assert.equal(variablesOf(sidecar).LOG_LEVEL, 'debug')
  assert.deepEqual(spec.volumes?.[0]?.projected?.sources, [{ secret: { name: 'own' } }])
  assert.deepEqual(sidecar.resources, { requests: { cpu: '1', memory: '96Mi' }, limits: { memory: '256Mi' } })
})

test('what is secret is a file from a Secret, and the outbound token is asked for only where that is wanted', () => {
  const annotations = {
    'mte.sidecar/redis': 'secret/redis',
    'mte.sidecar/name': 'app',
    'mte.sidecar/outbound-token': 'true',
  }
  const { spec } = injected(podWith({ annotations }))
  assert.deepEqual(spec.volumes?.[0]?.projected?.sources, [
    { secret: { name: 'mte-sidecar' } },
    { secret: { name: 'redis', items: [{ key: 'REDIS_URL', path: 'REDIS_URL' }] } },
  ])
  const variables = variablesOf(spec.initContainers![0]!)
  assert.equal(variables.REDIS_URL_FILE, '/run/secrets/mte-sidecar/REDIS_URL')
  assert.equal(variables.OUTBOUND_TOKEN_FILE, '/run/secrets/mte-sidecar/OUTBOUND_TOKEN')
  assert.equal(variables.OUTBOUND_TOKEN_PREVIOUS_FILE, '/run/secrets/mte-sidecar/OUTBOUND_TOKEN_PREVIOUS')
})

test('the grace period is longer than both times to drain, and a longer one stays', () => {
  const seconds = (spec: object, drain = '25') =>
    injected(podWith({ ...spec, annotations: { 'mte.sidecar/drain-seconds': drain } })).spec
      .terminationGracePeriodSeconds
  assert.equal(seconds({}, '5'), undefined)
  assert.equal(seconds({}, '10.5'), 31)
  assert.equal(seconds({ terminationGracePeriodSeconds: null }), 60)
  assert.equal(seconds({ terminationGracePeriodSeconds: 0 }), 60)
  assert.equal(seconds({ terminationGracePeriodSeconds: 59 }), 60)
  assert.equal(seconds({ terminationGracePeriodSeconds: 300 }), 300)
})

test('a sidecar that is not native is a container that never restarts by itself, and kubectl still finds the app', () => {
  const { metadata, spec } = injected(podWith(), PLAIN)
  assert.deepEqual([spec.initContainers, names(spec.containers)], [undefined, ['mte-sidecar', 'app']])
  assert.equal(sidecarIn(injected(podWith(), PLAIN)).restartPolicy, undefined)
  assert.equal(metadata?.annotations?.['kubectl.kubernetes.io/default-container'], 'app')
  assert.match(
    patchOf(podWith(), PLAIN)
      .warnings.map(({ text }) => text)
      .join(),
    /may start after the app/,
  )
})

for (const [mesh, native, plain] of [
  ['istio-native', ['istio-init', 'istio-proxy', 'mte-sidecar', 'setup'], ['mte-sidecar', 'app']],
  ['istio-plain', ['setup', 'istio-init', 'mte-sidecar'], ['app', 'istio-proxy', 'mte-sidecar']],
  ['linkerd-native', ['linkerd-init', 'linkerd-proxy', 'mte-sidecar', 'setup'], ['mte-sidecar', 'app']],
  ['linkerd-plain', ['setup', 'linkerd-init', 'mte-sidecar'], ['linkerd-proxy', 'mte-sidecar', 'app']],
] as const) {
  test(`after ${mesh} it comes behind the last container of the mesh, native or not`, () => {
    assert.deepEqual(names(injected(podOfFixture(mesh)).spec.initContainers), native)
    assert.deepEqual(names(injected(podOfFixture(mesh), PLAIN).spec.containers), plain)
  })
}

test('before a mesh it comes first, and tells the mesh by annotations what to leave alone', () => {
  const annotations = {
    'mte.sidecar/redis': 'redis://redis',
    'mte.sidecar/name': 'app',
    'mte.sidecar/otlp-endpoint': 'http://collector:4318',
  }
  const { operations, warnings } = patchOf(podWith({ annotations }))
  assert.deepEqual(
    operations.filter(({ path }) => path.startsWith('/metadata')),
    [
      ['traffic.sidecar.istio.io~1excludeInboundPorts', '7782'],
      ['traffic.sidecar.istio.io~1excludeOutboundPorts', '6379,4318'],
      ['config.linkerd.io~1skip-inbound-ports', '7782'],
      ['config.linkerd.io~1skip-outbound-ports', '6379,4318'],
      ['sidecar.istio.io~1nativeSidecar', 'true'],
      ['config.linkerd.io~1proxy-enable-native-sidecar', 'true'],
    ].map(([name, value]) => ({ op: 'add', path: `/metadata/annotations/${name}`, value })),
  )
  assert.deepEqual(warnings, [])
})

test('annotations that the meshes have already are added to, and left where they say enough', () => {
  const annotations = {
    'traffic.sidecar.istio.io/excludeInboundPorts': '9000',
    'config.linkerd.io/skip-inbound-ports': '4190,7000-8000',
    'config.linkerd.io/proxy-enable-native-sidecar': 'false',
    'sidecar.istio.io/nativeSidecar': 'true',
  }
  const { operations } = patchOf(podWith({ annotations }))
  assert.deepEqual(
    operations.filter(({ path }) => path.startsWith('/metadata')),
    [
      {
        op: 'replace',
        path: '/metadata/annotations/traffic.sidecar.istio.io~1excludeInboundPorts',
        value: '9000,7782',
      },
    ],
  )
})

test('the ports of what could be a peer stay in the mesh, whoever listens there', () => {
  const annotations = {
    'mte.sidecar/redis': 'redis://redis:80',
    'mte.sidecar/name': 'app',
    'mte.sidecar/otlp-endpoint': 'http://collector',
  }
  const { metadata } = injected(podWith({ annotations }))
  assert.deepEqual(
    Object.keys(metadata?.annotations ?? {}).filter((name) => /outbound/i.test(name)),
    [],
  )
})

test('without native sidecars Istio is told to start first, and a config of its own that does not say so is doubted', () => {
  const key = 'proxy.istio.io/config'
  assert.equal(
    injected(podWith(), PLAIN).metadata?.annotations?.[key],
    '{"holdApplicationUntilProxyStarts": true}',
  )
  const pod = podWith({ annotations: { [key]: 'concurrency: 1' } })
  assert.equal(injected(pod, PLAIN).metadata?.annotations?.[key], 'concurrency: 1')
  assert.match(patchOf(pod, PLAIN).warnings[0]!.text, /holdApplicationUntilProxyStarts/)
})

test('where Istio came first and probes go through its proxy, that is told, with what to do', () => {
  const told = (pod: object) =>
    patchOf(pod)
      .warnings.map(({ text }) => text)
      .join()
  const pod = podOfFixture('istio-native')
  assert.match(told(pod), /Istio was injected first.*excludeInboundPorts: "7782"/)
  pod.metadata!.annotations!['traffic.sidecar.istio.io/excludeInboundPorts'] = '7782'
  assert.equal(told(pod), '')
  assert.equal(told(podOfFixture('linkerd-native')), '')
})

test('what is missing, null or empty is added whole: the parent of each path is there', () => {
  for (const metadata of [undefined, null]) {
    const [operation] = patchOf({ metadata, spec: podWith().spec }).operations
    assert.equal(operation?.path, '/metadata')
  }
  for (const nothing of [undefined, null, {}]) {
    const [operation] = patchOf({ metadata: { annotations: nothing }, spec: podWith().spec }).operations
    assert.equal(operation?.path, '/metadata/annotations')
  }
  for (const nothing of [undefined, null, []]) {
    const { operations } = patchOf(podWith({ initContainers: nothing, volumes: nothing }))
    assert.deepEqual(
      operations.slice(-2).map(({ path }) => path),
      ['/spec/initContainers', '/spec/volumes'],
    )
  }
})

test('a pod that has the sidecar gets nothing, whoever put it there, and however it was', () => {
  for (const name of ['app', ...MESHES]) {
    for (const defaults of [{}, PLAIN]) {
      const once = injected(podOfFixture(name), defaults)
      for (const again of [{}, PLAIN]) assert.deepEqual(patchFor(once, again), { outcome: 'has-it' }, name)
    }
  }
})

test('a pod that is not to have it gets nothing, even one that could not', () => {
  const annotations = { 'mte.sidecar/inject': 'false', 'mte.sidecar/peers': 'nonsense' }
  assert.deepEqual(patchFor(podWith({ annotations, hostNetwork: true, containers: [] })), {
    outcome: 'not-wanted',
  })
  assert.equal(patchFor(podWith({ annotations: { 'mte.sidecar/inject': 'true' } })).outcome, 'injected')
})

test('Pod Security restricted admits what it makes of a pod that it admitted, and nothing else of it is worse', () => {
  const securityContext = {
    runAsNonRoot: true,
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  }
  const pod = podWith({ containers: [{ name: 'app', ports: [{ containerPort: 3000 }], securityContext }] })
  for (const defaults of [{}, PLAIN]) assert.deepEqual(violations(injected(pod, defaults)), [])
  for (const mesh of MESHES) {
    const before = podOfFixture(mesh)
    assert.deepEqual(violations(injected(before)), violations(before), mesh)
  }
})

test('any pod: the patch applies, a second time there is none, and nothing else changes', () => {
  fc.assert(
    fc.property(anyPod, fc.boolean(), (pod, native) => {
      const before = structuredClone(pod)
      const { operations } = patchOf(pod, { native })
      const after = applyPatch(pod, operations)
      assert.deepEqual(pod, before)
      assert.deepEqual(patchFor(after, { native }), { outcome: 'has-it' })
      assert.deepEqual(withoutAdded(after), withoutAdded(before))
      const list =
        (native
          ? injected(pod, { native }).spec.initContainers
          : injected(pod, { native }).spec.containers) ?? []
      const others = names(list).filter((name) => name !== 'mte-sidecar-redirect')
      const place = others.indexOf('mte-sidecar')
      const mesh = others.findLastIndex((name) => /^(istio|linkerd)-/.test(name))
      assert.equal(place, mesh + 1)
    }),
    runs(500),
  )
})

test('anything that is no pod is refused, and nothing is thrown', () => {
  const key = fc.constantFrom(
    'metadata',
    'annotations',
    'spec',
    'containers',
    'initContainers',
    'volumes',
    'name',
    'ports',
    'securityContext',
  )
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom(null, true, 0, '', 'text'),
      fc.array(tie('value'), { maxLength: 2 }),
      fc.dictionary(key, tie('value'), { maxKeys: 4 }),
    ),
  }))
  fc.assert(
    fc.property(value, (pod) => {
      const patch = patchFor(pod)
      assert.equal(patch.outcome, 'refused')
      assert.ok(patch.outcome === 'refused' && patch.refusals.length > 0)
    }),
    runs(1000),
  )
})

/** A pod in which null and nothing are as good as missing, without what the sidecar brings along. */
function withoutAdded(pod: unknown): unknown {
  const { metadata, spec } = structuredClone(pod) as {
    metadata?: { annotations?: Record<string, string> } | null
    spec: Record<string, unknown>
  }
  const annotations = Object.entries(metadata?.annotations ?? {}).filter(
    ([name]) => !/istio|linkerd|kubectl/.test(name),
  )
  const others = (list: unknown) =>
    ((list ?? []) as { name: string }[]).filter(({ name }) => !/^mte-sidecar/.test(name))
  const { initContainers, containers, volumes, terminationGracePeriodSeconds, ...rest } = spec
  return {
    metadata: { ...metadata, annotations: Object.fromEntries(annotations) },
    lists: [initContainers, containers, volumes].map(others),
    graceSeconds: Math.max(60, Number(terminationGracePeriodSeconds ?? 30)),
    rest,
  }
}

test.run()
