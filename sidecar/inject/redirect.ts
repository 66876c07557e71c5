/**
 * The transparent mode: what the containers of a pod call at port 80 is led to the outbound port of the sidecar, which
 * routes it by its Host.
 */
import { REDIRECT_GROUP_ID } from './container.ts'
import { pointer } from './json-patch.ts'
import { isOfMesh, positionIn } from './mesh.ts'
import { annotationOf, type Options, PORTS } from './options.ts'
import type { Container, Finding, Pod } from './pod.ts'

export const REDIRECT_CONTAINER_NAME = 'mte-sidecar-redirect'
/** Of the proxies of Istio and Linkerd. */
export const EXEMPT_USERS = [1337, 2102]
/** Of Istio's proxy where it is root, and of the sidecar. */
export const EXEMPT_GROUPS = [1337, REDIRECT_GROUP_ID]
/** Of connections that Istio's ztunnel makes from within a pod. */
const EXEMPT_MARK = '& 0xfff == 0x539'
/** Before the rules of meshes, which are at -100: the first that redirects a connection decides. */
const PRIORITY = -101

/**
 * The rules, as nft(8) takes them: for IPv4 and IPv6, in a table of their own, and all of them or none. Those of before
 * are replaced. What stays in the pod is let be, and so is what the sidecar itself calls, or a mesh's proxy.
 */
export function redirectRules(ports: readonly number[]): string {
  return `table inet mte_sidecar
delete table inet mte_sidecar
table inet mte_sidecar {
  chain output {
    type nat hook output priority ${PRIORITY}; policy accept;
    oif lo return
    meta skuid { ${EXEMPT_USERS.join(', ')} } return
    meta skgid { ${EXEMPT_GROUPS.join(', ')} } return
    meta mark ${EXEMPT_MARK} return
    tcp dport { ${ports.join(', ')} } redirect to :${PORTS.OUTBOUND_PORT}
  }
}
`
}

/** The init container that sets the rules: root, as they are the network's, but with no more power than that. */
export function redirectContainer(options: Options, ports: readonly number[]): object {
  return {
    name: REDIRECT_CONTAINER_NAME,
    image: options['redirect-image'],
    command: ['nft', redirectRules(ports)],
    resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: { memory: '64Mi' } },
    securityContext: {
      runAsNonRoot: false,
      runAsUser: 0,
      runAsGroup: 0,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'], add: ['NET_ADMIN'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
  }
}

/** What would have calls of a container pass by the sidecar, in plain. */
export function* redirectObstacles(pod: Pod, container: Container, path: string): Generator<Finding> {
  const { name, runAsUser = pod.runAsUser, runAsGroup = pod.runAsGroup } = container
  if (name === REDIRECT_CONTAINER_NAME) {
    const text = `the container ${name} must have another name, as the one that redirects calls has this`
    yield { path, text }
  }
  if (isOfMesh(container)) return
  if (runAsUser !== undefined && EXEMPT_USERS.includes(runAsUser)) {
    const text = `the container ${name} must not run as user ${runAsUser}, whose calls are not redirected: it is that of a mesh's proxy`
    yield { path, text }
  }
  if (runAsGroup !== undefined && EXEMPT_GROUPS.includes(runAsGroup)) {
    const text = `the container ${name} must not run as group ${runAsGroup}, whose calls are not redirected: it is that of the sidecar or of a mesh's proxy`
    yield { path, text }
  }
}

/** What the redirection makes of the pod that may come as a surprise. */
export function* redirectDoubts(pod: Pod, options: Options, ports: readonly number[]): Generator<Finding> {
  const redirect = annotationOf('redirect')
  const path = pointer('metadata', 'annotations', redirect)
  const needs = `${redirect} needs an init container that is root and has NET_ADMIN: namespaces with the Pod Security Standards restricted or baseline do not admit the pod`
  yield { path, text: needs }
  if (options.peers === undefined && options['pass-through-hosts'] === undefined) {
    const text = `${redirect} has the sidecar refuse every call, as ${annotationOf('peers')} names no peer`
    yield { path, text }
  }
  const initContainers = pod.initContainers ?? []
  const early = options.native ? initContainers.slice(0, positionIn(initContainers)) : initContainers
  for (const [i, container] of early.entries()) {
    if (isOfMesh(container)) continue
    const text = `the init container ${container.name} runs before the sidecar, and so its calls to port ${ports.join(' or ')} are refused`
    yield { path: `/spec/initContainers/${i}`, text }
  }
}
