/** The examples for Istio and Linkerd against a real API server that knows the kinds of both. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { type Manifest, parseManifests } from '../../mesh-examples/manifests.ts'
import { goModule } from '../../support/go-module.ts'
import { type KubectlError, type Kubernetes, startKubernetes } from '../../support/kubernetes.ts'
import { suite } from '../../support/suite.ts'
import { tell } from '../../support/tell.ts'

const ISTIO = {
  module: 'istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad',
  file: 'manifests/charts/base/files/crd-all.gen.yaml',
}
const GATEWAY_API = {
  module: 'sigs.k8s.io/gateway-api@v1.4.0',
  file: 'config/crd/standard/gateway.networking.k8s.io_httproutes.yaml',
}
/** Linkerd's own come in no package: a variable names the file that `linkerd install --crds` has printed. */
const LINKERD_CRDS = 'LINKERD_CRDS'
const OF_LINKERD = /^(policy\.)?linkerd\.io\//
const START_DEADLINE_MS = 15 * 60_000
const EXAMPLES = path.join(import.meta.dirname, '../../../mesh-examples')

const test = suite('examples for meshes')
let kubernetes: Kubernetes | undefined
const linkerdCrds = process.env[LINKERD_CRDS]

test(
  'the API server knows the kinds of both meshes',
  async () => {
    kubernetes = await startKubernetes()
    for (const { module, file } of [ISTIO, GATEWAY_API]) await define(path.join(await goModule(module), file))
    if (linkerdCrds) await define(linkerdCrds)
    await kubernetes.kubectl(['apply', '-f', path.join(EXAMPLES, 'kubernetes/namespace.yaml')])
  },
  START_DEADLINE_MS,
)
test.after(() => kubernetes?.stop())

for (const mesh of ['istio', 'linkerd']) {
  test(`it takes all of ${mesh}, and nothing in it is unknown`, async () => {
    const manifests = await example(mesh)
    const checked = manifests.filter(isKnown)
    if (checked.length < manifests.length)
      tell(
        `${manifests.length - checked.length} manifests are of kinds that only Linkerd knows: set ${LINKERD_CRDS}`,
      )
    const said = await dryRun(checked)
    assert.equal(said.match(/ \(server dry run\)$/gm)?.length, checked.length, said)
  })
}

test('a mode, a field and a route that there are not are refused', async () => {
  const all = [...(await example('istio')), ...(await example('linkerd'))]
  for (const [kind, from, to] of [
    ['PeerAuthentication', '"STRICT"', '"STRICTLY"'],
    ['VirtualService', '"retryOn"', '"retriesOn"'],
    ['AuthorizationPolicy', '"principals"', '"principal"'],
    ['DestinationRule', '"UPGRADE"', '"ALWAYS"'],
    ['HTTPRoute', '"POST"', '"PUSH"'],
  ] as const) {
    const right = JSON.stringify(all.find((manifest) => manifest.kind === kind))
    assert.ok(right.includes(from), kind)
    await assert.rejects(dryRun([JSON.parse(right.replaceAll(from, to))]), (error: KubectlError) =>
      error.complaint.includes(to.replaceAll('"', '')),
    )
  }
})

test.run()

/** All manifests of an example, as kubectl makes them. */
async function example(mesh: string): Promise<Manifest[]> {
  return parseManifests(await kubernetes!.kubectl(['kustomize', path.join(EXAMPLES, mesh)]))
}

function isKnown({ apiVersion }: Manifest): boolean {
  return linkerdCrds !== undefined || !OF_LINKERD.test(apiVersion)
}

async function dryRun(manifests: readonly Manifest[]): Promise<string> {
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifests })
  return await kubernetes!.kubectl(['apply', '--dry-run=server', '--validate=strict', '-f', '-'], list)
}

/** Makes the kinds in a file known. */
async function define(file: string): Promise<void> {
  assert.ok(existsSync(file), file)
  await kubernetes!.kubectl(['apply', '--server-side', '-f', '-'], readFileSync(file, 'utf8'))
  await kubernetes!.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s'])
}
