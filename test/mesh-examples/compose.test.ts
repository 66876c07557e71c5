/** The example for Docker Compose, as it is written; an end-to-end test brings it up. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parse } from 'yaml'
import { loadConfig } from '../../sidecar/config.ts'
import { SecretMount } from '../support/secret-mount.ts'
import { SECRET } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import { IMAGE } from './example.ts'

interface Service {
  image: string
  user?: string
  read_only?: boolean
  cap_drop?: string[]
  security_opt?: string[]
  ports?: string[]
  network_mode?: string
  environment?: Record<string, string>
  stop_grace_period?: string
}

const test = suite('Compose example')
const file = path.join(import.meta.dirname, '../../mesh-examples/compose/compose.yaml')
const { services }: { services: Record<string, Service> } = parse(readFileSync(file, 'utf8'), { merge: true })
const sidecars = Object.entries(services).filter(([name]) => name.endsWith('-sidecar'))

test('each of its two apps has a sidecar in its network', () => {
  const networks = sidecars.map(([name, { network_mode }]) => [name, network_mode])
  assert.deepEqual(networks, [
    ['orders-sidecar', 'service:orders'],
    ['billing-sidecar', 'service:billing'],
  ])
  for (const [, { image, user }] of sidecars) assert.deepEqual([image, user], [IMAGE, '65532:65532'])
})

test('the sidecars start with their variables, of which none is a secret, and have time to drain', () => {
  using secrets = new SecretMount({ CLIENT_ID_SECRET: SECRET, REDIS_URL: 'redis://:p@redis:6379/0' })
  for (const [, { environment = {}, stop_grace_period = '' }] of sidecars) {
    for (const [name, value] of Object.entries(environment)) {
      if (name.endsWith('_FILE')) environment[name] = secrets.file(path.basename(value))
      else assert.doesNotMatch(name, /SECRET|TOKEN|REDIS_URL/)
    }
    const { config, warnings } = loadConfig(environment)
    assert.deepEqual(warnings, [])
    assert.ok(config.drainMs < Number.parseInt(stop_grace_period, 10) * 1000)
  }
})

test('nothing in it writes to its root, gains a right or is open to other machines', () => {
  for (const [name, service] of Object.entries(services)) {
    assert.equal(service.read_only, true, name)
    assert.deepEqual(service.cap_drop, ['ALL'], name)
    assert.deepEqual(service.security_opt, ['no-new-privileges:true'], name)
    for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:/)
  }
})

test.run()
