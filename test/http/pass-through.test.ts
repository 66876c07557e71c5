import assert from 'node:assert/strict'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Fields } from '../../sidecar/call.ts'
import { type PassThroughOptions, passThrough } from '../../sidecar/http/pass-through.ts'
import {
  callHttp2,
  closeListeners,
  connectHttp2,
  exchange,
  http2Answer,
  listen,
  RawClient,
} from '../support/listener.ts'
import { type Listening, listening, OPTIONS, rawServer, received } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/pass-through')
const apps: Listening[] = []
test.after(async () => {
  closeListeners()
  for (const app of apps) await app.close()
})

const CLOSE = 'Connection: close'

/** A listener that passes everything through to an app. */
async function before(app: Listening, options: Partial<PassThroughOptions> & { added?: Fields } = {}) {
  apps.push(app)
  const { added = [], ...rest } = options
  const forward = passThrough({ upstream: app.url, ...OPTIONS, ...rest })
  return listen((arrival) => forward(arrival, added))
}

function httpApp(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Listening> {
  const server = http.createServer(handler)
  server.on('checkContinue', handler)
  return listening(server)
}

/** An app that tells what it got. */
const telling = () =>
  httpApp(async (request, response) => {
    const pieces: Buffer[] = []
    for await (const piece of request) pieces.push(piece)
    const { method, url, rawHeaders } = request
    response.end(JSON.stringify({ method, url, rawHeaders, body: Buffer.concat(pieces).toString() }))
  })

/** An app that answers each connection with some bytes. */
const saying = (bytes: string) =>
  rawServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.end(bytes, 'latin1'))
  })

test('forwards a request as it is, but for what belongs to a connection or the sidecar', async () => {
  const { port } = await before(await telling())
  const text = await exchange(
    port,
    'GET /healthz?a=b HTTP/1.1',
    'Host: app.example:81',
    'X: 1',
    'X: 2',
    'Cookie: a=1',
    'Content-Type: p',
    'Content-Type: q',
    'X-Hop: gone',
    'x-mte-outbound-token: secret',
    'X-MTE-Upstream: http://peer',
    'Proxy-Authorization: Bearer secret',
    'Forwarded: for=them',
    'Connection: close, x-hop',
    '',
    '',
  )
  const got = JSON.parse(
    text
      .slice(text.indexOf('{'))
      .replace(/\r\n0\r\n\r\n$/, '')
      .trim(),
  )
  const forwarded = got.rawHeaders.splice(got.rawHeaders.indexOf('forwarded'), 2)[1]
  assert.match(forwarded, /^for=them, by=.*;for=.*;proto=http;host=app\.example:81$/)
  assert.deepEqual(got, {
    method: 'GET',
    url: '/healthz?a=b',
    rawHeaders: [
      ...[
        'host',
        'app.example:81',
        'x',
        '1',
        'x',
        '2',
        'cookie',
        'a=1',
        'content-type',
        'p',
        'content-type',
        'q',
      ],
      ...['Connection', 'keep-alive'],
    ],
    body: '',
  })
})

test('forwards the path of a URL in absolute form, never its authority, and below the path of UPSTREAM', async () => {
  const app = await telling()
  const { port } = await before(app, { upstream: new URL('/base/', app.url) })
  const text = await exchange(port, 'GET http://elsewhere/healthz HTTP/1.1', 'Host: x', CLOSE, '', '')
  assert.match(text, /"url":"\/base\/healthz"/)
  assert.match(text, /"host","elsewhere"/)
  assert.match(
    await exchange(port, 'GET /../etc HTTP/1.1', 'Host: x', CLOSE, '', ''),
    /^HTTP\/1\.1 400 [\s\S]*"bad-request"/,
  )
})

test('forwards bodies in both framings, and over HTTP/2', async () => {
  const { port } = await before(await telling())
  for (const method of ['POST', 'DELETE', 'TRACE']) {
    const withLength = await exchange(
      port,
      `${method} / HTTP/1.1`,
      'Host: a',
      'Content-Length: 5',
      CLOSE,
      '',
      'hello',
    )
    assert.match(withLength, /"content-length","5".*"body":"hello"/)
    const chunked = ['Transfer-Encoding: chunked', CLOSE, '', '5', 'hello', '0', '', '']
    const text = await exchange(port, `${method} / HTTP/1.1`, 'Host: a', ...chunked)
    assert.match(text, /"transfer-encoding","chunked".*"body":"hello"/)
  }
  const answered = await callHttp2(port, { ':method': 'POST', ':path': '/h2', ':authority': 'a' }, 'hello')
  assert.match(answered.body, /"url":"\/h2".*"transfer-encoding","chunked".*"body":"hello"/)
})

test('forwards values byte by byte, where the body comes at once, later, or after a 100', async () => {
  const { port } = await before(await telling())
  for (const lines of [[], ['Content-Length: 2'], ['Content-Length: 2', 'Expect: 100-continue']]) {
    const client = new RawClient(port).write(
      'POST / HTTP/1.1',
      'Host: a',
      'X: \xe4\xff',
      ...lines,
      CLOSE,
      '',
      '',
    )
    if (lines.length > 0) client.write('hi')
    // The app tells it in JSON, and so in UTF-8.
    assert.ok(
      Buffer.from(await client.toEnd(), 'latin1')
        .toString()
        .includes('"x","\xe4\xff"'),
    )
  }
})

test('refuses a GET, HEAD or OPTIONS with a body, and the app gets no byte of it', async () => {
  const requests: string[] = []
  const app = await httpApp((request, response) => {
    requests.push(request.url!)
    response.end('ok')
  })
  const { port } = await before(app)
  const hidden = 'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n'
  for (const method of ['GET', 'HEAD', 'OPTIONS']) {
    for (const framing of [
      [`Content-Length: ${hidden.length}`, '', hidden],
      ['Transfer-Encoding: chunked', '', hidden.length.toString(16), hidden, '0', '', ''],
    ]) {
      const client = new RawClient(port).write(`${method} /first HTTP/1.1`, 'Host: a', ...framing)
      await client.until(/^HTTP\/1\.1 501 [\s\S]*\r\nmte-error: not-implemented\r\n[\s\S]*\r\n\r\n/)
      client.write('GET /second HTTP/1.1', 'Host: a', CLOSE, '', '')
      await client.toEnd()
    }
    const answered = await callHttp2(port, { ':method': method, ':path': '/h2', ':authority': 'a' }, hidden)
    assert.equal(answered.status, 501)
  }
  assert.deepEqual(requests, Array(6).fill('/second'))
})

test('is not confused about where requests end on the connection that it keeps to the app', async () => {
  const app = await rawServer((socket) => {
    socket.on('error', () => {})
    let got = ''
    socket.on('data', (bytes: Buffer) => {
      got += bytes.toString('latin1')
      if (/\r\n\r\n$/.test(got)) {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${got.length}\r\n\r\n${got}`, 'latin1')
        got = ''
      }
    })
  })
  const { port } = await before(app)
  for (const lines of [
    ['GET /1 HTTP/1.1', 'Host: a', 'Content-Length: 0', CLOSE, '', ''],
    ['DELETE /2 HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', CLOSE, '', '3', 'abc', '0', '', ''],
    ['OPTIONS * HTTP/1.1', 'Host: a', CLOSE, '', ''],
  ]) {
    const text = await exchange(port, ...lines)
    const heads = text.match(/^[A-Z]+ [^ ]+ HTTP\/1\.1$/gm)
    assert.deepEqual(heads, [lines[0]])
    if (lines[0]!.startsWith('DELETE')) assert.match(text, /\r\n\r\n3\r\nabc\r\n0\r\n\r\n$/)
  }
})

test('passes the answer on: status, fields, pieces as they come, trailers, interim responses', async () => {
  const app = await httpApp((_request, response) => {
    response.writeEarlyHints({ link: '</a>; rel=preload' })
    response.writeHead(418, [
      'Set-Cookie',
      'a=1',
      'Set-Cookie',
      'b=2',
      'Trailer',
      'X-Sum',
      'mte-error',
      'forged',
      'X-MTE-Kept',
      'yes',
    ])
    response.write('one')
    response.addTrailers([['X-Sum', '1']])
    setImmediate(() => response.end('two'))
  })
  const { port } = await before(app)
  const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.match(text, /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/a>; rel=preload\r\n\r\nHTTP\/1\.1 418 /)
  assert.match(text, /\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n/)
  assert.match(text, /one[\s\S]*two\r\n0\r\nx-sum: 1\r\n\r\n$/)
  assert.match(text, /\r\nx-mte-kept: yes\r\n/)
  assert.doesNotMatch(text, /forged/)
})

test("passes the app's 100 on before the body is sent", async () => {
  const app = await httpApp((request, response) => {
    response.writeContinue()
    request.pipe(response)
  })
  const { port } = await before(app)
  const client = new RawClient(port).write(
    'POST / HTTP/1.1',
    'Host: a',
    'Expect: 100-continue',
    'Content-Length: 2',
    CLOSE,
    '',
    '',
  )
  await client.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
  client.write('hi')
  assert.match(await client.toEnd(), /HTTP\/1\.1 200 OK[\s\S]*hi/)
})

test('adds fields to the answer: they replace those of the app, and join its Vary', async () => {
  const app = await httpApp((_request, response) => {
    response.writeHead(200, ['Vary', 'Cookie', 'X-Env', 'app', 'access-control-allow-origin', 'x'])
    response.end('ok')
  })
  const added = ['x-env', 'test', 'access-control-allow-origin', 'https://a', 'vary', 'Origin']
  const { port } = await before(app, { added })
  const { raw } = await callHttp2(port, { ':path': '/', ':authority': 'a' })
  const pairs = raw.join()
  assert.ok(pairs.includes('vary,Cookie'), pairs)
  assert.ok(pairs.includes('x-env,test,access-control-allow-origin,https://a,vary,Origin'), pairs)
  assert.doesNotMatch(pairs, /x-env,app|allow-origin,x/)
})

for (const [what, bytes] of [
  ['status 999', 'HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok'],
  ['status 600', 'HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nok'],
  ['no HTTP', 'SSH-2.0-OpenSSH_9.2\r\n'],
  ['nothing', ''],
  ['a head that is cut off', 'HTTP/1.1 200 OK\r\nContent-'],
  ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!'],
  [
    'a switch of protocols',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello',
  ],
  ['a head beyond all measure', `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(200_000)}\r\n\r\n`],
  ['a head beyond the limit', `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(70_000)}\r\nContent-Length: 0\r\n\r\n`],
] as const) {
  test(`answers upstream-unreachable when the app says ${what}, and lives on`, async () => {
    const { port, faults } = await before(await saying(bytes))
    const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
    assert.match(text, /^HTTP\/1\.1 502 [\s\S]*\r\nmte-error: upstream-unreachable\r\n/)
    const answered = await callHttp2(port, { ':path': '/', ':authority': 'a' })
    assert.equal(answered.status, 502)
    assert.deepEqual(faults, [])
  })
}

test('answers upstream-unreachable when nobody listens, in time', async () => {
  const app = await telling()
  await app.close()
  const { port } = await before(app)
  const text = await exchange(port, 'POST / HTTP/1.1', 'Host: a', 'Content-Length: 2', CLOSE, '', 'hi')
  assert.match(text, /^HTTP\/1\.1 502 [\s\S]*"detail":"[^"]*ECONNREFUSED[^"]*","code":"upstream-unreachable"/)
})

test('answers upstream-timeout when the app does not answer, and hangs up on it', async () => {
  const hungUp = Promise.withResolvers<void>()
  const app = await rawServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', () => {})
    socket.on('close', () => hungUp.resolve())
  })
  const { port } = await before(app, { responseTimeoutMs: 50 })
  const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.match(text, /^HTTP\/1\.1 504 [\s\S]*\r\nmte-error: upstream-timeout\r\n/)
  await hungUp.promise
})

test('resets a caller whose answer the app cut off', async () => {
  for (const head of ['Content-Length: 9', 'Transfer-Encoding: chunked']) {
    const { port } = await before(await saying(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n5\r\nbegun`))
    const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', '', '')
    assert.equal(await client.ended, 'ECONNRESET')
    const answered = await callHttp2(port, { ':path': '/', ':authority': 'a' })
    assert.equal(answered.ended, false)
  }
})

test('hangs up on the app when the caller goes away: in its body, before the answer, or within it', async () => {
  for (const stage of ['body', 'answer', 'within'] as const) {
    const arrived = Promise.withResolvers<Socket>()
    const app = await rawServer((socket) => {
      socket.on('error', () => {})
      received(socket, '\r\n\r\n').then(() => {
        if (stage === 'within') socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun')
        arrived.resolve(socket)
      })
    })
    const { port, listener } = await before(app)
    const client = new RawClient(port).write(
      'POST / HTTP/1.1',
      'Host: a',
      `Content-Length: ${stage === 'body' ? 9 : 0}`,
      '',
      '',
    )
    const socket = await arrived.promise
    if (stage === 'within') await client.until(/begun$/)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    client.socket.resetAndDestroy()
    await closed
    await listener.drain(0)
  }
})

test('streams large bodies both ways with backpressure, over HTTP/2 too', async () => {
  const app = await httpApp((request, response) => {
    request.pipe(response)
  })
  const { port } = await before(app)
  const stream = connectHttp2(port).request({ ':method': 'POST', ':path': '/', ':authority': 'a' })
  const answered = http2Answer(stream)
  const sent = 'abcdefghij'.repeat(500_000)
  stream.end(sent, 'latin1')
  const { body, ended } = await answered
  assert.ok(ended && body === sent)
})

test.run()
