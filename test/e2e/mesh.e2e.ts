/**
 * Two apps and their sidecars in pods of a mesh: a real Envoy in each pod, as Istio sets it up. Calls between the apps
 * are what they are without a mesh, and nothing that the mesh sends again runs again.
 */
import assert from 'node:assert/strict'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { field } from '../../sidecar/http/fields.ts'
import { MESSAGE_PATH } from '../../sidecar/outer.ts'
import { runProgram } from '../bench/processes.ts'
import { installEnvoy } from '../bench/programs.ts'
import type { Fault } from '../chaos/faults.ts'
import { type Pod, type PodNode, startNode, whyNoPods } from '../support/pods.ts'
import { suite } from '../support/suite.ts'
import { tell } from '../support/tell.ts'
import { SLOW } from './mesh/kinds.ts'
import { IMPATIENT, type Mesh, startMesh } from './mesh/mesh.ts'
import { BILLING_H2C_PORT } from './mesh/ports.ts'
import type { AppAnswer } from './mesh/seen.ts'
import { differences, type Outcomes, Traffic, tableOf } from './mesh/traffic.ts'
import { tryFaults } from './pods/faults.ts'
import { BILLING_PORT, SIDECAR_PORTS } from './pods/ports.ts'
import { startWorld, type World } from './pods/world.ts'

const FAULTS: Fault<World>[] = [
  { name: 'billing rolled', sparesCalls: true, strike: ({ billing }) => billing.roll() },
  { name: 'orders rolled', sparesCalls: true, strike: ({ orders }) => orders.roll() },
  {
    name: 'sidecar of billing killed',
    sparesCalls: false,
    strike: ({ billing }) => billing.replicas[0]!.killSidecar(),
  },
]
const DEADLINE_MS = 120_000
const STRANGER_UID = 1001
const ROOT = path.join(import.meta.dirname, '../..')
const OUTBOUND = { http1: SIDECAR_PORTS.outbound, h2c: SIDECAR_PORTS.outbound }

const test = suite('mesh')
const obstacle = whyNoPods(tell)
if (obstacle === undefined) testMesh()
else test('is left out where there can be no pods', () => tell(`the mesh is left out: ${obstacle}`))
test.run()

function testMesh(): void {
  const traffic = new Traffic()
  let direct: Outcomes
  let pair: Outcomes
  let node: PodNode | undefined
  let mesh: Mesh
  let world: World
  let stranger: Pod

  test(
    'without a mesh the calls are made',
    async () => {
      await runProgram('npm', ['run', 'build'], ROOT)
      node = startNode()
      const { orders, billing } = await startWorld(node, traffic.app)
      direct = await traffic.make(billing.replicas[0]!, { http1: BILLING_PORT, h2c: BILLING_H2C_PORT })
      pair = await traffic.make(orders.replicas[0]!, OUTBOUND)
      node.remove()
    },
    DEADLINE_MS,
  )

  test(
    'calls of every kind are the same in a mesh, and without sidecars',
    async () => {
      mesh = startMesh(await installEnvoy(tell))
      node = startNode()
      stranger = node.addPod('stranger')
      world = await startWorld(node, traffic.app, mesh)
      const inMesh = await traffic.make(world.orders.replicas[0]!, { ...OUTBOUND, idle: mesh.idle })
      tell(tableOf({ direct, pair, 'pair inside mesh': inMesh }))
      assert.notDeepEqual(differences(pair.get('GET'), pair.get('POST')), [])
      for (const [kind, outcome] of pair) {
        assert.doesNotMatch(String(outcome.saw), /^failed/, kind)
        assert.deepEqual(differences(direct.get(kind), outcome), [], kind)
        assert.deepEqual(differences(outcome, inMesh.get(kind)), [], kind)
      }
    },
    DEADLINE_MS,
  )
  test.after(() => node?.remove())

  test('the mesh gives each call to another replica, and sees of it no method, path or status', () => {
    const calls = mesh.accesses.filter(({ path }) => path === MESSAGE_PATH)
    const pods = world.billing.replicas.map(({ address }) => `${address}:${SIDECAR_PORTS.inbound}`)
    const counts = pods.map(
      (pod) => calls.filter(({ direction, host }) => direction === 'outbound' && host === pod).length,
    )
    assert.ok(Math.min(...counts) > 0 && Math.max(...counts) - Math.min(...counts) <= 2, String(counts))
    const seen = mesh.accesses.map(({ method, path, status }) => `${method} ${path} ${status}`)
    assert.deepEqual([...new Set(seen)].sort(), ['POST /api/mte-message 200', 'POST /api/mte-pair 200'])
  })

  test('who is not in the mesh reaches the probes, and nothing that needs mutual TLS', async () => {
    const { address } = world.billing.replicas[0]!
    const urls = [SIDECAR_PORTS.admin, SIDECAR_PORTS.inbound].map(
      (port) => `GET http://${address}:${port}/readyz`,
    )
    const command = [process.execPath, path.join(import.meta.dirname, 'pods/ask.ts'), ...urls]
    const said = await text(stranger.start({ command, uid: STRANGER_UID }).stdout)
    assert.equal(said, '200\nECONNRESET\n')
  })

  test('who is in the mesh calls sidecars at the paths of messages, and at no other', async () => {
    const { address } = world.billing.replicas[0]!
    const said: string[] = []
    const asked = [`POST http://${address}/api/mte-message billing`, `GET http://${address}/healthz billing`]
    const script = path.join(import.meta.dirname, 'pods/ask.ts')
    await world.orders.replicas[0]!.run([script, ...asked], (line) => said.push(line)).succeeds()
    // What is no message is refused by the sidecar, and any other path by the mesh.
    assert.deepEqual(said, ['400', '403'])
  })

  test('what the mesh sends again, as its patience is over, does not run again', async () => {
    const [replica] = world.orders.replicas
    const way = { ...OUTBOUND, authority: IMPATIENT, kinds: [SLOW] }
    const { saw, got } = (await traffic.make(replica!, way)).get(SLOW.name)!
    await mesh.idle()
    const statuses = mesh.accesses
      .filter(({ direction, authority }) => direction === 'outbound' && authority === IMPATIENT)
      .filter(({ path }) => path === MESSAGE_PATH)
      .map(({ attempts, status }) => `${status} after ${attempts}`)
    const each = <T>(value: T) => Array.from({ length: SLOW.calls! }, () => value)
    assert.deepEqual(statuses, each('409 after 2'))
    assert.deepEqual(
      (saw as AppAnswer[]).map(({ status, fields }) => `${status} ${field(fields, 'mte-error')}`),
      each('502 outcome-unknown'),
    )
    assert.deepEqual(
      got.map(({ number }) => number),
      each(0).map((_, i) => i),
      'each has run once',
    )
  })

  test(
    'no call runs twice or is lost, and what is planned costs none',
    () => tryFaults(FAULTS, 'mesh', world),
    DEADLINE_MS,
  )
}
