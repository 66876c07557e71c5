/**
 * The transparent mode in pods, which are network namespaces here: an app that knows of no sidecar calls others by their
 * names, and the rules that the init container sets lead its calls to the sidecar.
 */
import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import http from 'node:http'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { REDIRECT_GROUP_ID as SIDECAR_GID } from '../../sidecar/inject/container.ts'
import { redirectRules } from '../../sidecar/inject/redirect.ts'
import { findProgram, installPackages } from '../support/debian.ts'
import { type Pod, type PodNode, type PodService, startNode, whyNoPods } from '../support/pods.ts'
import { SECRET } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import { tell } from '../support/tell.ts'
import { Container } from './pods/container.ts'
import { BILLING_PORT, SIDECAR_PORTS } from './pods/ports.ts'
import { SIDECAR_UID } from './pods/replica.ts'

/** Besides those of pods. */
const PROGRAMS = [
  { name: 'nft', debian: 'nftables' },
  { name: 'curl', debian: 'curl' },
]
const APP_UID = 1000
const MESH_UID = 1337
const MESH_PORT = 15001
const MESH_RULE = `-t nat -A OUTPUT -p tcp ! -d 127.0.0.1/32 -m owner ! --uid-owner ${MESH_UID} -j REDIRECT --to-ports ${MESH_PORT}`
const RULES = redirectRules([80])
/** Has this user's connections look as ztunnel's. */
const ZTUNNEL_UID = 1002
const ZTUNNEL_RULE = `-t mangle -A OUTPUT -m owner --uid-owner ${ZTUNNEL_UID} -j MARK --set-mark 0x539`
const MAIN = path.join(import.meta.dirname, '../../sidecar/main.ts')
/** Where billing is by IPv6, and where orders is. */
const [BILLING_IPV6, ORDERS_IPV6] = ['fd00:6d74:65::b', 'fd00:6d74:65::a']
/** curl's exit statuses */
const [REFUSED, NOT_TLS] = [7, 35]

/** Answers with what it was asked. */
const ECHO = `
require('node:http').createServer((request, response) => {
  let body = ''
  request.on('data', (more) => { body += more })
  request.on('end', () => response.end(JSON.stringify([request.method, request.headers.host, request.url, body])))
}).listen(${BILLING_PORT}, process.argv[1])`
/** As the proxy of a mesh: takes all connections to one place, and prints a line for each. */
const MESH_PROXY = `
const net = require('node:net')
net.createServer((from) => {
  console.log('connection')
  const to = net.connect(80, process.argv[1])
  from.pipe(to).pipe(from)
}).listen(${MESH_PORT}, '127.0.0.1', () => console.log('listening'))`

interface Ran {
  exit: number
  output: string
}

const test = suite('redirect')
const obstacle = whyNoPods(tell)
if (obstacle === undefined) testRedirect()
else test('is left out where there are no pods', () => tell(`redirect is left out: ${obstacle}`))
test.run()

function testRedirect(): void {
  let node: PodNode | undefined
  let billing: PodService
  let plain: PodService
  let ordersPod: Pod
  let billingPod: Pod
  let plainPod: Pod
  let captured = Buffer.alloc(0)
  let marks = 0
  const captures = new EventEmitter()

  test.before(async () => {
    const missing = PROGRAMS.filter(({ name }) => !findProgram(name)).map(({ debian }) => debian)
    if (missing.length > 0) installPackages(missing, tell)
    node = startNode()
    await node.tap((bytes) => {
      captured = Buffer.concat([captured, bytes])
      captures.emit('bytes')
    })
    ordersPod = node.addPod('orders')
    billingPod = node.addPod('billing')
    plainPod = node.addPod('plain')
    await administer(billingPod, 'ip', '-6', 'addr', 'add', `${BILLING_IPV6}/64`, 'dev', 'eth0', 'nodad')
    await administer(ordersPod, 'ip', '-6', 'addr', 'add', `${ORDERS_IPV6}/64`, 'dev', 'eth0', 'nodad')
    new Container(billingPod, { command: [process.execPath, '-e', ECHO, '127.0.0.1'], uid: APP_UID })
    new Container(plainPod, { command: [process.execPath, '-e', ECHO, '0.0.0.0'], uid: APP_UID })
    plain = node.addService(80, { port: BILLING_PORT, readiness: { port: BILLING_PORT, path: '/' } })
    billing = await startSidecar(billingPod, {
      NAME: 'billing',
      UPSTREAM: `http://127.0.0.1:${BILLING_PORT}`,
    })
    await plain.add(plainPod)
  })
  test.after(() => node?.remove())

  test('rules are set by root with NET_ADMIN alone, and once more changes nothing', async () => {
    await administer(ordersPod, 'nft', RULES)
    const once = await administer(ordersPod, 'nft', 'list', 'ruleset')
    assert.match(once, /redirect to :7780/)
    await administer(ordersPod, 'nft', RULES)
    assert.equal(await administer(ordersPod, 'nft', 'list', 'ruleset'), once)
  })

  test('a call fails while there is no sidecar, and nothing leaves the pod', async () => {
    const { exit } = await curl(ordersPod, ['http://billing/too-early', ...to('billing', billing.address)])
    assert.equal(exit, REFUSED)
    assert.equal(await packets(ordersPod, billing.address), 0)
  })

  for (const [who, user] of [
    ['the group of the sidecar', { uid: SIDECAR_UID, gid: SIDECAR_GID }],
    ['the proxy of Istio', { uid: MESH_UID, gid: APP_UID }],
    ['the proxy of Istio, as root,', { uid: 0, gid: 1337 }],
    ['the proxy of Linkerd', { uid: 2102 }],
    ['ztunnel', { uid: ZTUNNEL_UID }],
  ] as const) {
    test(`what ${who} calls is not redirected`, async () => {
      const call = `/of-${user.uid}`
      if (user.uid === ZTUNNEL_UID) await administer(ordersPod, 'iptables', ...ZTUNNEL_RULE.split(' '))
      const { exit } = await curl(
        ordersPod,
        [`http://billing${call}`, ...to('billing', billing.address)],
        user,
      )
      assert.equal(exit, 0)
      assert.ok((await wire()).includes(call))
    })
  }

  test('a call of an app that knows of no sidecar arrives decoded, and nothing of it is to be seen on its way', async () => {
    await startSidecar(ordersPod, {
      NAME: 'orders',
      PEERS: `billing=http://${billing.address},billing-ipv6=http://[${BILLING_IPV6}]:${SIDECAR_PORTS.inbound}`,
      PASS_THROUGH_HOSTS: plain.address,
    })
    const call = ['http://billing/secret-path', ...to('billing', billing.address), '--data', 'secret-body']
    const { output } = await curl(ordersPod, call)
    assert.deepEqual(JSON.parse(output), ['POST', 'billing', '/secret-path', 'secret-body'])
    const seen = await wire()
    assert.equal(seen.includes('secret-path') || seen.includes('secret-body'), false)
  })

  test('so does one of a Host with its port, one by HTTP/2, and one of an app that is the user of the sidecar', async () => {
    const call = ['http://billing/secret-too', ...to('billing', billing.address)]
    const { output: byHttp2 } = await curl(ordersPod, [...call, '--http2-prior-knowledge'])
    assert.deepEqual(JSON.parse(byHttp2), ['GET', 'billing', '/secret-too', ''])
    const { output } = await curl(ordersPod, [...call, '--header', 'host: billing:80'])
    assert.deepEqual(JSON.parse(output), ['GET', 'billing:80', '/secret-too', ''])
    const { output: ofUser } = await curl(ordersPod, call, { uid: SIDECAR_UID })
    assert.deepEqual(JSON.parse(ofUser), ['GET', 'billing', '/secret-too', ''])
    assert.equal((await wire()).includes('secret-too'), false)
  })

  test('so does one by IPv6', async () => {
    const call = ['http://billing-ipv6/secret-ipv6', ...to('billing-ipv6', `[${BILLING_IPV6}]`)]
    const direct = await curl(ordersPod, call, { uid: SIDECAR_UID, gid: SIDECAR_GID })
    assert.equal(direct.exit, REFUSED, 'nobody listens at port 80 there')
    const { output } = await curl(ordersPod, call)
    assert.deepEqual(JSON.parse(output), ['GET', 'billing-ipv6', '/secret-ipv6', ''])
    assert.equal((await wire()).includes('secret-ipv6'), false)
  })

  test('a call of a host that has no peer is refused, and nothing of it leaves the pod', async () => {
    const byName = ['http://unknown.example/', ...to('unknown.example', plain.address)]
    for (const call of [byName, [`http://${plainPod.address}/`]]) {
      const { output } = await curl(ordersPod, call)
      assert.equal(JSON.parse(output).code, 'no-peer')
    }
    assert.equal(await packets(ordersPod, plain.address), 0)
    assert.equal(await packets(ordersPod, plainPod.address), 0)
  })

  test('what is no HTTP fails, and nothing of it leaves the pod', async () => {
    const call = ['--insecure', 'https://billing:80/', ...to('billing', plain.address)]
    assert.equal((await curl(ordersPod, call)).exit, NOT_TLS)
    assert.equal(await packets(ordersPod, plain.address), 0)
  })

  test('a call of a host that is passed through arrives as it is, in plain', async () => {
    const { output } = await curl(ordersPod, [`http://${plain.address}/passed-through`])
    assert.deepEqual(JSON.parse(output), ['GET', plain.address, '/passed-through', ''])
    assert.ok((await wire()).includes('/passed-through'))
    assert.notEqual(await packets(ordersPod, plain.address), 0)
  })

  test('other ports, loopback and the addresses of the pod itself are not redirected', async () => {
    const { output } = await curl(ordersPod, [`http://${plainPod.address}:${BILLING_PORT}/other-port`])
    assert.equal(JSON.parse(output)[2], '/other-port')
    for (const host of ['127.0.0.1', '[::1]', ordersPod.address, `[${ORDERS_IPV6}]`]) {
      const { exit } = await curl(ordersPod, [`http://${host}/`])
      assert.equal(exit, REFUSED, host)
    }
  })

  for (const first of ['mesh', 'sidecar']) {
    test(`where the rules of the ${first} come first, of two, the sidecar gets the call, and the mesh what the sidecar sends`, async () => {
      const pod = node!.addPod(`${first}-first`)
      const setMesh = () => administer(pod, 'iptables', ...MESH_RULE.split(' '))
      const setOurs = () => administer(pod, 'nft', RULES)
      for (const set of first === 'mesh' ? [setMesh, setOurs] : [setOurs, setMesh]) await set()
      let connections = 0
      const command = [process.execPath, '-e', MESH_PROXY, billing.address]
      const proxy = new Container(pod, { command, uid: MESH_UID }, (line) => {
        if (line === 'connection') connections++
      })
      await proxy.says('listening')
      await startSidecar(pod, { NAME: first, PEERS: `billing=http://${billing.address}` })
      const secret = `/secret-behind-${first}`
      const { output } = await curl(pod, [`http://billing${secret}`, ...to('billing', billing.address)])
      assert.deepEqual(JSON.parse(output), ['GET', 'billing', secret, ''])
      assert.ok(connections > 0)
      assert.equal((await wire()).includes(secret), false)
    })
  }

  /** Starts the sidecar of a pod; resolves with its Service when it is ready. */
  async function startSidecar(pod: Pod, env: NodeJS.ProcessEnv): Promise<PodService> {
    const { inbound, outbound, admin } = SIDECAR_PORTS
    new Container(pod, {
      command: [process.execPath, MAIN, 'run'],
      uid: SIDECAR_UID,
      gid: SIDECAR_GID,
      env: {
        PORT: String(inbound),
        OUTBOUND_PORT: String(outbound),
        ADMIN_PORT: String(admin),
        ADMIN_HOST: '0.0.0.0',
        CLIENT_ID_SECRET: SECRET,
        ...env,
      },
    })
    const service = node!.addService(80, { port: inbound, readiness: { port: admin, path: '/readyz' } })
    await service.add(pod)
    return service
  }

  /** All that went over the bridge until now. */
  async function wire(): Promise<Buffer> {
    const mark = `all-before-has-gone-by-${++marks}`
    http.get(`http://${billingPod.address}:${SIDECAR_PORTS.admin}/livez?${mark}`, (response) =>
      response.resume(),
    )
    while (!captured.includes(mark)) await once(captures, 'bytes')
    return captured
  }

  /** How many went over the bridge until now. */
  async function packets(from: Pod, toAddress: string): Promise<number> {
    const addresses = Buffer.from(`${from.address}.${toAddress}`.split('.').map(Number))
    const seen = await wire()
    let count = 0
    for (let at = seen.indexOf(addresses); at >= 0; at = seen.indexOf(addresses, at + 1)) count++
    return count
  }
}

/** Has curl take a name for an address. */
function to(host: string, address: string): string[] {
  return ['--resolve', `${host}:80:${address}`]
}

async function curl(
  pod: Pod,
  args: readonly string[],
  user: { uid: number; gid?: number } = { uid: APP_UID },
): Promise<Ran> {
  return run(pod, { command: ['curl', '--silent', '--max-time', '10', ...args], ...user })
}

/** Runs a command as the init container does. @throws Error unless it succeeds */
async function administer(pod: Pod, ...command: string[]): Promise<string> {
  const { exit, output } = await run(pod, { command, uid: 0, capability: 'net_admin' })
  assert.equal(exit, 0, command.join(' '))
  return output
}

async function run(pod: Pod, program: Parameters<Pod['start']>[0]): Promise<Ran> {
  const child = pod.start(program)
  const closed = once(child, 'close')
  const [output, [exit]] = await Promise.all([text(child.stdout), closed])
  return { exit: Number(exit), output }
}
