/** What of a pod matters to whoever injects into it. Kubernetes takes null for absent, and so does this. */
import { pointer } from './json-patch.ts'

/** Something to be said about a pod. */
export interface Finding {
  /** JSON Pointer, from the pod, to what it is about */
  path: string
  /** a sentence without its full stop, that names what it is about */
  text: string
}

export interface Container {
  name: string
  ports: readonly Port[]
  runAsUser: number | undefined
  runAsGroup: number | undefined
}

interface Port {
  name: string | undefined
  containerPort: number | undefined
  hostPort: number | undefined
  protocol: string
}

/** Lists and maps are undefined where there are none, or empty ones: nothing can be added to those in place. */
export interface Pod {
  hasMetadata: boolean
  annotations: Readonly<Record<string, string>> | undefined
  initContainers: readonly Container[] | undefined
  containers: readonly Container[]
  volumes: readonly { name: string }[] | undefined
  terminationGracePeriodSeconds: number | undefined
  restartPolicy: string | undefined
  hostNetwork: boolean
  shareProcessNamespace: boolean
  /** the user and the group of containers that do not say theirs */
  runAsUser: number | undefined
  runAsGroup: number | undefined
  /** as the pod itself or its node selector says; undefined: neither does */
  os: string | undefined
}

type Fields = Readonly<Record<string, unknown>>

/**
 * Reads a pod, or the pod template of a workload, of which nothing is known yet.
 * @returns it, and what is not as Kubernetes would have it
 */
export function readPod(value: unknown): { pod: Pod; mistakes: Finding[] } {
  const mistakes: Finding[] = []
  const wrong = (path: string, text: string) => {
    mistakes.push({ path, text })
  }
  const fields = (from: unknown, path: string): Fields => {
    if (isFields(from)) return from
    if (from !== undefined && from !== null) wrong(path, `${shown(path)} must be a map`)
    return {}
  }
  const list = (from: unknown, path: string): readonly Fields[] => {
    if (Array.isArray(from)) return from.map((item, i) => fields(item, `${path}/${i}`))
    if (from !== undefined && from !== null) wrong(path, `${shown(path)} must be a list`)
    return []
  }
  const identity = (from: unknown, path: string) => {
    const { runAsUser, runAsGroup } = fields(from, path)
    return { runAsUser: number(runAsUser), runAsGroup: number(runAsGroup) }
  }
  const nameOf = ({ name }: Fields, path: string): string => {
    if (typeof name !== 'string') wrong(path, `${shown(path)} must have a name`)
    return String(name)
  }
  const containers = (from: unknown, path: string): Container[] =>
    list(from, path).map((item, i) => ({
      name: nameOf(item, `${path}/${i}`),
      ports: list(item.ports, `${path}/${i}/ports`).map(portOf),
      ...identity(item.securityContext, `${path}/${i}/securityContext`),
    }))

  const pod = fields(value, '')
  const metadata = fields(pod.metadata, '/metadata')
  const annotations = Object.entries(fields(metadata.annotations, '/metadata/annotations'))
  for (const [key, content] of annotations) {
    if (typeof content === 'string') continue
    const right = typeof content === 'object' ? 'be text' : `be text: write "${content}" with its quotes`
    wrong(pointer('metadata', 'annotations', key), `the annotation ${key} must ${right}`)
  }
  const spec = fields(pod.spec, '/spec')
  const selector = fields(spec.nodeSelector, '/spec/nodeSelector')
  const os =
    fields(spec.os, '/spec/os').name ?? selector['kubernetes.io/os'] ?? selector['beta.kubernetes.io/os']
  const volumes = list(spec.volumes, '/spec/volumes').map((item, i) => ({
    name: nameOf(item, `/spec/volumes/${i}`),
  }))
  const main = containers(spec.containers, '/spec/containers')
  if (main.length === 0)
    wrong('/spec', 'spec.containers must hold a container: there is no app to stand beside')
  const read: Pod = {
    hasMetadata: isFields(pod.metadata),
    annotations: annotations.length > 0 ? Object.fromEntries(annotations.filter(isText)) : undefined,
    initContainers: orNone(containers(spec.initContainers, '/spec/initContainers')),
    containers: main,
    volumes: orNone(volumes),
    terminationGracePeriodSeconds: number(spec.terminationGracePeriodSeconds),
    restartPolicy: text(spec.restartPolicy),
    hostNetwork: spec.hostNetwork === true,
    shareProcessNamespace: spec.shareProcessNamespace === true,
    ...identity(spec.securityContext, '/spec/securityContext'),
    os: text(os),
  }
  return { pod: read, mistakes }
}

/** Does it have members, and may they be looked at by name? */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function orNone<T>(list: T[]): T[] | undefined {
  return list.length === 0 ? undefined : list
}

function portOf({ name, containerPort, hostPort, protocol }: Fields): Port {
  return {
    name: text(name),
    containerPort: number(containerPort),
    hostPort: number(hostPort),
    protocol: text(protocol) ?? 'TCP',
  }
}

function isText(entry: [string, unknown]): entry is [string, string] {
  return typeof entry[1] === 'string'
}

function number(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** A path as people write it: `spec.containers[0]`. */
function shown(path: string): string {
  const dotted = path.replace(/\/(\d+)/g, '[$1]').replaceAll('/', '.')
  return dotted === '' ? 'the pod' : dotted.slice(1)
}
