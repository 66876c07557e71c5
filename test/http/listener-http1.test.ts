import assert from 'node:assert/strict'
import http from 'node:http'
import { type Fields, NO_BODY, type Request } from '../../sidecar/call.ts'
import { answer, closeListeners, exchange, listen, RawClient } from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener over HTTP/1.1')
test.after(closeListeners)

const CLOSE = 'Connection: close'

/** A listener that tells what request it got, and answers with `ok`. */
async function keeping() {
  const requests: (Request['head'] & { absoluteForm: boolean; text: string; trailers: Fields })[] = []
  const { port } = await listen(async ({ request: { head, body }, absoluteForm }) => {
    const text = await readAll(body)
    requests.push({ ...head, absoluteForm, text, trailers: body.trailers })
    return answer('ok')
  })
  return { port, requests }
}

test('hands on what a request says, Host as its authority, connection-specific fields left out', async () => {
  const { port, requests } = await keeping()
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
  const { port, requests } = await keeping()
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
  const { port, requests } = await keeping()
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

test('writes the fields of an answer in order and apart, and values byte by byte', async () => {
  const fields = [
    'set-cookie',
    'a=1',
    'x',
    'y',
    'set-cookie',
    'b=2',
    'content-length',
    '2',
    'c',
    '\xe4\xff\tz',
  ]
  for (const body of ['ok', new FedBody().push('ok').end()]) {
    const { port } = await listen(async () => answer(body, fields))
    const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
    const head = text.slice(0, text.indexOf('\r\nDate:'))
    assert.equal(
      head,
      'HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nx: y\r\nset-cookie: b=2\r\ncontent-length: 2\r\nc: \xe4\xff\tz',
    )
  }
})

test('writes a Content-Disposition that is not in ASCII as it is', async () => {
  for (const name of ['\xc3\xa4', '\xe4', '\xc4\x8d\xc4\x8a']) {
    const disposition = `attachment; filename="${name}"`
    const { port, faults } = await listen(async () =>
      answer('ok', ['content-length', '2', 'content-disposition', disposition]),
    )
    const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
    assert.ok(text.includes(`\r\ncontent-disposition: ${disposition}\r\n`), text)
    assert.match(text, /\r\ncontent-length: 2\r\n/)
    assert.deepEqual(faults, [])
  }
})

test('recognises absolute form, and ignores a Host that differs', async () => {
  const { port, requests } = await keeping()
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
  const { port, requests } = await keeping()
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
  const { port, requests } = await keeping()
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
  const { port, requests } = await keeping()
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

test('answers with a length where the body is at hand, and in chunks where it is not', async () => {
  const fed = new FedBody()
  const bodies = [answer('at hand'), answer(fed)]
  const { port } = await listen(async () => bodies.shift()!)
  const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', '', '')
  await client.until(/\r\ncontent-length: 7\r\n[\s\S]*\r\n\r\nat hand$/)
  client.write('GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  fed.push('one').push('two').end()
  assert.match(await client.toEnd(), /\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nonetwo\r\n0\r\n\r\n$/)
})

test('writes the head of an answer whose body is not there yet, and each piece, at once', async () => {
  const fed = new FedBody()
  const { port } = await listen(async () => answer(fed, ['content-type', 'text/event-stream']))
  const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', '', '')
  await client.until(/\r\ncontent-type: text\/event-stream\r\n[\s\S]*\r\n\r\n$/)
  for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
    fed.push(event)
    await client.until(new RegExp(`${event}\r\n$`))
  }
})

test('begins to answer before the request has ended, in both directions at once', async () => {
  const fed = new FedBody()
  const { port } = await listen(async ({ request: { body } }) => {
    const copy = async () => {
      for (let piece = await body.read(); piece; piece = await body.read()) fed.push(piece)
      fed.end()
    }
    void copy()
    return answer(fed)
  })
  const client = new RawClient(port).write('POST / HTTP/1.1', 'Host: a', 'Content-Length: 6', CLOSE, '', '')
  await client.until(/200 OK[\s\S]*\r\n\r\n$/)
  for (const piece of ['on', 'tw', 'th']) {
    client.write(piece)
    await client.until(new RegExp(`2\r\n${piece}\r\n`))
  }
  assert.match(await client.toEnd(), /\r\n0\r\n\r\n$/)
})

test('writes trailers, with chunks in place of a Content-Length', async () => {
  for (const whole of [true, false]) {
    const { port } = await listen(async () => {
      const fed = new FedBody().push('hello').end(['x-sum', '1', 'x-sum', '2'])
      if (whole) Object.assign(fed, { whole: () => Buffer.from('hello') })
      return answer(fed, ['content-length', '5', 'trailer', 'x-sum'])
    })
    const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
    assert.match(
      text,
      /\r\ntrailer: x-sum\r\n[\s\S]*\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\n$/,
    )
    assert.doesNotMatch(text, /content-length/i)
  }
})

test('keeps a Content-Length, and leaves out Trailer, where an answer has no body', async () => {
  const fields = ['content-length', '1234', 'trailer', 'x-sum', 'etag', '"1"']
  for (const [method, status] of [
    ['HEAD', 200],
    ['GET', 304],
  ] as const) {
    const bodies = [answer('', fields, status), answer(new FedBody().end(), fields, status)]
    const { port } = await listen(async () => bodies.shift()!)
    for (let i = 0; i < 2; i++) {
      const text = await exchange(port, `${method} / HTTP/1.1`, 'Host: a', CLOSE, '', '')
      assert.match(text, /\r\ncontent-length: 1234\r\netag: "1"\r\n[\s\S]*\r\n\r\n$/)
      assert.doesNotMatch(text, /trailer|transfer-encoding/i)
    }
  }
})

test('ends a 204 and an empty answer with their heads', async () => {
  for (const [made, pattern] of [
    [
      answer('', [], 204),
      /^HTTP\/1\.1 204 No Content\r\n(?![\s\S]*(?:content-length|chunked))[\s\S]*\r\n\r\n$/i,
    ],
    [answer(''), /^HTTP\/1\.1 200 OK\r\ncontent-length: 0\r\n[\s\S]*\r\n\r\n$/],
    [
      answer(new FedBody().end(), ['content-length', '0']),
      /^HTTP\/1\.1 200 OK\r\ncontent-length: 0\r\n[\s\S]*\r\n\r\n$/,
    ],
  ] as const) {
    const { port } = await listen(async () => made)
    assert.match(await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', ''), pattern)
  }
})

test('leaves Expect to the app, and passes its 100 on', async () => {
  const { port } = await listen(async ({ request: { head, body }, caller }) => {
    caller.inform({ status: 100, fields: [] })
    return answer(`${head.fields.join()} ${await readAll(body)}`)
  })
  const client = new RawClient(port).write(
    'POST / HTTP/1.1',
    'Host: a',
    'Expect: 100-continue',
    'Content-Length: 2',
    '',
    '',
  )
  await client.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
  client.write('hi')
  await client.until(/HTTP\/1\.1 200 OK\r\n[\s\S]*expect,100-continue,content-length,2 hi$/)
  // The connection goes on.
  client.write('POST / HTTP/1.1', 'Host: a', 'Content-Length: 2', CLOSE, '', 'ho')
  assert.match(await client.toEnd(), /content-length,2 ho$/)
})

test('answers a call that waits for a 100 without one, and then ends the connection', async () => {
  const { port } = await listen(async () => answer('no', [], 413))
  const text = await exchange(
    port,
    'POST / HTTP/1.1',
    'Host: a',
    'Expect: 100-continue',
    'Content-Length: 2',
    '',
    '',
  )
  assert.match(text, /^HTTP\/1\.1 413 [\s\S]*\r\nConnection: close\r\n[\s\S]*no$/)
})

test('handles nothing more on a connection that it ends because of a 100 that was not sent', async () => {
  const paths: string[] = []
  const { port } = await listen(async ({ request: { head } }) => {
    paths.push(head.path)
    return answer('no', [], 413)
  })
  const client = new RawClient(port)
  client.write('POST /1 HTTP/1.1', 'Host: a', 'Expect: 100-continue', 'Content-Length: 2', '', '')
  assert.equal(await client.ended, 'end')
  client.write('hiGET /2 HTTP/1.1', 'Host: a', '', '')
  await exchange(port, 'GET /3 HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.deepEqual(paths, ['/1', '/3'])
})

test('passes an unknown expectation on', async () => {
  const { port, requests } = await keeping()
  assert.match(
    await exchange(port, 'GET / HTTP/1.1', 'Host: a', 'Expect: magic', CLOSE, '', ''),
    /^HTTP\/1\.1 200/,
  )
  assert.deepEqual(requests[0]?.fields, ['expect', 'magic'])
})

test('passes interim responses on, but not to HTTP/1.0, and not once the answer has begun', async () => {
  const { port } = await listen(async ({ caller }) => {
    caller.inform({ status: 103, fields: ['link', '</a>', 'link', '</b>'] })
    caller.inform({ status: 102, fields: [] })
    setImmediate(() => caller.inform({ status: 103, fields: ['link', '</late>'] }))
    return answer(new FedBody().push('ok').end(), ['content-length', '2'])
  })
  const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  const interim =
    'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n'
  assert.ok(text.startsWith(interim), text)
  assert.doesNotMatch(text, /late/)
  assert.match(await exchange(port, 'GET / HTTP/1.0', '', ''), /^HTTP\/1\.1 200 OK\r\n/)
})

test('answers an HTTP/1.0 client without chunks, and ends the connection after the body', async () => {
  const { port } = await listen(async ({ request: { head } }) =>
    answer(new FedBody().push(head.authority).push('-').end(['x-sum', '1']), ['trailer', 'x-sum']),
  )
  const text = await exchange(port, 'GET / HTTP/1.0', '', '')
  assert.match(text, /\r\nConnection: close\r\n\r\n-$/)
  assert.doesNotMatch(text, /chunked|trailer/i)
})

test('keeps the connection of an HTTP/1.0 client that asks for it, where the length is known', async () => {
  const { port } = await listen(async () => answer('ok'))
  const client = new RawClient(port).write('GET / HTTP/1.0', 'Connection: keep-alive', '', '')
  await client.until(/ok$/)
  client.write('GET / HTTP/1.0', '', '')
  assert.match(await client.toEnd(), /ok[\s\S]*ok$/)
})

test('handles pipelined requests one after the other, and answers in their order', async () => {
  let open = 0
  const { port } = await listen(async ({ request: { head, body } }) => {
    assert.equal(++open, 1)
    const text = await readAll(body)
    await new Promise(setImmediate)
    open--
    return head.path === '/2'
      ? answer(new FedBody().push(`[${head.path}${text}]`).end())
      : answer(`[${head.path}${text}]`)
  })
  const text = await exchange(
    port,
    'POST /1 HTTP/1.1',
    'Host: a',
    'Content-Length: 1',
    '',
    'xPOST /2 HTTP/1.1',
    'Host: a',
    'Transfer-Encoding: chunked',
    '',
    '1',
    'y',
    '0',
    '',
    'GET /3 HTTP/1.1',
    'Host: a',
    CLOSE,
    '',
    '',
  )
  assert.deepEqual(text.match(/\[.*?\]/g), ['[/1x]', '[/2y]', '[/3]'])
})

test('answers hundreds of pipelined requests, but not an endless queue of them', async () => {
  let first: (() => void) | undefined
  const { port } = await listen(async ({ request: { head } }) => {
    if (head.path === '/wait') await new Promise<void>((resolve) => (first = resolve))
    return answer('.')
  })
  const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
  const client = new RawClient(port).write(`${get.repeat(500)}GET / HTTP/1.1`, 'Host: a', CLOSE, '', '')
  const text = await client.toEnd()
  assert.equal(text.match(/HTTP\/1\.1 200 OK/g)?.length, 501)
  const flood = new RawClient(port).write('GET /wait HTTP/1.1\r\nHost: a\r\n\r\n', get.repeat(1100))
  assert.equal(await flood.ended, 'ECONNRESET')
  first?.()
})

test('handles nothing that comes after a request that was the last one', async () => {
  const { port, requests } = await keeping()
  await exchange(port, 'GET /1 HTTP/1.1', 'Host: a', CLOSE, '', 'GET /2 HTTP/1.1', 'Host: a', '', '')
  assert.deepEqual(
    requests.map(({ path }) => path),
    ['/1'],
  )
})

test('keeps the connection after a small body that nobody read', async () => {
  const { port } = await listen(async () => answer('ok'))
  const client = new RawClient(port).write('POST / HTTP/1.1', 'Host: a', 'Content-Length: 200000', '', '')
  await client.until(/ok$/)
  client.write('x'.repeat(200_000), '')
  client.write('GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.match(await client.toEnd(), /ok[\s\S]*ok$/)
})

test('keeps the connection after a body of which only the start was read', async () => {
  const { port } = await listen(async ({ request: { body } }) => {
    await body.read()
    return answer('ok')
  })
  for (const length of [100_000, 300_000]) {
    const client = new RawClient(port)
    client.write('POST / HTTP/1.1', 'Host: a', `Content-Length: ${length}`, '', 'x'.repeat(length))
    await client.until(/ok$/)
    client.write('POST / HTTP/1.1', 'Host: a', 'Content-Length: 2', CLOSE, '', 'hi')
    assert.match(await client.toEnd(), /ok[\s\S]*ok$/)
  }
})

test('ends the connection after a large body that nobody read, and its answer arrives', async () => {
  for (const how of ['keep-alive', 'close']) {
    const large = 'y'.repeat(3_000_000)
    const { port } = await listen(async ({ request: { body } }) => {
      await body.read()
      return answer(large, ['content-length', String(large.length)], 413)
    })
    const client = new RawClient(port)
    client.write('POST / HTTP/1.1', 'Host: a', `Connection: ${how}`, 'Content-Length: 100000000', '', '')
    const piece = Buffer.alloc(1_000_000)
    const more = () => {
      while (!client.socket.destroyed && client.socket.write(piece));
    }
    client.socket.on('drain', more)
    more()
    await client.ended
    const at = client.received.indexOf('\r\n\r\n') + 4
    assert.match(client.received, /^HTTP\/1\.1 413 /)
    assert.equal(client.received.slice(at), large)
  }
})

test('refuses WebSockets and CONNECT as not-implemented, and ignores other upgrades', async () => {
  const { port, requests } = await keeping()
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

test('carries large bodies both ways with a slow reader, whole', async () => {
  const { port } = await listen(async ({ request: { body } }) => answer(body))
  const bytes = 20_000_000
  const sent = Buffer.alloc(bytes, 'abcdefghijklmnopqrstuvwxyz012345678')
  const got = await new Promise<Buffer>((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, method: 'POST' }, async (response) => {
      const pieces: Buffer[] = []
      for await (const piece of response) {
        pieces.push(piece)
        await new Promise(setImmediate)
      }
      resolve(Buffer.concat(pieces))
    })
    request.on('error', reject)
    request.end(sent)
  })
  assert.ok(got.equals(sent))
})

test.run()
