/** What the API server asks a mutating webhook, and what it is answered: AdmissionReview of admission.k8s.io/v1. */
import { Mistake } from '../formats.ts'
import type { Options } from '../inject/options.ts'
import { type Patch, patchFor } from '../inject/patch.ts'
import { isFields } from '../inject/pod.ts'

/** What became of what a review is about: `left` is what nothing is injected into, such as other kinds than pods. */
export type Outcome = Patch['outcome'] | 'left'

/** A review that is done. */
export interface Reviewed {
  outcome: Outcome
  /** such as `shop/orders-6d946dd645-`; of a pod without a name, as those of a ReplicaSet are, how it will begin */
  title: string
  /** what its user is told: why it is refused, or what there is to say of what is injected */
  messages: string[]
  /** the AdmissionReview to be sent back */
  answer: object
}

type Fields = Readonly<Record<string, unknown>>

const API_VERSION = 'admission.k8s.io/v1'
const KIND = 'AdmissionReview'
/** The cluster's own: what it runs on must start whatever is wrong with the webhook, or with who it is registered for. */
export const SYSTEM_NAMESPACES = ['kube-system', 'kube-public', 'kube-node-lease']
/** As the API server itself calls an object that is not as it should be. */
const INVALID = { code: 422, reason: 'Invalid' }

/**
 * Answers a review: a new pod gets the sidecar, or is denied where it cannot have it; all else is let through as it is.
 * @param body as it was parsed; nothing of its shape is taken for granted
 * @param defaults of options that the pod's annotations do not set
 * @throws Mistake for what is no such review
 */
export function review(body: unknown, defaults: Partial<Options>): Reviewed {
  const request = requestOf(body)
  const { uid } = request
  const title = titleOf(request)
  const answered = (outcome: Outcome, response: Fields, messages: string[] = []): Reviewed => {
    const answer = { apiVersion: API_VERSION, kind: KIND, response: { uid, ...response } }
    return { outcome, title, messages, answer }
  }
  if (!isNewPod(request) || SYSTEM_NAMESPACES.includes(String(request.namespace)))
    return answered('left', { allowed: true })
  const patch = patchFor(request.object, defaults)
  if (patch.outcome === 'refused') {
    const messages = patch.refusals.map(({ text }) => text)
    return answered(
      'refused',
      { allowed: false, status: { ...INVALID, message: messages.join('; ') } },
      messages,
    )
  }
  if (patch.outcome !== 'injected') return answered(patch.outcome, { allowed: true })
  const warnings = patch.warnings.map(({ text }) => `mte-sidecar: ${text}`)
  const response = {
    allowed: true,
    patchType: 'JSONPatch',
    patch: Buffer.from(JSON.stringify(patch.operations)).toString('base64'),
    ...(warnings.length > 0 && { warnings }),
  }
  return answered('injected', response, warnings)
}

function requestOf(body: unknown): Fields & { uid: string } {
  const { apiVersion, kind, request } = isFields(body) ? body : {}
  if (apiVersion !== API_VERSION || kind !== KIND) throw new Mistake(`must be an ${KIND} of ${API_VERSION}`)
  if (!isFields(request) || typeof request.uid !== 'string')
    throw new Mistake('must have a request with a uid')
  return request as Fields & { uid: string }
}

/** Not what changes a pod that is there: its ephemeral containers, its status, its size. */
function isNewPod({ kind, operation, subResource }: Fields): boolean {
  const isPod = isFields(kind) && kind.group === '' && kind.version === 'v1' && kind.kind === 'Pod'
  return isPod && operation === 'CREATE' && !subResource
}

function titleOf({ namespace, name, object }: Fields): string {
  const { metadata } = isFields(object) ? object : {}
  const { name: ownName, generateName } = isFields(metadata) ? metadata : {}
  return `${namespace ?? ''}/${name || ownName || generateName || ''}`
}
