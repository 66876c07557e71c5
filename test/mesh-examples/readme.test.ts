/** The texts that README gives for copying, one for each way to deploy: they parse, and the sidecar starts with them. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parse } from 'yaml'
import { loadConfig } from '../../sidecar/config.ts'
import { SECRET } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import { IMAGE } from './example.ts'
import { type Manifest, ofKind, parseManifests } from './manifests.ts'

const test = suite('ways to deploy')
const readme = readFileSync(path.join(import.meta.dirname, '../../README.md'), 'utf8')

/** What `keygen` prints. */
const KEYS = { CLIENT_ID_SECRET: SECRET, OUTBOUND_TOKEN: 'a-token-for-tests' }
const UPSTREAM = 'https://api.my-company.com'

interface ComposeFile {
  services: Record<string, { image: string; ports?: string[]; environment?: Record<string, string> }>
}

/** The blocks of code in a section, with what people put in place of `__YOUR_…__`. */
function blocksOf(section: string): string[] {
  const text = readme.split(`\n### ${section}\n`)[1]?.split(/\n##+ /)[0] ?? ''
  const blocks = text.match(/(?:^ {4}.*\n|^\n(?= {4}))+/gm) ?? []
  return blocks.map((block) =>
    block
      .replaceAll(/^ {4}/gm, '')
      .replaceAll('__YOUR_UPSTREAM_URL__', UPSTREAM)
      .replaceAll('__YOUR_NAME__', 'my-app')
      .trim(),
  )
}

/** The block that has this text in it. */
function blockOf(section: string, word: string): string {
  return blocksOf(section).find((block) => block.includes(word)) ?? assert.fail(`README has no ${section}`)
}

/** Checks that these variables start what is at a port, for an app that is called. */
function assertStarts(variables: Record<string, string>, port: number): void {
  const { config, warnings } = loadConfig({ ...KEYS, ...variables })
  assert.deepEqual([config.port, config.upstream, warnings], [port, UPSTREAM, []])
}

test('docker run: the variables and the port are right, and no secret is in its command line', () => {
  const command = blockOf('docker run', '--name')
  const variables = [...command.matchAll(/ -e ([A-Z_]+)=(\S+)/g)].map(([, name, value]) => [name, value])
  assertStarts(Object.fromEntries(variables), Number(/ -p \d+:(\d+) /.exec(command)![1]))
  assert.match(command, new RegExp(` ${IMAGE}$`))
  assert.doesNotMatch(command, /SECRET|TOKEN/)
  assert.equal(/ > (\S+)$/.exec(blockOf('docker run', 'keygen'))![1], / --env-file (\S+) /.exec(command)![1])
})

test('Compose: the variables, the port and Redis are right', () => {
  const { services }: ComposeFile = parse(blockOf('Compose', 'services:'))
  const { image, ports, environment } = services['mte-sidecar']!
  assert.equal(image, IMAGE)
  assertStarts(environment!, Number(ports![0]!.split(':')[1]))
  assert.deepEqual(environment!.REDIS_URL, 'redis://redis:6379')
  assert.ok(services.redis)
})

test('Kubernetes: two replicas behind a Service, with Redis, and no secret in the manifest', () => {
  const manifests = parseManifests(blockOf('Kubernetes', 'kind: Deployment'))
  assert.deepEqual(
    manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`),
    ['Deployment mte-sidecar', 'Service mte-sidecar', 'Deployment redis', 'Service redis'],
  )
  const [relay] = ofKind(manifests, 'Deployment')
  const [container] = relay!.spec.template!.spec.containers
  assert.deepEqual([relay!.spec.replicas, container!.image], [2, IMAGE])
  const variables = container!.env!.map(({ name, value }) => [name, value!])
  assertStarts(Object.fromEntries(variables), targetPort(manifests, 'mte-sidecar'))
  assert.equal(targetPort(manifests, 'redis'), 6379)
  assert.match(
    blockOf('Kubernetes', 'create secret'),
    new RegExp(` ${container!.envFrom![0]!.secretRef!.name} `),
  )
})

test('the relay of the Kubernetes text has the time to drain', () => {
  const manifests = parseManifests(blockOf('Kubernetes', 'kind: Deployment'))
  const { terminationGracePeriodSeconds } = ofKind(manifests, 'Deployment')[0]!.spec.template!.spec
  assert.ok(terminationGracePeriodSeconds! * 1000 >= 2 * loadConfig(KEYS).config.drainMs + 10_000)
})

/** Where a Service leads, if that is a Deployment of the same labels. */
function targetPort(manifests: readonly Manifest[], name: string): number {
  const [service] = ofKind(manifests, 'Service').filter(({ metadata }) => metadata.name === name)
  const [deployment] = ofKind(manifests, 'Deployment').filter(({ metadata }) => metadata.name === name)
  assert.deepEqual(service!.spec.selector, deployment!.spec.template!.metadata!.labels)
  return Number(service!.spec.ports![0]!.targetPort)
}

test.run()
