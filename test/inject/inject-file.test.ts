import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { applyPatch as applyDiff } from 'diff'
import { injectFile, UnreadableError } from '../../sidecar/inject/inject.ts'
import { suite } from '../support/suite.ts'
import { manifestOf, messagesOf, PLAIN } from './manifests.ts'

const test = suite('inject a file, and its Services')

const SERVICES = { ...PLAIN, services: true }
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-inject-'))
test.after(() => rmSync(folder, { recursive: true }))

const SERVICE = `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: app}
  ports:
  - port: 80 # to the app
    targetPort: http
  - {port: 3000}
  - port: 9090
    targetPort: 9090
---
apiVersion: v1
kind: Pod
metadata: {name: app, labels: {app: app, tier: web}}
spec:
  containers: [{name: app, ports: [{name: http, containerPort: 3000}]}]
`

test('a Service that leads past the sidecar is told, and changed when that is asked for', () => {
  const rest = 'of Pod/app, to the app past its sidecar: set targetPort: 7781, or inject with --services'
  assert.deepEqual(messagesOf(SERVICE), [
    `app.yaml:8:5: warning: Service/web: port 80 leads to port 3000 ${rest}`,
    `app.yaml:9:5: warning: Service/web: port 3000 leads to port 3000 ${rest}`,
  ])
  assert.ok(manifestOf(SERVICE).startsWith(SERVICE.slice(0, SERVICE.indexOf('kind: Pod'))))
  assert.deepEqual(messagesOf(SERVICE, SERVICES), [])
  const changed = manifestOf(SERVICE, SERVICES)
  assert.ok(
    changed.startsWith(
      SERVICE.slice(0, SERVICE.indexOf('---'))
        .replace('targetPort: http', 'targetPort: 7781')
        .replace('{port: 3000}', '{port: 3000, targetPort: 7781}'),
    ),
    changed,
  )
  assert.deepEqual(messagesOf(changed), ['app.yaml:13:1: Pod/app: it has a sidecar, and is left as it is'])
})

test('a Service of other pods, of another namespace or without selector is none of these pods', () => {
  for (const other of [
    SERVICE.replace('selector: {app: app}', 'selector: {app: other}'),
    SERVICE.replace('selector: {app: app}', 'selector: {app: app, more: x}'),
    SERVICE.replace('{name: web}', '{name: web, namespace: other}'),
    SERVICE.replace('selector: {app: app}', 'clusterIP: None'),
    SERVICE.replace('selector: {app: app}', 'selector: {}'),
    SERVICE.replace('labels:', 'annotations: {mte.sidecar/inject: "false"}, labels:'),
  ]) {
    assert.deepEqual(messagesOf(other, SERVICES), [])
  }
})

test('a headless Service cannot lead elsewhere: that peers must call another port is told', () => {
  const headless = SERVICE.replace('selector:', 'clusterIP: None\n  selector:')
  const messages = messagesOf(headless, SERVICES)
  assert.equal(messages.length, 2)
  assert.match(messages[0]!, /as the Service is headless callers choose the port: have peers call port 7781$/)
})

test('a file comes out as its manifest, or as a diff that makes this of it', async () => {
  const file = path.join(folder, 'app.yaml')
  writeFileSync(file, SERVICE)
  const whole = await injectFile(file, { ...PLAIN, diff: false })
  const diff = await injectFile(file, { ...PLAIN, diff: true })
  assert.equal(whole.output, manifestOf(SERVICE))
  assert.match(diff.output!, new RegExp(`^--- ${file}\n\\+\\+\\+ ${file}\n@@ `))
  assert.equal(applyDiff(SERVICE, diff.output!), whole.output)
  assert.equal(whole.messages[0]?.split(':')[0], file)
  writeFileSync(file, whole.output!)
  assert.equal((await injectFile(file, { ...PLAIN, diff: true })).output, '')
})

test('a file of which something is refused has no output, with or without a diff', async () => {
  const file = path.join(folder, 'refused.yaml')
  writeFileSync(file, SERVICE.replace('spec:\n  containers', 'spec:\n  hostNetwork: true\n  containers'))
  for (const diff of [false, true]) {
    const { output, messages } = await injectFile(file, { ...PLAIN, diff })
    assert.equal(output, undefined)
    assert.equal(messages.length, 1)
  }
})

test('a file that cannot be read, or is no text, is an error that names it', async () => {
  const binary = path.join(folder, 'binary')
  writeFileSync(binary, Buffer.from([0x61, 0xff, 0xfe]))
  for (const file of [path.join(folder, 'none.yaml'), folder, binary]) {
    await assert.rejects(injectFile(file, { ...PLAIN, diff: false }), (error) => {
      assert.ok(error instanceof UnreadableError)
      assert.ok(error.message.startsWith(`${file} must be a file of UTF-8 text`), error.message)
      return true
    })
  }
})

test.run()
