/** What makes a pod one with a sidecar. */
import {
  CONTAINER_NAME,
  gracePeriodSeconds,
  secretsVolume,
  sidecarContainer,
  USER_ID,
  VOLUME_NAME,
} from './container.ts'
import { type Operation, pointer } from './json-patch.ts'
import { isOfMesh, meshAnnotations, meshDoubts, positionIn } from './mesh.ts'
import { annotationOf, type Options, PORTS, readAnnotations } from './options.ts'
import { type Container, type Finding, type Pod, readPod } from './pod.ts'
import { redirectContainer, redirectDoubts, redirectObstacles } from './redirect.ts'

/** What becomes of a pod. */
export type Patch =
  /** add and replace alone, each path from the pod, none inside of what another one adds */
  | { outcome: 'injected'; operations: Operation[]; warnings: Finding[]; upstreamPort: number | 'none' }
  /** it has the sidecar */
  | { outcome: 'has-it' }
  /** its annotation mte.sidecar/inject is "false" */
  | { outcome: 'not-wanted' }
  /** nothing of it may be injected; every reason there is */
  | { outcome: 'refused'; refusals: Finding[] }

interface Added {
  index: number
  value: object
}

/** What Kubernetes takes where the pod does not say it. */
const GRACE_PERIOD_SECONDS_DEFAULT = 30

/**
 * Tells how to put the sidecar into a pod, or into the pod template of a workload: beside whatever Istio or Linkerd
 * have put there, or will. What is done by it is not done again: injecting twice is as good as once. The pod's own
 * fields stay as they are, but for a terminationGracePeriodSeconds that is too short to drain in.
 * @param pod as it was parsed; nothing of its shape is taken for granted
 * @param defaults of options that the pod's annotations `mte.sidecar/…` do not set
 */
export function patchFor(pod: unknown, defaults: Partial<Options> = {}): Patch {
  const { pod: read, mistakes } = readPod(pod)
  if (read.annotations?.[annotationOf('inject')] === 'false') return { outcome: 'not-wanted' }
  if (hasSidecar(read)) return { outcome: 'has-it' }
  const { options, mistakes: ofAnnotations } = readAnnotations(read.annotations ?? {}, defaults)
  const upstreamPort = options['upstream-port'] ?? declaredPort(read)
  const refusals = [
    ...mistakes,
    ...ofAnnotations.map(({ annotation, text }) => ({ path: annotationPath(read, annotation), text })),
    ...obstacles(read, options),
  ]
  if (upstreamPort === undefined && refusals.length === 0) refusals.push(needsPort(read))
  if (refusals.length > 0 || upstreamPort === undefined) return { outcome: 'refused', refusals }
  const warnings = [...meshDoubts(read, options), ...doubts(read, options)]
  return {
    outcome: 'injected',
    operations: operationsFor(read, options, upstreamPort),
    warnings,
    upstreamPort,
  }
}

function operationsFor(pod: Pod, options: Options, upstreamPort: number | 'none'): Operation[] {
  const operations: Operation[] = []
  const add = (path: string, value: unknown) => {
    operations.push({ op: 'add', path, value })
  }
  /** Into a list, at places of it as it is in the pod, in their order; or where there is none as a list of their own. */
  const insert = (path: string, list: readonly unknown[] | undefined, added: readonly Added[]) => {
    const values = added.map(({ value }) => value)
    if (!list && values.length > 0) add(path, values)
    // From the back: places before it stay what they are.
    for (const { index, value } of list ? added.toReversed() : []) {
      add(`${path}/${index === list!.length ? '-' : index}`, value)
    }
  }

  const annotations = meshAnnotations(pod, options)
  if (!options.native) Object.assign(annotations, defaultContainer(pod))
  if (!pod.hasMetadata) add('/metadata', { annotations })
  else if (!pod.annotations) add('/metadata/annotations', annotations)
  else {
    for (const [key, value] of Object.entries(annotations)) {
      const op = Object.hasOwn(pod.annotations, key) ? 'replace' : 'add'
      operations.push({ op, path: pointer('metadata', 'annotations', key), value })
    }
  }
  const graceSeconds = gracePeriodSeconds(options)
  if ((pod.terminationGracePeriodSeconds ?? GRACE_PERIOD_SECONDS_DEFAULT) < graceSeconds) {
    const op = pod.terminationGracePeriodSeconds === undefined ? 'add' : 'replace'
    operations.push({ op, path: '/spec/terminationGracePeriodSeconds', value: graceSeconds })
  }
  const sidecar = sidecarContainer(options, upstreamPort)
  // First of all, so that no other container calls in plain; beside those of a mesh any place is as good.
  const redirect = options.redirect ? [{ index: 0, value: redirectContainer(options, options.redirect) }] : []
  if (options.native) {
    const index = positionIn(pod.initContainers ?? [])
    insert('/spec/initContainers', pod.initContainers, [...redirect, { index, value: sidecar }])
  } else {
    insert('/spec/initContainers', pod.initContainers, redirect)
    insert('/spec/containers', pod.containers, [{ index: positionIn(pod.containers), value: sidecar }])
  }
  insert('/spec/volumes', pod.volumes, [{ index: pod.volumes?.length ?? 0, value: secretsVolume(options) }])
  return operations
}

/** Every reason why the pod cannot have the sidecar. */
function* obstacles(pod: Pod, options: Options): Generator<Finding> {
  if (pod.hostNetwork) {
    const text =
      'spec.hostNetwork must not be true: on the network of the node, all that runs there could use the outbound port'
    yield { path: '/spec/hostNetwork', text }
  }
  if (pod.os === 'windows') {
    yield { path: '/spec', text: 'the pod must not be one for Windows: the sidecar runs on Linux' }
  }
  if (!options.native && (pod.restartPolicy === 'Never' || pod.restartPolicy === 'OnFailure')) {
    const text = `${annotationOf('native')} must not be false where spec.restartPolicy is ${pod.restartPolicy}: the pod would never be done, as the sidecar beside its app runs on`
    yield { path: '/spec/restartPolicy', text }
  }
  for (const [path, container] of allContainers(pod)) yield* containerObstacles(pod, options, container, path)
  const volume = pod.volumes?.findIndex(({ name }) => name === VOLUME_NAME) ?? -1
  if (volume >= 0) {
    const path = `/spec/volumes/${volume}`
    yield { path, text: `the volume ${VOLUME_NAME} must have another name, as the sidecar has one of this` }
  }
}

function* containerObstacles(
  pod: Pod,
  options: Options,
  container: Container,
  path: string,
): Generator<Finding> {
  const { name, ports, runAsUser = pod.runAsUser } = container
  if (options.redirect) yield* redirectObstacles(pod, container, path)
  if (name === CONTAINER_NAME) {
    const text = `the container ${name} must have another name: it is not the sidecar, as it has no port ${PORTS.PORT}`
    yield { path, text }
  }
  for (const [i, { containerPort, hostPort }] of ports.entries()) {
    const [variable] = Object.entries(PORTS).find(([, port]) => port === containerPort) ?? []
    if (variable) {
      const text = `the container ${name} must have another port than ${containerPort}, which is the ${variable} of the sidecar`
      yield { path: `${path}/ports/${i}`, text }
    }
    if (hostPort) {
      const text = `the container ${name} must not have the hostPort ${hostPort}: calls to it would reach the app past the sidecar`
      yield { path: `${path}/ports/${i}`, text }
    }
  }
  if (pod.shareProcessNamespace && runAsUser === USER_ID) {
    const text = `the container ${name} must not run as user ${USER_ID} where spec.shareProcessNamespace is true: it could read the keys of the sidecar, which is that user`
    yield { path, text }
  }
}

function* doubts(pod: Pod, options: Options): Generator<Finding> {
  if (options.redirect) yield* redirectDoubts(pod, options, options.redirect)
  if (pod.shareProcessNamespace) {
    const text = `spec.shareProcessNamespace lets the containers see each other's processes: none of them but the sidecar may run as user ${USER_ID}`
    yield { path: '/spec/shareProcessNamespace', text }
  }
  if (!options.native) {
    const text =
      'a sidecar that is not native may start after the app, and stop before it: the app must bear with calls that fail then'
    yield { path: '/spec', text }
  }
}

function needsPort(pod: Pod): Finding {
  const ports = appPorts(pod)
  const found =
    ports.length === 0 ? 'its containers declare none' : `its containers declare ${ports.join(' and ')}`
  const path = '/metadata/annotations'
  return {
    path,
    text: `the annotation ${annotationOf('upstream-port')} must say at which port the app listens, as ${found}; or none if it only calls others`,
  }
}

/** The one port that the app has. */
function declaredPort(pod: Pod): number | undefined {
  const ports = appPorts(pod)
  return ports.length === 1 ? ports[0] : undefined
}

function appPorts({ containers }: Pod): number[] {
  const ports = containers
    .filter((container) => !isOfMesh(container))
    .flatMap((container) => container.ports)
    .filter(({ protocol }) => protocol === 'TCP')
    .flatMap(({ containerPort }) => (containerPort === undefined ? [] : [containerPort]))
  return [...new Set(ports)]
}

/** kubectl takes the first container of a pod for the app. */
function defaultContainer({ annotations, containers }: Pod): Record<string, string> {
  const key = 'kubectl.kubernetes.io/default-container'
  const app = containers.find((container) => !isOfMesh(container))
  return annotations?.[key] !== undefined || !app ? {} : { [key]: app.name }
}

/** Is the sidecar in the pod, whoever put it there? */
function hasSidecar(pod: Pod): boolean {
  return [...allContainers(pod)].some(
    ([, { name, ports }]) =>
      name === CONTAINER_NAME && ports.some(({ containerPort }) => containerPort === PORTS.PORT),
  )
}

function* allContainers({ initContainers = [], containers }: Pod): Generator<[path: string, Container]> {
  for (const [i, container] of initContainers.entries()) yield [`/spec/initContainers/${i}`, container]
  for (const [i, container] of containers.entries()) yield [`/spec/containers/${i}`, container]
}

/** Where an annotation is, or would be. */
function annotationPath(pod: Pod, annotation: string): string {
  const there = pod.annotations && Object.hasOwn(pod.annotations, annotation)
  return there ? pointer('metadata', 'annotations', annotation) : '/metadata/annotations'
}
