import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Pod, type PodNode, type PodService, startNode, whyNoPods } from './pods.ts'
import { suite } from './suite.ts'
import { tell } from './tell.ts'

const UID = 1000
const PORT = 8080
const POLL_MS = 20
/** Answers with its name, and on another port whether it is ready, which a line on standard input changes. */
const SERVER = `
const http = require('node:http')
let status = 200
process.stdin.on('data', () => { status = 503 })
http.createServer((request, response) => response.end(process.argv[1])).listen(${PORT})
http.createServer((request, response) => response.writeHead(status).end()).listen(${PORT + 1})
`
/** Starts a pod with a program that stays, and says which one that is. */
const LEAVER = `
const { startNode } = await import(${JSON.stringify(import.meta.resolve('./pods.ts'))})
const child = startNode().addPod('left').start({ command: ['sleep', '600'], uid: ${UID} })
console.log(child.pid)
`

const test = suite('pods of tests')
const obstacle = whyNoPods(tell)
if (obstacle === undefined) testPods()
else test('are left out where they are not allowed', () => tell(`pods are left out: ${obstacle}`))
test.run()

function testPods(): void {
  let node: PodNode | undefined
  let service: PodService
  const servers: { pod: Pod; getUnready(): void }[] = []

  test('a run removes what one left that was killed', async () => {
    const killed = spawn(process.execPath, ['--input-type=module', '-e', LEAVER], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [pid] = await once(killed.stdout, 'data')
    killed.kill('SIGKILL')
    await once(killed, 'exit')
    const left = `mte${killed.pid}-left`
    assert.ok((await namespaces()).includes(left))
    node = startNode()
    assert.ok(!(await namespaces()).includes(left))
    while (isAlive(Number(pid))) await sleep(POLL_MS)
  })

  test('a service leads each connection to one of its pods that are ready', async () => {
    service = node!.addService(80, { port: PORT, readiness: { port: PORT + 1, path: '/' } })
    for (const name of ['a', 'b']) {
      const pod = node!.addPod(name)
      const server = pod.start({ command: [process.execPath, '-e', SERVER, name], uid: UID })
      servers.push({ pod, getUnready: () => server.stdin.write('\n') })
      await service.add(pod)
    }
    const seen = new Set<string>()
    while (seen.size < 2) seen.add(await ask(false))
    assert.deepEqual([...seen].sort(), ['a', 'b'])
  })

  test('a connection stays where it is when its pod is taken out, and new ones go elsewhere or are refused', async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    while ((await ask(agent)) !== 'a') agent.destroy()
    service.remove(servers[0]!.pod)
    assert.equal(await ask(agent), 'a')
    for (let i = 0; i < 10; i++) assert.equal(await ask(false), 'b')
    servers[1]!.getUnready()
    let refusal: unknown
    while (!refusal) {
      await sleep(POLL_MS)
      await ask(false).catch((error) => {
        refusal = error.code
      })
    }
    assert.equal(refusal, 'ECONNREFUSED')
    assert.equal(await ask(agent), 'a')
    agent.destroy()
  })

  test('a program in a pod has the user that it was given, and no capability', async () => {
    const { stdout } = servers[0]!.pod.start({ command: ['cat', '/proc/self/status'], uid: UID })
    const status = await text(stdout)
    assert.match(status, /^Uid:\t1000\t1000\t1000\t1000$/m)
    assert.match(status, /^Gid:\t1000\t1000\t1000\t1000$/m)
    assert.match(status, /^Groups:\t *$/m)
    assert.deepEqual(status.match(/^Cap\w+:\t0{16}$/gm)?.length, 5)
    assert.match(status, /^NoNewPrivs:\t1$/m)
  })

  test('nothing of it stays', async () => {
    node!.remove()
    assert.deepEqual(
      (await namespaces()).filter((name) => name.startsWith(`mte${process.pid}-`)),
      [],
    )
  })
  test.after(() => node?.remove())

  /** The name of the pod that answers. */
  async function ask(agent: http.Agent | false): Promise<string> {
    const request = http.get(`http://${service.address}:${service.port}/`, { agent })
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    return text(response)
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

async function namespaces(): Promise<string[]> {
  const { stdout } = spawn('ip', ['netns', 'list'], { stdio: ['ignore', 'pipe', 'inherit'] })
  return (await text(stdout)).split('\n').map((line) => line.split(' ')[0]!)
}
