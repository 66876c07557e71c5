/** Manifests of Kubernetes, as far as tests look at them. */
import { readFileSync } from 'node:fs'
import { parseAllDocuments } from 'yaml'

/** A Pod, or the template of some. */
export interface Pod {
  metadata?: { labels?: Record<string, string>; annotations?: Record<string, string> }
  spec: PodSpec
}

export interface PodSpec {
  automountServiceAccountToken?: boolean
  terminationGracePeriodSeconds?: number
  hostNetwork?: boolean
  hostPID?: boolean
  hostIPC?: boolean
  securityContext?: SecurityContext & { sysctls?: { name: string }[] }
  initContainers?: Container[]
  containers: Container[]
  ephemeralContainers?: Container[]
  volumes?: Volume[]
}

export interface Container {
  name: string
  image: string
  command?: string[]
  restartPolicy?: string
  ports?: { name?: string; containerPort: number; hostPort?: number }[]
  env?: { name: string; value?: string; valueFrom?: object }[]
  envFrom?: { configMapRef?: { name: string }; secretRef?: { name: string } }[]
  startupProbe?: Action
  readinessProbe?: Action
  livenessProbe?: Action
  lifecycle?: { preStop?: Action; postStart?: Action }
  resources?: { requests?: Record<string, string>; limits?: Record<string, string> }
  securityContext?: SecurityContext
  volumeMounts?: { name: string; mountPath: string; readOnly?: boolean; subPath?: string }[]
}

/** A probe, or a hook. */
export interface Action {
  exec?: { command: string[] }
  httpGet?: { path: string; port: number | string; host?: string }
  tcpSocket?: { port: number | string; host?: string }
}

export interface SecurityContext {
  privileged?: boolean
  allowPrivilegeEscalation?: boolean
  readOnlyRootFilesystem?: boolean
  runAsNonRoot?: boolean
  runAsUser?: number
  runAsGroup?: number
  procMount?: string
  capabilities?: { add?: string[]; drop?: string[] }
  seccompProfile?: { type: string }
  appArmorProfile?: { type: string }
  seLinuxOptions?: { type?: string; user?: string; role?: string }
  windowsOptions?: { hostProcess?: boolean }
}

export interface Volume {
  name: string
  configMap?: { name: string }
  secret?: SecretVolume & { secretName: string }
  projected?: { sources: { secret?: SecretVolume & { name: string } }[] }
}

interface SecretVolume {
  items?: { key: string; path: string }[]
}

export interface Manifest {
  apiVersion: string
  kind: string
  metadata: { name: string; namespace?: string; labels?: Record<string, string> }
  data?: Record<string, string>
  spec: {
    replicas?: number
    template?: Pod
    type?: string
    selector?: Record<string, string> & { matchLabels?: Record<string, string> }
    ports?: { name?: string; appProtocol?: string; port: number; targetPort?: number | string }[]
    minAvailable?: number
    podSelector?: { matchLabels?: Record<string, string> }
    policyTypes?: string[]
    ingress?: Rule[]
    egress?: Rule[]
  }
}

/** Of a NetworkPolicy. */
export interface Rule {
  from?: object[]
  to?: object[]
  ports?: { port: number; protocol?: string }[]
}

/** The documents of a file. @throws Error when one of them is no YAML, or has a key twice */
export function readManifests(file: string): Manifest[] {
  return parseManifests(readFileSync(file, 'utf8'))
}

/** The documents of a text. @throws as `readManifests` */
export function parseManifests(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => {
    const [problem] = [...document.errors, ...document.warnings]
    if (problem) throw problem
    return document.toJS()
  })
}

/** All containers of a pod, of each kind. */
export function containersOf({
  initContainers = [],
  containers,
  ephemeralContainers = [],
}: PodSpec): Container[] {
  return [...initContainers, ...containers, ...ephemeralContainers]
}

/** The manifests of a kind. */
export function ofKind(manifests: readonly Manifest[], kind: string): Manifest[] {
  return manifests.filter((manifest) => manifest.kind === kind)
}
