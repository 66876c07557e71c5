/** Pods to inject into: written by hand, made by the injectors of meshes, and by chance. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { parseAllDocuments } from 'yaml'
import { applyPatch } from '../../sidecar/inject/json-patch.ts'
import type { Options } from '../../sidecar/inject/options.ts'
import { type Patch, patchFor } from '../../sidecar/inject/patch.ts'
import type { Container, Pod } from '../mesh-examples/manifests.ts'

/** What became of `app.yaml` in the injectors of Istio 1.31 and Linkerd edge, native sidecars and not. */
export const MESHES = ['istio-native', 'istio-plain', 'linkerd-native', 'linkerd-plain'] as const

/** A manifest in `test/vectors/injected`: `app`, or what a mesh made of it. */
export function fixture(name: string): string {
  return readFileSync(path.join(import.meta.dirname, `../vectors/injected/${name}.yaml`), 'utf8')
}

/** The pod of a Deployment that is the first document of a fixture. */
export function podOfFixture(name: string): Pod {
  return parseAllDocuments(fixture(name))[0]!.toJS().spec.template
}

/** A pod whose app listens at port 3000. */
export function podWith({
  annotations,
  ...spec
}: {
  annotations?: Record<string, string>
  [field: string]: unknown
} = {}) {
  const containers = [{ name: 'app', image: 'example/app:1', ports: [{ containerPort: 3000 }] }]
  return {
    metadata: { labels: { app: 'app' }, ...(annotations && { annotations }) },
    spec: { containers, ...spec },
  }
}

export type Injected = Extract<Patch, { outcome: 'injected' }>

/** @throws Error with the reasons why it is not injected */
export function patchOf(pod: unknown, defaults: Partial<Options> = {}): Injected {
  const patch = patchFor(pod, defaults)
  if (patch.outcome !== 'injected') throw new Error(JSON.stringify(patch))
  return patch
}

export function injected(pod: unknown, defaults: Partial<Options> = {}): Pod {
  return applyPatch(pod, patchOf(pod, defaults).operations) as Pod
}

/** @throws Error when it is not refused */
export function refusals(pod: unknown, defaults: Partial<Options> = {}): string[] {
  const patch = patchFor(pod, defaults)
  if (patch.outcome !== 'refused') throw new Error(`it is not refused, but ${patch.outcome}`)
  return patch.refusals.map(({ text }) => text)
}

export function sidecarIn({ spec }: Pod): Container {
  const found = [...(spec.initContainers ?? []), ...spec.containers].filter(
    ({ name }) => name === 'mte-sidecar',
  )
  if (found.length !== 1) throw new Error(`there are ${found.length} sidecars`)
  return found[0]!
}

export function variablesOf(container: Container): Record<string, string | undefined> {
  return Object.fromEntries((container.env ?? []).map(({ name, value }) => [name, value]))
}

const container = fc.record(
  {
    name: fc.constantFrom(
      'setup',
      'migrate',
      'log-shipper',
      'istio-init',
      'istio-proxy',
      'linkerd-init',
      'linkerd-proxy',
    ),
    image: fc.constant('example/other:1'),
    restartPolicy: fc.constant('Always'),
    args: fc.array(fc.constantFrom('-x', 'yes', '0644', '# none', 'a: b', '', '*'), { maxLength: 3 }),
  },
  { requiredKeys: ['name', 'image'], noNullPrototype: true },
)
const list = <T>(items: fc.Arbitrary<T>) => fc.option(fc.array(items, { maxLength: 3 }))
const annotation = fc.constantFrom<[string, string][]>(
  ['example.com/a', 'x'],
  ['traffic.sidecar.istio.io/excludeInboundPorts', '15020'],
  ['traffic.sidecar.istio.io/excludeInboundPorts', '7782'],
  ['config.linkerd.io/skip-inbound-ports', '4190,7000-8000'],
  ['config.linkerd.io/skip-outbound-ports', '6379'],
  ['config.linkerd.io/proxy-enable-native-sidecar', 'false'],
  ['proxy.istio.io/config', '{}'],
  ['mte.sidecar/peers', 'billing=http://billing'],
  ['mte.sidecar/otlp-endpoint', 'http://collector:4317'],
  ['mte.sidecar/redirect', '80'],
)
const annotations = fc.array(annotation, { maxLength: 4 }).map((entries) => Object.fromEntries(entries))

/** Pods in all the shapes that the sidecar can be injected into, with null and empty collections among them. */
export const anyPod: fc.Arbitrary<object> = fc
  .record({
    metadata: fc.option(
      fc.record(
        { labels: fc.constant({ app: 'app' }), annotations: fc.option(annotations) },
        { requiredKeys: [], noNullPrototype: true },
      ),
    ),
    before: fc.array(container, { maxLength: 2 }),
    after: fc.array(container, { maxLength: 2 }),
    spec: fc.record(
      {
        initContainers: list(container),
        volumes: list(fc.constantFrom<object>({ name: 'data', emptyDir: {} }, { name: 'cache' })),
        terminationGracePeriodSeconds: fc.option(fc.nat({ max: 100 })),
        nodeSelector: fc.constantFrom<object | null>({ disk: 'ssd' }, {}, null),
        serviceAccountName: fc.constant('app'),
      },
      { requiredKeys: [], noNullPrototype: true },
    ),
  })
  .map(({ metadata, before, after, spec }) => {
    const app = { name: 'app', image: 'example/app:1', ports: [{ name: 'http', containerPort: 3000 }] }
    return { metadata, spec: { containers: [...before, app, ...after], ...spec } }
  })
