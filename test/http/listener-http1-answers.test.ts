import assert from 'node:assert/strict'
import { answer, closeListeners, exchange, listen, listenKeeping, RawClient } from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener answers over HTTP/1.1')
test.after(closeListeners)

const CLOSE = 'Connection: close'

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
    const head = text.slice(0, text.indexOf('\r\nconnection:'))
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

test('answers with a length where the body is at hand, and in chunks where it is not', async () => {
  const fed = new FedBody()
  const bodies = [answer('at hand'), answer(fed)]
  const { port } = await listen(async () => bodies.shift()!)
  const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', '', '')
  await client.until(/\r\ncontent-length: 7\r\n[\s\S]*\r\n\r\nat hand$/)
  client.write('GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  // Versions of Node differ in whether pieces that are there at once make one chunk.
  fed.push('piece').end()
  assert.match(await client.toEnd(), /\r\ntransfer-encoding: chunked\r\n\r\n5\r\npiece\r\n0\r\n\r\n$/)
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
  assert.match(text, /^HTTP\/1\.1 413 [\s\S]*\r\nconnection: close\r\n[\s\S]*no$/)
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
  const { port, requests } = await listenKeeping()
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

test('passes no more than 16 interim responses on', async () => {
  const { port } = await listen(async ({ caller }) => {
    for (let i = 0; i < 100; i++) caller.inform({ status: 103, fields: ['link', '</a>'] })
    return answer('ok')
  })
  const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.equal(text.split('HTTP/1.1 103 ').length - 1, 16)
  assert.match(text, /\r\n\r\nok$/)
})

test('answers an HTTP/1.0 client without chunks, and ends the connection after the body', async () => {
  const { port } = await listen(async ({ request: { head } }) =>
    answer(new FedBody().push(head.authority).push('-').end(['x-sum', '1']), ['trailer', 'x-sum']),
  )
  const text = await exchange(port, 'GET / HTTP/1.0', '', '')
  assert.match(text, /\r\nconnection: close\r\n[\s\S]*\r\n\r\n-$/)
  assert.doesNotMatch(text, /chunked|trailer/i)
})

test.run()
