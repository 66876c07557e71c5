import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parseAllDocuments } from 'yaml'
import { OPTIONS } from '../../sidecar/inject/options.ts'
import { policyManifest } from '../../sidecar/injector/policy.ts'
import { readManifests } from '../mesh-examples/manifests.ts'
import { violations } from '../mesh-examples/pod-security.ts'
import { suite } from '../support/suite.ts'

const test = suite('policies and manifests of the injector')
const folder = path.join(import.meta.dirname, '../../mesh-examples/kubernetes/injector')

interface Policy {
  kind: string
  metadata: { name: string }
  spec: {
    policyName?: string
    matchConstraints?: { namespaceSelector: object; objectSelector: object }
    variables?: { name: string; expression: string }[]
  }
}

function policies(defaults: Parameters<typeof policyManifest>[0]): Policy[] {
  return parseAllDocuments(policyManifest(defaults)).map((document) => document.toJS())
}

function variable(name: string, defaults: Parameters<typeof policyManifest>[0]): string | undefined {
  return policies(defaults)[0]!.spec.variables!.find((one) => one.name === name)?.expression
}

test('policy.yaml is what the command prints', () => {
  assert.equal(readFileSync(path.join(folder, 'policy.yaml'), 'utf8'), policyManifest({}))
})

test('there are a policy that injects and one that refuses, and a binding of each', () => {
  const made = policies({})
  assert.deepEqual(
    made.map(({ kind }) => kind),
    [
      'MutatingAdmissionPolicy',
      'MutatingAdmissionPolicyBinding',
      'ValidatingAdmissionPolicy',
      'ValidatingAdmissionPolicyBinding',
    ],
  )
  for (const { metadata, spec } of made) {
    assert.equal(metadata.name, 'mte-sidecar-injector')
    if (spec.policyName) assert.equal(spec.policyName, metadata.name)
  }
})

test('options are the defaults of their annotations', () => {
  assert.match(variable('secret', { secret: 'shared' })!, /mte\.sidecar\/secret".* : "shared"$/)
  assert.match(variable('logLevel', { 'log-level': 'debug' })!, / : "debug"$/)
  assert.match(variable('upstreamPort', { 'upstream-port': '3000' })!, / : "3000"$/)
  assert.equal(variable('peers', {}), 'variables.annotations[?"mte.sidecar/peers"].orValue("")')
})

test('every option counts', () => {
  const written = policyManifest({})
  for (const name of Object.keys(OPTIONS)) assert.ok(written.includes(`"mte.sidecar/${name}"`), name)
  assert.doesNotMatch(written, /placeholder|undefined|42949672/)
})

test('the webhook and the policies are for the same pods', () => {
  const [configuration] = readManifests(path.join(folder, 'base/webhook.yaml')) as unknown as [
    { webhooks: [{ namespaceSelector: object; objectSelector: object }] },
  ]
  const [{ namespaceSelector, objectSelector }] = configuration.webhooks
  for (const { spec } of policies({})) {
    if (!spec.matchConstraints) continue
    assert.deepEqual(spec.matchConstraints.namespaceSelector, namespaceSelector)
    assert.deepEqual(spec.matchConstraints.objectSelector, objectSelector)
  }
})

test('the webhook is asked before those of the meshes', () => {
  const { metadata } = readManifests(path.join(folder, 'base/webhook.yaml'))[0]!
  const names = [
    'istio-sidecar-injector',
    'istio-revision-tag-default',
    'linkerd-proxy-injector-webhook-config',
  ]
  assert.equal([metadata.name, ...names].sort()[0], metadata.name)
})

test('its pods meet the Pod Security profile restricted', () => {
  const deployments = readManifests(path.join(folder, 'base/injector.yaml')).filter(
    ({ kind }) => kind === 'Deployment',
  )
  assert.equal(deployments.length, 1)
  for (const { spec } of deployments) assert.deepEqual(violations(spec.template!), [])
})

test.run()
