import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { ConfigError } from '../../sidecar/config.ts'
import { readSettings, readSidecarOptions } from '../../sidecar/injector/settings.ts'
import { certificate } from '../support/certificates.ts'
import { suite } from '../support/suite.ts'

const test = suite('settings of the injector')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-settings-'))
test.after(() => rmSync(folder, { recursive: true }))

type Given = Parameters<typeof readSettings>

function mistakesOf(...given: Given): readonly string[] {
  try {
    readSettings(...given)
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes
    throw error
  }
  return assert.fail('there is no mistake')
}

test('without any it makes its own certificate, and injects what is built in', () => {
  assert.deepEqual(readSettings({}, {}), {
    port: 8443,
    adminPort: 8082,
    drainMs: 5000,
    logLevel: 'info',
    files: undefined,
    selfSigned: {
      service: 'mte-sidecar-injector',
      secret: 'mte-sidecar-injector',
      webhookConfiguration: '0-mte-sidecar-injector',
      serviceAccountFolder: '/var/run/secrets/kubernetes.io/serviceaccount',
    },
    defaults: {},
  })
})

test('an option wins over its variable, and an empty one is none', () => {
  const env = { SIDECAR_SECRET: 'one', SIDECAR_LOG_LEVEL: 'warn', SIDECAR_IMAGE: '' }
  const { defaults } = readSettings({ secret: 'other', image: '' }, env)
  assert.deepEqual(defaults, { secret: 'other', 'log-level': 'warn' })
  assert.deepEqual(readSidecarOptions({ secret: 'other' }, env).secret, 'other')
})

test('its own log level is not that of the sidecars', () => {
  const { logLevel, defaults } = readSettings({ 'log-level': 'debug' }, { LOG_LEVEL: 'error' })
  assert.deepEqual([logLevel, defaults], ['error', { 'log-level': 'debug' }])
})

test('every mistake is told at once, by the name under which it was made', () => {
  const env = {
    PORT: 'https',
    DRAIN_SECONDS: '-1',
    SERVICE: 'My Service',
    TLS_CERT_FILE: 'tls.crt',
    SIDECAR_LOG_LEVEL: 'verbose',
    SIDECAR_IMAGES: 'x',
  }
  assert.deepEqual(mistakesOf({ redis: 'redis://:hush@redis' }, env), [
    'PORT: must be a port from 0 to 65535',
    'DRAIN_SECONDS: must be a number of seconds such as 5 or 0.5, more than 0 and at most 2147483',
    'TLS_KEY_FILE: must be set beside TLS_CERT_FILE',
    'SERVICE: must be a name as Kubernetes has them: lower-case letters, digits, - and .',
    '--redis must be without password: put such a URL into a Secret as REDIS_URL, and name that as secret/NAME',
    'SIDECAR_LOG_LEVEL: must be one of fatal, error, warn, info, debug, trace, silent',
    'SIDECAR_IMAGES: is no variable of the injector; SIDECAR_IMAGE is',
  ])
})

test('options that no pod could be injected with are mistakes from the start', () => {
  assert.deepEqual(mistakesOf({ memory: '1Gi' }, {}), [
    'mte.sidecar/memory must not be more than mte.sidecar/memory-limit, which is 256Mi',
  ])
})

test('one port cannot be both', () => {
  assert.deepEqual(mistakesOf({}, { PORT: '9000', ADMIN_PORT: '9000' }), [
    'ADMIN_PORT: must be another port than PORT, which is 9000',
  ])
})

test('a certificate and the key of another one are a mistake, as is a file that is not there', () => {
  const [one, other] = [certificate('DNS:one'), certificate('DNS:other')]
  const file = (name: string, content: string) => {
    writeFileSync(path.join(folder, name), content)
    return path.join(folder, name)
  }
  const TLS_CERT_FILE = file('one.crt', one.cert)
  const own = { TLS_CERT_FILE, TLS_KEY_FILE: file('one.key', one.key) }
  assert.deepEqual(readSettings({}, own).files, { cert: own.TLS_CERT_FILE, key: own.TLS_KEY_FILE })
  const wrong = [file('other.key', other.key), file('empty.key', ''), path.join(folder, 'none.key')]
  for (const TLS_KEY_FILE of wrong) {
    const [mistake, ...more] = mistakesOf({}, { TLS_CERT_FILE, TLS_KEY_FILE })
    assert.match(mistake!, /^TLS_CERT_FILE and TLS_KEY_FILE: must /)
    assert.deepEqual(more, [])
  }
})

test.run()
