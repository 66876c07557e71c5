/**
 * What service meshes put into pods, and what they must be told so that the sidecar is at home beside them.
 *
 * Both leave loopback alone, so calls between app and sidecar need no word; what comes from the network is theirs first.
 */
import { portOf } from './container.ts'
import { type Options, PORTS } from './options.ts'
import type { Container, Finding, Pod } from './pod.ts'

const ISTIO_PROXY = 'istio-proxy'
/** What Istio and Linkerd put into pods. */
export const MESH_CONTAINERS = [
  'istio-init',
  'istio-validation',
  ISTIO_PROXY,
  'linkerd-init',
  'linkerd-network-validator',
  'linkerd-proxy',
]
const ISTIO_INBOUND = 'traffic.sidecar.istio.io/excludeInboundPorts'
const ISTIO_OUTBOUND = 'traffic.sidecar.istio.io/excludeOutboundPorts'
const ISTIO_NATIVE = 'sidecar.istio.io/nativeSidecar'
const ISTIO_CONFIG = 'proxy.istio.io/config'
const LINKERD_INBOUND = 'config.linkerd.io/skip-inbound-ports'
const LINKERD_OUTBOUND = 'config.linkerd.io/skip-outbound-ports'
const LINKERD_NATIVE = 'config.linkerd.io/proxy-enable-native-sidecar'
/** Redis, and OTLP by gRPC and by HTTP: ports of others than these may be what the app calls its own peers at. */
const NOT_FOR_THE_MESH = [6379, 4317, 4318]

/** Is it a container of a mesh? */
export function isOfMesh({ name }: Container): boolean {
  return MESH_CONTAINERS.includes(name)
}

/** Where the sidecar belongs in a list of containers: behind the mesh's, so that it starts after its proxy and stops before it. */
export function positionIn(containers: readonly Container[]): number {
  return containers.findLastIndex(isOfMesh) + 1
}

/** The annotations by which meshes leave the probes, Redis and the collector alone: those that are missing or say less. */
export function meshAnnotations(pod: Pod, options: Options): Record<string, string> {
  const has = pod.annotations ?? {}
  const outbound = NOT_FOR_THE_MESH.filter((port) => portsCalled(options).includes(port))
  const wanted: Record<string, string | undefined> = {
    [ISTIO_INBOUND]: withPorts(has[ISTIO_INBOUND], [PORTS.ADMIN_PORT]),
    [ISTIO_OUTBOUND]: withPorts(has[ISTIO_OUTBOUND], outbound),
    [LINKERD_INBOUND]: withPorts(has[LINKERD_INBOUND], [PORTS.ADMIN_PORT]),
    [LINKERD_OUTBOUND]: withPorts(has[LINKERD_OUTBOUND], outbound),
    ...(options.native
      ? { [ISTIO_NATIVE]: has[ISTIO_NATIVE] ?? 'true', [LINKERD_NATIVE]: has[LINKERD_NATIVE] ?? 'true' }
      : { [ISTIO_CONFIG]: has[ISTIO_CONFIG] ?? '{"holdApplicationUntilProxyStarts": true}' }),
  }
  return Object.fromEntries(
    Object.entries(wanted).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== has[entry[0]],
    ),
  )
}

/** What a mesh may make of the pod that no annotation can help against by now. */
export function* meshDoubts({ annotations = {}, ...pod }: Pod, options: Options): Generator<Finding> {
  const path = '/metadata/annotations'
  const isIstioThere = [...pod.containers, ...(pod.initContainers ?? [])].some(
    ({ name }) => name === ISTIO_PROXY,
  )
  if (isIstioThere && !covers(annotations[ISTIO_INBOUND] ?? '', PORTS.ADMIN_PORT)) {
    const text = `Istio was injected first, and takes the kubelet's probes of port ${PORTS.ADMIN_PORT} into its proxy, which refuses them where mTLS is STRICT: set ${ISTIO_INBOUND}: "${PORTS.ADMIN_PORT}" before Istio is injected`
    yield { path, text }
  }
  const config = annotations[ISTIO_CONFIG]
  if (!options.native && config !== undefined && !config.includes('holdApplicationUntilProxyStarts')) {
    const text = `${ISTIO_CONFIG} does not say holdApplicationUntilProxyStarts: true, without which the sidecar may start before Istio's proxy`
    yield { path, text }
  }
}

/** The ports at which the sidecar calls others than peers. */
function portsCalled({ redis, 'otlp-endpoint': endpoint }: Options): number[] {
  const ofRedis = !redis ? [] : 'url' in redis ? redis.ports : [6379]
  return [...ofRedis, ...(endpoint === undefined ? [] : [portOf(endpoint)])]
}

/** A list of ports with some more in it; undefined: there is none, and none is needed. */
function withPorts(list: string | undefined, ports: readonly number[]): string | undefined {
  const more = ports.filter((port) => !covers(list ?? '', port))
  return [...(list ? [list] : []), ...more].join(',') || list
}

/** Is a port in a list such as `4190,5000-5010`? */
function covers(list: string, port: number): boolean {
  return list.split(',').some((entry) => {
    const [from = '', to = from] = entry.trim().split('-')
    return /^[0-9]+$/.test(from) && Number(from) <= port && port <= Number(to)
  })
}
