/** What `mte-sidecar check` says of its user, files, collector, and of the sidecar that runs beside it. */
import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { checkUser } from '../../sidecar/check/surroundings.ts'
import { check, marked } from '../support/check.ts'
import { listen, SECRET, startSidecar, unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import { tell } from '../support/tell.ts'

const test = suite('check of the surroundings')

const MESH_IDS = [
  [1337, 'Istio'],
  [2102, 'Linkerd'],
  [5995, 'Consul'],
  [5996, 'Consul'],
] as const

test('the user and the group of a mesh are warned of, with its name; another one is well', () => {
  for (const [id, mesh] of MESH_IDS) {
    for (const kind of ['uid', 'gid'] as const) {
      const [warning, ...more] = checkUser({ uid: 65532, gid: 65532, [kind]: id })
      assert.equal(warning!.mark, 'warn')
      const what = `This runs as ${kind === 'uid' ? 'user' : 'group'} ${id}, that of ${mesh}'s proxy: .*without mTLS`
      assert.match(warning!.what, new RegExp(what))
      assert.match(warning!.advice!, /runAsUser: 65532/)
      assert.deepEqual(more, [])
    }
  }
  assert.deepEqual(checkUser({ uid: 65532, gid: 65532 }), [])
  assert.deepEqual(checkUser({ uid: undefined, gid: undefined }), [])
})

test('root is warned of', () => {
  const [warning, ...more] = checkUser({ uid: 0, gid: 0 })
  assert.match(warning!.what, /runs as root, which a sidecar never needs/)
  assert.deepEqual(more, [])
})

test('the user and group that it runs as are those that are told', async () => {
  const said = async (ids?: { uid: number; gid: number }) => {
    const { found, status } = await check({}, ids ? { ids } : {})
    assert.equal(status, 0)
    return found.filter(({ what }) => /^This runs as/.test(what)).map(({ what }) => what.split(/[,:]/)[0])
  }
  if (process.getuid?.() !== 0) {
    tell('check ran as one user only: to run it as those of meshes takes root.')
    assert.deepEqual(await said(), [])
    return
  }
  assert.deepEqual(await said({ uid: 65532, gid: 65532 }), [])
  assert.deepEqual(await said({ uid: 1337, gid: 65532 }), ['This runs as user 1337'])
  assert.deepEqual(await said({ uid: 65532, gid: 2102 }), ['This runs as group 2102'])
  assert.deepEqual(await said(), ['This runs as root'])
})

test('a file with a secret that every user may read is warned of, and one that they may not is well', async () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-check-'))
  try {
    const file = path.join(folder, 'secret')
    writeFileSync(file, SECRET)
    const warnings = async (mode: number) => {
      chmodSync(file, mode)
      const { found, status } = await check({
        CLIENT_ID_SECRET: '',
        CLIENT_ID_SECRET_FILE: file,
        OUTBOUND_TOKEN_PREVIOUS_FILE: path.join(folder, 'none'),
        OUTBOUND_TOKEN: 'token-for-tests-long-enough',
      })
      assert.equal(status, 0)
      return marked(found, 'warn')
    }
    const [warning, ...more] = await warnings(0o644)
    assert.equal(warning!.what, `${file} holds a secret, and every user of this machine may read it.`)
    assert.match(warning!.advice!, new RegExp(`chmod 400 ${file}`))
    assert.deepEqual(more, [])
    assert.deepEqual(await warnings(0o640), [])
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a collector that takes connections is well, and one that does not is warned of', async () => {
  const server = net.createServer((socket) => socket.end())
  const up = `http://127.0.0.1:${await listen(server)}`
  const down = `http://127.0.0.1:${await unusedPort()}`
  const { found, status } = await check({
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${up}/v1/traces`,
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: `${down}/v1/metrics`,
  })
  server.close()
  assert.ok(found.some(({ what }) => what === `The collector at ${up} takes connections.`))
  const [warning, ...more] = marked(found, 'warn')
  assert.match(warning!.what, new RegExp(`The collector at ${down} takes no connections: calls go on`))
  assert.match(warning!.advice!, /OTEL_EXPORTER_OTLP_ENDPOINT/)
  assert.deepEqual([more, status], [[], 0])
})

test('a sidecar that runs beside it is said to be ready, and is left alone', async () => {
  const env = { NAME: 'orders', PORT: await unusedPort(), OUTBOUND_PORT: await unusedPort() }
  const sidecar = await startSidecar({ ...env, ADMIN_PORT: await unusedPort() })
  const variables = {
    NAME: env.NAME,
    PORT: String(env.PORT),
    OUTBOUND_PORT: String(env.OUTBOUND_PORT),
    ADMIN_PORT: String(sidecar.port('admin')),
  }
  const { found, status } = await check(variables)
  assert.ok(found.some(({ mark, what }) => mark === 'ok' && what === 'The sidecar that runs here is ready.'))
  assert.deepEqual([marked(found, 'FAIL'), marked(found, 'warn'), status], [[], [], 0])
  const pairs = await fetch(`http://127.0.0.1:${sidecar.port('admin')}/pairs`)
  assert.deepEqual(await pairs.json(), [])

  const other = await check({ ...variables, NAME: 'billing' })
  const [warning] = marked(other.found, 'warn')
  assert.match(warning!.what, /runs another sidecar: it is called orders, and not billing/)
  assert.match(warning!.advice!, /PORT, OUTBOUND_PORT and ADMIN_PORT/)
  await sidecar.close()
})

test('what a sidecar that runs beside it cannot do is said', async () => {
  const REDIS_URL = `redis://127.0.0.1:${await unusedPort()}`
  const sidecar = await startSidecar({ NAME: 'orders', REDIS_URL })
  const { found } = await check({ NAME: 'orders', ADMIN_PORT: String(sidecar.port('admin')) })
  const [warning, ...more] = marked(found, 'warn')
  assert.match(warning!.what, new RegExp(`The sidecar that runs here is degraded: Redis at ${REDIS_URL}:`))
  assert.deepEqual(more, [])
  await sidecar.close()
})

test('that no sidecar runs yet is no fault', async () => {
  const ADMIN_PORT = String(await unusedPort())
  const { found, status } = await check({ ADMIN_PORT })
  assert.match(
    marked(found, '--')[0]!.what,
    new RegExp(`No sidecar is known to run here: .* port ${ADMIN_PORT} `),
  )
  assert.equal(status, 0)
})

test.run()
