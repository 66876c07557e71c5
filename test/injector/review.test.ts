import assert from 'node:assert/strict'
import fc from 'fast-check'
import { applyPatch } from '../../sidecar/inject/json-patch.ts'
import { readOptions } from '../../sidecar/inject/options.ts'
import { review } from '../../sidecar/injector/review.ts'
import { anyPod, injected, podOfFixture, podWith } from '../inject/pods.ts'
import { runs } from '../support/fuzz.ts'
import { operationsIn, type ReviewAnswer, reviewOf } from '../support/injector.ts'
import { suite } from '../support/suite.ts'

const test = suite('reviews')

function answerTo(body: unknown): ReviewAnswer['response'] {
  return (review(body, {}).answer as ReviewAnswer).response
}

test('a new pod becomes what patchFor says', () => {
  const { response, ...head } = review(reviewOf(podWith()), {}).answer as ReviewAnswer
  assert.deepEqual(head, { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' })
  const { uid, allowed, patchType } = response
  assert.deepEqual([uid, allowed, patchType], ['a3f1c7de-0b52-4b6e-9a60-2f1f1e0a5f11', true, 'JSONPatch'])
  assert.deepEqual(applyPatch(podWith(), operationsIn({ response })), injected(podWith()))
})

test('whatever a pod is like, what comes out is what patchFor says, and is left alone when it is reviewed again', () => {
  fc.assert(
    fc.property(anyPod, (pod) => {
      const after = applyPatch(pod, operationsIn({ response: answerTo(reviewOf(pod)) }))
      assert.deepEqual(after, injected(pod))
      assert.deepEqual(answerTo(reviewOf(after)), { uid: answerTo(reviewOf(pod)).uid, allowed: true })
    }),
    runs(200),
  )
})

test('options of the injector count where the pod says nothing', () => {
  const { options } = readOptions({ secret: 'shared', 'log-level': 'debug' })
  const { answer } = review(reviewOf(podWith()), options)
  const after = applyPatch(podWith(), operationsIn(answer as ReviewAnswer))
  assert.deepEqual(after, injected(podWith(), options))
})

test('what it does not change is let through without a patch', () => {
  const sidecar = injected(podWith())
  const leaves: [string, object][] = [
    ['has-it', reviewOf(sidecar)],
    ['not-wanted', reviewOf(podWith({ annotations: { 'mte.sidecar/inject': 'false' } }))],
    ['left', reviewOf(podWith(), { operation: 'UPDATE', subResource: 'ephemeralcontainers' })],
    ['left', reviewOf(podWith(), { operation: 'UPDATE' })],
    ['left', reviewOf(podWith(), { operation: 'CREATE', subResource: 'binding' })],
    ['left', reviewOf(null, { operation: 'DELETE' })],
    ['left', reviewOf({ spec: {} }, { kind: { group: 'apps', version: 'v1', kind: 'Deployment' } })],
    ['left', reviewOf({ spec: {} }, { kind: { group: 'example.com', version: 'v1', kind: 'Pod' } })],
  ]
  for (const [outcome, body] of leaves) {
    const reviewed = review(body, {})
    assert.equal(reviewed.outcome, outcome)
    const { uid, ...said } = (reviewed.answer as ReviewAnswer).response
    assert.deepEqual(said, { allowed: true }, `${outcome} ${uid}`)
  }
})

test('what the cluster runs on is never refused, and never touched', () => {
  for (const namespace of ['kube-system', 'kube-public', 'kube-node-lease']) {
    const { allowed, patch } = answerTo(reviewOf(podWith({ hostNetwork: true }), { namespace }))
    assert.deepEqual([allowed, patch], [true, undefined])
  }
  assert.equal(answerTo(reviewOf(podWith({ hostNetwork: true }))).allowed, false)
})

test('a pod that cannot have the sidecar is denied with every reason there is, and without a patch', () => {
  const annotations = { 'mte.sidecar/log-level': 'verbose' }
  const { outcome, answer } = review(reviewOf(podWith({ hostNetwork: true, annotations })), {})
  const { uid, ...said } = (answer as ReviewAnswer).response
  assert.equal(outcome, 'refused')
  assert.deepEqual(said, {
    allowed: false,
    status: {
      code: 422,
      reason: 'Invalid',
      message:
        'mte.sidecar/log-level must be one of fatal, error, warn, info, debug, trace, silent; spec.hostNetwork must not be true: on the network of the node, all that runs there could use the outbound port',
    },
  })
})

test('doubts about a pod are warnings to its user, short enough for the API server', () => {
  const bare = podOfFixture('istio-native')
  delete bare.metadata!.annotations
  const { warnings } = answerTo(reviewOf(bare))
  assert.equal(warnings?.length, 1)
  assert.match(warnings![0]!, /^mte-sidecar: Istio was injected first, /)
  assert.ok(warnings![0]!.length <= 256)
})

test('a pod without a name is told by how it begins, and by the namespace of the request', () => {
  const titles = [
    reviewOf({ ...podWith(), metadata: { generateName: 'orders-6d946dd645-' } }),
    reviewOf({ ...podWith(), metadata: { name: 'orders', namespace: 'other' } }),
    reviewOf(podWith(), { name: 'orders-0' }),
    reviewOf(podWith(), { namespace: undefined }),
  ].map((body) => review(body, {}).title)
  assert.deepEqual(titles, ['shop/orders-6d946dd645-', 'shop/orders', 'shop/orders-0', '/'])
})

test('what is no review is a mistake', () => {
  const wrong: [unknown, RegExp][] = [
    [null, /^must be an AdmissionReview of admission\.k8s\.io\/v1$/],
    [[], /^must be an AdmissionReview/],
    [{ ...reviewOf(podWith()), apiVersion: 'admission.k8s.io/v1beta1' }, /^must be an AdmissionReview/],
    [{ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' }, /^must have a request with a uid$/],
    [reviewOf(podWith(), { uid: 7 }), /^must have a request with a uid$/],
  ]
  for (const [body, message] of wrong) assert.throws(() => review(body, {}), { name: 'Error', message })
})

test('nonsense in place of a pod is denied', () => {
  for (const object of [null, 'text', [], { spec: 'text' }, { spec: { containers: {} } }]) {
    const { allowed, status } = answerTo(reviewOf(object))
    assert.deepEqual([allowed, status?.code], [false, 422], JSON.stringify(object))
  }
})

test.run()
