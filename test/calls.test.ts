/** Calls from app to app through two sidecars, whole ones. Each theme that is more than that has a calls-*.test.ts of its own. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import http, { METHODS } from 'node:http'
import { APP_PROTOCOLS, beginStream, connectH2c, makeCall } from './support/app-client.ts'
import { call, once } from './support/call.ts'
import { closeListeners, RawClient } from './support/listener.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type Pair, startPair } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('calls')

let app: Recorder
let pair: Pair
let port: number

test.before(async () => {
  app = await startRecorder(({ method, url, headers, body }, response) => {
    response.setHeader('x-id', headers['x-id'] ?? 'none')
    response.end(method === 'HEAD' ? undefined : `${url} ${body}`)
  })
  pair = await startPair(app.port)
  port = pair.orders.port('outbound')
})

test.after(async () => {
  closeListeners()
  await pair.close()
  await app.close()
})

for (const protocol of APP_PROTOCOLS) {
  test(`every method reaches the app over ${protocol}, with path, query and body as they were`, async () => {
    const path = '/v1/charges/%2F;a=b?x=1&x=2&empty&q=%20+%C3%BC'
    for (const method of METHODS.filter((name) => name !== 'CONNECT')) {
      for (const body of method === 'GET' || method === 'HEAD' ? [''] : ['', 'hello']) {
        const fields = ['content-length', String(body.length)]
        const answer = await makeCall(protocol, port, { method, path, fields, body })
        assert.equal(answer.status, 200, `${method} ${answer.text}`)
        assert.equal(answer.text, method === 'HEAD' ? '' : `${path} ${body}`)
        assert.deepEqual([app.last().method, app.last().url, app.last().body], [method, path, body])
        assert.equal(app.last().headers.host, 'billing')
      }
    }
  })

  test(`bodies of GET, DELETE and OPTIONS are carried over ${protocol}`, async () => {
    for (const method of ['GET', 'DELETE', 'OPTIONS']) {
      const whole = await makeCall(protocol, port, { method, fields: ['content-length', '5'], body: 'hello' })
      assert.equal(whole.text, '/ hello')
      const fields = protocol === 'h2c' ? [] : ['transfer-encoding', 'chunked']
      assert.equal((await makeCall(protocol, port, { method, fields, body: 'hello' })).text, '/ hello')
    }
  })

  test(`hundreds of calls at the same time over ${protocol} are never mixed up`, async () => {
    const session = connectH2c(port)
    const agent = new http.Agent({ keepAlive: true, maxSockets: 40 })
    const one = async (nth: number) => {
      const id = randomUUID()
      const body = randomBytes(nth % 3 === 0 ? 40_000 : nth).toString('hex')
      const path = `/${id}`
      const headers = ['x-id', id, 'content-length', String(body.length)]
      const answer =
        protocol === 'h2c'
          ? await beginStream(session, { method: 'POST', path, fields: headers }).end(body).whole()
          : await call(port, { method: 'POST', path, headers, body, agent })
      assert.equal(answer.text, `/${id} ${body}`)
      const echoed = 'fields' in answer ? answer.fields : answer.rawHeaders.map((each) => each.toLowerCase())
      assert.ok(echoed.includes(id))
    }
    await Promise.all(Array.from({ length: 400 }, (_, nth) => one(nth)))
    session.close()
    agent.destroy()
  })
}

test('OPTIONS * is carried', async () => {
  assert.equal((await call(port, { method: 'OPTIONS', path: '*' })).text, '* ')
})

test('a connection is kept for the next calls, whatever the answers', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  const sockets = new Set<unknown>()
  agent.on('free', (socket) => sockets.add(socket))
  for (const [method, body] of [
    ['GET', ''],
    ['POST', 'x'.repeat(200_000)],
    ['DELETE', ''],
    ['PUT', 'y'],
  ] as const) {
    const headers = ['content-length', String(body.length)]
    assert.equal((await call(port, { method, headers, body, agent })).status, 200)
    assert.equal((await call(port, { headers: ['host', 'unknown'], agent })).code, 'no-peer')
  }
  assert.equal(sockets.size, 1)
  agent.destroy()
})

test('calls that are sent without waiting are answered in their order', async () => {
  const client = new RawClient(port)
  const requests = Array.from({ length: 20 }, (_, i) => {
    const body = i % 2 === 0 ? `body ${i}` : ''
    return `POST /${i} HTTP/1.1\r\nHost: billing\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  })
  client.write(`${requests.join('')}GET /last HTTP/1.1\r\nHost: billing\r\nConnection: close\r\n\r\n`)
  const received = await client.toEnd()
  const order = [...received.matchAll(/\r\n\r\n\/([0-9a-z]+) (body \d+)?/g)].map(([, path, body]) => [
    path,
    body,
  ])
  assert.deepEqual(order, [
    ...Array.from({ length: 20 }, (_, i) => [`${i}`, i % 2 === 0 ? `body ${i}` : undefined]),
    ['last', undefined],
  ])
})

test('an HTTP/1.0 call gets its answer, and its connection ends', async () => {
  const client = new RawClient(port).write(
    'POST /old HTTP/1.0\r\nHost: billing\r\nContent-Length: 2\r\n\r\nhi',
  )
  assert.match(await client.toEnd(), /^HTTP\/1\.1 200 OK\r\n.*\r\n\r\n\/old hi$/s)
})

test('WebSocket upgrades and CONNECT get a clear 501, and nothing reaches the app', async () => {
  const before = app.seen.length
  const upgrade = [
    'connection',
    'Upgrade',
    'upgrade',
    'websocket',
    'sec-websocket-version',
    '13',
    'sec-websocket-key',
    'eA==',
  ]
  const answer = await call(port, { headers: upgrade })
  assert.deepEqual([answer.status, answer.code], [501, 'not-implemented'])
  assert.match(JSON.parse(answer.text).detail, /WebSocket/)
  const connect = await new RawClient(port)
    .write('CONNECT billing:443 HTTP/1.1\r\nHost: billing:443\r\n\r\n')
    .toEnd()
  assert.match(connect, /^HTTP\/1\.1 501 .*mte-error: not-implemented.*CONNECT/s)
  const session = connectH2c(port)
  const stream = session.request({ ':method': 'CONNECT', ':authority': 'billing:443' })
  const headers = await once<Record<string, unknown>>(stream, 'response')
  assert.deepEqual([headers[':status'], headers['mte-error']], [501, 'not-implemented'])
  stream.close()
  session.close()
  assert.equal(app.seen.length, before)
})

test.run()
