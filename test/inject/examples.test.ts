import assert from 'node:assert/strict'
import { apps, sidecarOf, variablesOf, workloadsOf } from '../mesh-examples/example.ts'
import { suite } from '../support/suite.ts'
import { injected, sidecarIn, variablesOf as variablesIn } from './pods.ts'

const test = suite('the examples, injected')

const workloads = workloadsOf(apps).filter(({ name }) => name !== 'redis')

test('there are two', () => assert.deepEqual(workloads.map(({ name }) => name).sort(), ['billing', 'orders']))

for (const workload of workloads) {
  test(`the sidecar of ${workload.name} is what would be injected, but for how its variables are given`, () => {
    const { pod } = workload
    const example = sidecarOf(workload)
    const variables = variablesOf(workload, example)
    const { initContainers, volumes = [], terminationGracePeriodSeconds, ...spec } = pod.spec
    const annotations = {
      'mte.sidecar/upstream-port': new URL(variables.UPSTREAM!).port,
      'mte.sidecar/peers': variables.PEERS!,
      'mte.sidecar/pass-through-routes': variables.PASS_THROUGH_ROUTES!,
      'mte.sidecar/name': variables.NAME!,
      'mte.sidecar/redis': 'secret/redis',
    }
    const others = volumes.filter(({ name }) => name !== 'mte-sidecar')
    const made = injected({ metadata: { annotations }, spec: { ...spec, volumes: others } })
    const withoutVariables = ({ env, envFrom, ...rest }: typeof example) => rest
    assert.deepEqual(withoutVariables(sidecarIn(made)), withoutVariables(example))
    assert.deepEqual(variablesIn(sidecarIn(made)), variables)
    assert.deepEqual(made.spec.volumes, volumes)
    assert.equal(made.spec.terminationGracePeriodSeconds, terminationGracePeriodSeconds)
    assert.deepEqual(initContainers, [example])
  })
}

test.run()
