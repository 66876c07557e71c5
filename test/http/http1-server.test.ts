/** What the HTTP/1.1 server does of its own accord: its answers' heads, what it reads and when, and when it closes. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Caller } from '../../sidecar/call.ts'
import type { SidecarError } from '../../sidecar/errors.ts'
import { answer, closeListeners, exchange, listen, listenKeeping, RawClient } from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-server')
test.after(closeListeners)

const GET = ['GET / HTTP/1.1', 'Host: a', '', '']
const CLOSE = 'Connection: close'
const DATE = /\r\ndate: (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n/

test('dates an answer, unless the app did', async () => {
  const { port } = await listen(async ({ request: { head } }) =>
    answer('ok', head.path === '/dated' ? ['date', 'Tue, 01 Jan 2030 00:00:00 GMT'] : []),
  )
  const before = Math.floor(Date.now() / 1000) * 1000
  const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.match(text, DATE)
  const dated = Date.parse(/\r\ndate: (.*)\r\n/.exec(text)![1]!)
  assert.ok(dated >= before - 1000 && dated <= Date.now(), text)
  const own = await exchange(port, 'GET /dated HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.deepEqual(own.match(/date: .*/g), ['date: Tue, 01 Jan 2030 00:00:00 GMT'])
})

test('says nothing of the connection where HTTP/1.1 keeps it, and tells HTTP/1.0 what becomes of it', async () => {
  const { port } = await listen(async () => answer('ok'))
  const client = new RawClient(port).write(...GET)
  await client.until(/ok$/)
  assert.doesNotMatch(client.received, /connection|keep-alive/i)
  const old = new RawClient(port).write('GET / HTTP/1.0', 'Connection: Keep-Alive', '', '')
  await old.until(/\r\nconnection: keep-alive\r\n[\s\S]*ok$/)
  old.write('GET / HTTP/1.0', '', '')
  assert.match(await old.toEnd(), /ok[\s\S]*\r\nconnection: close\r\n[\s\S]*ok$/)
})

test('gives an HTTP/1.0 client a body without a length until the end, however much it wanted to stay', async () => {
  const { port } = await listen(async () => answer(new FedBody().push('a', 'b').end(['x-sum', '1'])))
  const text = await exchange(port, 'GET / HTTP/1.0', 'Connection: keep-alive', '', '')
  assert.match(text, /\r\nconnection: close\r\n[\s\S]*\r\n\r\nab$/)
  assert.doesNotMatch(text, /content-length|transfer-encoding|x-sum/)
})

test('writes a body of any size as it is: at hand, in pieces with a length, and in chunks', async () => {
  for (const size of [1, 8192, 8193, 65_536, 1_000_000]) {
    const body = 'abc\xff'.repeat(size).slice(0, size)
    const bytes = Buffer.from(body, 'latin1')
    const whole = new FedBody().push(bytes).end()
    const atHand = Object.assign(new FedBody(), { whole: () => bytes })
    const lasting = new FedBody().push(bytes.subarray(0, 1000), bytes.subarray(1000)).end()
    for (const [made, fields] of [
      [atHand, []],
      [lasting, ['content-length', String(size)]],
    ] as const) {
      const { port } = await listen(async () => answer(made, [...fields]))
      const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
      assert.match(text, new RegExp(`\\r\\ncontent-length: ${size}\\r\\n`))
      assert.ok(text.slice(text.indexOf('\r\n\r\n') + 4) === body, `${size} bytes`)
    }
    const { port } = await listen(async () => answer(whole))
    const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
    const chunks = `${size.toString(16)}\r\n${body}\r\n0\r\n\r\n`
    assert.ok(text.slice(text.indexOf('\r\n\r\n') + 4) === chunks, `${size} bytes in chunks`)
  }
})

test('resets where trailers cannot be written, and where an interim response cannot answers with a problem', async () => {
  const { port, faults } = await listen(async ({ request: { head }, caller }) => {
    if (head.path === '/interim') caller.inform({ status: 103, fields: ['a', 'b\r\nc: d'] })
    return answer(new FedBody().push('begun').end(['x-sum', 'a\r\n\r\nb']), ['trailer', 'x-sum'])
  })
  const client = new RawClient(port).write(...GET)
  assert.equal(await client.ended, 'ECONNRESET')
  assert.doesNotMatch(client.received, /x-sum: /)
  const text = await exchange(port, 'GET /interim HTTP/1.1', 'Host: a', CLOSE, '', '')
  assert.match(text, /^HTTP\/1\.1 500 [\s\S]*"code":"internal-error"/)
  assert.equal(faults.length, 2)
})

test('keeps the connection of a caller that expected a 100 and sent its body without it', async () => {
  const { port, requests } = await listenKeeping()
  const head = ['POST / HTTP/1.1', 'Host: a', 'Expect: 100-continue', 'Content-Length: 2', '']
  const client = new RawClient(port).write(...head, 'hi')
  await client.until(/ok$/)
  client.write('GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  await client.toEnd()
  assert.deepEqual(
    requests.map(({ text }) => text),
    ['hi', ''],
  )
})

test('stops reading a body that nobody takes, and goes on where it stopped', async () => {
  const size = 30_000_000
  const go = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  const { port } = await listen(async ({ request: { body } }) => {
    begun.resolve()
    await go.promise
    let read = 0
    for (let piece = await body.read(); piece; piece = await body.read()) read += piece.length
    return answer(String(read))
  })
  const client = new RawClient(port)
  client.write('POST / HTTP/1.1', 'Host: a', `Content-Length: ${size}`, CLOSE, '', '')
  await begun.promise
  client.socket.write(Buffer.alloc(size))
  // The connection is full when nothing of it has left for many turns.
  for (let turns = 0, left = 0; turns < 100; turns++) {
    await new Promise(setImmediate)
    if (left === client.socket.bytesWritten - client.socket.writableLength) continue
    left = client.socket.bytesWritten - client.socket.writableLength
    turns = 0
  }
  assert.ok(client.socket.writableLength > 0)
  go.resolve()
  assert.match(await client.toEnd(), new RegExp(`${size}$`))
})

test('takes a call for open until its whole answer has been taken', async () => {
  const large = Buffer.alloc(20_000_000, 'x')
  const whole = Object.assign(new FedBody(), { whole: () => large })
  let told = 0
  const { port, listener } = await listen(async ({ caller }) => {
    caller.onGone(() => told++)
    return answer(whole)
  })
  const client = new RawClient(port)
  client.socket.pause()
  client.write('GET / HTTP/1.1', 'Host: a', CLOSE, '', '')
  while (listener.openCalls === 0) await new Promise(setImmediate)
  for (let turns = 0; turns < 100; turns++) await new Promise(setImmediate)
  assert.equal(listener.openCalls, 1)
  client.socket.resume()
  assert.equal((await client.toEnd()).length - client.received.indexOf('\r\n\r\n') - 4, large.length)
  assert.deepEqual([listener.openCalls, told], [0, 0])
})

/** A listener whose calls wait for the test. */
async function listenWaiting() {
  const paths: string[] = []
  const callers: Caller[] = []
  const waiting: (() => void)[] = []
  const listening = await listen(async ({ request: { head }, caller }) => {
    paths.push(head.path)
    callers.push(caller)
    await new Promise<void>((resolve) => waiting.push(resolve))
    return answer(head.path)
  })
  const begun = async (calls: number) => {
    while (waiting.length < calls) await new Promise(setImmediate)
  }
  return { ...listening, paths, callers, waiting, begun }
}

test('aborts the open call when its caller closes its side, and handles none of those behind it', async () => {
  for (const behind of ['', 'GET /2 HTTP/1.1\r\nHost: a\r\n\r\n']) {
    const { port, paths, callers, waiting, begun } = await listenWaiting()
    const client = new RawClient(port).write('GET /1 HTTP/1.1', 'Host: a', '', behind)
    await begun(1)
    const gone = new Promise<SidecarError>((resolve) => callers[0]!.onGone(resolve))
    client.socket.end()
    if (behind !== '') {
      // The end waits behind them, unread: it is seen when the second begins.
      waiting[0]!()
      await client.until(/\/1$/)
      await begun(2)
    } else assert.equal((await gone).code, 'caller-gone')
    assert.equal(await client.ended, 'ECONNRESET')
    assert.deepEqual(paths, behind === '' ? ['/1'] : ['/1', '/2'])
  }
})

test('ends a connection whose client closed its side between two calls, and in the middle of a head', async () => {
  const { port } = await listen(async () => answer('ok'))
  for (const more of ['', 'GET / HTTP/1.1\r\nHo']) {
    const client = new RawClient(port).write(...GET)
    await client.until(/ok$/)
    const closed = once(client.socket, 'close')
    if (more === '') client.socket.end()
    else client.socket.end(more)
    await closed
    assert.match(client.received, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\nok$/)
  }
})

test('answers requests that come in pieces of any size, with or without bodies, each in its turn', async () => {
  const { port, requests } = await listenKeeping()
  const messages = [
    'GET /1 HTTP/1.1\r\nHost: a\r\n\r\n',
    'POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello',
    '\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n',
    'HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n',
    'POST /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n',
    'GET /6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
  ].join('')
  for (const size of [1, 2, 3, 7, 50, 1000]) {
    const client = new RawClient(port)
    for (let at = 0; at < messages.length; at += size) {
      client.socket.write(messages.slice(at, at + size))
      await new Promise(setImmediate)
    }
    const text = await client.toEnd()
    assert.equal(text.match(/HTTP\/1\.1 200 OK/g)?.length, 6)
    assert.deepEqual(
      requests.splice(0).map(({ path, text, trailers }) => [path, text, trailers.join()]),
      [
        ['/1', '', ''],
        ['/2', 'hello', ''],
        ['/3', 'abcde', 'x-sum,1'],
        ['/4', '', ''],
        ['/5', '', ''],
        ['/6', '', ''],
      ],
    )
  }
})

test('refuses CONNECT on a connection that was used, and takes nothing behind it for a request', async () => {
  const { port, requests } = await listenKeeping()
  const hidden = 'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n'
  const text = await exchange(port, ...GET.slice(0, 3), 'CONNECT a:443 HTTP/1.1', 'Host: a:443', '', hidden)
  assert.match(text, /ok[\s\S]*HTTP\/1\.1 501 Not Implemented\r\n[\s\S]*"code":"not-implemented"/)
  assert.deepEqual(
    requests.map(({ path }) => path),
    ['/'],
  )
})

test('ends without another answer when the rest of a request breaks whose answer was complete', async () => {
  const { port } = await listen(async () => answer('early'))
  const client = new RawClient(port)
  client.write('POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', '', '1', 'x', '')
  await client.until(/early$/)
  client.write('broken', '')
  assert.match(await client.toEnd(), /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\nearly$/)
})

test('reads the next request behind one that was answered early, chunks and trailers and all', async () => {
  const { port } = await listen(async ({ request: { head, body } }) =>
    answer(head.path === '/early' ? 'early' : await readAll(body)),
  )
  const client = new RawClient(port)
  client.write('POST /early HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', '', '1', 'x', '')
  await client.until(/early$/)
  client.write('2', 'yz', '0', 'X-Sum: 1', '', 'POST / HTTP/1.1', 'Host: a', 'Content-Length: 4')
  client.write('', CLOSE, '', 'next')
  assert.match(await client.toEnd(), /early[\s\S]*next$/)
})

/** Takes as long as the time-out: a connection that sends nothing. */
async function timeout(port: number): Promise<void> {
  await new RawClient(port).ended
}

test('ends a head that comes line by line on a connection that was used, and a rest that does not come', async () => {
  const { port } = await listen(async () => answer('ok'), { idleTimeoutMs: 80 })
  const client = new RawClient(port).write(...GET)
  await client.until(/ok$/)
  let over = false
  client.ended.then(() => {
    over = true
  })
  client.write('GET / HTTP/1.1', '')
  for (let lines = 0; !over; lines++) {
    assert.ok(lines < 10)
    client.write('X: y\r\n')
    await timeout(port)
  }
  const early = new RawClient(port).write('POST / HTTP/1.1', 'Host: a', 'Content-Length: 9', '', 'begun')
  assert.match(await early.toEnd(), /\r\n\r\nok$/)
})

test('lets a kept connection be for as long as it is used', async () => {
  const { port } = await listen(async () => answer('ok'), { idleTimeoutMs: 200 })
  const client = new RawClient(port)
  let over = false
  const timeouts = (async () => {
    for (let i = 0; i < 3; i++) await timeout(port)
    over = true
  })()
  while (!over) {
    client.received = ''
    client.write(...GET)
    await client.until(/ok$/)
  }
  await timeouts
  assert.equal(await client.ended, 'end')
})

test.run()
