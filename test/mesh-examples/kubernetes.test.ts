/** The example for Kubernetes is held to what it promises, as far as that can be seen without a cluster. */
import assert from 'node:assert/strict'
import { globSync, mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { type Config, loadConfig } from '../../sidecar/config.ts'
import { suite } from '../support/suite.ts'
import {
  apps,
  EXAMPLE,
  filesOf,
  give,
  IMAGE,
  kustomization,
  sidecarOf,
  standalone,
  variablesOf,
  type Workload,
  workloadsOf,
} from './example.ts'
import { containersOf, ofKind } from './manifests.ts'
import { violations } from './pod-security.ts'

const test = suite('example for Kubernetes')

/** Users whose traffic a mesh lets pass by its proxy: of Istio, Linkerd and Consul. */
const USERS_OF_MESHES = [1337, 2102, 5995, 5996]

const workloads = [...workloadsOf(apps), ...workloadsOf(standalone)]
const hasSidecar = ({ name }: Workload) => name !== 'redis'
const withSidecar = workloads.filter(hasSidecar)
const appsWithSidecar = workloadsOf(apps).filter(hasSidecar)
const redis = workloadsOf(apps).find(({ name }) => name === 'redis')!

const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-kubernetes-'))
test.after(() => rmSync(folder, { recursive: true }))

/** What its sidecar makes of its variables. */
function configOf(workload: Workload): { config: Config; warnings: string[] } {
  return loadConfig(give(workload, sidecarOf(workload), path.join(folder, workload.name)).env)
}

test('the kustomization has all of it but the relay that stands alone', () => {
  const files = globSync('*.yaml', { cwd: EXAMPLE }).filter((file) => file !== 'kustomization.yaml')
  assert.deepEqual([...kustomization.resources, 'standalone.yaml'].sort(), files.sort())
})

test('the registry of the image is named once, and the version is that of the package', () => {
  const { name, newTag } = kustomization.images[0]!
  assert.equal(`${name}:${newTag}`, IMAGE)
  for (const workload of withSidecar) assert.ok(sidecarOf(workload), workload.name)
})

test('no manifest holds a secret', () => {
  assert.deepEqual(ofKind([...apps, ...standalone], 'Secret'), [])
  for (const workload of workloads) {
    for (const container of containersOf(workload.pod.spec)) {
      const names = Object.keys(variablesOf(workload, container))
      assert.deepEqual(
        names.filter((name) => /SECRET|TOKEN|PASSWORD|REDIS_URL/.test(name) && !name.endsWith('_FILE')),
        [],
      )
    }
  }
})

test('Secrets are mounted as whole folders, read-only: the files follow when they change', () => {
  for (const { pod } of workloads)
    for (const { volumeMounts = [] } of containersOf(pod.spec))
      for (const { name, readOnly, subPath } of volumeMounts)
        assert.deepEqual([readOnly, subPath], [true, undefined], name)
})

test('an app sees none of the files of its sidecar', () => {
  for (const workload of appsWithSidecar) {
    const [app, ...others] = workload.pod.spec.containers
    assert.deepEqual(others, [])
    assert.deepEqual([...filesOf(workload, app!).keys()], [`/app/${workload.name}.mjs`])
  }
})

test('all pods are admitted by the profile restricted, which their namespace enforces', () => {
  for (const { name, pod } of workloads) assert.deepEqual(violations(pod), [], name)
  const [namespace] = ofKind(apps, 'Namespace')
  assert.equal(namespace!.metadata.labels!['pod-security.kubernetes.io/enforce'], 'restricted')
  assert.equal(kustomization.namespace, namespace!.metadata.name)
})

test('no pod has a token of the API, a root file system that can be written, or a share without bounds', () => {
  for (const { name, pod } of workloads) {
    assert.equal(pod.spec.automountServiceAccountToken, false, name)
    for (const { securityContext, resources } of containersOf(pod.spec)) {
      assert.equal(securityContext?.readOnlyRootFilesystem, true, name)
      assert.ok(resources?.requests?.memory && resources.requests.cpu && resources.limits?.memory, name)
    }
  }
})

test('sidecars run under a user that no mesh lets pass, and not under that of the app', () => {
  for (const workload of withSidecar) {
    const { runAsUser, runAsGroup } = sidecarOf(workload).securityContext!
    assert.deepEqual([runAsUser, runAsGroup], [65532, 65532])
    for (const id of [runAsUser, runAsGroup]) assert.ok(!USERS_OF_MESHES.includes(id!))
    const others = containersOf(workload.pod.spec).filter(({ image }) => image !== IMAGE)
    for (const { securityContext } of others) assert.notEqual(securityContext?.runAsUser, runAsUser)
  }
})

test('the variables of each sidecar are right, and leave nothing to warn of', () => {
  for (const workload of withSidecar) {
    const { config, warnings } = configOf(workload)
    assert.deepEqual(warnings, [], workload.name)
    assert.equal(config.redis?.nodes[0]?.host, 'redis')
    assert.equal(config.clientIdSecrets.length, 1)
  }
})

test('those of each name are replicas, and no others share it', () => {
  const names = appsWithSidecar.map((workload) => configOf(workload).config.name)
  assert.deepEqual(names, ['orders', 'billing'])
})

test('Services lead to the inbound ports of sidecars, by number, as HTTP', () => {
  for (const workload of withSidecar) {
    const { manifest, among, pod } = workload
    const service = ofKind(among, 'Service').find(({ metadata }) => metadata.name === manifest.metadata.name)!
    const { config } = configOf(workload)
    const port = service.spec.ports![0]!
    assert.deepEqual([port.name, port.appProtocol, port.targetPort], ['http-mte', 'http', config.port])
    assert.deepEqual(service.spec.selector, { app: pod.metadata!.labels!.app })
    assert.deepEqual(manifest.spec.selector!.matchLabels, service.spec.selector)
    assert.deepEqual(sidecarOf(workload).ports, [
      { name: 'http-mte', containerPort: config.port },
      { name: 'mte-admin', containerPort: config.adminPort },
    ])
  }
})

test('the kubelet reaches what it asks', () => {
  for (const workload of withSidecar) {
    const { config } = configOf(workload)
    const { startupProbe, readinessProbe, livenessProbe } = sidecarOf(workload)
    assert.deepEqual(readinessProbe?.httpGet, { path: '/readyz', port: config.adminPort })
    assert.deepEqual(livenessProbe?.httpGet, { path: '/livez', port: config.adminPort })
    assert.equal(config.adminHost, '0.0.0.0')
    assert.ok(startupProbe)
  }
})

test('apps listen on loopback: the kubelet asks them by way of their sidecars, and nobody else reaches them', () => {
  for (const workload of appsWithSidecar) {
    const { config } = configOf(workload)
    const [app] = workload.pod.spec.containers
    const { hostname, port } = new URL(config.upstream!)
    assert.equal(hostname, '127.0.0.1')
    const [script] = filesOf(workload, app!).values()
    assert.ok(script!.includes(`server.listen(${port}, '127.0.0.1')`))
    assert.equal(app!.ports, undefined)
    assert.deepEqual(app!.readinessProbe?.httpGet, { path: config.passThroughRoutes[0], port: config.port })
  }
})

test('sidecars beside apps are native ones, whose first probe no mesh redirects', () => {
  for (const workload of appsWithSidecar) {
    const [first, ...others] = workload.pod.spec.initContainers!
    assert.deepEqual([first!.image, first!.restartPolicy, others], [IMAGE, 'Always', []])
    assert.deepEqual(first!.startupProbe?.exec?.command, ['mte-sidecar', 'healthcheck'])
  }
})

test('a pod has the time to drain before it stops, and after', () => {
  for (const workload of withSidecar) {
    const { lifecycle } = sidecarOf(workload)
    assert.deepEqual(lifecycle?.preStop?.exec?.command?.slice(0, 2), ['mte-sidecar', 'drain'])
    const { drainMs } = configOf(workload).config
    assert.ok(workload.pod.spec.terminationGracePeriodSeconds! * 1000 >= 2 * drainMs + 10_000, workload.name)
  }
})

test('there are two of each sidecar, one of which stays when a node is drained', () => {
  for (const { manifest, among, pod } of withSidecar) {
    assert.equal(manifest.spec.replicas, 2)
    const budget = ofKind(among, 'PodDisruptionBudget').find(
      ({ metadata }) => metadata.name === manifest.metadata.name,
    )
    assert.equal(budget?.spec.minAvailable, 1)
    assert.deepEqual(budget?.spec.selector?.matchLabels, { app: pod.metadata!.labels!.app })
  }
})

test('of a pod nothing is reachable but the inbound port, and Redis only for sidecars', () => {
  const policies = ofKind(apps, 'NetworkPolicy').map(({ spec }) => spec)
  for (const { policyTypes } of policies) assert.deepEqual(policyTypes, ['Ingress', 'Egress'])
  const everyPod = policies.filter(({ podSelector }) => podSelector?.matchLabels === undefined)
  assert.deepEqual(
    everyPod.map(({ ingress, egress }) => [ingress, egress]),
    [[undefined, undefined]],
  )
  const opened = (labels: Record<string, string>) =>
    policies
      .filter(({ podSelector }) =>
        Object.entries(podSelector?.matchLabels ?? { none: '' }).every(
          ([name, value]) => labels[name] === value,
        ),
      )
      .flatMap(({ ingress = [] }) => ingress)
  for (const workload of workloadsOf(apps)) {
    const labels = workload.pod.metadata!.labels!
    const expected =
      workload.name === 'redis'
        ? [{ from: [{ podSelector: { matchLabels: { 'mte-sidecar': 'true' } } }], ports: [{ port: 6379 }] }]
        : [{ ports: [{ port: configOf(workload).config.port }] }]
    assert.deepEqual(opened(labels), expected, workload.name)
    assert.equal(labels['mte-sidecar'], workload.name === 'redis' ? undefined : 'true')
  }
})

test('Redis writes nothing to a disk, evicts nothing, and has a password', () => {
  const files = filesOf(redis, redis.pod.spec.containers[0]!)
  assert.deepEqual([...files.keys()], ['/etc/redis/redis.conf', '/run/secrets/redis/auth.conf'])
  const lines = files.get('/etc/redis/redis.conf')!.split('\n')
  const needed = [
    'save ""',
    'appendonly no',
    'maxmemory-policy noeviction',
    'include /run/secrets/redis/auth.conf',
  ]
  for (const line of needed) assert.ok(lines.includes(line), line)
})

test.run()
