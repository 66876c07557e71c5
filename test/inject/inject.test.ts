import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type Document, parseAllDocuments, stringify } from 'yaml'
import { inject } from '../../sidecar/inject/inject.ts'
import { patchFor } from '../../sidecar/inject/patch.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'
import { manifestOf, messagesOf, PLAIN } from './manifests.ts'
import { anyPod, fixture, injected, MESHES, podOfFixture, podWith } from './pods.ts'

const test = suite('inject')

/** What it says, where nothing may come out. */
function refused(source: string): string[] {
  const { manifest, messages } = inject(source, 'app.yaml', PLAIN)
  assert.equal(manifest, undefined)
  return messages
}

function valuesOf(source: string): unknown[] {
  const documents = parseAllDocuments(source, { version: '1.1', merge: true }) as Document.Parsed[]
  return documents.map((document) => {
    assert.deepEqual(document.errors, [])
    return document.toJS()
  })
}

/** Every line that went in comes out, in order: nothing was changed but by lines that are new. */
function assertOnlyNewLines(before: string, after: string): void {
  const lines = after.split('\n')
  for (const line of before.split('\n')) {
    const at = lines.indexOf(line)
    assert.ok(at >= 0, `lost, or out of order: ${line}`)
    lines.splice(0, at + 1)
  }
}

const TEMPLATE = { template: podWith() }
const KINDS: [apiVersion: string, kind: string, body: object][] = [
  ['v1', 'Pod', podWith()],
  ['v1', 'ReplicationController', { spec: TEMPLATE }],
  ['apps/v1', 'Deployment', { spec: TEMPLATE }],
  ['apps/v1', 'StatefulSet', { spec: TEMPLATE }],
  ['apps/v1', 'DaemonSet', { spec: TEMPLATE }],
  ['apps/v1', 'ReplicaSet', { spec: TEMPLATE }],
  ['batch/v1', 'Job', { spec: TEMPLATE }],
  ['batch/v1', 'CronJob', { spec: { jobTemplate: { spec: TEMPLATE } } }],
]

for (const [apiVersion, kind, body] of KINDS) {
  test(`a ${kind} gets a sidecar, in YAML, in JSON and in a List`, () => {
    const resource = { apiVersion, kind, ...body }
    const expected = JSON.parse(
      JSON.stringify(resource).replace(
        JSON.stringify(podWith()).slice(1, -1),
        JSON.stringify(injected(podWith())).slice(1, -1),
      ),
    )
    assert.deepEqual(valuesOf(manifestOf(stringify(resource))), [expected])
    assert.deepEqual(JSON.parse(manifestOf(JSON.stringify(resource))), expected)
    const pretty = manifestOf(JSON.stringify(resource, null, 2))
    assert.deepEqual(JSON.parse(pretty), expected)
    assert.match(pretty, /\n {6,}"name": "mte-sidecar",\n/)
    const list = { apiVersion: 'v1', kind: 'List', items: [{ kind: 'Other' }, resource, resource] }
    assert.deepEqual(valuesOf(manifestOf(stringify(list, { aliasDuplicateObjects: false }))), [
      { ...list, items: [{ kind: 'Other' }, expected, expected] },
    ])
  })
}

test('a kind of another group, or one that makes no pods, is left alone', () => {
  const others = [
    { apiVersion: 'example.com/v1', kind: 'Deployment', spec: TEMPLATE },
    { apiVersion: 'v1', kind: 'ConfigMap', data: { pod: 'x' } },
    { apiVersion: 'v1', kind: 'constructor' },
    { kind: 'Pod', spec: {} },
    'text',
  ]
  const source = others.map((other) => stringify(other)).join('---\n')
  assert.equal(manifestOf(source), source)
  assert.deepEqual(messagesOf(source), [
    'app.yaml:1:1: warning: there is no pod here, and no workload that makes any',
  ])
})

test('comments, order, blank lines and unusual writing stay, and what is new comes below what belongs to the old', () => {
  const source = `# Copyright
apiVersion:   v1
kind: Pod
metadata:
    name: "app"   # the app
    annotations: # of ours
        # why
        a: b
        # end of the annotations
    # end of the metadata
spec:
    initContainers:
    # sets up
    - name: setup # first
      args: [ "a",   'b' ]
      # end of setup
    # the containers
    containers:

    -   name: app
        ports:
        -   {containerPort: 0xBB8}
        command: ["sh", "-c", "exec  run"]
        # none yet: env

    # end of the spec
# end of the pod
...
---
# nothing here
---
{apiVersion: v1, kind: Secret, stringData: {a: |2
  odd
}}
`.replace('|2\n  odd\n', 'odd')
  const manifest = manifestOf(source)
  assertOnlyNewLines(source, manifest)
  const lines = manifest.split('\n')
  const around = (line: string) => lines.slice(lines.indexOf(line) - 1, lines.indexOf(line) + 2)
  assert.deepEqual(
    around('    # end of the metadata')[0],
    '        config.linkerd.io/proxy-enable-native-sidecar: "true"',
  )
  assert.equal(
    around('        # end of the annotations')[2],
    '        traffic.sidecar.istio.io/excludeInboundPorts: "7782"',
  )
  assert.deepEqual(around('    # sets up')[2], '    - name: setup # first')
  assert.deepEqual(around('    initContainers:')[2], '    - name: mte-sidecar')
  assert.equal(around('    # end of the spec')[2], '    terminationGracePeriodSeconds: 60')
  assert.equal(around('# end of the pod')[2], '...')
})

for (const [sentence, source, expected] of [
  ['nothing at all', 'annotations:', 'annotations:'],
  ['null', 'annotations: null # none', 'annotations: # none'],
  ['~', 'annotations:   ~', 'annotations:'],
  ['an empty map', 'annotations: {}  # none', 'annotations:  # none'],
] as const) {
  test(`a map that is ${sentence} is filled in block style`, () => {
    const pod = `apiVersion: v1\nkind: Pod\nmetadata:\n  ${source}\nspec:\n  containers:\n  - name: app\n    ports:\n    - containerPort: 3000\n`
    const manifest = manifestOf(pod)
    assert.ok(
      manifest.includes(`\n  ${expected}\n    traffic.sidecar.istio.io/excludeInboundPorts: "7782"\n`),
      manifest,
    )
  })
}

test('a list that is empty, and a number that is null or too low, are replaced', () => {
  const source = stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    ...podWith({ initContainers: [], volumes: null, terminationGracePeriodSeconds: 5 }),
  })
  const manifest = manifestOf(source)
  assert.match(manifest, /\n {2}initContainers:\n {4}- name: mte-sidecar\n/)
  assert.match(manifest, /\n {2}volumes:\n {4}- name: mte-sidecar\n/)
  assert.match(manifest, /\n {2}terminationGracePeriodSeconds: 60\n/)
  assert.match(
    manifestOf(source.replace('Seconds: 5', 'Seconds:')),
    /\n {2}terminationGracePeriodSeconds: 60\n/,
  )
})

test('an annotation that is added to is replaced in place, in whatever style it was', () => {
  for (const written of ['"15020"', "'15020'", '|-\n    15020', '>-\n    15020', '!!str 15020']) {
    const source = `apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n   traffic.sidecar.istio.io/excludeInboundPorts: ${written}\n   a: b\nspec: {containers: [{name: app, ports: [{containerPort: 3000}]}]}\n`
    const [pod] = valuesOf(manifestOf(source)) as [{ metadata: { annotations: Record<string, string> } }]
    assert.equal(
      pod.metadata.annotations['traffic.sidecar.istio.io/excludeInboundPorts'],
      '15020,7782',
      written,
    )
    assert.equal(pod.metadata.annotations.a, 'b')
  }
})

test('Windows line ends, tabs, a byte order mark and an end without line end stay', () => {
  const yaml = stringify({ apiVersion: 'v1', kind: 'Pod', ...podWith() })
  const windows = manifestOf(yaml.replaceAll('\n', '\r\n'))
  assert.equal(windows, manifestOf(yaml).replaceAll('\n', '\r\n'))
  const marked = manifestOf(`\uFEFF${yaml}`)
  assert.equal(marked, `\uFEFF${manifestOf(yaml)}`)
  const open = manifestOf(yaml.trimEnd())
  assert.equal(open, manifestOf(yaml).trimEnd())
  const tabs = JSON.stringify({ apiVersion: 'v1', kind: 'Pod', ...podWith({ volumes: [] }) }, null, '\t')
  assert.equal(manifestOf(tabs), JSON.stringify(JSON.parse(manifestOf(tabs)), null, '\t'))
})

test('what the injectors of meshes made is only added to, and a second time nothing is', () => {
  for (const mesh of MESHES) {
    const source = fixture(mesh)
    const manifest = manifestOf(source)
    assertOnlyNewLines(source, manifest)
    const [deployment] = valuesOf(manifest) as [{ spec: { template: unknown } }]
    assert.deepEqual(deployment.spec.template, injected(podOfFixture(mesh)))
    assert.equal(manifestOf(manifest), manifest)
    assert.match(
      messagesOf(manifest).join('\n'),
      /^app.yaml:\d+:3: Deployment\/orders: it has a sidecar, and is left as it is$/,
    )
  }
})

test('what a controller makes is left to that, which is where the sidecar belongs', () => {
  const ownerReferences = [
    { kind: 'Node', name: 'n' },
    { kind: 'ReplicaSet', name: 'app-6d9', controller: true },
  ]
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'app-6d9-x', ownerReferences },
    spec: podWith().spec,
  }
  const source = stringify(pod)
  assert.equal(manifestOf(source), source)
  assert.deepEqual(messagesOf(source), [
    'app.yaml:1:1: Pod/app-6d9-x: it is made by ReplicaSet/app-6d9, and is left to that',
  ])
})

test('any pod in any style becomes what its patch says, and every comment and line stays', () => {
  const style = fc.record({
    indent: fc.constantFrom(2, 3, 4),
    indentSeq: fc.boolean(),
    isOpen: fc.boolean(),
    isWindows: fc.boolean(),
    comments: fc.array(fc.tuple(fc.nat(60), fc.nat(10)), { maxLength: 8 }),
  })
  fc.assert(
    fc.property(anyPod, style, (pod, { indent, indentSeq, isOpen, isWindows, comments }) => {
      const lines = stringify(
        { apiVersion: 'v1', kind: 'Pod', ...pod },
        { version: '1.1', indent, indentSeq, lineWidth: 0 },
      )
        .trimEnd()
        .split('\n')
      for (const [i, [at, column]] of comments.entries()) {
        lines.splice(at % (lines.length + 1), 0, `${' '.repeat(column)}# ${i}`, '')
      }
      const end = isWindows ? '\r\n' : '\n'
      const source = lines.join(end) + (isOpen ? '' : end)
      const manifest = manifestOf(source)
      assert.deepEqual(valuesOf(manifest), [injected(valuesOf(source)[0])])
      const isComment = (line: string) => line.trim().startsWith('#')
      assert.deepEqual(manifest.split(end).filter(isComment), lines.filter(isComment))
      assert.equal(manifest.endsWith(end), source.endsWith(end))
      assert.equal(manifestOf(manifest), manifest)
    }),
    runs(150),
  )
})

test('any pod in JSON becomes JSON, in the style in which it was', () => {
  fc.assert(
    fc.property(anyPod, fc.constantFrom(undefined, 2, 4, '\t'), (pod, indent) => {
      const source = JSON.stringify({ apiVersion: 'v1', kind: 'Pod', ...pod }, null, indent)
      const manifest = manifestOf(source)
      assert.deepEqual(JSON.parse(manifest), injected(JSON.parse(source)))
      const flow = stringify(JSON.parse(source), { version: '1.1', collectionStyle: 'flow' })
      assert.deepEqual(valuesOf(manifestOf(flow)), [injected(JSON.parse(source))])
    }),
    runs(200),
  )
})

test('other documents stay byte for byte, whatever is in them', () => {
  const before = '# first\n{ "a":1 ,b: [ ] }\n'
  const after = "---   # last\nx: !custom\n  - >+\n    folded\n\n\n  - 'it''s'\n\n"
  const pod = stringify({ apiVersion: 'v1', kind: 'Pod', ...podWith() })
  const manifest = manifestOf(`${before}---\n${pod}${after}`)
  assert.equal(manifest, `${before}---\n${manifestOf(pod)}${after}`)
})

test('what is refused is refused with file, line and column, all of it at once, and nothing comes out', () => {
  const source = `${stringify({ apiVersion: 'v1', kind: 'Pod', ...podWith() })}---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders}
spec:
  template:
    metadata:
      annotations:
        mte.sidecar/upstream-port: 3000
        mte.sidecar/peer: "billing=http://billing"
    spec:
      hostNetwork: true
      containers:
      - name: app
        ports: [{containerPort: 3000, hostPort: 80}]
---
apiVersion: v1
kind: Pod
metadata: {generateName: web-}
spec:
  hostNetwork: true
  containers: [{name: app, ports: [{containerPort: 3000}]}]
`
  assert.deepEqual(refused(source), [
    'app.yaml:20:9: Deployment/orders: the annotation mte.sidecar/upstream-port must be text: write "3000" with its quotes',
    'app.yaml:21:9: Deployment/orders: mte.sidecar/peer is no annotation of mte-sidecar; mte.sidecar/peers is',
    'app.yaml:23:7: Deployment/orders: spec.hostNetwork must not be true: on the network of the node, all that runs there could use the outbound port',
    'app.yaml:26:17: Deployment/orders: the container app must not have the hostPort 80: calls to it would reach the app past the sidecar',
    'app.yaml:32:3: Pod/web-: spec.hostNetwork must not be true: on the network of the node, all that runs there could use the outbound port',
  ])
})

for (const [sentence, source, message] of [
  ['that is no YAML', 'a: b: c\n', /^app.yaml:1:\d+: Nested mappings are not allowed/],
  ['that has a key twice', 'a: 1\nb: 2\na: 3\n', /^app.yaml:3:1: Map keys must be unique/],
  ['with an alias of nothing', 'a: *none\n', /^app.yaml:1:\d: .*none/],
  [
    'whose pod is an alias',
    'x: &pod\n  spec: {containers: [{name: app, ports: [{containerPort: 3000}]}]}\napiVersion: apps/v1\nkind: Deployment\nspec:\n  template: *pod\n',
    /^app.yaml:6:13: template is the alias \*pod: write it out here$/,
  ],
  [
    'whose containers come from elsewhere',
    'x: &spec\n  initContainers: [{name: setup}]\napiVersion: v1\nkind: Pod\nspec:\n  <<: *spec\n  containers: [{name: app, ports: [{containerPort: 3000}]}]\n',
    /^app.yaml:\d+:\d+: initContainers comes from an anchor, by <<: write it out here$/,
  ],
  [
    'of which a part is used elsewhere too',
    'apiVersion: apps/v1\nkind: Deployment\nx: &volumes\n- name: data\nspec:\n  template:\n    spec:\n      volumes: &v\n      - name: data\n      containers: [{name: app, ports: [{containerPort: 3000}]}]\ny: *v\n',
    /^app.yaml:\d+:\d+: this cannot be edited in place: write it without anchors/,
  ],
] as const) {
  test(`a manifest ${sentence} is refused`, () => {
    const messages = refused(source)
    assert.equal(messages.length, 1, messages.join('\n'))
    assert.match(messages[0]!, message)
  })
}

test('options on a workload instead of its pods are refused, as they would say nothing', () => {
  const deployment = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'app', annotations: { 'mte.sidecar/inject': 'false' } },
    spec: TEMPLATE,
  }
  assert.deepEqual(refused(stringify(deployment)), [
    'app.yaml:6:5: Deployment/app: mte.sidecar/inject must be an annotation of the pod template, beside its labels',
  ])
})

test('a manifest of nothing is one with nothing in it', () => {
  for (const source of ['', '\n', '# none\n', '---\n---\n']) {
    assert.equal(manifestOf(source), source)
    assert.equal(messagesOf(source).length, 1)
  }
})

test('a pod of whom the patch says nothing is not touched', () => {
  const pod = podWith({ annotations: { 'mte.sidecar/inject': 'false' } })
  assert.equal(patchFor(pod).outcome, 'not-wanted')
  const source = stringify({ apiVersion: 'v1', kind: 'Pod', ...pod })
  assert.equal(manifestOf(source), source)
  assert.deepEqual(messagesOf(source), [])
})

test.run()
