/** The sidecar as a container, and what the pod must have for it. */
import { type Options, PORTS } from './options.ts'

export const CONTAINER_NAME = 'mte-sidecar'
export const VOLUME_NAME = 'mte-sidecar'
/** Not one that a mesh lets pass its proxy: 1337 (Istio), 2102 (Linkerd), 5995 and 5996 (Consul). */
export const USER_ID = 65532
/**
 * The group of a sidecar that calls are redirected to, by which its own are told from those: its user is the one that
 * many an app's image has, too.
 */
export const REDIRECT_GROUP_ID = 7780

const SECRETS_PATH = '/run/secrets/mte-sidecar'
/** What is left of the grace period when both times for open calls are over, in seconds. */
const SPARE_SECONDS = 10

/** The container: a native sidecar, which is an init container that stays, or one beside the app's. */
export function sidecarContainer(options: Options, upstreamPort: number | 'none'): object {
  return {
    name: CONTAINER_NAME,
    image: options.image,
    ...(options.native ? { restartPolicy: 'Always' } : {}),
    env: Object.entries(environment(options, upstreamPort)).map(([name, value]) => ({ name, value })),
    ports: [
      { name: 'http-mte', containerPort: PORTS.PORT },
      { name: 'mte-admin', containerPort: PORTS.ADMIN_PORT },
    ],
    // exec, as Istio would send any other probe through its own proxy, which is not there yet.
    startupProbe: {
      exec: { command: ['mte-sidecar', 'healthcheck'] },
      periodSeconds: 1,
      timeoutSeconds: 5,
      failureThreshold: 120,
    },
    readinessProbe: {
      httpGet: { path: '/readyz', port: PORTS.ADMIN_PORT },
      periodSeconds: 5,
      timeoutSeconds: 2,
    },
    livenessProbe: {
      httpGet: { path: '/livez', port: PORTS.ADMIN_PORT },
      initialDelaySeconds: 10,
      timeoutSeconds: 5,
    },
    lifecycle: { preStop: { exec: { command: ['mte-sidecar', 'drain'] } } },
    resources: {
      requests: { cpu: options.cpu, memory: options.memory },
      limits: { memory: options['memory-limit'] },
    },
    securityContext: {
      runAsNonRoot: true,
      runAsUser: USER_ID,
      runAsGroup: options.redirect ? REDIRECT_GROUP_ID : USER_ID,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumeMounts: [{ name: VOLUME_NAME, mountPath: SECRETS_PATH, readOnly: true }],
  }
}

/** The volume with the secrets, as files: so a changed one is taken over without a restart. */
export function secretsVolume({ secret, redis }: Options): object {
  const sources: object[] = [{ secret: { name: secret } }]
  if (redis && 'secret' in redis) {
    const items = [{ key: 'REDIS_URL', path: 'REDIS_URL' }]
    sources.push({ secret: { name: redis.secret, items } })
  }
  return { name: VOLUME_NAME, projected: { sources } }
}

/** How long the pod must be given to stop: the sidecar drains before the app stops, and once more after it. */
export function gracePeriodSeconds(options: Options): number {
  return Math.ceil((2 * options['drain-seconds']) / 1000) + SPARE_SECONDS
}

function environment(options: Options, upstreamPort: number | 'none'): Record<string, string> {
  const { peers, name, redis } = options
  const endpoint = options['otlp-endpoint']
  const variables = {
    UPSTREAM: upstreamPort === 'none' ? undefined : `http://127.0.0.1:${upstreamPort}`,
    PEERS: peers,
    PASS_THROUGH_HOSTS: options['pass-through-hosts'],
    PASS_THROUGH_ROUTES: options['pass-through-routes'],
    NAME: name,
    ...PORTS,
    ADMIN_HOST: options['admin-host'],
    ...filesOf('CLIENT_ID_SECRET'),
    ...(options['outbound-token'] ? filesOf('OUTBOUND_TOKEN') : {}),
    REDIS_URL: redis && 'url' in redis ? redis.url : undefined,
    REDIS_URL_FILE: redis && 'secret' in redis ? `${SECRETS_PATH}/REDIS_URL` : undefined,
    DRAIN_SECONDS: options['drain-seconds'] / 1000,
    LOG_LEVEL: options['log-level'],
    OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
    OTEL_EXPORTER_OTLP_PROTOCOL: endpoint && portOf(endpoint) === 4317 ? 'grpc' : undefined,
  }
  return Object.fromEntries(
    Object.entries(variables).flatMap(([variable, value]) =>
      value === undefined ? [] : [[variable, String(value)]],
    ),
  )
}

/** Where a secret is, and the one before it, which need not be there. */
function filesOf(secret: string): Record<string, string> {
  return {
    [`${secret}_FILE`]: `${SECRETS_PATH}/${secret}`,
    [`${secret}_PREVIOUS_FILE`]: `${SECRETS_PATH}/${secret}_PREVIOUS`,
  }
}

/** The port that a base URL names; 0: the one of its scheme. */
export function portOf(url: string): number {
  return Number(new URL(url).port)
}
