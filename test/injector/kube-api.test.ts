import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type http from 'node:http'
import https from 'node:https'
import os from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { KubeApi } from '../../sidecar/injector/kube-api.ts'
import { certificate } from '../support/certificates.ts'
import { listen, unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('API server, asked by the injector')

const { key, cert } = certificate('IP:127.0.0.1')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-account-'))
const seen: { method: string; url: string; headers: http.IncomingHttpHeaders; body: string }[] = []
let answer = { status: 200, body: '{}' }
const server = https.createServer({ key, cert }, async (request, response) => {
  const { method, url, headers } = request
  seen.push({ method: method!, url: url!, headers, body: await text(request) })
  response.writeHead(answer.status, { connection: 'close' }).end(answer.body)
})
let api: KubeApi

function account(files: Record<string, string>): void {
  for (const [name, content] of Object.entries(files)) writeFileSync(path.join(folder, name), content)
}

function apiAt(port: number): KubeApi {
  return new KubeApi(folder, { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(port) })
}

test.before(async () => {
  account({ token: 'first\n', 'ca.crt': cert, namespace: 'shop\n' })
  api = apiAt(await listen(server))
})
test.after(() => {
  server.close()
  rmSync(folder, { recursive: true })
})

test('it is asked with the token of the moment, as the account may get another', async () => {
  answer = { status: 200, body: '{"metadata":{"name":"a"}}' }
  assert.deepEqual(await api.get('/a'), { metadata: { name: 'a' } })
  account({ token: 'second' })
  await api.merge('/a', { b: 1 })
  await api.replace('/a', { metadata: { name: 'a', resourceVersion: '1' } })
  assert.deepEqual(
    seen.map(({ method, headers }) => [method, headers.authorization, headers['content-type']]),
    [
      ['GET', 'Bearer first', undefined],
      ['PATCH', 'Bearer second', 'application/strategic-merge-patch+json'],
      ['PUT', 'Bearer second', 'application/json'],
    ],
  )
  assert.equal(seen[1]!.body, '{"b":1}')
  assert.equal(await api.namespace(), 'shop')
})

test('what it refuses is told in its own words', async () => {
  answer = { status: 403, body: '{"kind":"Status","message":"secrets \\"a\\" is forbidden"}' }
  await assert.rejects(api.get('/a'), {
    name: 'KubeError',
    status: 403,
    message: 'GET /a: secrets "a" is forbidden',
  })
})

test('an answer that is none of its own is told by its status', async () => {
  for (const [status, body] of [
    [502, '<html>'],
    [200, 'nonsense'],
    [500, 'null'],
  ] as const) {
    answer = { status, body }
    await assert.rejects(api.get('/a'), { name: 'KubeError', status, message: `GET /a: status ${status}` })
  }
})

test('an answer without end is given up', async () => {
  answer = { status: 200, body: `"${'x'.repeat(5 << 20)}"` }
  await assert.rejects(
    api.get('/a'),
    /^KubeError: the API server at .* could not be asked: its answer is too long$/,
  )
})

test('one that is away, and one that is another, are told as that, and neither with the token', async () => {
  const away = await unusedPort()
  await assert.rejects(apiAt(away).get('/a'), {
    message: `the API server at 127.0.0.1:${away} could not be asked: ECONNREFUSED`,
  })
  account({ 'ca.crt': certificate('IP:127.0.0.1').cert })
  const before = seen.length
  await assert.rejects(api.get('/a'), /could not be asked: DEPTH_ZERO_SELF_SIGNED_CERT$/)
  assert.equal(seen.length, before)
})

test('without an account it is asked for one', async () => {
  const nobody = new KubeApi('/nowhere', {})
  await assert.rejects(nobody.get('/a'), {
    message:
      /^\/nowhere\/(token|ca\.crt) cannot be read \(ENOENT\): is the token of a service account mounted into this pod\?$/,
  })
})

test.run()
