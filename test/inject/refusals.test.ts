import assert from 'node:assert/strict'
import { OPTIONS, type OptionName, readOptions } from '../../sidecar/inject/options.ts'
import { patchFor } from '../../sidecar/inject/patch.ts'
import { suite } from '../support/suite.ts'
import { patchOf, podWith, refusals } from './pods.ts'

const test = suite('refusals of pods')

const port = (fields: object) => ({
  containers: [{ name: 'app', ports: [{ containerPort: 3000, ...fields }] }],
})

for (const [sentence, pod, text] of [
  [
    'on the network of its node',
    podWith({ hostNetwork: true }),
    'spec.hostNetwork must not be true: on the network of the node, all that runs there could use the outbound port',
  ],
  [
    'with a port on its node',
    podWith(port({ hostPort: 80 })),
    'the container app must not have the hostPort 80: calls to it would reach the app past the sidecar',
  ],
  ...[
    [7780, 'OUTBOUND_PORT'],
    [7781, 'PORT'],
    [7782, 'ADMIN_PORT'],
  ].map(
    ([taken, variable]) =>
      [
        `that has the port ${taken}`,
        podWith({
          containers: [{ name: 'app', ports: [{ containerPort: 3000 }, { containerPort: taken }] }],
        }),
        `the container app must have another port than ${taken}, which is the ${variable} of the sidecar`,
      ] as const,
  ),
  [
    'with a container of the name of the sidecar',
    podWith({ initContainers: [{ name: 'mte-sidecar', image: 'example/other:1' }] }),
    'the container mte-sidecar must have another name: it is not the sidecar, as it has no port 7781',
  ],
  [
    'with a volume of the name of its secrets',
    podWith({ volumes: [{ name: 'mte-sidecar', emptyDir: {} }] }),
    'the volume mte-sidecar must have another name, as the sidecar has one of this',
  ],
  [
    'for Windows, by its own field',
    podWith({ os: { name: 'windows' } }),
    'the pod must not be one for Windows: the sidecar runs on Linux',
  ],
  [
    'for Windows, by its node selector',
    podWith({ nodeSelector: { 'kubernetes.io/os': 'windows' } }),
    'the pod must not be one for Windows: the sidecar runs on Linux',
  ],
  [
    'whose app could read the memory of the sidecar',
    podWith({ shareProcessNamespace: true, securityContext: { runAsUser: 65532 } }),
    'the container app must not run as user 65532 where spec.shareProcessNamespace is true: it could read the keys of the sidecar, which is that user',
  ],
  [
    'without containers',
    podWith({ containers: [] }),
    'spec.containers must hold a container: there is no app to stand beside',
  ],
  ['that is none', 'text', 'the pod must be a map'],
  [
    'of which a container has no name',
    podWith({ initContainers: [{}] }),
    'spec.initContainers[0] must have a name',
  ],
  ['of which the volumes are no list', podWith({ volumes: {} }), 'spec.volumes must be a list'],
  [
    'with a number for an annotation',
    podWith({ annotations: { 'mte.sidecar/upstream-port': 3000 as unknown as string } }),
    'the annotation mte.sidecar/upstream-port must be text: write "3000" with its quotes',
  ],
  [
    'whose app has two ports',
    podWith({ containers: [{ name: 'app', ports: [{ containerPort: 3000 }, { containerPort: 9090 }] }] }),
    'the annotation mte.sidecar/upstream-port must say at which port the app listens, as its containers declare 3000 and 9090; or none if it only calls others',
  ],
  [
    'whose app has no port',
    podWith({ containers: [{ name: 'app' }] }),
    'the annotation mte.sidecar/upstream-port must say at which port the app listens, as its containers declare none; or none if it only calls others',
  ],
] as const) {
  test(`a pod ${sentence} is refused`, () =>
    assert.ok(refusals(pod).includes(text), refusals(pod).join('\n')))
}

test('a pod that is to end is refused a sidecar that never does', () => {
  const { options } = readOptions({ native: 'false' })
  for (const restartPolicy of ['Never', 'OnFailure']) {
    const pod = podWith({ restartPolicy })
    assert.match(
      refusals(pod, options).join(),
      /mte.sidecar\/native must not be false where spec.restartPolicy is/,
    )
    assert.equal(patchFor(pod).outcome, 'injected')
  }
})

test('the user of the sidecar may be that of others where they do not see its processes', () => {
  assert.equal(patchFor(podWith({ securityContext: { runAsUser: 65532 } })).outcome, 'injected')
  const { warnings } = patchOf(podWith({ shareProcessNamespace: true, securityContext: { runAsUser: 1000 } }))
  assert.match(warnings[0]!.text, /none of them but the sidecar may run as user 65532/)
})

const WRONG: Record<OptionName, readonly [value: string, what: string][]> = {
  inject: [['yes', 'must be "true" or "false"']],
  'upstream-port': [
    ['0', 'must be a port from 1 to 65535, or none'],
    ['http', 'must be a port from 1 to 65535, or none'],
    ['7781', "must be the port of the app, and not 7781, which is the sidecar's own"],
  ],
  peers: [['billing', 'entry 1 must have the form authority=http://host:port']],
  'pass-through-hosts': [
    [
      'http://example.com',
      'entry 1 must begin with host, host:port or a pattern with one * such as *.shop, without http:// and path',
    ],
  ],
  'pass-through-routes': [
    [
      '/',
      'entry 1 must be a path prefix such as /healthz; / alone would let every call reach the app in plain',
    ],
  ],
  name: [[' app', 'must be 1 to 255 bytes of printable text']],
  secret: [['My_Secret', 'must be the name of a Secret: lower-case letters, digits, - and .']],
  'outbound-token': [['s3cret', 'must be "true" or "false"']],
  redis: [
    [
      'redis://:hush@redis',
      'must be without password: put such a URL into a Secret as REDIS_URL, and name that as secret/NAME',
    ],
    ['unix:/run/redis.sock', 'must be reachable by network: no socket is mounted'],
    ['secret/Redis', 'must be the name of a Secret: lower-case letters, digits, - and .'],
  ],
  image: [['mte sidecar', 'must be an image such as registry.example.com/mte-sidecar:0.1.0']],
  redirect: [
    ['http', 'must be ports from 1 to 65535, comma-separated, such as 80'],
    ['80,', 'must be ports from 1 to 65535, comma-separated, such as 80'],
    ['80,65536', 'must be ports from 1 to 65535, comma-separated, such as 80'],
    ['80, 7781', "must be without 7781, which is the sidecar's own"],
    ['443', 'must be without 443: what an app has encrypted cannot be routed by its Host'],
  ],
  'redirect-image': [['nft image', 'must be an image such as registry.example.com/mte-sidecar:0.1.0']],
  native: [['1.28', 'must be "true" or "false"']],
  'log-level': [['verbose', 'must be one of fatal, error, warn, info, debug, trace, silent']],
  'drain-seconds': [
    ['soon', 'must be a number of seconds such as 5 or 0.5, more than 0 and at most 2147483'],
  ],
  cpu: [['many', 'must be a quantity of Kubernetes such as 50m, more than 0']],
  memory: [
    ['0', 'must be a quantity of Kubernetes such as 96Mi, more than 0'],
    ['1Gi', 'must not be more than mte.sidecar/memory-limit, which is 256Mi'],
  ],
  'memory-limit': [['256MB', 'must be a quantity of Kubernetes such as 256Mi, more than 0']],
  'otlp-endpoint': [['collector:4317', 'must begin with http:// or https://']],
  'admin-host': [['10.0.0.1', 'must be "0.0.0.0" or "::"']],
}

for (const [option, cases] of Object.entries(WRONG)) {
  for (const [value, what] of cases) {
    test(`mte.sidecar/${option}: "${value}" is refused with what would be right`, () => {
      const annotations = { 'mte.sidecar/name': 'app', [`mte.sidecar/${option}`]: value }
      const patch = patchFor(podWith({ annotations }))
      assert.deepEqual(patch.outcome === 'refused' && patch.refusals, [
        { path: `/metadata/annotations/mte.sidecar~1${option}`, text: `mte.sidecar/${option} ${what}` },
      ])
      assert.ok(!JSON.stringify(patch).includes('hush'))
    })
  }
}

test('every option is tried above, and its default is right', () => {
  assert.deepEqual(Object.keys(WRONG), Object.keys(OPTIONS))
})

test('an empty annotation is as good as none', () => {
  const annotations = Object.fromEntries(Object.keys(OPTIONS).map((name) => [`mte.sidecar/${name}`, '']))
  const operations = (pod: unknown) => patchOf(pod).operations.filter(({ path }) => path.startsWith('/spec'))
  assert.deepEqual(operations(podWith({ annotations })), operations(podWith()))
})

test('Redis without a name is refused, as apps that share a name would share pairs', () => {
  const text =
    'mte.sidecar/name must be set beside mte.sidecar/redis: the replicas of one app, and they alone, share a name'
  assert.deepEqual(refusals(podWith({ annotations: { 'mte.sidecar/redis': 'redis://redis' } })), [text])
  assert.deepEqual(refusals(podWith(), readOptions({ redis: 'redis://redis' }).options), [text])
})

test('an annotation that is none of ours in our name is refused, with the one that is meant', () => {
  for (const [wrong, right] of [
    ['upstream_port', 'mte.sidecar/upstream-port is'],
    ['peer', 'mte.sidecar/peers is'],
    ['loglevel', 'mte.sidecar/log-level is'],
    ['zzz', `there are ${Object.keys(OPTIONS).join(', ')}`],
    ['__proto__', `there are ${Object.keys(OPTIONS).join(', ')}`],
  ]) {
    const annotations = JSON.parse(`{"mte.sidecar/${wrong}": "x"}`)
    assert.deepEqual(refusals(podWith({ annotations })), [
      `mte.sidecar/${wrong} is no annotation of mte-sidecar; ${right}`,
    ])
  }
})

test('all mistakes are told at once', () => {
  const annotations = { 'mte.sidecar/peers': 'x', 'mte.sidecar/nonsense': '', 'mte.sidecar/cpu': '-1' }
  const pod = podWith({ annotations, hostNetwork: true, ...port({ hostPort: 80 }) })
  assert.equal(refusals(pod).length, 5)
})

test.run()
