import assert from 'node:assert/strict'
import { suite } from '../support/suite.ts'
import type { Container, Pod, SecurityContext, Volume } from './manifests.ts'
import { violations } from './pod-security.ts'

const test = suite('pod security')

const CONTEXT: SecurityContext = {
  runAsNonRoot: true,
  allowPrivilegeEscalation: false,
  capabilities: { drop: ['ALL'] },
  seccompProfile: { type: 'RuntimeDefault' },
}

/** A pod that is admitted, with changes to its only container. */
function podWith(context: object, container: Partial<Container> = {}): Pod {
  const securityContext = { ...CONTEXT, ...context }
  return { spec: { containers: [{ name: 'app', image: 'app', securityContext, ...container }] } }
}

/** A pod that is admitted, with changes to itself. */
function podOf(spec: Partial<Pod['spec']>, metadata: Pod['metadata'] = {}): Pod {
  return { metadata, spec: { ...podWith({}).spec, ...spec } }
}

const volume = (source: object, name = 'v'): Volume => ({ name, ...source })
const APPARMOR = 'container.apparmor.security.beta.kubernetes.io/app'

const ADMITTED: Record<string, Pod> = {
  'all set for the container': podWith({}),
  'set for the pod': {
    spec: {
      securityContext: { runAsNonRoot: true, seccompProfile: { type: 'Localhost' } },
      containers: [
        {
          name: 'app',
          image: 'app',
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
        },
      ],
    },
  },
  'a user': podWith({ runAsUser: 1 }),
  'the one capability': podWith({ capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] } }),
  volumes: podOf({
    volumes: [volume({ secret: {} }), volume({ emptyDir: {} }, 'w'), volume({ projected: {} }, 'x')],
  }),
  'a safe sysctl': podOf({ securityContext: { sysctls: [{ name: 'net.ipv4.tcp_syncookies' }] } }),
  'profiles of AppArmor and SELinux': podWith({
    appArmorProfile: { type: 'RuntimeDefault' },
    seLinuxOptions: { type: 'container_t' },
  }),
  'an annotation of AppArmor': podOf({}, { annotations: { [APPARMOR]: 'runtime/default' } }),
  'probes of its own address': podWith({}, { livenessProbe: { httpGet: { path: '/', port: 80 } } }),
}

const REFUSED: Record<string, [Pod, ...rules: string[]]> = {
  'nothing set': [
    { spec: { containers: [{ name: 'app', image: 'app' }] } },
    'app: allowPrivilegeEscalation',
    'app: capabilities dropped',
    'app: runAsNonRoot',
    'app: seccompProfile',
  ],
  'the network of the host': [podOf({ hostNetwork: true }), 'hostNetwork'],
  'the processes of the host': [podOf({ hostPID: true }), 'hostPID'],
  'the memory of the host': [podOf({ hostIPC: true }), 'hostIPC'],
  'a folder of the host': [podOf({ volumes: [volume({ hostPath: { path: '/' } })] }), 'volume v'],
  'a volume over the network': [
    podOf({ volumes: [volume({ nfs: { server: 'a', path: '/' } })] }),
    'volume v',
  ],
  'an unsafe sysctl': [
    podOf({ securityContext: { sysctls: [{ name: 'kernel.msgmax' }] } }),
    'sysctl kernel.msgmax',
  ],
  'root for the pod': [podOf({ securityContext: { runAsUser: 0 } }), 'pod: runAsUser'],
  'root for the container': [podWith({ runAsUser: 0 }), 'app: runAsUser'],
  'no user said': [podWith({ runAsNonRoot: undefined }), 'app: runAsNonRoot'],
  'root not forbidden by the container': [podWith({ runAsNonRoot: false }), 'app: runAsNonRoot'],
  'root not forbidden by the pod': [podOf({ securityContext: { runAsNonRoot: false } }), 'pod: runAsNonRoot'],
  privileged: [
    podWith({ privileged: true, allowPrivilegeEscalation: undefined }),
    'app: privileged',
    'app: allowPrivilegeEscalation',
  ],
  escalation: [podWith({ allowPrivilegeEscalation: true }), 'app: allowPrivilegeEscalation'],
  'escalation left open': [podWith({ allowPrivilegeEscalation: undefined }), 'app: allowPrivilegeEscalation'],
  'capabilities kept': [podWith({ capabilities: { drop: ['NET_RAW'] } }), 'app: capabilities dropped'],
  'a capability added': [
    podWith({ capabilities: { drop: ['ALL'], add: ['NET_ADMIN'] } }),
    'app: capabilities added',
  ],
  'no seccomp': [podWith({ seccompProfile: { type: 'Unconfined' } }), 'app: seccompProfile'],
  'seccomp left open': [podWith({ seccompProfile: undefined }), 'app: seccompProfile'],
  'no seccomp for the pod': [
    podOf({ securityContext: { seccompProfile: { type: 'Unconfined' } } }),
    'pod: seccompProfile',
  ],
  'no AppArmor': [podWith({ appArmorProfile: { type: 'Unconfined' } }), 'app: appArmorProfile'],
  'no AppArmor by annotation': [
    podOf({}, { annotations: { [APPARMOR]: 'unconfined' } }),
    `annotation ${APPARMOR}`,
  ],
  'a type of SELinux': [podWith({ seLinuxOptions: { type: 'spc_t' } }), 'app: seLinuxOptions'],
  'a user of SELinux': [
    podOf({ securityContext: { seLinuxOptions: { user: 'system_u' } } }),
    'pod: seLinuxOptions',
  ],
  'all of /proc': [podWith({ procMount: 'Unmasked' }), 'app: procMount'],
  'a process of the host': [podWith({ windowsOptions: { hostProcess: true } }), 'app: hostProcess'],
  'a port of the host': [podWith({}, { ports: [{ containerPort: 80, hostPort: 80 }] }), 'app: hostPort'],
  'a probe of another host': [
    podWith({}, { livenessProbe: { httpGet: { path: '/', port: 80, host: '127.0.0.1' } } }),
    'app: host of a probe or hook',
  ],
  'a hook at another host': [
    podWith({}, { lifecycle: { preStop: { tcpSocket: { port: 80, host: '127.0.0.1' } } } }),
    'app: host of a probe or hook',
  ],
  'an init container': [
    podOf({
      initContainers: [{ name: 'init', image: 'app', securityContext: { ...CONTEXT, runAsUser: 0 } }],
    }),
    'init: runAsUser',
  ],
}

for (const [what, pod] of Object.entries(ADMITTED))
  test(`restricted admits ${what}`, () => assert.deepEqual(violations(pod), []))

for (const [what, [pod, ...rules]] of Object.entries(REFUSED))
  test(`restricted refuses ${what}`, () => assert.deepEqual(violations(pod), rules))

test.run()
