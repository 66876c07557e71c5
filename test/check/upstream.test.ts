/** What `mte-sidecar check` says of the app. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { ownAddresses } from '../../sidecar/check/places.ts'
import { check, marked, withElsewhere } from '../support/check.ts'
import { startRecorder } from '../support/recorder.ts'
import { startSidecar, unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'
import { tell } from '../support/tell.ts'

const test = suite('check of the app')

/** An app that listens on all addresses of IPv4. */
async function startOpenApp(): Promise<{ port: number; close(): void }> {
  const server = http.createServer((_request, response) => response.end()).listen(0, '0.0.0.0')
  await once(server, 'listening')
  return { port: (server.address() as AddressInfo).port, close: () => server.close() }
}

test('an app that listens on loopback alone is well', async () => {
  const app = await startRecorder('here')
  const UPSTREAM = `http://localhost:${app.port}`
  const { found, status } = await check({ UPSTREAM })
  assert.ok(found.some(({ what }) => what === `The app at ${UPSTREAM} answers (status 200 to HEAD /).`))
  assert.deepEqual([marked(found, 'warn'), status], [[], 0])
  await app.close()
})

test('an app that others can reach without its sidecar is warned of, with where', async () => {
  const reachable = ownAddresses().filter((address) => !address.includes(':'))
  if (reachable.length === 0)
    return tell('An app that is open to others was not tried: this machine has no address.')
  const app = await startOpenApp()
  for (const host of ['127.0.0.1', reachable[0]]) {
    const { found, status } = await check({ UPSTREAM: `http://${host}:${app.port}` })
    const [warning, ...more] = marked(found, 'warn')
    assert.match(warning!.what, new RegExp(`open on ${reachable[0]}:${app.port}\\b.* without the secret`))
    assert.match(warning!.advice!, /listen on 127\.0\.0\.1 alone, .*NetworkPolicy or firewall/)
    assert.deepEqual([more, status], [[], 0])
  }
  app.close()
})

test('an app on another host is warned of: what goes there is in plain', () =>
  withElsewhere(async (address) => {
    const app = await startOpenApp()
    const UPSTREAM = `http://${address}:${app.port}`
    const { found, status } = await check({ UPSTREAM })
    const [warning, ...more] = marked(found, 'warn')
    assert.match(
      warning!.what,
      new RegExp(`The app at ${UPSTREAM} is on another host: calls travel there in plain`),
    )
    assert.match(warning!.advice!, /beside the app.*NetworkPolicy/)
    assert.deepEqual([more, status], [[], 0])
    app.close()
  }))

test('an UPSTREAM that leads back to this sidecar by another name is a failure', async () => {
  const port = await unusedPort()
  const variables = { NAME: 'orders', PORT: String(port), UPSTREAM: `http://0.0.0.0:${port}` }
  const sidecar = await startSidecar(variables)
  await refused(variables)
  await sidecar.close()
})

test("an UPSTREAM that is any port of another app's sidecar is a failure", async () => {
  const sidecar = await startSidecar({})
  for (const role of ['inbound', 'outbound', 'admin'] as const)
    await refused({ UPSTREAM: `http://127.0.0.1:${sidecar.port(role)}` })
  await sidecar.close()
})

async function refused(env: { UPSTREAM: string }): Promise<void> {
  const { found, status } = await check(env)
  const [failure, ...more] = marked(found, 'FAIL')
  assert.match(
    failure!.what,
    new RegExp(`What answers at ${env.UPSTREAM} is a sidecar, maybe this one, and no app`),
  )
  assert.match(failure!.advice!, /address and port of the app itself/)
  assert.deepEqual([more, status], [[], 1])
}

test('an app that is down is named', async () => {
  const UPSTREAM = `http://127.0.0.1:${await unusedPort()}`
  const { found, status } = await check({ UPSTREAM, CONNECT_TIMEOUT_SECONDS: '0.5' })
  const [failure, ...more] = marked(found, 'FAIL')
  assert.match(failure!.what, new RegExp(`The app at ${UPSTREAM} does not answer: could not connect`))
  assert.match(failure!.advice!, /Is it running.*UPSTREAM/)
  assert.deepEqual([more, status], [[], 1])
})

test.run()
