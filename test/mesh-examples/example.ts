/** The example for Kubernetes, as it is deployed: what the containers of each pod are given. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { parse } from 'yaml'
import packageJson from '../../package.json' with { type: 'json' }
import { SECRET } from '../support/sidecars.ts'
import { type Container, containersOf, type Manifest, ofKind, type Pod, readManifests } from './manifests.ts'

export const EXAMPLE = path.join(import.meta.dirname, '../../mesh-examples/kubernetes')
export const IMAGE = `mte-sidecar:${packageJson.version}`

/** What its README has people make: Secrets, their keys, and what could be in those. */
const SECRETS: Record<string, Record<string, string>> = {
  'mte-sidecar': { CLIENT_ID_SECRET: SECRET, OUTBOUND_TOKEN: 'a-token-for-tests' },
  redis: { 'auth.conf': 'requirepass p', REDIS_URL: 'redis://:p@redis:6379' },
}

interface Kustomization {
  namespace: string
  resources: string[]
  images: { name: string; newName: string; newTag: string }[]
}

export const kustomization: Kustomization = parse(
  readFileSync(path.join(EXAMPLE, 'kustomization.yaml'), 'utf8'),
)
/** Two apps with a sidecar each. */
export const apps = manifestsOf(kustomization.resources)
/** The relay alone. */
export const standalone = manifestsOf(['redis.yaml', 'standalone.yaml'])

function manifestsOf(files: readonly string[]): Manifest[] {
  return files.flatMap((file) => readManifests(path.join(EXAMPLE, file)))
}

/** A Deployment. */
export interface Workload {
  name: string
  manifest: Manifest
  pod: Pod
  /** all that it is deployed with */
  among: readonly Manifest[]
}

export function workloadsOf(among: readonly Manifest[]): Workload[] {
  return ofKind(among, 'Deployment').map((manifest) => {
    const { metadata, spec } = manifest
    return { name: metadata.name, manifest, pod: spec.template!, among }
  })
}

export function sidecarOf({ name, pod }: Workload): Container {
  return containersOf(pod.spec).find(({ image }) => image === IMAGE) ?? assert.fail(`${name} has no sidecar`)
}

/** What a container runs, and its variables. */
export interface Given {
  command: string[]
  env: Record<string, string>
}

/** Gives a container its files, in a folder in place of the root. */
export function give(workload: Workload, container: Container, folder: string): Given {
  const { command = [], volumeMounts = [] } = container
  const mounts = volumeMounts.map(({ mountPath }) => mountPath)
  const moved = (text: string) =>
    mounts.reduce((text, mount) => text.replaceAll(mount, path.join(folder, mount)), text)
  for (const [file, content] of filesOf(workload, container)) {
    mkdirSync(path.dirname(path.join(folder, file)), { recursive: true })
    writeFileSync(path.join(folder, file), moved(content))
  }
  const env = Object.entries(variablesOf(workload, container)).map(([name, value]) => [name, moved(value)])
  return { command: command.map(moved), env: Object.fromEntries(env) }
}

/** The files that a container sees, by their paths. */
export function filesOf({ pod, among }: Workload, { volumeMounts = [] }: Container): Map<string, string> {
  const files = new Map<string, string>()
  for (const { name, mountPath } of volumeMounts) {
    const { configMap, secret, projected } =
      pod.spec.volumes?.find((volume) => volume.name === name) ?? assert.fail(`there is no volume ${name}`)
    const secrets = projected?.sources.map(({ secret }) => secret) ?? []
    if (secret) secrets.push({ ...secret, name: secret.secretName })
    if (configMap) put(dataOf(among, configMap.name))
    for (const { name, items } of secrets.filter((one) => one !== undefined))
      put(SECRETS[name] ?? assert.fail(`there is no Secret ${name}`), items)

    function put(content: Record<string, string>, items = keysOf(content)): void {
      for (const { key, path: file } of items)
        files.set(path.join(mountPath, file), content[key] ?? assert.fail(`${name} has no ${key}`))
    }
  }
  return files
}

export function variablesOf(
  { among }: Workload,
  { env = [], envFrom = [] }: Container,
): Record<string, string> {
  const common = envFrom.map(({ configMapRef }) => dataOf(among, configMapRef!.name))
  const own = env.map(({ name, value }) => [name, value ?? assert.fail(`${name} has no value`)])
  return Object.assign({}, ...common, Object.fromEntries(own))
}

function dataOf(among: readonly Manifest[], name: string): Record<string, string> {
  const map = ofKind(among, 'ConfigMap').find(({ metadata }) => metadata.name === name)
  return map?.data ?? assert.fail(`there is no ConfigMap ${name}`)
}

function keysOf(content: Record<string, string>): { key: string; path: string }[] {
  return Object.keys(content).map((key) => ({ key, path: key }))
}
