/** What `mte-sidecar check` says of certificates, of the app's and of peers'. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import os from 'node:os'
import path from 'node:path'
import { certificateAdvice } from '../../sidecar/check/certificate-advice.ts'
import { SendError } from '../../sidecar/http/send-error.ts'
import { certificate } from '../support/certificates.ts'
import { check, marked } from '../support/check.ts'
import { listen, startSidecar, startTap } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('check of certificates')

const own = certificate('IP:127.0.0.1')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-check-'))
const CA_FILE = path.join(folder, 'ca.pem')
writeFileSync(CA_FILE, own.cert)

test.after(() => rmSync(folder, { recursive: true }))

test('an authority that is not trusted and a name that is not in it are told as such; the right ones are well', async () => {
  const app = https.createServer(own, (_request, response) => response.end())
  const appPort = await listen(app)
  const billing = await startSidecar({ NAME: 'billing' })
  const secure = await startTap(billing.port('inbound'), { ...own, ALPNProtocols: ['h2'] })
  const at = (host: string) => ({
    UPSTREAM: `https://${host}:${appPort}`,
    PEERS: `billing=https://${host}:${secure.port}`,
  })
  for (const [env, reason, advice] of [
    [at('127.0.0.1'), /DEPTH_ZERO_SELF_SIGNED_CERT/, /CA_FILE must hold the authority/],
    [{ ...at('localhost'), CA_FILE }, /ERR_TLS_CERT_ALTNAME_INVALID/, /must name the host/],
  ] as const) {
    const { found, status } = await check(env)
    const failures = marked(found, 'FAIL')
    assert.equal(failures.length, 2, JSON.stringify(found))
    for (const failure of failures) {
      assert.match(failure.what, reason)
      assert.match(failure.advice!, advice)
    }
    assert.equal(status, 1)
  }
  const { found, status } = await check({ ...at('127.0.0.1'), CA_FILE })
  assert.deepEqual([marked(found, 'FAIL'), marked(found, 'warn'), status], [[], [], 0])
  await secure.close()
  await billing.close()
  app.close()
})

test('one that has expired is told with the clock, which may be what is wrong', () => {
  const error = (code: string) => new SendError('connect', false, Object.assign(new Error(code), { code }))
  for (const code of ['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID'])
    assert.match(certificateAdvice(error(code))!, /Renew its certificate; or is the clock .* off/)
  assert.equal(certificateAdvice(error('ECONNREFUSED')), undefined)
})

test.run()
