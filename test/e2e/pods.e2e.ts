/**
 * Two apps and their sidecars in pods, which are network namespaces here: what is planned costs no call, what is not
 * runs none twice and loses none, and from outside nothing is had but what is meant for it.
 */
import assert from 'node:assert/strict'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { runProgram } from '../bench/processes.ts'
import type { Fault } from '../chaos/faults.ts'
import { ID_PREFIX } from '../chaos/load.ts'
import { type Pod, type PodNode, startNode, whyNoPods } from '../support/pods.ts'
import { suite } from '../support/suite.ts'
import { tell } from '../support/tell.ts'
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
  {
    name: 'sidecar of orders killed',
    sparesCalls: false,
    strike: ({ orders }) => orders.replicas[0]!.killSidecar(),
  },
  { name: 'Redis restarted, empty', sparesCalls: false, strike: (world) => world.restartRedis() },
]
const DEADLINE_MS = 120_000
const STRANGER_UID = 1001
const ROOT = path.join(import.meta.dirname, '../..')

const test = suite('pods')
const obstacle = whyNoPods(tell)
if (obstacle === undefined) testPods()
else test('are left out where they are not allowed', () => tell(`pods are left out: ${obstacle}`))
test.run()

function testPods(): void {
  let node: PodNode | undefined
  let world: World
  let stranger: Pod
  const secret = lookout(ID_PREFIX)
  const mark = lookout('all-before-has-gone-by')

  test.before(async () => {
    await runProgram('npm', ['run', 'build'], ROOT)
    node = startNode()
    stranger = node.addPod('stranger')
    await node.tap((bytes) => {
      for (const { look } of [secret, mark]) look(bytes)
    })
    world = await startWorld(node)
  })
  test.after(() => node?.remove())

  test(
    'no call runs twice or is lost, and what is planned costs none',
    () => tryFaults(FAULTS, 'pods', world),
    DEADLINE_MS,
  )

  test('an app and the outbound port of its sidecar are out of reach for other pods', async () => {
    const { address } = world.billing.replicas[0]!
    const urls = [BILLING_PORT, SIDECAR_PORTS.outbound].map((port) => `GET http://${address}:${port}/`)
    assert.deepEqual(await ask(urls), ['ECONNREFUSED', 'ECONNREFUSED'])
  })

  test('the admin port gives other pods probes and metrics, and nothing else', async () => {
    const { address } = world.billing.replicas[0]!
    const admin = `http://${address}:${SIDECAR_PORTS.admin}`
    const statuses = {
      'GET /livez': '200',
      'GET /readyz': '200',
      'GET /metrics': '200',
      'POST /drain': '404',
      'GET /pairs': '404',
      'DELETE /pairs?peer=orders': '404',
      'GET /status': '404',
      'GET /': '404',
    }
    const paths = Object.keys(statuses)
    const answers = await ask(paths.map((path) => path.replace(' ', ` ${admin}`)))
    assert.deepEqual(Object.fromEntries(paths.map((path, i) => [path, answers[i]])), statuses)
    assert.deepEqual(await ask([`GET ${admin}/readyz`]), ['200'], 'it does not drain')
  })

  test('nothing of a call was to be seen between the pods', async () => {
    const { address } = world.orders.replicas[0]!
    const say = (text: string) => ask([`GET http://${address}:${SIDECAR_PORTS.admin}/livez?${text}`])
    await say(mark.text)
    await mark.seen
    assert.equal(secret.isSeen, false)
    await say(secret.text)
    await secret.seen
  })

  /** What another pod is answered. */
  async function ask(requests: readonly string[]): Promise<string[]> {
    const command = [process.execPath, path.join(import.meta.dirname, 'pods/ask.ts'), ...requests]
    return (await text(stranger.start({ command, uid: STRANGER_UID }).stdout)).trim().split('\n')
  }
}

/** Looks out for a text in what goes by. */
function lookout(text: string) {
  const seen = Promise.withResolvers<void>()
  const words = Buffer.from(text)
  let before = Buffer.alloc(0)
  const it = {
    text,
    isSeen: false,
    seen: seen.promise,
    look(bytes: Buffer) {
      const now = Buffer.concat([before, bytes])
      before = now.subarray(-words.length)
      if (!now.includes(words)) return
      it.isSeen = true
      seen.resolve()
    },
  }
  return it
}
