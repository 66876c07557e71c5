/**
 * The injector without a server: admission policies by which the API server itself (Kubernetes 1.36 or newer) does what
 * `patchFor` says.
 *
 * The container, the volume, the annotations and the texts of refusals are those that the functions behind `patchFor`
 * give for options that stand for what a pod's annotations say; conditions alone are written here.
 */
import { stringify } from 'yaml'
import { CONTAINER_NAME, gracePeriodSeconds, secretsVolume, sidecarContainer } from '../inject/container.ts'
import { MESH_CONTAINERS, meshAnnotations } from '../inject/mesh.ts'
import { annotationOf, OPTIONS, type OptionName, type Options, PORTS } from '../inject/options.ts'
import { readPod } from '../inject/pod.ts'
import { redirectContainer } from '../inject/redirect.ts'
import { celOf, indented, joined, type Placeholders, text, when } from './cel.ts'
import { missingPort, mistakes } from './policy-refusals.ts'
import { SYSTEM_NAMESPACES } from './review.ts'
import type { RawOptions } from './settings.ts'

const NAME = 'mte-sidecar-injector'
/** Those of the cluster, of what certificates come from, of the meshes and of the injector itself. */
const EXCLUDED_NAMESPACES = [...SYSTEM_NAMESPACES, 'cert-manager', 'istio-system', 'linkerd', 'mte-sidecar']

/** They stand for numbers: no text has them but by that. */
const UPSTREAM_PORT = 4_294_967_291
const REDIRECTED_PORT = 4_294_967_283
const DRAIN_SECONDS = 4_294_967_279
const OTLP = 'http://placeholder-otlp-endpoint'
const REDIS_PORT = 6379
/** A URL of Redis at its usual port, or of several of which one has that. */
const REDIS_URL = `^[^/]*//([^/]*,)?([^/,:]+|\\[[^\\],]*\\])(:${REDIS_PORT})?([,/]|$)`

/** Every option that there is, each of which stands for what it will be. */
const FULL: Options = {
  inject: true,
  'upstream-port': UPSTREAM_PORT,
  peers: 'placeholder-peers',
  'pass-through-hosts': 'placeholder-pass-through-hosts',
  'pass-through-routes': 'placeholder-pass-through-routes',
  name: 'placeholder-name',
  secret: 'placeholder-secret',
  'outbound-token': true,
  redis: { url: 'placeholder-redis-url', ports: [REDIS_PORT], secret: 'placeholder-redis-secret' },
  image: 'placeholder-image',
  redirect: [REDIRECTED_PORT],
  'redirect-image': 'placeholder-redirect-image',
  native: true,
  'log-level': 'placeholder-log-level' as 'info',
  'drain-seconds': DRAIN_SECONDS * 1000,
  cpu: 'placeholder-cpu',
  memory: 'placeholder-memory',
  'memory-limit': 'placeholder-limit-of-memory',
  'otlp-endpoint': `${OTLP}:4317`,
  'admin-host': 'placeholder-admin-host' as '::',
}

const PLACEHOLDERS: Placeholders = new Map([
  [String(UPSTREAM_PORT), variableOf('upstream-port')],
  [
    String(REDIRECTED_PORT),
    `${variableOf('redirect')}.split(",").map(e, string(int(e.trim()))).distinct().join(", ")`,
  ],
  [String(DRAIN_SECONDS), variableOf('drain-seconds')],
  [`${OTLP}:4317`, variableOf('otlp-endpoint')],
  [`${OTLP}:4318`, variableOf('otlp-endpoint')],
  ['placeholder-redis-url', variableOf('redis')],
  ['placeholder-redis-secret', `${variableOf('redis')}.substring(${'secret/'.length})`],
  ['placeholder-limit-of-memory', variableOf('memory-limit')],
  ...Object.entries(FULL).flatMap(([name, value]): [string, string][] =>
    value === `placeholder-${name}` ? [[value, variableOf(name as OptionName)]] : [],
  ),
])

const OPTION_NAMES = Object.keys(OPTIONS) as OptionName[]
/** Without a default, and yet not simply there or not. */
const SPECIAL: OptionName[] = ['upstream-port', 'redis']
const isSet = (name: OptionName) => `${variableOf(name)} != ""`
const isRedisSecret = `${variableOf('redis')}.startsWith("secret/")`
const callsOtlp = (port: number) => `${variableOf('otlp-endpoint')}.matches("^[^/]*//[^/]*:${port}(/|$)")`
/** Conditions, each with the options by which what it is for goes. */
const CONDITIONS: [condition: string, otherwise: Partial<Options>][] = [
  [`${variableOf('upstream-port')} != "none"`, { 'upstream-port': 'none' }],
  ...OPTION_NAMES.filter((name) => OPTIONS[name].default === null && !SPECIAL.includes(name)).map(
    (name): [string, Partial<Options>] => [isSet(name), { [name]: undefined }],
  ),
  [`${variableOf('outbound-token')} == "true"`, { 'outbound-token': false }],
  [`${isSet('redis')} && !${isRedisSecret}`, { redis: { secret: 'placeholder-redis-secret' } }],
  [isRedisSecret, { redis: { url: 'placeholder-redis-url', ports: [] } }],
  [callsOtlp(4317), { 'otlp-endpoint': `${OTLP}:4318` }],
]

/** When a port is called that a mesh is to leave alone. */
const CALLED: Record<string, string> = {
  [REDIS_PORT]: 'variables.callsRedis',
  4317: callsOtlp(4317),
  4318: callsOtlp(4318),
}

/** @returns the manifest of the policies and of their bindings */
export function policyManifest(defaults: RawOptions): string {
  const selection = {
    failurePolicy: 'Fail',
    matchConstraints: {
      namespaceSelector: {
        matchExpressions: [
          { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: EXCLUDED_NAMESPACES },
        ],
      },
      objectSelector: { matchLabels: { [annotationOf('inject')]: 'true' } },
      resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
    },
    matchConditions: [
      {
        name: 'wanted',
        expression: `object.metadata.?annotations[?${text(annotationOf('inject'))}].orValue("") != "false"`,
      },
      { name: 'without-sidecar', expression: withoutSidecar() },
    ],
  }
  const own = variables(defaults)
  const mutating = {
    ...selection,
    reinvocationPolicy: 'IfNeeded',
    variables: own,
    mutations: [{ patchType: 'JSONPatch', jsonPatch: { expression: patch() } }],
  }
  const validating = {
    ...selection,
    variables: own,
    validations: [
      {
        expression: 'false',
        messageExpression:
          'size(variables.refusals) > 0 ? variables.refusals.join("; ") : "the sidecar was not injected: is the MutatingAdmissionPolicy mte-sidecar-injector there, with its binding?"',
      },
    ],
  }
  const documents = [
    policy('MutatingAdmissionPolicy', mutating),
    policy('MutatingAdmissionPolicyBinding', { policyName: NAME }),
    policy('ValidatingAdmissionPolicy', validating),
    policy('ValidatingAdmissionPolicyBinding', { policyName: NAME, validationActions: ['Deny'] }),
  ]
  const comment = [
    '# Made by: mte-sidecar injector --policy',
    '# The first policy injects the sidecar into new pods that are labelled mte.sidecar/inject: "true"; the second denies',
    '# those that cannot have it, and says why. Kubernetes 1.36 or newer.',
  ]
  return [
    comment.join('\n'),
    ...documents.map((document) => stringify(document, { lineWidth: 0, aliasDuplicateObjects: false })),
  ].join('\n---\n')
}

function policy(kind: string, spec: object): object {
  return { apiVersion: 'admissionregistration.k8s.io/v1', kind, metadata: { name: NAME }, spec }
}

function variables(defaults: RawOptions): { name: string; expression: string }[] {
  const declaredPort = 'size(variables.appPorts) == 1 ? variables.appPorts[0] : ""'
  const fallback = (name: OptionName) =>
    name === 'upstream-port' && !defaults[name]
      ? declaredPort
      : text(defaults[name] || (OPTIONS[name].default ?? ''))
  return [
    ['annotations', 'object.metadata.?annotations.orValue({})'],
    ['containers', 'object.spec.?initContainers.orValue([]) + object.spec.containers'],
    [
      'appPorts',
      `object.spec.containers.filter(c, !(c.name in ${text(MESH_CONTAINERS)}))\n` +
        '  .map(c, c.?ports.orValue([]).filter(p, p.protocol == "TCP").map(p, string(p.containerPort)))\n' +
        '  .flatten().distinct()',
    ],
    ...OPTION_NAMES.map((name) => [camelCase(name), optionOf(name, fallback(name))]),
    ['callsRedis', `${isRedisSecret} || ${variableOf('redis')}.matches(${text(REDIS_URL)})`],
    ['mistakes', mistakes(variableOf)],
    ['refusals', `variables.mistakes.size() > 0 ? variables.mistakes : ${missingPort(variableOf)}`],
    ['graceSeconds', graceSeconds()],
    [
      'position',
      `object.spec.?initContainers.orValue([]).map(c, c.name in ${text(MESH_CONTAINERS)}).lastIndexOf(true) + 1`,
    ],
    ...portLists().map(([annotation, ports]) => [camelCase(annotation), morePorts(annotation, ports)]),
  ].map(([name, expression]) => ({ name: name!, expression: expression! }))
}

function optionOf(name: OptionName, fallback: string): string {
  const annotation = text(annotationOf(name))
  const set = `variables.annotations[?${annotation}].orValue("")`
  return fallback === '""' ? set : `${set} != "" ? variables.annotations[${annotation}] : ${fallback}`
}

/** A list of operations: none where the pod cannot have the sidecar, and so is denied by the other policy. */
function patch(): string {
  const add = (path: string, value: string) => `JSONPatch{op: "add", path: ${path}, value: ${value}}`
  const missing = (field: string, path: string, value: string) =>
    when(`!has(${field})`, `[${add(text(path), value)}]`)
  const operations = [
    missing('object.metadata.annotations', '/metadata/annotations', '{}'),
    ...annotationOperations(add),
    when(
      'object.spec.?terminationGracePeriodSeconds.orValue(30) < variables.graceSeconds',
      `[${add(text('/spec/terminationGracePeriodSeconds'), 'variables.graceSeconds')}]`,
    ),
    missing('object.spec.initContainers', '/spec/initContainers', '[]'),
    `[${add('"/spec/initContainers/" + string(variables.position)', sidecar())}]`,
    when(isSet('redirect'), `[${add(text('/spec/initContainers/0'), redirect())}]`),
    missing('object.spec.volumes', '/spec/volumes', '[]'),
    `[${add(text('/spec/volumes/-'), volume())}]`,
  ]
  return `size(variables.refusals) > 0 ? [] :\n${indented(joined(operations))}`
}

function sidecar(): string {
  return written('Object.spec.initContainers', (options) =>
    sidecarContainer(options, options['upstream-port'] ?? 'none'),
  )
}

function redirect(): string {
  return written('Object.spec.initContainers', (options) => redirectContainer(options, [REDIRECTED_PORT]))
}

function volume(): string {
  return written('Object.spec.volumes', secretsVolume)
}

/** What depends on options, as it will be. */
function written(type: string, of: (options: Options) => object): string {
  const others = CONDITIONS.map(([condition, otherwise]) => ({
    condition,
    value: of({ ...FULL, ...otherwise } as Options),
  }))
  return celOf(of(FULL), type, PLACEHOLDERS, others)
}

function annotationOperations(add: (path: string, value: string) => string): string[] {
  return Object.entries(wantedAnnotations()).map(([annotation, value]) => {
    const path = `"/metadata/annotations/" + jsonpatch.escapeKey(${text(annotation)})`
    if (!isPortList(value)) {
      return when(`!(${text(annotation)} in variables.annotations)`, `[${add(path, text(value))}]`)
    }
    const more = `variables.${camelCase(annotation)}`
    const before = `variables.annotations[?${text(annotation)}].orValue("")`
    const whole = `(${before} == "" ? [] : [${before}]) + ${more}`
    return when(`size(${more}) > 0`, `[${add(path, `(${whole}).join(",")`)}]`)
  })
}

/** What a pod without annotations would get, with every port that a mesh is to leave alone. */
function wantedAnnotations(): Record<string, string> {
  const { pod } = readPod({ spec: { containers: [{ name: 'app' }] } })
  const [first, second] = [4317, 4318].map((port) =>
    meshAnnotations(pod, { ...FULL, 'otlp-endpoint': `${OTLP}:${port}` }),
  )
  const entries = Object.entries(first!).map(([annotation, value]) => {
    const ports = isPortList(value) ? `${value},${second![annotation]}`.split(',') : [value]
    return [annotation, [...new Set(ports)].join(',')]
  })
  return Object.fromEntries(entries)
}

function portLists(): [annotation: string, ports: string[]][] {
  return Object.entries(wantedAnnotations())
    .filter(([, value]) => isPortList(value))
    .map(([annotation, value]) => [annotation, value.split(',')])
}

/** The ports that a list such as `4190,5000-5010` lacks. */
function morePorts(annotation: string, ports: readonly string[]): string {
  const entries = `variables.annotations[?${text(annotation)}].orValue("").split(",").map(e, e.trim())`
  const range = '^[0-9]{1,9}(-[0-9]{1,9})?$'
  const covered = (port: string) =>
    `${entries}.exists(e, e.matches(${text(range)}) && int(e.split("-")[0]) <= ${port} && ${port} <= int(e.split("-")[e.split("-").size() - 1]))`
  return joined(
    ports.map((port) => {
      const condition = port === String(PORTS.ADMIN_PORT) ? '' : `${CALLED[port]} && `
      return when(`${condition}!${covered(port)}`, `[${text(port)}]`)
    }),
  )
}

function graceSeconds(): string {
  const spare = gracePeriodSeconds({ ...FULL, 'drain-seconds': 0 })
  const times = gracePeriodSeconds({ ...FULL, 'drain-seconds': 1000 }) - spare
  // Not evaluated where the option is no number.
  const draining = `${times}.0 * double(${variableOf('drain-seconds')})`
  return `int(${draining}) + (double(int(${draining})) < ${draining} ? 1 : 0) + ${spare}`
}

function withoutSidecar(): string {
  const isSidecar = `c.name == ${text(CONTAINER_NAME)} && c.?ports.orValue([]).exists(p, p.containerPort == ${PORTS.PORT})`
  return `!(object.spec.?initContainers.orValue([]) + object.spec.containers).exists(c, ${isSidecar})`
}

function isPortList(value: string): boolean {
  return /^[0-9,]+$/.test(value)
}

/** A variable of the policies for each option, such as `variables.upstreamPort`: '' where it is not set. */
function variableOf(name: OptionName): string {
  return `variables.${camelCase(name)}`
}

function camelCase(name: string): string {
  return name.replace(/[-./]+(.)/g, (_, letter: string) => letter.toUpperCase())
}
