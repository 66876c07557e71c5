import assert from 'node:assert/strict'
import { applyPatch } from '../../sidecar/inject/json-patch.ts'
import { redirectRules } from '../../sidecar/inject/redirect.ts'
import { violations } from '../mesh-examples/pod-security.ts'
import { suite } from '../support/suite.ts'
import { injected, MESHES, patchOf, podOfFixture, podWith, refusals, sidecarIn, variablesOf } from './pods.ts'

const test = suite('redirect')

const ANNOTATIONS = { 'mte.sidecar/redirect': '80', 'mte.sidecar/peers': 'billing=http://billing' }
const PLAIN = { native: false }

const redirected = (spec: object = {}) => podWith({ annotations: ANNOTATIONS, ...spec })
const names = (containers: readonly { name: string }[] = []) => containers.map(({ name }) => name)
const warningsOf = (pod: unknown, defaults = {}) => patchOf(pod, defaults).warnings.map(({ text }) => text)

/** What a mesh made of a pod, with our annotations. */
function redirectedIn(mesh: string) {
  const { metadata, spec } = podOfFixture(mesh)
  return { spec, metadata: { ...metadata, annotations: { ...metadata?.annotations, ...ANNOTATIONS } } }
}

test('the init container that redirects has the rules, and no more power than it needs', () => {
  const { spec } = injected(redirected())
  assert.deepEqual(spec.initContainers![0], {
    name: 'mte-sidecar-redirect',
    image: 'mte-sidecar-redirect:0.1.0',
    command: ['nft', redirectRules([80])],
    resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: { memory: '64Mi' } },
    securityContext: {
      runAsNonRoot: false,
      runAsUser: 0,
      runAsGroup: 0,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'], add: ['NET_ADMIN'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
  })
})

test('the rules let be what stays in the pod, the sidecar, and the proxies of meshes', () => {
  assert.equal(
    redirectRules([80, 8080]),
    `table inet mte_sidecar
delete table inet mte_sidecar
table inet mte_sidecar {
  chain output {
    type nat hook output priority -101; policy accept;
    oif lo return
    meta skuid { 1337, 2102 } return
    meta skgid { 1337, 7780 } return
    meta mark & 0xfff == 0x539 return
    tcp dport { 80, 8080 } redirect to :7780
  }
}
`,
  )
})

test('the ports and the image are those that are asked for, each port once', () => {
  const annotations = {
    ...ANNOTATIONS,
    'mte.sidecar/redirect': '80, 8080,80',
    'mte.sidecar/redirect-image': 'registry.example.com/nft:1',
  }
  const [redirect] = injected(podWith({ annotations })).spec.initContainers!
  assert.deepEqual(
    [redirect?.command?.[1], redirect?.image],
    [redirectRules([80, 8080]), 'registry.example.com/nft:1'],
  )
})

test('the sidecar is of the group that the rules let be, and without redirection of none that anything lets be', () => {
  assert.equal(sidecarIn(injected(redirected())).securityContext?.runAsGroup, 7780)
  assert.equal(sidecarIn(injected(podWith())).securityContext?.runAsGroup, 65532)
  assert.deepEqual(names(injected(podWith()).spec.initContainers), ['mte-sidecar'])
})

test('what may be called in plain is told to the sidecar', () => {
  const annotations = { ...ANNOTATIONS, 'mte.sidecar/pass-through-hosts': '169.254.169.254,example.com:80' }
  const { PASS_THROUGH_HOSTS } = variablesOf(sidecarIn(injected(podWith({ annotations }))))
  assert.equal(PASS_THROUGH_HOSTS, '169.254.169.254,example.com:80')
})

test('it comes before every other init container, so that none calls in plain', () => {
  const setup = { initContainers: [{ name: 'setup', image: 'example/setup:1' }] }
  const initContainers = (pod: unknown, defaults = {}) => names(injected(pod, defaults).spec.initContainers)
  assert.deepEqual(initContainers(redirected()), ['mte-sidecar-redirect', 'mte-sidecar'])
  assert.deepEqual(initContainers(redirected(setup)), ['mte-sidecar-redirect', 'mte-sidecar', 'setup'])
  assert.deepEqual(initContainers(redirected(), PLAIN), ['mte-sidecar-redirect'])
  assert.deepEqual(initContainers(redirected(setup), PLAIN), ['mte-sidecar-redirect', 'setup'])
  for (const mesh of MESHES) {
    assert.equal(initContainers(redirectedIn(mesh))[0], 'mte-sidecar-redirect', mesh)
    const without = injected(podOfFixture(mesh)).spec.initContainers
    assert.deepEqual(initContainers(redirectedIn(mesh)).slice(1), names(without), mesh)
  }
})

test('it is told that the Pod Security Standards do not admit it, which is for that container alone', () => {
  const securityContext = {
    runAsNonRoot: true,
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  }
  const pod = redirected({ containers: [{ name: 'app', ports: [{ containerPort: 3000 }], securityContext }] })
  const { operations, warnings } = patchOf(pod)
  assert.deepEqual(
    warnings.map(({ text }) => text),
    [
      'mte.sidecar/redirect needs an init container that is root and has NET_ADMIN: namespaces with the Pod Security Standards restricted or baseline do not admit the pod',
    ],
  )
  assert.deepEqual(
    violations(applyPatch(pod, operations) as never),
    ['runAsNonRoot', 'runAsUser', 'capabilities added'].map((rule) => `mte-sidecar-redirect: ${rule}`),
  )
})

test('an init container that runs before the sidecar is told that it cannot call', () => {
  const setup = { initContainers: [{ name: 'setup', image: 'example/setup:1' }] }
  const told = (pod: unknown, defaults = {}) =>
    warningsOf(pod, defaults).filter((text) => /^the init container/.test(text))
  const text = 'the init container setup runs before the sidecar, and so its calls to port 80 are refused'
  assert.deepEqual(told(redirected(setup)), [])
  assert.deepEqual(told(redirected(setup), PLAIN), [text])
  assert.deepEqual(told(redirectedIn('istio-native')), [])
  assert.deepEqual(told(redirectedIn('istio-plain')), [text])
})

test('a sidecar that would refuse all that is led to it is told', () => {
  const told = (annotations: Record<string, string>) =>
    warningsOf(podWith({ annotations: { 'mte.sidecar/redirect': '80', ...annotations } })).at(-1)!
  assert.match(told({}), /has the sidecar refuse every call, as mte.sidecar\/peers names no peer/)
  assert.doesNotMatch(told({ 'mte.sidecar/peers': 'billing=http://billing' }), /refuse every call/)
  assert.doesNotMatch(told({ 'mte.sidecar/pass-through-hosts': 'example.com' }), /refuse every call/)
})

for (const [id, value, whose] of [
  ['runAsUser', 1337, 'a mesh’s proxy'],
  ['runAsUser', 2102, 'a mesh’s proxy'],
  ['runAsGroup', 1337, 'the sidecar or of a mesh’s proxy'],
  ['runAsGroup', 7780, 'the sidecar or of a mesh’s proxy'],
] as const) {
  test(`an app whose ${id} is ${value} is refused, as its calls would go in plain`, () => {
    const text = `the container app must not run as ${id.slice('runAs'.length).toLowerCase()} ${value}, whose calls are not redirected: it is that of ${whose.replace('’', "'")}`
    const securityContext = { [id]: value }
    const container = { name: 'app', ports: [{ containerPort: 3000 }], securityContext }
    assert.deepEqual(refusals(redirected({ containers: [container] })), [text])
    assert.deepEqual(refusals(redirected({ securityContext })), [text])
    assert.equal(patchOf(podWith({ securityContext })).outcome, 'injected')
    const other = { ...container, securityContext: { [id]: 1000 } }
    assert.equal(patchOf(redirected({ securityContext, containers: [other] })).outcome, 'injected')
  })
}

test('an app that is the user of the sidecar is redirected all the same, and so is not refused', () => {
  assert.equal(
    patchOf(redirected({ securityContext: { runAsUser: 65532, runAsGroup: 65532 } })).outcome,
    'injected',
  )
})

test('a container of its name is refused', () => {
  const pod = { initContainers: [{ name: 'mte-sidecar-redirect', image: 'example/other:1' }] }
  const text =
    'the container mte-sidecar-redirect must have another name, as the one that redirects calls has this'
  assert.deepEqual(refusals(redirected(pod)), [text])
  assert.equal(patchOf(podWith(pod)).outcome, 'injected')
})

test('an app that does not know of the sidecar cannot be asked for a token', () => {
  const annotations = { ...ANNOTATIONS, 'mte.sidecar/outbound-token': 'true' }
  assert.deepEqual(refusals(podWith({ annotations })), [
    'mte.sidecar/outbound-token must not be true beside mte.sidecar/redirect: an app that does not know of the sidecar shows it no token',
  ])
})

test.run()
