/** The example for Kubernetes in pods, which are network namespaces here: its own variables, files, apps and Redis. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { apps, give, sidecarOf, type Workload, workloadsOf } from '../mesh-examples/example.ts'
import type { Container } from '../mesh-examples/manifests.ts'
import { redisBinary } from '../support/debian.ts'
import { leads } from '../support/leads.ts'
import { type Pod, type PodNode, type PodService, startNode, whyNoPods } from '../support/pods.ts'
import { suite } from '../support/suite.ts'
import { tell } from '../support/tell.ts'

const PROGRAMS: Record<string, string[]> = {
  'mte-sidecar': [process.execPath, path.join(import.meta.dirname, '../../sidecar/mte-sidecar.js')],
  node: [process.execPath],
  'redis-server': [redisBinary()],
}
const SERVICE_PORT = 80

const test = suite('example for Kubernetes in pods')
const obstacle = whyNoPods(tell)
if (obstacle === undefined) testPods()
else test('is left out where they are not allowed', () => tell(`pods are left out: ${obstacle}`))
test.run()

function testPods(): void {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-pods-'))
  const deployments = Object.fromEntries(workloadsOf(apps).map((workload) => [workload.name, workload]))
  const { orders, billing, redis } = deployments as { orders: Workload; billing: Workload; redis: Workload }
  const pods = new Map<Workload, Pod[]>([orders, billing].map((workload) => [workload, []]))
  const services = new Map<Workload, PodService>()
  /** where the names of Services lead */
  const names: Record<string, string> = {}
  let node: PodNode

  test.before(async () => {
    chmodSync(folder, 0o755)
    node = startNode()
    const store = node.addPod(redis.name)
    names['redis:6379'] = `${store.address}:6379`
    start(store, redis, appOf(redis))
    for (const workload of [orders, billing]) {
      const { path, port } = appOf(workload).readinessProbe!.httpGet!
      const target = sidecarOf(workload).ports![0]!.containerPort
      const service = node.addService(SERVICE_PORT, { port: target, readiness: { port: Number(port), path } })
      services.set(workload, service)
      names[`${workload.name}:${SERVICE_PORT}`] = `${service.address}:${SERVICE_PORT}`
    }
    const ready: Promise<void>[] = []
    for (const [workload, service] of services) {
      for (let i = 0; i < workload.manifest.spec.replicas!; i++) {
        const pod = node.addPod(`${workload.name}-${i}`)
        pods.get(workload)!.push(pod)
        start(pod, workload, sidecarOf(workload))
        start(pod, workload, appOf(workload))
        ready.push(service.add(pod))
      }
    }
    await Promise.all(ready)
  })
  test.after(() => {
    node.remove()
    rmSync(folder, { recursive: true })
  })

  test('every pod of orders reaches an app of billing', async () => {
    for (const pod of pods.get(orders)!) {
      const { charged, path } = JSON.parse(await ask(pod, 'http://127.0.0.1:3000/'))
      assert.deepEqual([charged, path], [true, '/charges'])
    }
  })

  test('in plain nobody reaches an app', async () => {
    const [pod] = pods.get(orders)!
    const { code } = JSON.parse(await ask(pod!, `http://${names['billing:80']}/charges`))
    assert.equal(code, 'not-found')
    for (const { address } of pods.get(billing)!)
      for (const port of [3000, 7780]) await assert.rejects(fetch(`http://${address}:${port}/`))
  })

  test('replicas share their pairs', async () => {
    const lists = pods.get(orders)!.map(async (pod) => JSON.parse(await exec(pod, orders, 'pairs', '--json')))
    const [first, second] = await Promise.all(lists)
    assert.ok(first.length > 0)
    assert.deepEqual(first.map(identity).sort(), second.map(identity).sort())
  })

  test('the commands of probes and hooks succeed where the manifests have them run', async () => {
    const [pod] = pods.get(billing)!
    const { startupProbe, lifecycle } = sidecarOf(billing)
    const readiness = async () => (await fetch(`http://${pod!.address}:7782/readyz`)).status
    await exec(pod!, billing, ...startupProbe!.exec!.command.slice(1))
    assert.equal(await readiness(), 200)
    services.get(billing)!.remove(pod!)
    await exec(pod!, billing, ...lifecycle!.preStop!.exec!.command.slice(1))
    assert.equal(await readiness(), 503)
  })

  /** Starts a container as its manifest says. */
  function start(pod: Pod, workload: Workload, container: Container, ...args: string[]) {
    const { command, env } = give(workload, container, path.join(folder, workload.name, container.name))
    const [name = 'mte-sidecar', ...own] = command
    const uid = container.securityContext!.runAsUser!
    const child = pod.start({
      command: [...PROGRAMS[name]!, ...own, ...args],
      uid,
      env: { ...env, NODE_OPTIONS: leads(names) },
    })
    child.stdout.resume()
    child.stderr.resume()
    return child
  }

  /** Runs a command of the sidecar in a pod; what it prints. */
  async function exec(pod: Pod, workload: Workload, ...args: string[]): Promise<string> {
    const child = start(pod, workload, sidecarOf(workload), ...args)
    const [printed, complaint, [status]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'exit'),
    ])
    assert.equal(status, 0, complaint)
    return printed
  }

  /** What a URL answers in a pod, to the app there. */
  async function ask(pod: Pod, url: string): Promise<string> {
    const program = `process.stdout.write(await (await fetch('${url}')).text())`
    const command = [process.execPath, '--input-type=module', '--eval', program]
    const child = pod.start({ command, uid: appOf(orders).securityContext!.runAsUser! })
    child.stderr.resume()
    return text(child.stdout)
  }
}

function appOf({ pod }: Workload): Container {
  return pod.spec.containers[0]!
}

function identity({ role, peer }: { role: string; peer: string }): string {
  return `${role} ${peer}`
}
