/** What `mte-sidecar check` prints, and its exit status. What it finds of each part: check/. */
import assert from 'node:assert/strict'
import { check, findings, marked } from './support/check.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type Sidecar, startSidecar, unusedPort } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('check')

let app: Recorder
let billing: Sidecar
let UPSTREAM: string

test.before(async () => {
  app = await startRecorder((_seen, response) => response.writeHead(404).end('no page here'))
  UPSTREAM = `http://127.0.0.1:${app.port}`
  billing = await startSidecar({ NAME: 'billing', UPSTREAM })
})

test.after(async () => {
  await billing.close()
  await app.close()
})

test('all that is well is said to be, a line each, with the status 0', async () => {
  const ADMIN_PORT = String(await unusedPort())
  const { status, lines } = await check({ UPSTREAM, ADMIN_PORT, PEERS: `billing=${billing.url}` })
  const ofUser = process.getuid?.() === 0 ? lines.splice(1, 2) : []
  assert.deepEqual(lines, [
    'ok    The configuration can be read.',
    `--    No sidecar is known to run here: nothing answered on 127.0.0.1 port ${ADMIN_PORT} (connect ECONNREFUSED 127.0.0.1:${ADMIN_PORT}).`,
    `ok    The app at ${UPSTREAM} answers (status 404 to HEAD /).`,
    `ok    The peer at ${billing.url} has paired with us; it is called billing.`,
  ])
  assert.ok(findings(ofUser).every(({ mark, what }) => mark === 'warn' && /root/.test(what)))
  assert.equal(status, 0)
})

test('what is not configured is said, and is no fault', async () => {
  const { status, found } = await check({})
  const notes = marked(found, '--').map(({ what }) => what)
  assert.match(notes[1]!, /^UPSTREAM is not set: this sidecar is for outbound calls only/)
  assert.match(notes[2]!, /^PEERS names no peer/)
  assert.deepEqual([status, notes.length, marked(found, 'FAIL'), marked(found, 'warn')], [0, 3, [], []])
})

test('each fault is told with what to do about it, and the rest is tried all the same', async () => {
  const { status, lines, found } = await check({
    UPSTREAM: `http://127.0.0.1:${await unusedPort()}`,
    REDIS_URL: `redis://app:hush@127.0.0.1:${await unusedPort()}`,
    NAME: 'orders',
    PEERS: `down=http://127.0.0.1:${await unusedPort()},billing=${billing.url}`,
  })
  const faults = marked(found, 'FAIL')
  assert.equal(faults.length, 3)
  for (const { what, advice } of faults) for (const text of [what, advice]) assert.match(text!, /^\S.*[.?]$/)
  assert.ok(lines.includes(`ok    The peer at ${billing.url} has paired with us; it is called billing.`))
  assert.ok(!lines.join().includes('hush'))
  assert.equal(status, 1)
})

test('a configuration that cannot be read is told as mistakes, with the status 78', async () => {
  const { status, lines } = await check({ CLIENT_ID_SECRET: 'short', UPSTREAM: 'nonsense' })
  assert.equal(status, 78)
  assert.deepEqual(
    lines.map((line) => line.split(':')[0]),
    ['UPSTREAM', 'CLIENT_ID_SECRET'],
  )
  assert.ok(!lines.join().includes('nonsense'))
})

test.run()
