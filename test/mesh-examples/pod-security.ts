/** The profile `restricted` of Kubernetes' Pod Security Standards, which has all rules of `baseline` in it. */
import { type Action, type Container, containersOf, type Pod, type SecurityContext } from './manifests.ts'

const VOLUMES = [
  'configMap',
  'csi',
  'downwardAPI',
  'emptyDir',
  'ephemeral',
  'persistentVolumeClaim',
  'projected',
  'secret',
]
const SYSCTLS = [
  'kernel.shm_rmid_forced',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.ping_group_range',
  'net.ipv4.ip_local_reserved_ports',
  'net.ipv4.tcp_keepalive_time',
  'net.ipv4.tcp_fin_timeout',
  'net.ipv4.tcp_keepalive_intvl',
  'net.ipv4.tcp_keepalive_probes',
  'net.ipv4.tcp_rmem',
  'net.ipv4.tcp_wmem',
]
const SELINUX_TYPES = ['', 'container_t', 'container_init_t', 'container_kvm_t', 'container_engine_t']
const APPARMOR_ANNOTATION = 'container.apparmor.security.beta.kubernetes.io/'

/** What of a pod breaks the profile, one entry a rule and place; none: it is admitted. */
export function violations({ metadata, spec }: Pod): string[] {
  const found: string[] = []
  for (const name of ['hostNetwork', 'hostPID', 'hostIPC'] as const) if (spec[name]) found.push(name)
  for (const { name, ...source } of spec.volumes ?? []) {
    const types = Object.keys(source)
    if (types.length === 0 || types.some((type) => !VOLUMES.includes(type))) found.push(`volume ${name}`)
  }
  for (const { name } of spec.securityContext?.sysctls ?? [])
    if (!SYSCTLS.includes(name)) found.push(`sysctl ${name}`)
  for (const [name, value] of Object.entries(metadata?.annotations ?? {}))
    if (name.startsWith(APPARMOR_ANNOTATION) && !/^(runtime\/default|localhost\/.*)?$/.test(value))
      found.push(`annotation ${name}`)
  found.push(...ofContext(spec.securityContext ?? {}).map((rule) => `pod: ${rule}`))
  for (const container of containersOf(spec))
    found.push(
      ...ofContainer(container, spec.securityContext ?? {}).map((rule) => `${container.name}: ${rule}`),
    )
  return found
}

/** What pods and containers have in common. */
function ofContext(context: SecurityContext): string[] {
  const { runAsNonRoot, runAsUser, seccompProfile, appArmorProfile, seLinuxOptions, windowsOptions } = context
  const found: string[] = []
  if (runAsNonRoot === false) found.push('runAsNonRoot')
  if (runAsUser === 0) found.push('runAsUser')
  if (seccompProfile && !['RuntimeDefault', 'Localhost'].includes(seccompProfile.type))
    found.push('seccompProfile')
  if (appArmorProfile && !['RuntimeDefault', 'Localhost'].includes(appArmorProfile.type))
    found.push('appArmorProfile')
  const { type = '', user, role } = seLinuxOptions ?? {}
  if (!SELINUX_TYPES.includes(type) || user || role) found.push('seLinuxOptions')
  if (windowsOptions?.hostProcess) found.push('hostProcess')
  return found
}

function ofContainer(container: Container, pod: SecurityContext): string[] {
  const context = container.securityContext ?? {}
  const { capabilities, runAsNonRoot = pod.runAsNonRoot, seccompProfile = pod.seccompProfile } = context
  const found = ofContext(context)
  if (context.privileged) found.push('privileged')
  if (context.allowPrivilegeEscalation !== false) found.push('allowPrivilegeEscalation')
  if (context.procMount !== undefined && context.procMount !== 'Default') found.push('procMount')
  if (!capabilities?.drop?.includes('ALL')) found.push('capabilities dropped')
  if (capabilities?.add?.some((name) => name !== 'NET_BIND_SERVICE')) found.push('capabilities added')
  if (runAsNonRoot === undefined) found.push('runAsNonRoot')
  if (seccompProfile === undefined) found.push('seccompProfile')
  if (container.ports?.some(({ hostPort }) => hostPort)) found.push('hostPort')
  if (actionsOf(container).some(({ httpGet, tcpSocket }) => httpGet?.host || tcpSocket?.host))
    found.push('host of a probe or hook')
  return found
}

function actionsOf({ startupProbe, readinessProbe, livenessProbe, lifecycle }: Container): Action[] {
  const all = [startupProbe, readinessProbe, livenessProbe, lifecycle?.preStop, lifecycle?.postStart]
  return all.filter((action) => action !== undefined)
}
