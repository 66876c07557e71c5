/** The example for Kubernetes against the schemas of all versions it is for. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { cacheFolder } from '../support/cache.ts'
import { suite } from '../support/suite.ts'

const test = suite('manifests')
const run = promisify(execFile)

const PACKAGE = 'kubernetes-validate'
const PACKAGE_VERSION = '1.37.0'
const INSTALL_DEADLINE_MS = 5 * 60_000
/** Native sidecars came with 1.29. */
const VERSIONS = Array.from({ length: 9 }, (_, i) => `1.${29 + i}`)

const source = path.join(import.meta.dirname, '../../mesh-examples/kubernetes')
const manifests = globSync(`${source}/*.yaml`).filter((file) => path.basename(file) !== 'kustomization.yaml')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-manifests-'))
const cached = path.join(cacheFolder(), `${PACKAGE}-${PACKAGE_VERSION}`)
test.after(() => rmSync(folder, { recursive: true }))

/** @throws with what the schemas do not allow in its `stdout` */
async function validate(version: string, ...files: string[]): Promise<string> {
  const args = ['-m', 'kubernetes_validate', '--strict', '--kubernetes-version', version, ...files]
  const { stdout, stderr } = await run('python3', args, { env: { ...process.env, PYTHONPATH: cached } })
  return stdout + stderr
}

test(
  'its schemas are there',
  async () => {
    if (existsSync(cached)) return
    mkdirSync(cacheFolder(), { recursive: true })
    const scratch = mkdtempSync(`${cached}-`)
    try {
      const what = ['--quiet', '--target', scratch, `${PACKAGE}==${PACKAGE_VERSION}`]
      await run('python3', ['-m', 'pip', 'install', ...what])
      renameSync(scratch, cached)
    } finally {
      rmSync(scratch, { recursive: true, force: true })
    }
  },
  INSTALL_DEADLINE_MS,
)

for (const version of VERSIONS) {
  test(`Kubernetes ${version} knows every field`, async () => {
    const documents = manifests.flatMap((file) => readFileSync(file, 'utf8').match(/^kind: /gm)!)
    const said = (await validate(version, ...manifests)).match(/ passed for resource /g) ?? []
    assert.equal(said.length, documents.length)
  })
}

test('a field that is misspelt is none', async () => {
  const file = path.join(folder, 'orders.yaml')
  const text = readFileSync(path.join(source, 'orders.yaml'), 'utf8')
  writeFileSync(file, text.replace('terminationGracePeriodSeconds', 'terminationGraceSeconds'))
  await assert.rejects(validate(VERSIONS[0]!, file), { stdout: /terminationGraceSeconds/ })
})

test.run()
