/** A mesh: an Envoy in each pod, and files in place of Istio's control plane. */
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { MESSAGE_PATH, PAIRING_PATH } from '../../../sidecar/outer.ts'
import { authority, type Certificate } from '../../support/certificates.ts'
import type { Pod } from '../../support/pods.ts'
import { Container } from '../pods/container.ts'
import { SIDECAR_PORTS } from '../pods/ports.ts'
import { type Destination, envoyConfig, MESH_PORTS, redirects } from './envoy.ts'

const SERVICES = ['orders', 'billing']
/** The same pods as `billing`, with less patience: a call that takes longer is sent to the next one. */
export const IMPATIENT = 'impatient'
const PER_TRY_TIMEOUT = '0.2s'
const DESTINATIONS: readonly Destination[] = [
  ...SERVICES.map((service) => ({ name: service, service })),
  { name: IMPATIENT, service: 'billing', perTryTimeout: PER_TRY_TIMEOUT },
]
/** At which orders calls billing in the mesh. */
export const MESH_NAMES = ['billing', IMPATIENT]
const PATHS = [PAIRING_PATH, MESSAGE_PATH]
/** As annotations of the pods say. */
const EXCLUDED = { inbound: [SIDECAR_PORTS.admin], outbound: [6379] }
/** Of Istio's. */
const UID = 1337
const POLL_MS = 20
const OPTIONS = [
  ...['--concurrency', '1', '--disable-hot-restart'],
  ...['--log-level', 'warning', '--file-flush-interval-msec', '50'],
]

/** A line of an Envoy's access log. */
export interface Access {
  direction: 'inbound' | 'outbound'
  method: string
  authority: string
  path: string
  protocol: string
  status: number
  /** why there was no better answer; `-`: there is nothing to say */
  flags: string
  attempts: number
  /** address and port that gave the answer */
  host: string
}

export interface Mesh {
  /**
   * Starts an Envoy in a pod, and leads all traffic of the pod through it. Resolves when it is ready.
   * @returns drains it: it sends its callers elsewhere, and lets what they have begun end
   */
  join(pod: Pod, service: string): Promise<() => Promise<void>>
  /** Tells all Envoys which pods a service has. */
  lead(service: string, pods: readonly Pod[]): void
  /** of all Envoys */
  accesses: readonly Access[]
  /** Resolves when every connection on which nothing happens has been closed. */
  idle(): Promise<void>
}

/** @param binary Envoy's */
export function startMesh(binary: string): Mesh {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-mesh-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  chmodSync(folder, 0o755)
  const envoy = path.join(folder, 'envoy')
  copyFileSync(binary, envoy)
  const file = (...names: string[]) => path.join(folder, ...names)
  const { cert, issue } = authority()
  writeFileSync(file('authority.crt'), cert)
  mkdirSync(file('endpoints'))
  const endpoints = (service: string) => file('endpoints', service)
  const lead: Mesh['lead'] = (service, pods) => {
    // Envoy looks at a file again when it has been moved to its place.
    writeFileSync(file('next'), JSON.stringify(assignment(service, pods)))
    renameSync(file('next'), endpoints(service))
  }
  for (const service of SERVICES) {
    writeKeys(folder, service, issue(`URI:${identity(service)}`))
    lead(service, [])
  }
  const accesses: Access[] = []
  const pods = new Set<Pod>()
  return {
    lead,
    accesses,
    async join(pod, service) {
      pods.add(pod)
      const config = envoyConfig({
        name: service,
        port: SIDECAR_PORTS.inbound,
        paths: PATHS,
        destinations: DESTINATIONS,
        files: {
          certificate: file(`${service}.crt`),
          key: file(`${service}.key`),
          authority: file('authority.crt'),
          endpoints,
        },
        identity,
        callers: SERVICES.filter((caller) => caller !== service),
      })
      writeFileSync(file(`${service}.json`), JSON.stringify(config))
      pod.configure(['iptables-restore'], redirects(UID, EXCLUDED))
      const command = [envoy, ...OPTIONS, '--config-path', file(`${service}.json`)]
      const proxy = new Container(pod, { command, uid: UID }, (line) => accesses.push(JSON.parse(line)))
      while ((await stats(pod).catch(() => undefined)) === undefined) {
        if (proxy.hasEnded) await proxy.succeeds()
        await sleep(POLL_MS)
      }
      return async () => {
        pods.delete(pod)
        await fetch(`${adminOf(pod)}/drain_listeners?graceful`, { method: 'POST' })
        while ((await openConnections(pod)) > 0) await sleep(POLL_MS)
      }
    },
    async idle() {
      for (const pod of pods) while ((await openConnections(pod)) > 0) await sleep(POLL_MS)
    },
  }
}

/** SPIFFE's, as Istio has it. */
function identity(service: string): string {
  return `spiffe://cluster.local/ns/mte-example/sa/${service}`
}

function writeKeys(folder: string, service: string, { cert, key }: Certificate): void {
  const file = path.join(folder, `${service}.key`)
  writeFileSync(path.join(folder, `${service}.crt`), cert)
  writeFileSync(file, key, { mode: 0o400 })
  chownSync(file, UID, UID)
}

/** Envoy's resource of where a service is. */
function assignment(service: string, pods: readonly Pod[]): object {
  const hosts = pods.map((pod) => ({
    endpoint: { address: { socket_address: { address: pod.address, port_value: SIDECAR_PORTS.inbound } } },
  }))
  const type = 'type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment'
  return { resources: [{ '@type': type, cluster_name: service, endpoints: [{ lb_endpoints: hosts }] }] }
}

async function openConnections(pod: Pod): Promise<number> {
  const text = await stats(pod)
  return [...text.matchAll(/^http\.(?:in|out)bound\.downstream_cx_active: (\d+)$/gm)].reduce(
    (sum, [, count]) => sum + Number(count),
    0,
  )
}

/** What an Envoy that is ready counts. @throws Error when there is none */
async function stats(pod: Pod): Promise<string> {
  const ready = await fetch(`${adminOf(pod)}/ready`)
  if (!ready.ok) throw new Error(await ready.text())
  return await (await fetch(`${adminOf(pod)}/stats?filter=downstream_cx_active`)).text()
}

function adminOf({ address }: Pod): string {
  return `http://${address}:${MESH_PORTS.admin}`
}
