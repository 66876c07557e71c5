/** Pods for an API server, and what it makes of them. */
import assert from 'node:assert/strict'
import { applyPatch } from '../../../sidecar/inject/json-patch.ts'
import { MESHES, patchOf, podOfFixture } from '../../inject/pods.ts'
import type { Pod } from '../../mesh-examples/manifests.ts'
import { KubectlError, type Kubernetes } from '../../support/kubernetes.ts'
import type { suite } from '../../support/suite.ts'

/** Where Pod Security is `restricted`, and where it is not, for pods that it would refuse whatever we do. */
export const [RESTRICTED, PRIVILEGED] = ['shop', 'lab'] as const

/** One that is in an API server, or goes there. */
export interface ServerPod extends Pod {
  metadata: Pod['metadata'] & { name?: string; namespace?: string; [field: string]: unknown }
  status?: unknown
}

/** Of Pod Security `restricted`. */
export const SECURE = {
  allowPrivilegeEscalation: false,
  runAsNonRoot: true,
  runAsUser: 1000,
  capabilities: { drop: ['ALL'] },
  seccompProfile: { type: 'RuntimeDefault' },
}
export const LABELS = { app: 'app', 'mte.sidecar/inject': 'true' }
/** What the server gives to each anew. */
const OF_ITS_OWN = ['uid', 'creationTimestamp', 'managedFields', 'resourceVersion', 'labels']

/**
 * A pod that asks for the sidecar, and whose app listens at port 3000.
 * @param annotations by the names after `mte.sidecar/`, or whole ones
 */
export function podOf(
  annotations: Record<string, string> = {},
  spec: Record<string, unknown> = {},
  container: Record<string, unknown> = {},
): ServerPod {
  const named = Object.entries(annotations).map(([name, value]) => [
    name.includes('/') ? name : `mte.sidecar/${name}`,
    value,
  ])
  const app = {
    name: 'app',
    image: 'example/app:1',
    ports: [{ containerPort: 3000 }],
    securityContext: SECURE,
  }
  return {
    metadata: {
      name: 'app',
      labels: LABELS,
      ...(named.length > 0 && { annotations: Object.fromEntries(named) }),
    },
    spec: { automountServiceAccountToken: false, containers: [{ ...app, ...container }], ...spec },
  }
}

/** Creates a pod. @param dry leaves nothing behind @throws KubectlError */
export async function create(
  { kubectl }: Kubernetes,
  pod: ServerPod,
  namespace: string,
  dry = true,
): Promise<ServerPod> {
  const args = ['create', '--namespace', namespace, '--output', 'json', '--filename', '-']
  const manifest = { apiVersion: 'v1', kind: 'Pod', ...pod }
  return JSON.parse(await kubectl([...args, ...(dry ? ['--dry-run=server'] : [])], JSON.stringify(manifest)))
}

/** What is to come of a pod: what `patchFor` says, with the server's own defaults. */
export function expected(kubernetes: Kubernetes, pod: ServerPod, namespace: string): Promise<ServerPod> {
  return create(kubernetes, unlabelled(applyPatch(pod, patchOf(pod).operations)), namespace)
}

/** The pod, as one that does not ask for the sidecar. */
export function unlabelled(pod: ServerPod): ServerPod {
  return { ...pod, metadata: { ...pod.metadata, labels: {} } }
}

/** A pod without what differs each time. */
export function essence({ metadata, spec }: ServerPod): object {
  const own = Object.entries(metadata).filter(([name]) => !OF_ITS_OWN.includes(name))
  return { metadata: Object.fromEntries(own), spec }
}

/** Why the server refuses a pod. @throws Error when it does not */
export async function refusal(kubernetes: Kubernetes, pod: ServerPod, namespace: string): Promise<string> {
  try {
    await create(kubernetes, pod, namespace)
  } catch (error) {
    if (!(error instanceof KubectlError)) throw error
    return error.complaint.trim()
  }
  throw new Error(`${JSON.stringify(pod)} is not refused`)
}

/** Pods that get the sidecar, by what they are. */
export const GOOD: Record<string, ServerPod> = {
  'with nothing but its app': podOf(),
  'with every option': podOf({
    'upstream-port': '9000',
    peers: 'billing=http://billing, *.shop=http://{host}:{port}',
    'pass-through-hosts': 'example.com:80',
    'pass-through-routes': '/healthz',
    name: 'app',
    secret: 'own',
    'outbound-token': 'true',
    redis: 'secret/redis',
    image: 'registry.example.com/mte-sidecar:2',
    'log-level': 'warn',
    'drain-seconds': '40.5',
    cpu: '1',
    memory: '100Mi',
    'memory-limit': '1Gi',
    'otlp-endpoint': 'http://collector:4317',
    'admin-host': '::',
  }),
  'with a Redis by its URL, and annotations of meshes': podOf({
    name: 'app',
    redis: 'redis+cluster://a:6379,b:7000',
    'otlp-endpoint': 'http://collector:4318',
    'traffic.sidecar.istio.io/excludeInboundPorts': '15020, 8000-8010',
    'config.linkerd.io/skip-inbound-ports': '7000-8000',
    'config.linkerd.io/skip-outbound-ports': '6379',
    'config.linkerd.io/proxy-enable-native-sidecar': 'false',
  }),
  'with a Redis at a port that no mesh is told of': podOf({ name: 'app', redis: 'redis://redis:6380' }),
  'with an app that only calls others': podOf({ 'upstream-port': 'none' }, {}, { ports: [] }),
  'with init containers, volumes and a long grace period': podOf(
    {},
    {
      initContainers: [{ name: 'setup', image: 'example/setup:1', securityContext: SECURE }],
      volumes: [{ name: 'data', emptyDir: {} }],
      terminationGracePeriodSeconds: 300,
    },
  ),
}

/** Pods that get the sidecar, but none that Pod Security `restricted` would admit. */
export const UNRESTRICTED: Record<string, ServerPod> = {
  'whose calls are redirected': podOf(
    { redirect: '80, 8080', peers: 'billing=http://billing' },
    { initContainers: [{ name: 'setup', image: 'example/setup:1' }] },
  ),
  ...Object.fromEntries(
    MESHES.map((name) => {
      const { metadata, spec } = podOfFixture(name)
      const pod = { ...metadata, name: 'app', labels: LABELS }
      return [`that ${name} is in`, { metadata: pod, spec: { automountServiceAccountToken: false, ...spec } }]
    }),
  ),
}

/** Pods that are refused, by what is wrong with them. */
export const BAD: Record<string, ServerPod> = {
  // Without a port that the server would make one of the node's, too.
  'on the network of its node': podOf({ 'upstream-port': '3000' }, { hostNetwork: true }, { ports: [] }),
  'for Windows': podOf({}, { os: { name: 'windows' } }, { securityContext: undefined }),
  'for nodes with Windows': podOf({}, { nodeSelector: { 'kubernetes.io/os': 'windows' } }),
  'with a port of the sidecar': podOf({}, {}, { ports: [{ containerPort: 3000 }, { containerPort: 7782 }] }),
  'with a port on its node': podOf({}, {}, { ports: [{ containerPort: 3000, hostPort: 80 }] }),
  'with a container of the name of the sidecar': podOf(
    {},
    { initContainers: [{ name: 'mte-sidecar', image: 'example/other:1' }] },
  ),
  'with a volume of the name of its secrets': podOf({}, { volumes: [{ name: 'mte-sidecar', emptyDir: {} }] }),
  'with the user of the sidecar where it could see its processes': podOf(
    {},
    { shareProcessNamespace: true, securityContext: { runAsUser: 65532 } },
    { securityContext: { ...SECURE, runAsUser: undefined } },
  ),
  'whose calls are redirected, but for those of a user of a mesh': podOf(
    { redirect: '80' },
    {},
    { securityContext: { ...SECURE, runAsUser: 1337 } },
  ),
  'whose calls are redirected, but for those of the group of the sidecar': podOf(
    { redirect: '80' },
    { securityContext: { runAsGroup: 7780 } },
  ),
  'whose calls are redirected, with a token that they lack': podOf({
    redirect: '80',
    'outbound-token': 'true',
  }),
  'with an app without a port': podOf({}, {}, { ports: [] }),
  'with an app with two ports': podOf({}, {}, { ports: [{ containerPort: 3000 }, { containerPort: 9090 }] }),
  ...Object.fromEntries(
    [
      ['inject', 'yes'],
      ['upstream-port', '70000'],
      ['upstream-port', '7781'],
      ['name', ' app'],
      ['secret', 'My_Secret'],
      ['outbound-token', 's3cret'],
      ['redis', 'redis://redis'],
      ['image', 'mte sidecar'],
      ['redirect', 'http'],
      ['redirect', '80,443'],
      ['redirect', '7780'],
      ['redirect-image', 'mte sidecar'],
      ['native', '1.28'],
      ['log-level', 'verbose'],
      ['drain-seconds', '0'],
      ['cpu', 'many'],
      ['memory', '1Gi'],
      ['memory-limit', '256MB'],
      ['otlp-endpoint', 'collector:4317'],
      ['admin-host', 'localhost'],
      ['nonsense', 'x'],
    ].map(([name, value]) => [`with mte.sidecar/${name}: ${value}`, podOf({ [name!]: value! })]),
  ),
}

/** Has the server create each pod that is good, and checks that it becomes what patchFor says. */
export function testGood(test: ReturnType<typeof suite>, kubernetes: () => Kubernetes): void {
  for (const [pods, namespace] of [
    [GOOD, RESTRICTED],
    [UNRESTRICTED, PRIVILEGED],
  ] as const) {
    for (const [sentence, pod] of Object.entries(pods)) {
      test(`a pod ${sentence} becomes what patchFor says, where Pod Security is ${namespace}`, async () => {
        const wanted = await expected(kubernetes(), pod, namespace)
        assert.deepEqual(essence(await create(kubernetes(), pod, namespace)), essence(wanted))
      })
    }
  }
}
