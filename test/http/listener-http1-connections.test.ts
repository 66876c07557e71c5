import assert from 'node:assert/strict'
import http from 'node:http'
import { answer, closeListeners, exchange, listen, listenKeeping, RawClient } from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener connections of HTTP/1.1')
test.after(closeListeners)

const CLOSE = 'Connection: close'

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

test('answers pipelined requests without end, and reads none of them ahead', async () => {
  const first = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  let calls = 0
  const { port } = await listen(async ({ request: { head } }) => {
    calls++
    if (head.path === '/wait') {
      begun.resolve()
      await first.promise
    }
    return answer('.')
  })
  const client = new RawClient(port).write('GET /wait HTTP/1.1', 'Host: a', '', '')
  await begun.promise
  const padded = `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(10_000)}\r\n\r\n`
  let sent = 0
  // As many as the connection holds.
  while (client.socket.bytesWritten - client.socket.writableLength >= sent * padded.length) {
    for (let i = 0; i < 100; i++, sent++) client.socket.write(padded)
    await new Promise(setImmediate)
  }
  assert.equal(calls, 1)
  first.resolve()
  client.write('GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  const text = await client.toEnd()
  assert.equal(text.match(/HTTP\/1\.1 200 OK/g)?.length, sent + 2)
})

test('handles nothing that comes after a request that was the last one', async () => {
  const { port, requests } = await listenKeeping()
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
