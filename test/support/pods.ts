/**
 * A node with pods, made of network namespaces: one for the node, with a bridge, and one for each pod, with a loopback
 * and an address of its own. What pods say to each other goes through the node, which leads virtual addresses to pods
 * that are ready, as kube-proxy does. This process is plugged into the bridge, too, as the kubelet. Nothing else of
 * the machine is changed. What a run leaves behind when it is killed, the next one removes.
 */
import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import http from 'node:http'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { findProgram, installPackages } from './debian.ts'
import { reachable } from './reachable.ts'

/** Addresses that are set aside for tests of networks (RFC 2544), other ones for each run. */
const NETWORK = `198.18.${process.pid % 256}`
const GATEWAY = `${NETWORK}.1`
const BRIDGE = '02:00:00:00:00:01'
const KUBELET = `${NETWORK}.2`
const FIRST_POD = 10
const FIRST_SERVICE = 200
const PREFIX = 'mte'
/** What the names of namespaces begin with, and the name of this process' own way into the bridge. */
const RUN = `${PREFIX}${process.pid}`
const NODE = `${RUN}-node`
const PROBE_PERIOD_MS = 500
const PROBE_TIMEOUT_MS = 1000
const TAP_KILOBYTES = 16_384
/** Of the node: all goes through it, and through its rules once. */
const KERNEL = {
  'ipv4/ip_forward': 1,
  'ipv4/conf/all/send_redirects': 0,
  'ipv4/conf/bridge/send_redirects': 0,
  'bridge/bridge-nf-call-iptables': 0,
}

export interface PodNode {
  addPod(name: string): Pod
  /**
   * A virtual address and port. A new connection there is led to one of its pods that are ready, and is refused when
   * none is; where a connection that is open leads does not change.
   */
  addService(port: number, to: Backend): PodService
  /**
   * Copies everything that goes over the bridge from now on, until all is removed.
   * @param onBytes gets the packets, one after the other, in tcpdump's format
   */
  tap(onBytes: (bytes: Buffer) => void): Promise<void>
  /** Kills all that runs in its pods, and leaves nothing. */
  remove(): void
}

/** What is behind a service in each of its pods. */
export interface Backend {
  port: number
  /** where a GET gives 200 when the pod is ready: it is asked twice a second */
  readiness: { port: number; path: string }
  /** gets those that are ready, whenever they change */
  onReady?(pods: readonly Pod[]): void
}

export interface PodService {
  address: string
  port: number
  /** Resolves when the pod is ready, and so gets connections. */
  add(pod: Pod): Promise<void>
  /** It gets no new connection from now on. */
  remove(pod: Pod): void
}

export interface Pod {
  address: string
  /** Runs a command in it to its end, as root. @param input what it reads */
  configure(command: readonly string[], input: string): void
  /** Starts a program in it, without any other capability than it is given. It does not outlive this process. */
  start(program: Program): PodProcess
  /** Kills all that runs in it. */
  remove(): void
}

export interface Program {
  command: readonly string[]
  /** of its user */
  uid: number
  /** of its group, where that is not the same number */
  gid?: number
  /** the one that root has, such as net_admin */
  capability?: string
  env?: NodeJS.ProcessEnv
}

export type PodProcess = ChildProcessByStdio<Writable, Readable, Readable>

/**
 * Why there can be no pods here; undefined: there can.
 * @param say is told what is installed for them
 * @throws Error that says how to install what is missing, where that cannot be done
 */
export function whyNoPods(say: (line: string) => void): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces are Linux’s'
  if (process.getuid!() !== 0) return 'only root may make network namespaces'
  const missing = Object.entries({ ip: 'iproute2', iptables: 'iptables', tcpdump: 'tcpdump' })
    .filter(([program]) => !findProgram(program))
    .map(([, debian]) => debian)
  if (missing.length > 0) installPackages(missing, say)
  try {
    ip(`netns add ${RUN}-try`)
    ip(`netns del ${RUN}-try`)
  } catch (error) {
    return `network namespaces are not allowed here: ${(error as Error).message.trim().split('\n').at(-1)}`
  }
  return undefined
}

/** There is one at a time. Only where `whyNoPods` has nothing to say. */
export function startNode(): PodNode {
  removeLeftovers()
  process.on('exit', removeRun)
  ip(`netns add ${NODE}`)
  ip(`-n ${NODE} link set lo up`)
  // Without one of its own it takes that of its lowest port, and pods would not find it any more when one is added.
  ip(`-n ${NODE} link add bridge address ${BRIDGE} type bridge`)
  ip(`-n ${NODE} addr add ${GATEWAY}/24 dev bridge`)
  ip(`-n ${NODE} link set bridge up`)
  for (const [setting, value] of Object.entries(KERNEL)) {
    const file = `/proc/sys/net/${setting}`
    inNode('sh', '-ec', `if [ -e ${file} ]; then echo ${value} >${file}; fi`)
  }
  // Without a rule that asks for it the kernel forgets connections when the last address of a service goes.
  inNode('iptables', '-A', 'FORWARD', '-m', 'conntrack', '--ctstate', 'INVALID', '-j', 'DROP')
  plugIn('kubelet', RUN, String(process.pid))
  addAddress([], RUN, KUBELET)
  ip(`route add ${NETWORK}.0/24 via ${GATEWAY} dev ${RUN}`)
  let pods = 0
  let services = 0
  const leave = new AbortController()
  return {
    addPod: (name) => addPod(`${RUN}-${name}`, pods++),
    addService: (port, to) => addService(services++, port, to, leave.signal),
    tap,
    remove() {
      leave.abort()
      process.off('exit', removeRun)
      removeRun()
    },
  }
}

function addPod(namespace: string, number: number): Pod {
  const address = `${NETWORK}.${FIRST_POD + number}`
  ip(`netns add ${namespace}`)
  ip(`-n ${namespace} link set lo up`)
  plugIn(`pod${number}`, 'eth0', namespace)
  addAddress(['-n', namespace], 'eth0', address)
  ip(`-n ${namespace} route add default via ${GATEWAY}`)
  return {
    address,
    configure: (command, input) => {
      execFileSync('ip', ['netns', 'exec', namespace, ...command], { input })
    },
    start({ command, uid, gid = uid, capability, env = {} }) {
      const user = [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']
      const bounds = `--bounding-set=-all${capability ? `,+${capability}` : ''}`
      const may = [bounds, '--inh-caps=-all', '--no-new-privs', '--pdeathsig=KILL']
      const args = ['netns', 'exec', namespace, ...reachable(['setpriv', ...user, ...may, '--', ...command])]
      return spawn('ip', args, { env: { PATH: process.env.PATH, ...env }, stdio: ['pipe', 'pipe', 'pipe'] })
    },
    remove: () => removeNamespace(namespace),
  }
}

/** Makes a wire from the bridge to an interface elsewhere. */
function plugIn(name: string, peer: string, namespace: string): void {
  ip(`-n ${NODE} link add ${name} type veth peer name ${peer} netns ${namespace}`)
  ip(`-n ${NODE} link set ${name} master bridge up`)
}

/** Only the gateway is its neighbour: all other packets go there, too, so that answers find back to what was asked. */
function addAddress(where: readonly string[], device: string, address: string): void {
  ip(`addr add ${address}/32 dev ${device}`, where)
  ip(`link set ${device} up`, where)
  ip(`route add ${GATEWAY} dev ${device}`, where)
}

/** As kube-proxy does it with iptables. */
function addService(
  number: number,
  port: number,
  { port: podPort, readiness, onReady }: Backend,
  left: AbortSignal,
): PodService {
  const chain = `SERVICE-${number}`
  const address = `${NETWORK}.${FIRST_SERVICE + number}`
  const where = ['-d', address, '-p', 'tcp', '--dport', String(port)]
  inNode('iptables', '-t', 'nat', '-N', chain)
  inNode('iptables', '-t', 'nat', '-A', 'PREROUTING', ...where, '-j', chain)
  inNode('iptables', '-A', 'FORWARD', ...where, '-j', 'REJECT')
  const pods = new Map<Pod, AbortController>()
  const ready = new Set<Pod>()
  const update = () => {
    const rules = [...ready].map((pod, i) => {
      const chance = ['-m', 'statistic', '--mode', 'random', '--probability', String(1 / (ready.size - i))]
      return [
        '-A',
        chain,
        '-p',
        'tcp',
        ...chance,
        '-j',
        'DNAT',
        '--to-destination',
        `${pod.address}:${podPort}`,
      ]
    })
    const lines = ['*nat', `:${chain} - [0:0]`, ...rules.map((rule) => rule.join(' ')), 'COMMIT', '']
    execFileSync('ip', ['netns', 'exec', NODE, 'iptables-restore', '--noflush'], { input: lines.join('\n') })
    onReady?.([...ready])
  }
  const probe = async (pod: Pod, signal: AbortSignal, resolve: () => void) => {
    while (!signal.aborted) {
      const isReady = await answers(`http://${pod.address}:${readiness.port}${readiness.path}`)
      if (signal.aborted) return
      if (isReady !== ready.has(pod)) {
        if (isReady) ready.add(pod)
        else ready.delete(pod)
        update()
      }
      if (isReady) resolve()
      await sleep(PROBE_PERIOD_MS, undefined, { signal }).catch(() => {})
    }
  }
  return {
    address,
    port,
    add(pod) {
      const removed = new AbortController()
      pods.set(pod, removed)
      return new Promise((resolve) => void probe(pod, AbortSignal.any([removed.signal, left]), resolve))
    },
    remove(pod) {
      pods.get(pod)?.abort()
      pods.delete(pod)
      if (ready.delete(pod)) update()
    },
  }
}

/** Does a GET give 200? */
async function answers(url: string): Promise<boolean> {
  try {
    const request = http.get(url, { agent: false, signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) })
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    response.on('error', () => {}).resume()
    return response.statusCode === 200
  } catch {
    return false
  }
}

async function tap(onBytes: (bytes: Buffer) => void): Promise<void> {
  const options = ['--immediate-mode', '-B', String(TAP_KILOBYTES), '-U', '-Z', 'root', '-w', '-']
  const child = spawn('ip', ['netns', 'exec', NODE, 'tcpdump', '-i', 'bridge', ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.on('data', onBytes)
  await new Promise<void>((resolve, reject) => {
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text) => {
      said += text
      if (said.includes('listening on')) resolve()
    })
    child.once('close', () => reject(new Error(`tcpdump did not start: ${said}`)))
  })
}

function removeRun(): void {
  for (const namespace of namespaces()) if (namespace.startsWith(`${RUN}-`)) removeNamespace(namespace)
}

/** Of runs that were killed. */
function removeLeftovers(): void {
  for (const namespace of namespaces()) {
    const [, pid] = new RegExp(`^${PREFIX}(\\d+)-`).exec(namespace) ?? []
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue
    try {
      removeNamespace(namespace)
    } catch (error) {
      // Another run that starts just now may have been faster.
      if (namespaces().includes(namespace)) throw error
    }
  }
}

function namespaces(): string[] {
  return ip('netns list')
    .split('\n')
    .map((line) => line.split(' ')[0]!)
}

/** With what runs in it: it would live on. */
function removeNamespace(namespace: string): void {
  for (const pid of ip(`netns pids ${namespace}`).split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL')
    } catch {
      // it is gone
    }
  }
  ip(`netns del ${namespace}`)
}

function inNode(...command: string[]): void {
  run('ip', ['netns', 'exec', NODE, ...command])
}

function ip(words: string, options: readonly string[] = []): string {
  return run('ip', [...options, ...words.split(' ')])
}

function run(program: string, args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}
