import assert from 'node:assert/strict'
import http from 'node:http'
import { NO_BODY } from '../../sidecar/call.ts'
import { answer, closeListeners, exchange, listen, listenKeeping, RawClient } from '../support/listener.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener requests over HTTP/1.1')
test.after(closeListeners)

const CLOSE = 'Connection: close'

test('hands on what a request says, Host as its authority, connection-specific fields left out', async () => {
  const { port, requests } = await listenKeeping()
  await exchange(
    port,
    'PATCH /a%20b?c=d HTTP/1.1',
    'Host: app.example:8080',
    'X-One: 1',
    'Keep-Alive: timeout=5',
    'X-Hop: gone',
    'TE: trailers',
    'Connection: close, x-hop',
    '',
    '',
  )
  assert.deepEqual(requests, [
    {
      method: 'PATCH',
      scheme: 'http',
      authority: 'app.example:8080',
      path: '/a%20b?c=d',
      fields: ['x-one', '1', 'te', 'trailers'],
      absoluteForm: false,
      text: '',
      trailers: [],
    },
  ])
})

test('takes every method that node:http knows, but CONNECT', async () => {
  const { port, requests } = await listenKeeping()
  const methods = http.METHODS.filter((method) => method !== 'CONNECT')
  for (const method of methods) {
    const text = await exchange(port, `${method} / HTTP/1.1`, 'Host: a', CLOSE, '', '')
    assert.match(text, /^HTTP\/1\.1 200 OK\r\n/, method)
  }
  assert.deepEqual(
    requests.map(({ method }) => method),
    methods,
  )
})

test('keeps repeated fields in order and apart, and values byte by byte', async () => {
  const { port, requests } = await listenKeeping()
  const fields = [
    'a',
    '1',
    'b',
    '2',
    'a',
    '3',
    'content-type',
    'x',
    'content-type',
    'y',
    'c',
    '\xe4\xff\tz',
    'd',
    '',
  ]
  const lines: string[] = []
  for (let i = 0; i < fields.length; i += 2) lines.push(`${fields[i]}: ${fields[i + 1]}`)
  await exchange(port, 'GET / HTTP/1.1', 'Host: a', ...lines, CLOSE, '', '')
  assert.deepEqual(requests[0]?.fields, fields)
})

test('recognises absolute form, and ignores a Host that differs', async () => {
  const { port, requests } = await listenKeeping()
  for (const [target, authority, path, scheme] of [
    ['http://billing/v1?a=b', 'billing', '/v1?a=b', 'http'],
    ['HTTP://billing:81', 'billing:81', '/', 'http'],
    ['https://billing?a', 'billing', '/?a', 'https'],
  ]) {
    await exchange(port, `GET ${target} HTTP/1.1`, 'Host: other', CLOSE, '', '')
    const { absoluteForm, ...head } = requests.pop()!
    assert.ok(absoluteForm)
    assert.deepEqual([head.authority, head.path, head.scheme], [authority, path, scheme])
  }
})

test('takes 64 KiB of names and values, and refuses a byte more as headers-too-large', async () => {
  const { port, requests } = await listenKeeping()
  const names = ['Host', 'a', 'Connection', 'x'.repeat(1000)]
  const rest = 65536 - names.join('').length - 'a'.length - 'close'.length - 'yz'.length
  for (const [bytes, status] of [
    [rest, 200],
    [rest + 1, 431],
  ] as const) {
    const lines = ['Host: a', `${names[3]}: yz`, `a: ${'v'.repeat(bytes)}`, CLOSE]
    const text = await exchange(port, 'GET / HTTP/1.1', ...lines, '', '')
    assert.match(text, new RegExp(`^HTTP/1.1 ${status} `))
    if (status === 431) assert.match(text, /\r\nmte-error: headers-too-large\r\n/)
  }
  assert.equal(requests.length, 1)
})

test('refuses heads of any size and number of fields beyond, and the answer is read', async () => {
  const { port, requests } = await listenKeeping()
  const many = Array.from({ length: 2001 }, () => 'a: b')
  for (const lines of [many, [`a: ${'v'.repeat(1_000_000)}`], [`${'n'.repeat(200_000)}: v`]]) {
    const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', ...lines, '', '')
    assert.match(
      text,
      /^HTTP\/1\.1 431 [\s\S]*\r\nmte-error: headers-too-large\r\n[\s\S]*"code":"headers-too-large"/,
    )
  }
  const text = await exchange(port, `GET /${'p'.repeat(200_000)} HTTP/1.1`, 'Host: a', '', '')
  assert.match(text, /^HTTP\/1\.1 431 /)
  assert.deepEqual(requests, [])
})

test('reads bodies in both framings, and trailers', async () => {
  const { port, requests } = await listenKeeping()
  await exchange(port, 'POST / HTTP/1.1', 'Host: a', 'Content-Length: 5', CLOSE, '', 'hello')
  await exchange(
    port,
    'POST / HTTP/1.1',
    'Host: a',
    'Transfer-Encoding: Chunked',
    'Trailer: x-sum',
    CLOSE,
    '',
    '5;ext=1',
    'hello',
    '6',
    ' world',
    '0',
    'X-Sum: 1',
    'X-Sum: 2',
    '',
    '',
  )
  assert.deepEqual(
    requests.map(({ text, trailers, fields }) => ({ text, trailers, fields })),
    [
      { text: 'hello', trailers: [], fields: ['content-length', '5'] },
      { text: 'hello world', trailers: ['x-sum', '1', 'x-sum', '2'], fields: ['trailer', 'x-sum'] },
    ],
  )
})

test('gives a short body that came with its head as a whole, at once', async () => {
  const wholes: (string | undefined)[] = []
  const { port } = await listen(async ({ request: { body } }) => {
    wholes.push(body.whole(65536)?.toString())
    return answer()
  })
  await exchange(port, 'POST / HTTP/1.1', 'Host: a', 'Content-Length: 5', CLOSE, '', 'hello')
  await exchange(
    port,
    'POST / HTTP/1.1',
    'Host: a',
    'Transfer-Encoding: chunked',
    CLOSE,
    '',
    '5',
    'hello',
    '0',
    '',
    '',
  )
  const pieces = ['2', 'he', '1', 'l', '2', 'lo', '0', '', '']
  await exchange(port, 'POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', CLOSE, '', ...pieces)
  await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.deepEqual(wholes, ['hello', 'hello', 'hello', ''])
})

test('knows a request without a body by its head', async () => {
  const bodies: boolean[] = []
  const { port } = await listen(async ({ request: { body } }) => {
    bodies.push(body !== NO_BODY)
    return answer()
  })
  await exchange(port, 'POST / HTTP/1.1', 'Host: a', 'Content-Length: 0', CLOSE, '', '')
  await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  await exchange(port, 'GET / HTTP/1.1', 'Host: a', 'Content-Length: 1', CLOSE, '', 'x')
  await exchange(port, 'GET / HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', CLOSE, '', '0', '', '')
  assert.deepEqual(bodies, [false, false, true, true])
})

test('refuses WebSockets and CONNECT as not-implemented, and ignores other upgrades', async () => {
  const { port, requests } = await listenKeeping()
  for (const lines of [
    ['GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
    ['GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: h2c, WebSocket'],
    ['CONNECT a:443 HTTP/1.1', 'Host: a:443'],
  ]) {
    const text = await exchange(port, ...lines, '', '')
    assert.match(text, /^HTTP\/1\.1 501 Not Implemented\r\n[\s\S]*\r\nmte-error: not-implemented\r\n/)
    assert.match(
      text,
      /\r\nconnection: close\r\n[\s\S]*\r\nproxy-status: mte-sidecar; error=http_request_error\r\n/,
    )
    assert.match(text, /\r\n\r\n\{"type":.*"status":501.*"code":"not-implemented"\}\n$/)
  }
  assert.deepEqual(requests, [])
  const upgrade = ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__']
  const client = new RawClient(port).write(
    'POST / HTTP/1.1',
    'Host: a',
    ...upgrade,
    'Content-Length: 2',
    '',
    'hi',
  )
  await client.until(/^HTTP\/1\.1 200 OK[\s\S]*ok$/)
  client.write('GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  await client.toEnd()
  assert.deepEqual(
    requests.map(({ fields, text }) => [fields, text]),
    [
      [['content-length', '2'], 'hi'],
      [[], ''],
    ],
  )
})

test.run()
