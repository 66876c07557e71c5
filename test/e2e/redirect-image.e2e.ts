/** The image of the init container that redirects, built from its Dockerfile and run as it is in a pod. */
import assert from 'node:assert/strict'
import path from 'node:path'
import { patchOf, podWith } from '../inject/pods.ts'
import { type Docker, startDocker } from '../support/docker.ts'
import { suite } from '../support/suite.ts'

const test = suite('redirect image')
const ROOT = path.join(import.meta.dirname, '../..')
const IMAGE = 'mte-sidecar-redirect:0.1.0'
const POD = 'mte-e2e-redirect'
const BUILD_DEADLINE_MS = 5 * 60_000

let docker: Docker

test.before(async () => {
  docker = await startDocker()
})
test.after(async () => {
  await docker.run('rm', '--force', POD)
  await docker.stop()
})

test(
  'builds with no more than docker build',
  async () => {
    await docker.shell(`docker build --tag ${IMAGE} mesh-examples/kubernetes/redirect`, ROOT)
  },
  BUILD_DEADLINE_MS,
)

test('sets the rules of a pod with the rights that it is given there, and cannot without', async () => {
  await docker.run('run', '--detach', `--name=${POD}`, '--network=none', IMAGE, 'sleep', '600')
  const { command, securityContext } = redirectContainer()
  const { add, drop } = securityContext.capabilities
  const given = (capabilities: readonly string[]) => [
    'run',
    '--rm',
    `--network=container:${POD}`,
    `--user=${securityContext.runAsUser}:${securityContext.runAsGroup}`,
    ...drop.map((name) => `--cap-drop=${name}`),
    ...capabilities.map((name) => `--cap-add=${name}`),
    '--read-only',
    '--security-opt=no-new-privileges',
    IMAGE,
  ]
  await assert.rejects(docker.run(...given([]), ...command), /Operation not permitted/)
  await docker.run(...given(add), ...command)
  assert.match(await docker.run(...given(add), 'nft', 'list', 'ruleset'), /tcp dport 80 redirect to :7780/)
})

/** As it is injected. */
function redirectContainer() {
  const annotations = { 'mte.sidecar/redirect': '80', 'mte.sidecar/peers': 'billing=http://billing' }
  const { operations } = patchOf(podWith({ annotations }))
  const added = operations.find(({ path }) => path === '/spec/initContainers')!.value
  const [container] = added as [
    {
      image: string
      command: string[]
      securityContext: {
        runAsUser: number
        runAsGroup: number
        capabilities: { add: string[]; drop: string[] }
      }
    },
  ]
  assert.equal(container.image, IMAGE)
  return container
}

test.run()
