import assert from 'node:assert/strict'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { startProcess } from '../support/process.ts'
import { unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('loading')
const NODE_OPTIONS = `--import ${pathToFileURL(path.join(import.meta.dirname, 'loaded.ts'))}`

/** The packages that a sidecar has loaded from its start to its end. */
async function packagesOf(env: Record<string, string>): Promise<string[]> {
  const sidecar = await startProcess({ NODE_OPTIONS, ...env })
  assert.equal(await sidecar.stop(), 0)
  return JSON.parse(sidecar.log.at(-1)!).packages
}

test('nothing of the SDK is loaded where nothing is exported', async () => {
  for (const env of [
    {},
    { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318', OTEL_SDK_DISABLED: 'true' },
  ]) {
    const packages = await packagesOf(env as Record<string, string>)
    const strangers = packages.filter((name) => /^(@opentelemetry|@grpc|import-in-the-middle)/.test(name))
    assert.deepEqual(strangers, ['@opentelemetry/api'])
  }
})

test('it is loaded where something is, and ioredis after it', async () => {
  const packages = await packagesOf({
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${await unusedPort()}`,
    REDIS_URL: `redis://127.0.0.1:${await unusedPort()}`,
    NAME: 'orders',
  })
  assert.ok(packages.includes('@opentelemetry/sdk-node'))
  assert.ok(packages.indexOf('ioredis') > packages.indexOf('@opentelemetry/sdk-node'))
})

test.run()
