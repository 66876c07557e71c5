import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import os from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { applyPatch } from '../../sidecar/inject/json-patch.ts'
import { injected, podWith } from '../inject/pods.ts'
import { certificate } from '../support/certificates.ts'
import { ask, type Injector, operationsIn, reviewOf, startInjector } from '../support/injector.ts'
import { suite } from '../support/suite.ts'

const test = suite('webhook')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-injector-'))
const [first, second] = [certificate('IP:127.0.0.1'), certificate('IP:127.0.0.1')]
const env = { TLS_CERT_FILE: path.join(folder, 'tls.crt'), TLS_KEY_FILE: path.join(folder, 'tls.key') }
let injector: Injector

function write({ cert, key }: { cert: string; key: string }): void {
  writeFileSync(env.TLS_CERT_FILE, cert)
  writeFileSync(env.TLS_KEY_FILE, key)
}

async function probe(path: string, { ports } = injector): Promise<{ status: number; body: string }> {
  const response = await fetch(`http://127.0.0.1:${ports.admin}${path}`)
  return { status: response.status, body: await response.text() }
}

/** A sample of /metrics, by its name and labels. */
async function sample(name: string): Promise<number> {
  const { body } = await probe('/metrics')
  return Number(
    body
      .split('\n')
      .find((line) => line.startsWith(`${name} `))
      ?.split(' ')[1] ?? Number.NaN,
  )
}

test.before(async () => {
  write(first)
  injector = await startInjector({ ...env, SIDECAR_SECRET: 'shared' }, ['--log-level', 'debug'])
})
test.after(async () => {
  assert.equal(await injector.stop(), 0)
  rmSync(folder, { recursive: true })
})

test('a review is answered over HTTPS, with the options of its flags and variables', async () => {
  const { status, body } = await ask(injector.ports.webhook, first.cert, reviewOf(podWith()))
  assert.equal(status, 200)
  const expected = injected(podWith(), { secret: 'shared', 'log-level': 'debug' })
  assert.deepEqual(applyPatch(podWith(), operationsIn(body)), expected)
})

test('a review of 3 MB is answered', async () => {
  const pod = podWith({
    containers: [{ name: 'app', ports: [{ containerPort: 3000 }], args: ['x'.repeat(3 << 20)] }],
  })
  const { body } = await ask(injector.ports.webhook, first.cert, reviewOf(pod))
  assert.equal(body.response.allowed, true)
})

test('what is no review has a status that says why, and never an answer that lets a pod through', async () => {
  const { webhook } = injector.ports
  for (const [body, options, status, error] of [
    ['nonsense', {}, 400, 'The body must be JSON.'],
    ['', {}, 400, 'The body must be JSON.'],
    [Buffer.from('"\xff"', 'latin1'), {}, 400, 'The body must be JSON.'],
    ['{}', {}, 400, 'The body must be an AdmissionReview of admission.k8s.io/v1.'],
    ['x'.repeat((8 << 20) + 1), {}, 413, 'The body must be at most 8388608 bytes long.'],
    ['', { path: '/' }, 404, 'There is /inject.'],
    ['', { method: 'GET' }, 405, 'Reviews come by POST.'],
  ] as const) {
    const answer = await ask(webhook, first.cert, body, options)
    assert.deepEqual([answer.status, answer.body], [status, { error }])
  }
})

test('reviews that come in pieces, or all at once on many connections, are each answered with their own', async () => {
  const uids = Array.from({ length: 50 }, (_, i) => `uid-${i}`)
  const answers = await Promise.all(
    uids.map((uid) => ask(injector.ports.webhook, first.cert, reviewOf(podWith(), { uid }))),
  )
  assert.deepEqual(
    answers.map(({ body }) => body.response.uid),
    uids,
  )
})

test('a caller that goes away in the middle of a review does no harm', async () => {
  const request = https.request({
    host: '127.0.0.1',
    port: injector.ports.webhook,
    path: '/inject',
    method: 'POST',
    ca: first.cert,
    headers: { 'content-length': 1000 },
  })
  request.on('error', () => {})
  request.write('{"apiVersion":')
  const [socket] = await once(request, 'socket')
  await once(socket, 'secureConnect')
  request.destroy()
  const { body } = await ask(injector.ports.webhook, first.cert, reviewOf(podWith()))
  assert.equal(body.response.allowed, true)
})

test('a refusal is logged with the pod and its reasons', async () => {
  await ask(injector.ports.webhook, first.cert, reviewOf(podWith({ hostNetwork: true })))
  await injector.logged('a pod was refused')
  const { pod, messages } = injector.log.find(({ msg }) => msg === 'a pod was refused')!
  assert.deepEqual([pod, (messages as string[]).length], ['shop/', 1])
})

test('it is alive and ready, and counts what it does', async () => {
  assert.deepEqual((await probe('/livez')).status, 200)
  assert.deepEqual(await probe('/readyz'), { status: 200, body: '{"status":"ready","reasons":[]}\n' })
  assert.equal((await probe('/inject')).status, 404)
  const before = await sample('mte_injector_reviews_total{outcome="not-wanted"}')
  assert.ok(Number.isNaN(before))
  await ask(
    injector.ports.webhook,
    first.cert,
    reviewOf(podWith({ annotations: { 'mte.sidecar/inject': 'false' } })),
  )
  assert.equal(await sample('mte_injector_reviews_total{outcome="not-wanted"}'), 1)
  assert.ok((await sample('mte_injector_reviews_total{outcome="refused"}')) >= 1)
  assert.ok((await sample('mte_injector_review_duration_seconds_count')) >= 2)
  const expires = await sample('mte_injector_certificate_expiry_seconds{subject="webhook"}')
  assert.ok(expires * 1000 > Date.now())
  assert.ok((await sample('process_resident_memory_bytes')) > 0)
})

test('a certificate that changes is presented from then on, to new connections', async () => {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
  await ask(injector.ports.webhook, first.cert, reviewOf(podWith()), { agent })
  write(second)
  await injector.logged('the certificate was read', 2)
  await ask(injector.ports.webhook, second.cert, reviewOf(podWith()))
  await assert.rejects(ask(injector.ports.webhook, first.cert, reviewOf(podWith())), {
    code: 'DEPTH_ZERO_SELF_SIGNED_CERT',
  })
  await ask(injector.ports.webhook, first.cert, reviewOf(podWith()), { agent })
  agent.destroy()
})

test('one that is not right changes nothing, and is told', async () => {
  write({ cert: first.cert, key: second.key })
  await injector.logged(
    'TLS_CERT_FILE and TLS_KEY_FILE: must belong together: the key is that of another certificate; the certificate stays as it was',
  )
  await ask(injector.ports.webhook, second.cert, reviewOf(podWith()))
  write(second)
})

test('after SIGTERM it is not ready, what has begun is answered, and it leaves with 0', async () => {
  const stopping = await startInjector({ ...env, DRAIN_SECONDS: '0.5' })
  const { ports } = stopping
  const slow = https.request({
    host: '127.0.0.1',
    port: ports.webhook,
    path: '/inject',
    method: 'POST',
    ca: second.cert,
    agent: false,
  })
  const [beginning, rest] = [0, 20].map((at) =>
    JSON.stringify(reviewOf(podWith())).slice(at, at ? undefined : 20),
  )
  slow.write(beginning)
  const [socket] = await once(slow, 'socket')
  await once(socket, 'secureConnect')
  const stopped = stopping.stop()
  await stopping.logged('draining')
  const { status, body } = await probe('/readyz', stopping)
  assert.deepEqual([status, JSON.parse(body).reasons], [503, ['draining']])
  const late = await ask(ports.webhook, second.cert, reviewOf(podWith()))
  assert.equal(late.body.response.allowed, true)
  slow.end(rest)
  const [response] = await once(slow, 'response')
  assert.deepEqual([response.statusCode, response.headers.connection], [200, 'close'])
  assert.equal(JSON.parse(await text(response)).response.allowed, true)
  assert.equal(await stopped, 0)
})

test('settings that cannot be used end it before it listens', async () => {
  await assert.rejects(startInjector({ ...env, PORT: 'https' }), /PORT: must be a port from 0 to 65535/)
  await assert.rejects(
    startInjector({ ...env, PORT: String(injector.ports.webhook) }),
    /PORT: cannot listen on port \d+ \(EADDRINUSE\); set another port/,
  )
})

test.run()
