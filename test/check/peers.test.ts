/** What `mte-sidecar check` says of the peers. */
import assert from 'node:assert/strict'
import net from 'node:net'
import { echoOf, rejectRecord } from '../../sidecar/pair/reject.ts'
import { meshSecret } from '../../sidecar/pair/secrets.ts'
import { type CheckOptions, check, type Found, marked } from '../support/check.ts'
import { startMiddle } from '../support/middle.ts'
import { type Recorder, startRecorder } from '../support/recorder.ts'
import { listen, SECRET, type Sidecar, startSidecar, unusedPort } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('check of peers')

const OTHER_SECRET = 'another secret for tests, long enough'
const MINUTE_MS = 60_000

let app: Recorder
let billing: Sidecar
let PAIRED: string

test.before(async () => {
  app = await startRecorder('here')
  billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  PAIRED = `The peer at ${billing.url} has paired with us; it is called billing.`
})

test.after(async () => {
  await billing.close()
  await app.close()
})

/** Asserts what is said of the only thing that is wrong, and gives all that is said. */
async function finds(
  mark: 'warn' | 'FAIL',
  env: Record<string, string>,
  what: RegExp,
  advice: RegExp,
  options?: CheckOptions,
): Promise<Found[]> {
  const { found, status } = await check({ CONNECT_TIMEOUT_SECONDS: '0.5', ...env }, options)
  const wrong = [...marked(found, 'warn'), ...marked(found, 'FAIL')]
  assert.equal(wrong.length, 1, JSON.stringify(found))
  assert.equal(wrong[0]!.mark, mark)
  assert.match(wrong[0]!.what, what)
  assert.match(wrong[0]!.advice!, advice)
  assert.equal(status, mark === 'FAIL' ? 1 : 0)
  return found
}

function paired(found: readonly Found[]): boolean {
  return found.some(({ mark, what }) => mark === 'ok' && what === PAIRED)
}

test('peers on the command line are tried too, each once; a pattern of PEERS needs one', async () => {
  const urls = [billing.url, billing.url]
  const { status, found } = await check({ PEERS: 'b=http://127.0.0.1:{port}' }, { urls })
  assert.equal(found.filter(({ what }) => what === PAIRED).length, 1)
  assert.ok(
    marked(found, '--').some(({ what }) => /^PEERS has .* stands for many: name one of them/.test(what)),
  )
  assert.equal(status, 0)
})

test('a peer that is down is named, and what works is still said to work', async () => {
  const down = `http://127.0.0.1:${await unusedPort()}`
  const found = await finds(
    'FAIL',
    { PEERS: `down=${down},billing=${billing.url}` },
    new RegExp(`The peer's sidecar at ${down} did not answer: could not connect`),
    /running.*PORT/,
  )
  assert.ok(paired(found))
})

test('a peer that says nothing is named within the time-out', async () => {
  const sockets: net.Socket[] = []
  const silent = net.createServer((socket) => sockets.push(socket))
  const PEERS = `silent=http://127.0.0.1:${await listen(silent)}`
  await finds('FAIL', { PEERS }, /no connection within CONNECT_TIMEOUT_SECONDS/, /running/)
  for (const socket of sockets) socket.destroy()
  silent.close()
})

test('an app in place of a sidecar is named', async () => {
  const stranger = await startRecorder((_seen, response) => response.writeHead(404).end('no page here'))
  const url = `http://127.0.0.1:${stranger.port}`
  await finds(
    'FAIL',
    { PEERS: `app=${url}` },
    new RegExp(`${url}: .*no relay.*404`),
    /that of the peer's sidecar \(its PORT\), not of its app/,
  )
  await stranger.close()
})

test('a port that speaks no HTTP is named', async () => {
  const server = net.createServer((socket) => socket.resume().end('SSH-2.0-OpenSSH_9.2\r\n'))
  const peer = `http://127.0.0.1:${await listen(server)}`
  await finds('FAIL', { PEERS: `ssh=${peer}` }, new RegExp(`${peer} speaks no HTTP`), /its PORT/)
  server.close()
})

test('somebody in between who refuses is named with the status', async () => {
  const middle = await startMiddle(billing.port('inbound'))
  middle.onPairing = async () => ({ status: 429, body: Buffer.from('slow down') })
  await finds('FAIL', { PEERS: `billing=${middle.url}` }, /429/, /PORT/)
  await middle.close()
})

test('another secret is named, and shown on neither side', async () => {
  const PEERS = `billing=${billing.url}`
  await finds(
    'FAIL',
    { PEERS, CLIENT_ID_SECRET: OTHER_SECRET },
    new RegExp(`${billing.url}: The peer does not know our CLIENT_ID_SECRET`),
    /both sidecars the same CLIENT_ID_SECRET/,
  )
  await finds(
    'FAIL',
    { PEERS, CLIENT_ID_SECRET: OTHER_SECRET, CLIENT_ID_SECRET_PREVIOUS: `${OTHER_SECRET} before` },
    /knows neither our CLIENT_ID_SECRET nor our CLIENT_ID_SECRET_PREVIOUS/,
    /both sidecars the same CLIENT_ID_SECRET/,
  )
})

test('a peer that has the previous secret only is warned of, and one that has the current one is well', async () => {
  const PEERS = `billing=${billing.url}`
  const found = await finds(
    'warn',
    { PEERS, CLIENT_ID_SECRET: OTHER_SECRET, CLIENT_ID_SECRET_PREVIOUS: SECRET },
    new RegExp(`${billing.url} does not know our CLIENT_ID_SECRET, but CLIENT_ID_SECRET_PREVIOUS only`),
    /the new one as CLIENT_ID_SECRET before CLIENT_ID_SECRET_PREVIOUS goes/,
  )
  assert.ok(paired(found))
  const both = await check({ PEERS, CLIENT_ID_SECRET_PREVIOUS: OTHER_SECRET })
  assert.ok(paired(both.found))
  assert.deepEqual(marked(both.found, 'warn'), [])
})

test('a clock that is off is warned of, with how much, also where pairing needs a second attempt', async () => {
  const PEERS = `billing=${billing.url}`
  for (const [minutes, words] of [
    [12, '(720|721) s behind ours'],
    [-12, '(719|720) s ahead of ours'],
    [1, '(60|61) s behind ours'],
  ] as const) {
    const what = new RegExp(`The clock of the peer at ${billing.url} is ${words}: beyond 300 s it refuses`)
    const found = await finds('warn', { PEERS }, what, /NTP/, { clockAheadMs: minutes * MINUTE_MS })
    assert.ok(paired(found))
  }
})

test('a clock that is off by a few seconds is well', async () => {
  const { found } = await check({ PEERS: `billing=${billing.url}` }, { clockAheadMs: 5000 })
  assert.ok(paired(found))
  assert.deepEqual(marked(found, 'warn'), [])
})

test('a refusal because of the clock is told with what it is off', async () => {
  const secret = await meshSecret(SECRET, 'billing')
  const aheadMs = 20 * MINUTE_MS
  const middle = await startMiddle(billing.port('inbound'))
  middle.onPairing = async ({ body }) => {
    const reject = { name: 'clock_skew', secret, echo: echoOf(body, 'pairing'), storeAgeMs: 0 } as const
    return { status: 400, body: rejectRecord({ ...reject, timeMs: Date.now() + aheadMs }) }
  }
  middle.onMessage = async ({ path }) => {
    const message = new URL(path, middle.url).searchParams.get('msg')
    const timestamp = new Date(Date.now() + aheadMs)
    return { status: 200, body: Buffer.from(JSON.stringify({ message, timestamp })) }
  }
  await finds(
    'FAIL',
    { PEERS: `billing=${middle.url}` },
    /refused to pair: clock_skew\. Its clock is 1(199|200) s ahead of ours\./,
    /Set the clocks of both machines/,
  )
  await middle.close()
})

test('a peer that is this sidecar is warned of: calls come back', async () => {
  await finds(
    'warn',
    { NAME: 'billing', PEERS: `orders=${billing.url}` },
    new RegExp(`The peer at ${billing.url} is this sidecar or a replica of it, as it is called billing too`),
    /PEERS must name the sidecar of the other app/,
  )
})

test('a peer at the PORT of this sidecar, which does not run yet, is told as what it is', async () => {
  const PORT = String(await unusedPort())
  await finds(
    'FAIL',
    { PORT, PEERS: `billing=http://localhost:${PORT}` },
    /did not answer: could not connect/,
    /That is the PORT of this sidecar/,
  )
})

test.run()
