/** The examples for Istio and Linkerd are held to what they promise, as far as that can be seen without a cluster. */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { parse } from 'yaml'
import { meshAnnotations } from '../../sidecar/inject/mesh.ts'
import { annotationOf, PORTS, readAnnotations } from '../../sidecar/inject/options.ts'
import { readPod } from '../../sidecar/inject/pod.ts'
import { MESSAGE_PATH, PAIRING_PATH } from '../../sidecar/outer.ts'
import { suite } from '../support/suite.ts'
import { apps, kustomization as base, EXAMPLE, workloadsOf } from './example.ts'
import { type Manifest, ofKind, type Pod, readManifests } from './manifests.ts'
import { violations } from './pod-security.ts'

const test = suite('examples for meshes')

/** By the folder of each mesh: what its annotations have in their names, and what keeps Redis out of it. */
const MESHES = {
  istio: {
    part: 'istio.io/',
    redis: { path: '/spec/template/metadata/labels/sidecar.istio.io~1inject', value: 'false' },
  },
  linkerd: {
    part: 'config.linkerd.io/',
    redis: { path: '/spec/template/metadata/annotations', value: { 'linkerd.io/inject': 'disabled' } },
  },
}
/** What sidecars call each other at. */
const CALLS = [`POST ${MESSAGE_PATH}`, `POST ${PAIRING_PATH}`]
const CALLER_OF: Record<string, string> = { orders: 'billing', billing: 'orders' }

interface Kustomization {
  namespace: string
  resources: string[]
  patches: { path?: string; target: { kind: string; name: string }; patch?: string }[]
}

interface Example {
  kustomization: Kustomization
  manifests: Manifest[]
  /** what the pods of both apps get besides */
  pods: Pod
}

function exampleOf(mesh: string): Example {
  const folder = path.join(EXAMPLE, '..', mesh)
  const kustomization: Kustomization = parse(readFileSync(path.join(folder, 'kustomization.yaml'), 'utf8'))
  const { resources } = kustomization
  const own = resources.filter((resource) => resource.endsWith('.yaml'))
  const [patch] = readManifests(path.join(folder, 'pods.yaml'))
  const files = globSync('*.yaml', { cwd: folder }).filter((file) => file !== 'kustomization.yaml')
  assert.deepEqual([...own, 'pods.yaml'].sort(), files.sort())
  assert.deepEqual(
    resources.filter((resource) => !own.includes(resource)),
    ['../kubernetes'],
  )
  return {
    kustomization,
    manifests: own.flatMap((file) => readManifests(path.join(folder, file))),
    pods: patch!.spec.template!,
  }
}

const workloads = workloadsOf(apps).filter(({ name }) => name !== 'redis')

for (const [mesh, { part, redis }] of Object.entries(MESHES)) {
  const { kustomization, manifests, pods } = exampleOf(mesh)
  const patchesOf = (name: string) =>
    kustomization.patches.filter(({ target }) => new RegExp(`^(${target.name})$`).test(name))

  test(`${mesh}: pods have the annotations that inject gives them, and Redis is not in the mesh`, () => {
    const settings = { [annotationOf('redis')]: 'redis://redis:6379', [annotationOf('name')]: 'any' }
    const { options } = readAnnotations(settings, {})
    const { annotations = {} } = pods.metadata!
    for (const { name, pod } of workloads) {
      const wanted = meshAnnotations(readPod(pod).pod, options)
      const ofMesh = (all: object) => Object.entries(all).filter(([key]) => key.includes(part))
      assert.deepEqual(Object.fromEntries(ofMesh(annotations)), Object.fromEntries(ofMesh(wanted)), name)
      assert.equal(patchesOf(name)[0]!.path, 'pods.yaml')
    }
    const [patch, ...others] = patchesOf('redis')
    assert.deepEqual([parse(patch!.patch!), others], [[{ op: 'add', ...redis }], []])
  })

  test(`${mesh}: messages are the mesh's to carry`, () => {
    for (const ports of Object.values(pods.metadata!.annotations!))
      assert.ok(!ports.split(',').includes(String(PORTS.PORT)), ports)
  })

  test(`${mesh}: restricted admits all but what the mesh itself puts into pods, and tells of that`, () => {
    for (const { name, pod } of workloads) {
      const { metadata } = pods
      assert.deepEqual(violations({ ...pod, metadata: { ...pod.metadata, ...metadata } }), [], name)
    }
    const [patch, ...others] = patchesOf(base.namespace)
    const path = '/metadata/labels/pod-security.kubernetes.io~1enforce'
    assert.deepEqual(parse(patch!.patch!), [{ op: 'replace', path, value: 'privileged' }])
    assert.deepEqual([others, kustomization.namespace], [[], base.namespace])
  })

  test(`${mesh}: each app has an account of its own, which needs no token`, () => {
    const accounts = ofKind(manifests, 'ServiceAccount') as (Manifest & object)[]
    assert.deepEqual(
      accounts.map(({ metadata }) => metadata.name).sort(),
      workloads.map(({ name }) => name).sort(),
    )
    for (const account of accounts)
      assert.equal(
        (account as { automountServiceAccountToken?: boolean }).automountServiceAccountToken,
        false,
      )
    for (const { name } of workloads) {
      const path = '/spec/template/spec/serviceAccountName'
      const patch = patchesOf(name).find(({ patch }) => patch?.includes(path))
      assert.deepEqual(parse(patch!.patch!), [{ op: 'add', path, value: name }])
    }
  })

  test(`${mesh}: its proxies may call the control plane, and sidecars nothing more than before`, () => {
    const [policy, ...others] = ofKind(manifests, 'NetworkPolicy')
    assert.deepEqual(others, [])
    assert.deepEqual([policy!.spec.policyTypes, policy!.spec.ingress], [['Egress'], undefined])
    for (const { to } of policy!.spec.egress!) assert.match(JSON.stringify(to), /"(istio-system|linkerd)"/)
  })
}

test('istio: sidecars are called by each other alone, for messages alone, in mutual TLS', () => {
  const { manifests } = exampleOf('istio')
  const [strict] = ofKind(manifests, 'PeerAuthentication')
  assert.deepEqual(strict!.spec, { mtls: { mode: 'STRICT' } })
  for (const { name, pod } of workloads) {
    const { spec } = manifests.find(
      ({ kind, metadata }) => kind === 'AuthorizationPolicy' && metadata.name === name,
    ) as unknown as IstioPolicy
    assert.deepEqual(spec.selector.matchLabels, { app: pod.metadata!.labels!.app })
    const [rule, ...others] = spec.rules
    assert.deepEqual([spec.action, others], ['ALLOW', []])
    const principal = `cluster.local/ns/${base.namespace}/sa/${CALLER_OF[name]}`
    assert.deepEqual(rule!.from, [{ source: { principals: [principal] } }])
    const calls = rule!.to.flatMap(({ operation: { ports, methods, paths } }) => {
      assert.deepEqual(ports, [String(PORTS.PORT)])
      return methods.flatMap((method) => paths.map((path) => `${method} ${path}`))
    })
    assert.deepEqual(calls.sort(), CALLS)
  }
})

interface IstioPolicy {
  spec: {
    selector: { matchLabels: object }
    action: string
    rules: { from: object[]; to: { operation: { ports: string[]; methods: string[]; paths: string[] } }[] }[]
  }
}

test('istio: there are retries without a limit of time for each, which would cut calls that take longer', () => {
  const { manifests } = exampleOf('istio')
  const [{ spec }] = ofKind(manifests, 'VirtualService') as unknown as [{ spec: { http: object[] } }]
  const [route] = spec.http as { timeout?: string; retries: { attempts: number; perTryTimeout?: string } }[]
  assert.ok(route!.retries.attempts > 0)
  assert.deepEqual([route!.timeout, route!.retries.perTryTimeout], [undefined, undefined])
})

test('linkerd: sidecars are called by each other alone, for messages alone; the kubelet may probe the app', () => {
  const { manifests } = exampleOf('linkerd')
  const find = <T>(kind: string, name: string) =>
    (
      manifests.find((one) => one.kind === kind && one.metadata.name === name) ??
      assert.fail(`${kind} ${name}`)
    ).spec as unknown as T
  for (const { name, pod } of workloads) {
    const server = find<{ podSelector: object; port: number }>('Server', name)
    assert.deepEqual(server.podSelector, { matchLabels: { app: pod.metadata!.labels!.app } })
    assert.equal(server.port, PORTS.PORT)
    for (const [route, authentication, calls] of [
      [`${name}-messages`, { kind: 'MeshTLSAuthentication', name: CALLER_OF[name]! }, CALLS],
      [`${name}-probe`, { kind: 'NetworkAuthentication', name: 'kubelet' }, ['GET /healthz']],
    ] as const) {
      const { parentRefs, rules } = find<LinkerdRoute>('HTTPRoute', route)
      assert.deepEqual(parentRefs, [{ group: 'policy.linkerd.io', kind: 'Server', name }])
      const matches = rules.flatMap((rule) => rule.matches)
      assert.ok(matches.every(({ path }) => path.type === 'Exact'))
      assert.deepEqual(matches.map(({ method, path }) => `${method} ${path.value}`).sort(), calls)
      const policy = find<object>('AuthorizationPolicy', route)
      assert.deepEqual(policy, {
        targetRef: { group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', name: route },
        requiredAuthenticationRefs: [{ group: 'policy.linkerd.io', ...authentication }],
      })
      find(authentication.kind, authentication.name)
    }
    assert.deepEqual(find('MeshTLSAuthentication', name), {
      identityRefs: [{ kind: 'ServiceAccount', name }],
    })
  }
})

interface LinkerdRoute {
  parentRefs: object[]
  rules: { matches: { method: string; path: { type: string; value: string } }[] }[]
}

test('linkerd: there are retries of messages and pairings, of Services that there are', () => {
  const { manifests } = exampleOf('linkerd')
  for (const { metadata, spec } of ofKind(manifests, 'ServiceProfile')) {
    const [service, ...rest] = metadata.name.split('.')
    assert.deepEqual(rest, [base.namespace, 'svc', 'cluster', 'local'])
    assert.ok(ofKind(apps, 'Service').some(({ metadata }) => metadata.name === service))
    const { routes } = spec as unknown as {
      routes: { isRetryable: boolean; timeout?: string; condition: { method: string; pathRegex: string } }[]
    }
    for (const { isRetryable, timeout, condition } of routes) {
      assert.deepEqual([isRetryable, timeout], [true, undefined])
      const matched = CALLS.filter((call) => {
        const [method, path] = call.split(' ')
        return method === condition.method && new RegExp(`^${condition.pathRegex}$`).test(path!)
      })
      assert.deepEqual(matched, CALLS)
    }
  }
})

test.run()
