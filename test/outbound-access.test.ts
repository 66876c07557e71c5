/** Who may make outbound calls: OUTBOUND_TOKEN, and PORT as a way in. */
import assert from 'node:assert/strict'
import { call } from './support/call.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type Sidecar, startSidecar, startTap, type Tap } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('outbound access')

const TOKEN = 'planted-token-of-today'
const PREVIOUS = 'planted-token-of-yesterday'

let app: Recorder
let billing: Sidecar
let tap: Tap
/** asks for a token */
let guarded: Sidecar
/** does not */
let open: Sidecar

test.before(async () => {
  app = await startRecorder('done')
  billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  tap = await startTap(billing.port('inbound'))
  const PEERS = `billing=http://127.0.0.1:${tap.port}`
  guarded = await startSidecar({
    NAME: 'orders',
    PEERS,
    OUTBOUND_TOKEN: TOKEN,
    OUTBOUND_TOKEN_PREVIOUS: PREVIOUS,
  })
  open = await startSidecar({ NAME: 'orders', PEERS })
})

test.after(async () => {
  for (const part of [guarded, open, tap, billing, app]) await part.close()
})

function basic(password: string): string {
  return `Basic ${Buffer.from(`app:${password}`).toString('base64')}`
}

function shown(token: string): Record<string, string>[] {
  return [
    { 'x-mte-outbound-token': token },
    { 'proxy-authorization': `Bearer ${token}` },
    { 'proxy-authorization': basic(token) },
  ]
}

test('the token opens the outbound port in each of its forms, and so does the previous one', async () => {
  for (const headers of [...shown(TOKEN), ...shown(PREVIOUS)]) {
    assert.equal((await call(guarded.port('outbound'), { headers })).text, 'done')
    assert.equal((await call(guarded.port('outbound'), { path: 'http://billing/', headers })).text, 'done')
  }
})

test('the token and all x-mte- fields stay on the machine', async () => {
  for (const headers of shown(TOKEN)) {
    await call(guarded.port('outbound'), {
      method: 'POST',
      headers: {
        ...headers,
        'x-mte-encode-type': 'MKE',
        'x-mte-planted': '1',
        'transfer-encoding': 'chunked',
        trailer: 'x-mte-late',
      },
      body: 'x',
      trailers: [
        ['x-mte-outbound-token', TOKEN],
        ['x-late', 'kept'],
      ],
    })
    const seen = app.last()
    assert.deepEqual(seen.trailers, { 'x-late': 'kept' })
    const names = Object.keys(seen.headers)
    assert.ok(
      !names.some((name) => name.startsWith('x-mte-') || name === 'proxy-authorization'),
      names.join(),
    )
    assert.ok(!JSON.stringify(seen).includes(TOKEN))
  }
  assert.ok(tap.recorded().length > 0)
  assert.ok(!tap.recorded().includes('planted'))
})

test('without the token, or with another, a call is refused and nothing is sent', async () => {
  const before = [app.seen.length, tap.recorded().length]
  const cases: [string, Record<string, string>][] = [
    ['token-missing', {}],
    ['token-missing', { 'proxy-authorization': 'Digest planted' }],
    ['token-missing', { authorization: `Bearer ${TOKEN}` }],
    ['token-wrong', { 'x-mte-outbound-token': '' }],
    ['token-wrong', { 'x-mte-outbound-token': `${TOKEN}x`, 'proxy-authorization': `Bearer ${TOKEN}` }],
    ...shown(TOKEN.toUpperCase()).map((headers): [string, Record<string, string>] => [
      'token-wrong',
      headers,
    ]),
  ]
  for (const [code, headers] of cases) {
    const direct = await call(guarded.port('outbound'), {
      headers: { ...headers, 'x-mte-upstream': `http://127.0.0.1:${tap.port}` },
    })
    assert.deepEqual([direct.status, direct.code], [401, code], JSON.stringify(headers))
    assert.equal(direct.headers['proxy-authenticate'], undefined)
    assert.equal(direct.headers['proxy-status'], 'mte-sidecar; error=http_request_denied')
    const proxied = await call(guarded.port('outbound'), { path: 'http://billing/', headers })
    assert.deepEqual([proxied.status, proxied.code], [407, code])
    assert.match(proxied.headers['proxy-authenticate']!, /^Basic realm="mte-sidecar", Bearer realm=/)
    assert.equal(JSON.parse(proxied.text).status, 407)
    for (const { text } of [direct, proxied]) assert.ok(!text.toLowerCase().includes('planted'))
  }
  assert.deepEqual([app.seen.length, tap.recorded().length], before)
})

test('where no token is set, the outbound port asks for none and a token that is shown changes nothing', async () => {
  for (const headers of [{}, ...shown('any')]) {
    assert.equal((await call(open.port('outbound'), { headers })).text, 'done')
  }
})

test('PORT takes an outbound call that shows the token', async () => {
  for (const token of [TOKEN, PREVIOUS]) {
    const headers = { 'x-mte-outbound-token': token }
    assert.equal((await call(guarded.port('inbound'), { path: '/v1/a', headers })).text, 'done')
    assert.equal(app.last().url, '/v1/a')
    assert.equal((await call(guarded.port('inbound'), { path: 'http://billing/v1/b', headers })).text, 'done')
    const own = {
      ...headers,
      host: `127.0.0.1:${guarded.port('inbound')}`,
      'x-mte-upstream': `http://127.0.0.1:${tap.port}`,
    }
    assert.equal((await call(guarded.port('inbound'), { headers: own })).text, 'done')
    assert.equal(app.last().headers.host, `127.0.0.1:${app.port}`)
  }
})

test('PORT takes no outbound call without the token, with another, or where none is set', async () => {
  const before = [app.seen.length, tap.recorded().length]
  const upstream = { 'x-mte-upstream': `http://127.0.0.1:${tap.port}` }
  for (const path of ['/v1/a', 'http://billing/v1/a']) {
    const wrong = await call(guarded.port('inbound'), {
      path,
      headers: { ...upstream, 'x-mte-outbound-token': 'other' },
    })
    assert.equal(wrong.code, 'token-wrong')
    assert.equal((await call(guarded.port('inbound'), { path, headers: upstream })).code, 'not-found')
    for (const headers of shown(TOKEN)) {
      const answer = await call(open.port('inbound'), { path, headers: { ...upstream, ...headers } })
      assert.equal(answer.code, 'not-found')
    }
  }
  assert.deepEqual([app.seen.length, tap.recorded().length], before)
})

test.run()
