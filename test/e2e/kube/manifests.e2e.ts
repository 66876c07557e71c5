/** The examples for Kubernetes, and the injector's, against a real API server: it knows every field, and takes all. */
import assert from 'node:assert/strict'
import { globSync } from 'node:fs'
import path from 'node:path'
import { goModule } from '../../support/go-module.ts'
import { type KubectlError, type Kubernetes, startKubernetes } from '../../support/kubernetes.ts'
import { suite } from '../../support/suite.ts'
import { apply, EXAMPLES, manifestsOf } from './cluster.ts'

const test = suite('manifests')
const CERT_MANAGER = { module: 'github.com/cert-manager/cert-manager@v1.21.2', folder: 'deploy/crds' }
const KUBERNETES = path.join(EXAMPLES, 'kubernetes')

let kubernetes: Kubernetes

test.before(async () => {
  kubernetes = await startKubernetes()
  const definitions = path.join(await goModule(CERT_MANAGER.module), CERT_MANAGER.folder)
  const files = globSync(`${definitions}/*.yaml`).flatMap((file) => ['--filename', file])
  await kubernetes.kubectl(['apply', '--server-side', ...files])
  await kubernetes.kubectl(['wait', '--for=condition=Established', 'crd', '--all'])
  for (const folder of [KUBERNETES, path.join(KUBERNETES, 'injector/base')]) {
    const namespaces = (await manifestsOf(kubernetes, folder)).filter(({ kind }) => kind === 'Namespace')
    await apply(kubernetes, namespaces)
  }
})
test.after(() => kubernetes?.stop())

async function dryRun(...what: string[]): Promise<string[]> {
  const said = await kubernetes.kubectl(['apply', '--dry-run=server', '--validate=strict', ...what])
  return said.trim().split('\n')
}

for (const folder of ['.', 'injector/self-signed', 'injector/cert-manager']) {
  test(`all of kubernetes/${folder} is taken`, async () => {
    const manifests = await manifestsOf(kubernetes, path.join(KUBERNETES, folder))
    const said = await dryRun('--kustomize', path.join(KUBERNETES, folder))
    assert.equal(said.filter((line) => line.endsWith('(server dry run)')).length, manifests.length)
  })
}

for (const file of ['standalone.yaml', 'redis.yaml', 'injector/policy.yaml']) {
  test(`all of kubernetes/${file} is taken`, async () => {
    const said = await dryRun('--filename', path.join(KUBERNETES, file), '--namespace', 'default')
    for (const line of said) assert.match(line, / \(server dry run\)$/)
  })
}

test('a field that there is not is refused', async () => {
  const [manifest] = await manifestsOf(kubernetes, path.join(KUBERNETES, 'injector/base'))
  const wrong = JSON.stringify({ ...manifest, spec: { finalisers: [] } })
  const refused = kubernetes.kubectl(
    ['apply', '--dry-run=server', '--validate=strict', '--filename', '-'],
    wrong,
  )
  await assert.rejects(refused, ({ complaint }: KubectlError) =>
    /unknown field "spec.finalisers"/.test(complaint),
  )
})

test.run()
