/** Routes of PORT that reach the app in plain: only those that are configured, and as they came. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import http2 from 'node:http2'
import net from 'node:net'
import { type CallAnswer, type CallOptions, call, once } from './support/call.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type Sidecar, startSidecar } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('pass-through routes')

let app: Recorder
let billing: Sidecar

test.before(async () => {
  app = await startRecorder(({ body }, response) => {
    response.writeHead(201, { 'x-answer': ['1', '2'], 'set-cookie': ['a=1', 'b=2'] }).end(`got ${body}`)
  })
  billing = await startSidecar({
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    PASS_THROUGH_ROUTES: '/healthz,/public/,/a/b',
  })
})

test.after(async () => {
  await billing.close()
  await app.close()
})

function inbound(options: CallOptions): Promise<CallAnswer> {
  return call(billing.port('inbound'), options)
}

test('a route that is configured reaches the app, and what is below it', async () => {
  for (const path of [
    '/healthz',
    '/healthz?full=1',
    '/healthz/',
    '/healthz/db',
    '/public/',
    '/public/x.css',
    '/a/b',
    '/a/b/c',
    '/healthz//x',
  ]) {
    const answer = await inbound({ path })
    assert.equal(answer.status, 201, path)
    assert.equal(app.last().url, path)
  }
})

test('a route begins and ends with whole segments', async () => {
  const before = app.seen.length
  for (const path of [
    '/healthzz',
    '/healthz.json',
    '/healthz-admin',
    '/public',
    '/publicx/',
    '/a',
    '/a/',
    '/a/bc',
    '/',
    '/x/healthz',
    '//healthz',
    '/Healthz',
  ]) {
    assert.equal((await inbound({ path })).code, 'not-found', path)
  }
  assert.equal(app.seen.length, before)
})

test('nothing climbs out of a route, in any spelling', async () => {
  const before = app.seen.length
  for (const path of [
    '/healthz/../secret',
    '/healthz/..',
    '/healthz/.',
    '/healthz/./x',
    '/healthz/%2e%2e/secret',
    '/healthz/%2E%2e/secret',
    '/healthz/.%2e/secret',
    '/healthz%2f..%2fsecret',
    '/healthz/..%2fsecret',
    '/healthz/..%5csecret',
    '/healthz/..\\secret',
    '/healthz/x/..;/../secret',
    '/healthz/..;a=b/secret',
    '/public/../healthz',
    '/%68ealthz/../secret',
    '/secret/../healthz',
    'http://127.0.0.1/healthz/../secret',
  ]) {
    assert.equal((await inbound({ path })).code, 'not-found', path)
  }
  assert.equal(app.seen.length, before)
})

test('dots elsewhere are nothing special', async () => {
  for (const path of ['/healthz/...', '/healthz/..a', '/healthz/a..b/', '/healthz/x?next=/../y']) {
    assert.equal((await inbound({ path })).status, 201, path)
    assert.equal(app.last().url, path)
  }
})

test('method, headers and body reach the app as they came, and its answer the caller', async () => {
  const body = randomBytes(300_000).toString('base64')
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    for (const framing of [{ 'content-length': String(body.length) }, { 'transfer-encoding': 'chunked' }]) {
      const headers = { 'x-a': ['1', '2'], host: 'billing.example', ...framing }
      const answer = await inbound({ method, path: '/healthz', headers, body })
      assert.equal(answer.text, `got ${body}`)
      assert.equal(answer.headers['x-answer'], '1, 2')
      assert.deepEqual(answer.headers['set-cookie'], ['a=1', 'b=2'])
      const { method: seenMethod, headers: seenHeaders, body: seenBody } = app.last()
      assert.deepEqual([seenMethod, seenBody], [method, body])
      assert.equal(seenHeaders['x-a'], '1, 2')
      assert.equal(seenHeaders.host, 'billing.example')
    }
  }
})

test('a body that the library behind it would lose is refused, and the next call on the connection is its own', async () => {
  const before = app.seen.length
  const socket = net.connect(billing.port('inbound'), '127.0.0.1')
  const smuggled = 'GET /healthz/smuggled HTTP/1.1\r\nHost: x\r\n\r\n'
  socket.write(`GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`)
  socket.write('GET /healthz/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  let text = ''
  socket.on('data', (bytes) => (text += bytes))
  await once(socket, 'close')
  assert.match(text, /^HTTP\/1\.1 501 /)
  assert.ok(!app.seen.slice(before).some(({ url }) => url === '/healthz/smuggled'))
})

test('what is for the sidecar goes no further', async () => {
  await inbound({
    path: '/healthz',
    headers: {
      'x-mte-upstream': 'http://planted',
      'x-mte-outbound-token': 'planted',
      'proxy-authorization': 'Basic planted',
      'x-a': 'b',
    },
  })
  const { headers } = app.last()
  assert.equal(headers['x-a'], 'b')
  assert.ok(!JSON.stringify(headers).includes('planted'))
})

test('over HTTP/2 too', async () => {
  const session = http2.connect(`http://127.0.0.1:${billing.port('inbound')}`)
  const answered = (headers: http2.OutgoingHttpHeaders, body?: string) => {
    const stream = session.request(headers)
    stream.end(body)
    stream.resume()
    return once<http2.IncomingHttpHeaders>(stream, 'response')
  }
  const path = '/healthz/h2'
  assert.equal((await answered({ ':path': path, ':method': 'POST' }, 'x'))[':status'], 201)
  assert.deepEqual([app.last().url, app.last().body], [path, 'x'])
  assert.equal((await answered({ ':path': '/secret' }))[':status'], 404)
  session.close()
})

test('an app that is down, or breaks off, is told as what it is', async () => {
  const gone = await startRecorder((_seen, response) => response.socket!.destroy())
  const sidecar = await startSidecar({
    UPSTREAM: `http://127.0.0.1:${gone.port}`,
    PASS_THROUGH_ROUTES: '/healthz',
  })
  const options = { path: '/healthz' }
  const broken = await call(sidecar.port('inbound'), options)
  assert.deepEqual([broken.status, broken.code], [502, 'upstream-unreachable'])
  await gone.close()
  const down = await call(sidecar.port('inbound'), options)
  assert.deepEqual([down.status, down.code], [502, 'upstream-unreachable'])
  await sidecar.close()
})

test('an app that does not answer is given up in time', async () => {
  const silent = await startRecorder(() => {})
  const sidecar = await startSidecar({
    UPSTREAM: `http://127.0.0.1:${silent.port}`,
    PASS_THROUGH_ROUTES: '/healthz',
    RESPONSE_TIMEOUT_SECONDS: 0.2,
  })
  const answer = await call(sidecar.port('inbound'), { path: '/healthz' })
  assert.deepEqual([answer.status, answer.code], [504, 'upstream-timeout'])
  await sidecar.close()
  await silent.close()
})

test('without PASS_THROUGH_ROUTES nothing passes', async () => {
  const sidecar = await startSidecar({ UPSTREAM: `http://127.0.0.1:${app.port}` })
  const before = app.seen.length
  for (const path of ['/', '/healthz'])
    assert.equal((await call(sidecar.port('inbound'), { path })).code, 'not-found')
  assert.equal(app.seen.length, before)
  await sidecar.close()
})

test.run()
