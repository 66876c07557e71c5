/**
 * Why the policies refuse a pod. Conditions are written here; what is said is what `patchFor` says of a pod that meets
 * them. What CEL cannot judge, such as each host in a list of peers, the sidecar refuses as it starts.
 */
import { CONTAINER_NAME, USER_ID, VOLUME_NAME } from '../inject/container.ts'
import { MESH_CONTAINERS } from '../inject/mesh.ts'
import {
  ANNOTATION_PREFIX,
  annotationOf,
  IMAGE,
  IMAGE_CHARACTERS_MAX,
  OPTIONS,
  type OptionName,
  PORTS,
  QUANTITY,
} from '../inject/options.ts'
import { patchFor } from '../inject/patch.ts'
import { EXEMPT_GROUPS, EXEMPT_USERS, REDIRECT_CONTAINER_NAME } from '../inject/redirect.ts'
import { LOG_LEVELS } from '../log.ts'
import { joined, type Placeholders, text, textWith, when } from './cel.ts'

type VariableOf = (name: OptionName) => string
type Annotations = Partial<Record<OptionName, string>>

const REDIRECT: Annotations = { redirect: '80' }
const APP = { name: 'app', ports: [{ containerPort: 3000 }] }
const OWN_PORTS = Object.values(PORTS)
const NAME_PLACEHOLDER = 'placeholder-container'
const SECONDS_MAX = 2_147_483
const ENTRIES: Placeholders = new Map([['entry 1', text('each entry')]])

/**
 * The mistakes in a pod and its annotations, as a list of texts.
 * @param variableOf the variable of an option, as text
 */
export function mistakes(variableOf: VariableOf): string {
  const isRedirected = `${variableOf('redirect')} != ""`
  return joined([unknownAnnotations(), ...optionMistakes(variableOf), ...obstacles(isRedirected)])
}

/** What the pod must say in its annotations, as nothing else of it does: a list of at most one text. */
export function missingPort(variableOf: VariableOf): string {
  const ports = [3000, 9090].map((containerPort) => ({ containerPort }))
  const several = said({}, { containers: [{ ...APP, ports }] })
  const none = said({}, { containers: [{ name: 'app' }] })
  const found = new Map([['3000 and 9090', 'variables.appPorts.join(" and ")']])
  const which = `variables.appPorts.size() == 0 ? ${text(none)} : ${textWith(several, found)}`
  return when(`${variableOf('upstream-port')} == ""`, `[${which}]`)
}

/** What `patchFor` says first of a pod that it refuses. */
function said(annotations: Annotations, spec: object = {}): string {
  const entries = Object.entries(annotations).map(([name, value]) => [`${ANNOTATION_PREFIX}${name}`, value])
  const patch = patchFor({
    metadata: { annotations: Object.fromEntries(entries) },
    spec: { containers: [APP], ...spec },
  })
  if (patch.outcome !== 'refused') throw new Error(`${JSON.stringify({ annotations, spec })} is not refused`)
  return patch.refusals[0]!.text
}

function unknownAnnotations(): string {
  const known = (Object.keys(OPTIONS) as OptionName[]).map(annotationOf)
  const placeholder = 'placeholder' as OptionName
  const what = textWith(said({ [placeholder]: 'x' }), new Map([[annotationOf(placeholder), 'a']]))
  return `variables.annotations.filter(a, a.startsWith(${text(ANNOTATION_PREFIX)}) && !(a in ${text(known)})).map(a, ${what})`
}

function optionMistakes(variableOf: VariableOf): string[] {
  /** A mistake for each option whose condition holds, and which is set; `v` in it stands for its variable. */
  const wrong = (name: OptionName, example: string, condition: string, known = ENTRIES): string => {
    const variable = variableOf(name)
    const own = `(${condition.replaceAll(/\bv\b/g, variable)})`
    return when(`${variable} != "" && ${own}`, `[${textWith(said({ [name]: example }), known)}]`)
  }
  const notOneOf = (name: OptionName, example: string, values: readonly string[]) =>
    wrong(name, example, `!(v in ${text(values)})`)
  const notEach = (name: OptionName, example: string, entry: string) =>
    wrong(name, example, `!v.split(",").all(e, e.trim().matches(${text(entry)}))`)
  const isPort = `v.matches("^[0-9]{1,5}$") && int(v) >= 1 && int(v) <= 65535`
  const isName = (value: string) => `!format.dns1123Subdomain().validate(${value}).hasValue()`
  const isImage = `v.matches(${text(IMAGE.source)}) && v.size() <= ${IMAGE_CHARACTERS_MAX}`
  const isQuantity = `v.matches(${text(QUANTITY.source)}) && quantity(v).isGreaterThan(quantity("0"))`
  const limit = variableOf('memory-limit')
  const memories = ['memory', 'memory-limit'] as const
  const areQuantities = memories
    .map((name) => `(${isQuantity.replaceAll(/\bv\b/g, variableOf(name))})`)
    .join(' && ')
  return [
    notOneOf('inject', 'yes', ['true', 'false']),
    wrong('upstream-port', 'x', `v != "none" && !(${isPort})`),
    wrong(
      'upstream-port',
      '7781',
      `${text(annotationOf('upstream-port'))} in variables.annotations && ${isPort} && int(v) in [${OWN_PORTS}]`,
      new Map([['7781', variableOf('upstream-port')]]),
    ),
    notEach('peers', 'billing', '^[^=\\s]+=https?://[^/?#@\\s]+(/[^?#\\s]*)?$'),
    notEach('pass-through-hosts', 'http://billing', '^[^/@=\\s]+$'),
    notEach('pass-through-routes', '/', "^(/[A-Za-z0-9\\-._~!$&'()*+;=:@]+)+/?$"),
    wrong('name', ' app', 'v.size() > 255 || v.trim() != v || v.matches("[[:cntrl:]]")'),
    wrong('secret', 'My_Secret', `!(${isName('v')})`),
    notOneOf('outbound-token', 'yes', ['true', 'false']),
    wrong('redis', 'secret/Redis', `v.startsWith("secret/") && !(${isName('v.substring(7)')})`),
    wrong('redis', 'redis://:hush@redis', 'v.contains("@")'),
    wrong('redis', 'unix:/run/redis.sock', 'v.startsWith("unix:")'),
    wrong('redis', 'redis', '!v.matches("^(secret/|unix:|rediss?([+](cluster|sentinel))?://)")'),
    wrong('image', 'mte sidecar', `!(${isImage})`),
    wrong('redirect-image', 'mte sidecar', `!(${isImage})`),
    wrong('redirect', 'http', `!v.split(",").all(e, ${isPort.replaceAll('v', 'e.trim()')})`),
    ...[...OWN_PORTS, 443].map((port) =>
      wrong('redirect', String(port), `v.split(",").exists(e, e.trim().matches("^0*${port}$"))`),
    ),
    notOneOf('native', 'yes', ['true', 'false']),
    when(
      `${variableOf('native')} == "false"`,
      `[${text(`${annotationOf('native')} must not be false: a policy makes native sidecars alone, which every Kubernetes that has policies has`)}]`,
    ),
    notOneOf('log-level', 'verbose', LOG_LEVELS),
    wrong(
      'drain-seconds',
      'soon',
      `!(v.matches("^[0-9]{1,7}([.][0-9]{1,3})?$") && double(v) > 0.0 && double(v) < ${SECONDS_MAX + 1}.0)`,
    ),
    ...(['cpu', ...memories] as const).map((name) => wrong(name, 'many', `!(${isQuantity})`)),
    wrong('otlp-endpoint', 'collector:4317', '!v.matches("^https?://[^/?#@]+(/[^?#]*)?$")'),
    notOneOf('admin-host', 'localhost', ['0.0.0.0', '::']),
    when(
      `${variableOf('redis')} != "" && ${variableOf('name')} == ""`,
      `[${text(said({ redis: 'redis://redis' }))}]`,
    ),
    when(
      `${variableOf('redirect')} != "" && ${variableOf('outbound-token')} == "true"`,
      `[${text(said({ ...REDIRECT, 'outbound-token': 'true' }))}]`,
    ),
    when(
      `${areQuantities} && quantity(${variableOf('memory')}).isGreaterThan(quantity(${limit}))`,
      `[${textWith(said({ memory: '1Gi', 'memory-limit': '77Mi' }), new Map([['77Mi', limit]]))}]`,
    ),
  ]
}

function obstacles(isRedirected: string): string[] {
  const os = (key: string) => `object.spec.?nodeSelector[?${text(key)}]`
  const osName = `object.spec.?os.?name.or(${os('kubernetes.io/os')}).or(${os('beta.kubernetes.io/os')}).orValue("")`
  return [
    when('object.spec.?hostNetwork.orValue(false)', `[${text(said({}, { hostNetwork: true }))}]`),
    when(`${osName} == "windows"`, `[${text(said({}, { os: { name: 'windows' } }))}]`),
    `variables.containers.map(c, (${joined(containerObstacles(isRedirected))}).join("; ")).filter(t, t != "")`,
    when(
      `object.spec.?volumes.orValue([]).exists(v, v.name == ${text(VOLUME_NAME)})`,
      `[${text(said({}, { volumes: [{ name: VOLUME_NAME }] }))}]`,
    ),
  ]
}

/** Of a container `c`, and of each of its ports `p`. */
function containerObstacles(isRedirected: string): string[] {
  const known: Placeholders = new Map([
    [NAME_PLACEHOLDER, 'c.name'],
    ['9999', 'string(p.hostPort)'],
  ])
  const isOfApp = `!(c.name in ${text(MESH_CONTAINERS)})`
  const of = (container: object, spec: object = {}, annotations: Annotations = {}) =>
    `[${textWith(said({ 'upstream-port': '3000', ...annotations }, { containers: [{ name: NAME_PLACEHOLDER, ...container }], ...spec }), known)}]`
  const ofPorts = joined([
    ...OWN_PORTS.map((port) => when(`p.containerPort == ${port}`, of({ ports: [{ containerPort: port }] }))),
    when('p.?hostPort.orValue(0) > 0', of({ ports: [{ containerPort: 3000, hostPort: 9999 }] })),
  ])
  const runsAs = (who: string) =>
    `c.?securityContext.?${who}.or(object.spec.?securityContext.?${who}).orValue(-1)`
  const ofRedirect = [
    when(
      `c.name == ${text(REDIRECT_CONTAINER_NAME)}`,
      `[${text(said(REDIRECT, { containers: [APP, { name: REDIRECT_CONTAINER_NAME }] }))}]`,
    ),
    ...EXEMPT_USERS.map((runAsUser) =>
      when(
        `${isOfApp} && ${runsAs('runAsUser')} == ${runAsUser}`,
        of({ securityContext: { runAsUser } }, {}, REDIRECT),
      ),
    ),
    ...EXEMPT_GROUPS.map((runAsGroup) =>
      when(
        `${isOfApp} && ${runsAs('runAsGroup')} == ${runAsGroup}`,
        of({ securityContext: { runAsGroup } }, {}, REDIRECT),
      ),
    ),
  ]
  return [
    when(isRedirected, `(${joined(ofRedirect)})`),
    when(
      `c.name == ${text(CONTAINER_NAME)}`,
      `[${text(said({}, { containers: [APP, { name: CONTAINER_NAME }] }))}]`,
    ),
    `c.?ports.orValue([]).map(p, (${ofPorts}).join("; ")).filter(t, t != "")`,
    when(
      `object.spec.?shareProcessNamespace.orValue(false) && ${runsAs('runAsUser')} == ${USER_ID}`,
      of({ securityContext: { runAsUser: USER_ID } }, { shareProcessNamespace: true }),
    ),
  ]
}
