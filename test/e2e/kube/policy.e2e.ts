/** The admission policies, which a real API server carries out by itself. */
import assert from 'node:assert/strict'
import path from 'node:path'
import { refusals } from '../../inject/pods.ts'
import { type Kubernetes, startKubernetes, until } from '../../support/kubernetes.ts'
import { suite } from '../../support/suite.ts'
import { addNamespace, apply, EXAMPLES } from './cluster.ts'
import {
  BAD,
  create,
  expected,
  PRIVILEGED,
  podOf,
  RESTRICTED,
  refusal,
  type ServerPod,
  testGood,
  unlabelled,
} from './pods.ts'

const test = suite('policies of a cluster')

let kubernetes: Kubernetes

test.before(async () => {
  kubernetes = await startKubernetes()
  await addNamespace(kubernetes, RESTRICTED, 'restricted')
  await addNamespace(kubernetes, PRIVILEGED, 'privileged')
  await kubernetes.kubectl(['apply', '--filename', path.join(EXAMPLES, 'kubernetes/injector/policy.yaml')])
  // Each of the two takes its time until it counts.
  await until(async () => {
    const refused = await refusal(kubernetes, BAD['with an app without a port']!, RESTRICTED).catch(() => '')
    const { spec } = await create(kubernetes, podOf(), RESTRICTED).catch(() => podOf())
    return refused !== '' && spec.initContainers !== undefined
  })
})
test.after(() => kubernetes?.stop())

testGood(test, () => kubernetes)

for (const [sentence, pod] of Object.entries(BAD)) {
  test(`a pod ${sentence} is denied, with the reason in the answer`, async () => {
    const said = await refusal(kubernetes, pod, PRIVILEGED)
    assert.ok(said.endsWith(`denied request: ${refusals(pod).join('; ')}`), said)
  })
}

for (const [name, value, reason] of [
  ['peers', 'a=http://a,billing', /each entry must have the form authority=http:\/\/host:port$/],
  ['pass-through-hosts', 'http://a', /each entry must begin with host, host:port or a pattern/],
  ['pass-through-routes', '/a,/', /each entry must be a path prefix such as \/healthz/],
  ['redis', 'redis://:hush@redis', /must be without password: put such a URL into a Secret/],
  ['redis', 'unix:/run/redis.sock', /must be reachable by network/],
  ['redis', 'secret/Redis', /must be the name of a Secret/],
  ['native', 'false', /native must not be false: a policy makes native sidecars alone/],
] as const) {
  test(`mte.sidecar/${name}: ${value} is denied`, async () => {
    const said = await refusal(kubernetes, podOf({ [name]: value }), RESTRICTED)
    assert.match(said, /denied request: mte\.sidecar\//)
    assert.match(said, reason)
    assert.doesNotMatch(said, /hush/)
  })
}

test('pods of a Deployment get the sidecar', async () => {
  const template = podOf()
  await apply(kubernetes, [
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'orders', namespace: RESTRICTED },
      spec: { selector: { matchLabels: { app: 'app' } }, template },
    },
  ])
  let pods: ServerPod[] = []
  await until(async () => {
    const args = ['get', 'pods', '--namespace', RESTRICTED, '--selector', 'app=app', '--output', 'json']
    pods = JSON.parse(await kubernetes.kubectl(args)).items
    return pods.length > 0
  })
  assert.deepEqual(pods[0]!.spec, (await expected(kubernetes, template, RESTRICTED)).spec)
})

test('a pod that has the sidecar is let through as it is', async () => {
  const injected = await create(kubernetes, podOf(), RESTRICTED)
  assert.deepEqual((await create(kubernetes, injected, RESTRICTED)).spec, injected.spec)
})

test('pods without the label, those that want no sidecar and those of kube-system are left as they are', async () => {
  const network = BAD['on the network of its node']!
  for (const [pod, namespace] of [
    [unlabelled(network), PRIVILEGED],
    [podOf({ inject: 'false' }), RESTRICTED],
    [podOf(), 'kube-system'],
    [network, 'kube-system'],
  ] as const) {
    const { spec } = await create(kubernetes, pod, namespace)
    assert.equal(spec.initContainers, undefined)
  }
})

test('without the policy that injects, a pod that asks for the sidecar is refused', async () => {
  await kubernetes.kubectl(['delete', 'mutatingadmissionpolicybinding', 'mte-sidecar-injector'])
  let said = ''
  await until(async () => (said = await refusal(kubernetes, podOf(), RESTRICTED).catch(() => '')) !== '')
  assert.match(
    said,
    /the sidecar was not injected: is the MutatingAdmissionPolicy mte-sidecar-injector there/,
  )
})

test.run()
