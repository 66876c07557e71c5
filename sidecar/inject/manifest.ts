/** What is in a Kubernetes manifest: the pods of its workloads, and the Services that lead to them. */
import type { Operation } from './json-patch.ts'
import { PORTS } from './options.ts'
import { type Finding, isFields, readPod } from './pod.ts'

/** Something in a document of a manifest. */
export interface Resource {
  /** such as `Deployment/orders` */
  title: string
  namespace: string
  /** JSON Pointer to it */
  path: string
  value: Fields
}

/** A pod, or the pod template of a workload. */
interface PodResource extends Resource {
  /** JSON Pointer to the pod or template */
  podPath: string
  pod: unknown
}

/** One that gets a sidecar. */
export interface InjectedPod extends PodResource {
  /** port of its app */
  upstreamPort: number | 'none'
}

type Fields = Readonly<Record<string, unknown>>

const TEMPLATE = ['spec', 'template']
/** Where each kind has its pod, by group and kind. */
const POD_PATHS = new Map<string, readonly string[]>([
  ['/Pod', []],
  ['/ReplicationController', TEMPLATE],
  ['apps/Deployment', TEMPLATE],
  ['apps/StatefulSet', TEMPLATE],
  ['apps/DaemonSet', TEMPLATE],
  ['apps/ReplicaSet', TEMPLATE],
  ['batch/Job', TEMPLATE],
  ['batch/CronJob', ['spec', 'jobTemplate', ...TEMPLATE]],
])

/** The resources of a document, those in its Lists among them. */
export function* resourcesOf(value: unknown, path = ''): Generator<Resource> {
  if (!isFields(value)) return
  if (kindOf(value) === '/List' && Array.isArray(value.items)) {
    for (const [i, item] of value.items.entries()) yield* resourcesOf(item, `${path}/items/${i}`)
    return
  }
  const { name, generateName, namespace } = isFields(value.metadata) ? value.metadata : {}
  const title = `${value.kind}/${name ?? generateName ?? '(no name)'}`
  yield { title, namespace: typeof namespace === 'string' ? namespace : '', path, value }
}

/** The resource as one with a pod; undefined: it is none of a kind that has. */
export function podOf(resource: Resource): PodResource | undefined {
  const way = POD_PATHS.get(kindOf(resource.value) ?? '')
  if (!way) return undefined
  let pod: unknown = resource.value
  for (const key of way) pod = isFields(pod) ? pod[key] : undefined
  return { ...resource, podPath: [resource.path, ...way].join('/'), pod }
}

/** Who makes the resource, and would make it anew: `ReplicaSet/orders-6d946dd645`. */
export function makerOf({ value }: Resource): string | undefined {
  const { ownerReferences } = isFields(value.metadata) ? value.metadata : {}
  const owners: unknown[] = Array.isArray(ownerReferences) ? ownerReferences : []
  const maker = owners.filter(isFields).find(({ controller }) => controller === true)
  return maker && `${maker.kind}/${maker.name}`
}

/**
 * What must be changed of a Service, so that what it leads to the port of an app comes to the sidecar instead.
 * @param injected the pods that are given a sidecar, each with the port of its app
 * @returns nothing for what is no Service of these pods; paths from the Service
 */
export function* serviceChanges(
  { value, namespace }: Resource,
  injected: readonly InjectedPod[],
): Generator<Finding & { operation: Operation | undefined }> {
  const spec = isFields(value.spec) ? value.spec : {}
  if (kindOf(value) !== '/Service' || !isFields(spec.selector)) return
  const selector = Object.entries(spec.selector)
  const selected = injected.filter((pod) => pod.namespace === namespace && isSelected(pod, selector))
  const ports = Array.isArray(spec.ports) ? spec.ports : []
  for (const [i, port] of ports.entries()) {
    const target = isFields(port) ? (port.targetPort ?? port.port) : undefined
    const pod = selected.find((one) => numbersOf(one, target).includes(one.upstreamPort))
    if (!pod || !isFields(port)) continue
    const leads = `port ${port.port} leads to port ${pod.upstreamPort} of ${pod.title}, to the app past its sidecar`
    if (spec.clusterIP === 'None') {
      const text = `${leads}, and as the Service is headless callers choose the port: have peers call port ${PORTS.PORT}`
      yield { path: `/spec/ports/${i}`, text, operation: undefined }
      continue
    }
    const path = `/spec/ports/${i}/targetPort`
    const op = port.targetPort === undefined ? 'add' : 'replace'
    const text = `${leads}: set targetPort: ${PORTS.PORT}, or inject with --services`
    yield { path, text, operation: { op, path, value: PORTS.PORT } }
  }
}

/** Group and kind: the core group has no name. */
function kindOf({ apiVersion, kind }: Fields): string | undefined {
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') return undefined
  const [group, version] = apiVersion.split('/')
  return `${version === undefined ? '' : group}/${kind}`
}

function isSelected({ pod }: PodResource, selector: readonly [string, unknown][]): boolean {
  const metadata = isFields(pod) && isFields(pod.metadata) ? pod.metadata : {}
  const labels = isFields(metadata.labels) ? metadata.labels : {}
  return selector.length > 0 && selector.every(([key, label]) => labels[key] === label)
}

/** The numbers of a targetPort, which may be the name that containers give to a port. */
function numbersOf({ pod }: InjectedPod, target: unknown): unknown[] {
  if (typeof target !== 'string') return [target]
  const ports = readPod(pod).pod.containers.flatMap((container) => container.ports)
  return ports.filter(({ name }) => name === target).map(({ containerPort }) => containerPort)
}
