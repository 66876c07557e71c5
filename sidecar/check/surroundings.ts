/** What is around a sidecar: its user, the files of its secrets, the one that runs here by now, its collector. */
import { statfsSync, statSync } from 'node:fs'
import { AdminClient, AdminError } from '../admin-client.ts'
import type { Config } from '../config.ts'
import { printable } from '../printable.ts'
import { type Finding, note, ok, warn } from './finding.ts'
import { accepts, portOf } from './places.ts'

/** Whose traffic meshes take for that of their own proxies, by user or group, and so do not touch. */
const MESH_IDS = new Map([
  [1337, 'Istio'],
  [2102, 'Linkerd'],
  [5995, 'Consul'],
  [5996, 'Consul'],
])
const USER_ADVICE =
  'Run it as another user: runAsUser: 65532 and runAsGroup: 65532 in Kubernetes, --user 65532:65532 in Docker, User= in systemd.'
/** f_type of a file system in memory (statfs(2) of Linux). */
const TMPFS = 0x01021994
const READABLE_BY_OTHERS = 0o004

/** @param ids of the process; undefined where the system has none */
export function checkUser(ids: { uid: number | undefined; gid: number | undefined }): Finding[] {
  const found = (['uid', 'gid'] as const).flatMap((kind) => {
    const mesh = MESH_IDS.get(ids[kind] ?? -1)
    if (mesh === undefined) return []
    const what = kind === 'uid' ? 'user' : 'group'
    return [
      warn(
        `This runs as ${what} ${ids[kind]}, that of ${mesh}'s proxy: the mesh leaves its traffic alone, without mTLS and policies.`,
        USER_ADVICE,
      ),
    ]
  })
  if (ids.uid === 0) {
    found.push(
      warn('This runs as root, which a sidecar never needs: a flaw in it would cost more.', USER_ADVICE),
    )
  }
  return found
}

/** Who else may read the files of secrets? */
export function checkSecretFiles({ secretFiles }: Pick<Config, 'secretFiles'>): Finding[] {
  const paths = new Set(secretFiles?.paths)
  return [...paths].filter(isForAll).map((path) => {
    const shown = printable(path)
    return warn(
      `${shown} holds a secret, and every user of this machine may read it.`,
      `Give it to the user of the sidecar alone: chown 65532 ${shown}; chmod 400 ${shown}`,
    )
  })
}

function isForAll(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (!stats || (stats.mode & READABLE_BY_OTHERS) === 0) return false
  // Kubernetes keeps those of a pod in memory, for all in the pod and nobody else.
  return statfsSync(path).type !== TMPFS
}

/** How is the sidecar that runs here, if there is one? */
export async function checkRunning({ adminHost, adminPort, name }: Config): Promise<Finding[]> {
  try {
    const running = await new AdminClient({ host: adminHost, port: adminPort }).readiness()
    if (running.name !== name) {
      return [
        warn(
          `At ADMIN_PORT ${adminPort} runs another sidecar: it is called ${printable(running.name)}, and not ${name}.`,
          'Check with the variables of the one that runs, or give each a PORT, OUTBOUND_PORT and ADMIN_PORT of its own.',
        ),
      ]
    }
    const troubles = [
      ...(running.reasons.length > 0 ? [`is not ready: ${running.reasons.join(', ')}`] : []),
      ...(running.degraded.length > 0 ? [`is degraded: ${running.degraded.join(', ')}`] : []),
    ]
    if (troubles.length === 0) return [ok('The sidecar that runs here is ready.')]
    return troubles.map((trouble) =>
      warn(`The sidecar that runs here ${printable(trouble)}.`, 'Its log says since when.'),
    )
  } catch (error) {
    if (!(error instanceof AdminError)) throw error
    return [note(`No sidecar is known to run here: ${printable(error.message)}.`)]
  }
}

/** Can traces and metrics be sent? */
export async function checkCollector({ otel: { traces, metrics } }: Config): Promise<Finding[]> {
  const exports = [traces, metrics].filter((one) => one?.exporter === 'otlp')
  const endpoints = new Set(exports.map((one) => one!.endpoint))
  return Promise.all(
    [...endpoints].map(async (endpoint) => {
      const url = new URL(endpoint)
      if (await accepts(url.hostname, portOf(url)))
        return ok(`The collector at ${endpoint} takes connections.`)
      return warn(
        `The collector at ${endpoint} takes no connections: calls go on, but traces and metrics are lost.`,
        'Is it running, and does OTEL_EXPORTER_OTLP_ENDPOINT hold its address and port?',
      )
    }),
  )
}
