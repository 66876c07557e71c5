import assert from 'node:assert/strict'
import fc from 'fast-check'
import { runs } from '../support/fuzz.ts'
import { answer, closeListeners, exchange, listen, RawClient } from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener against request smuggling')
test.after(closeListeners)

const HIDDEN = 'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n'

/** A listener that notes the paths of the calls that were read to their ends. */
async function noting() {
  const paths: string[] = []
  const { port, faults } = await listen(async ({ request: { head, body } }) => {
    await readAll(body)
    paths.push(head.path)
    return answer('ok')
  })
  return { port, paths, faults }
}

/** What must get a 400 problem, and nothing that follows on the connection may be handled. */
const REFUSED: [string, string[]][] = [
  [
    'a length and a Transfer-Encoding',
    ['Host: a', 'Content-Length: 4', 'Transfer-Encoding: chunked', '', '0', ''],
  ],
  [
    'a Transfer-Encoding and a length',
    ['Host: a', 'Transfer-Encoding: chunked', 'Content-Length: 4', '', '0', ''],
  ],
  ['two lengths that differ', ['Host: a', 'Content-Length: 1', 'Content-Length: 2', '', 'x']],
  ['two lengths that are the same', ['Host: a', 'Content-Length: 1', 'Content-Length: 1', '', 'x']],
  ['a list of lengths', ['Host: a', 'Content-Length: 1, 1', '', 'x']],
  ['a length with a sign', ['Host: a', 'Content-Length: +1', '', 'x']],
  ['a negative length', ['Host: a', 'Content-Length: -1', '', 'x']],
  ['a length with a space inside', ['Host: a', 'Content-Length: 1 1', '', 'x']],
  ['a length in hexadecimal', ['Host: a', 'Content-Length: 0x1', '', 'x']],
  ['an empty length', ['Host: a', 'Content-Length: ', '', '']],
  ['a length beyond counting', ['Host: a', 'Content-Length: 99999999999999999999', '', 'x']],
  ['a coding after chunked', ['Host: a', 'Transfer-Encoding: chunked, gzip', '', '0', '', '']],
  ['a coding before chunked', ['Host: a', 'Transfer-Encoding: gzip, chunked', '', '0', '', '']],
  ['chunked twice', ['Host: a', 'Transfer-Encoding: chunked, chunked', '', '0', '', '']],
  [
    'chunked in two fields',
    ['Host: a', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked', '', '0', '', ''],
  ],
  [
    'identity before chunked',
    ['Host: a', 'Transfer-Encoding: identity', 'Transfer-Encoding: chunked', '', '0', '', ''],
  ],
  ['a coding that is not chunked', ['Host: a', 'Transfer-Encoding: gzip', '', '0', '', '']],
  ['a coding that begins with chunked', ['Host: a', 'Transfer-Encoding: chunkedx', '', '0', '', '']],
  ['chunked in quotes', ['Host: a', 'Transfer-Encoding: "chunked"', '', '0', '', '']],
  ['an empty Transfer-Encoding', ['Host: a', 'Transfer-Encoding:', '', '0', '', '']],
  ['a space before the colon', ['Host: a', 'Transfer-Encoding : chunked', '', '0', '', '']],
  ['a tab before the colon', ['Host: a', 'Content-Length\t: 1', '', 'x']],
  ['a space before a name', ['Host: a', ' Transfer-Encoding: chunked', '', '0', '', '']],
  ['a folded value', ['Host: a', 'X: a', ' b', '', '']],
  ['a folded Transfer-Encoding', ['Host: a', 'Transfer-Encoding:', ' chunked', '', '0', '', '']],
  ['a name that is no token', ['Host: a', 'X(Y): b', '', '']],
  ['a line without a colon', ['Host: a', 'X', '', '']],
  ['NUL in a value', ['Host: a', 'X: a\0b', '', '']],
  ['NUL in a name', ['Host: a', 'X\0: b', '', '']],
  ['a bare CR in a value', ['Host: a', 'X: a\rTransfer-Encoding: chunked', '', '0', '', '']],
  ['a bare LF between fields', ['Host: a\nTransfer-Encoding: chunked', '', '0', '', '']],
  ['a bare LF as the end of the head', ['Host: a\nX: b\n\n']],
  ['no Host', ['X: a', '', '']],
  ['two Hosts that differ', ['Host: a', 'Host: b', '', '']],
  ['two Hosts that are the same', ['Host: a', 'Host: a', '', '']],
  ['a chunk size with a sign', ['Host: a', 'Transfer-Encoding: chunked', '', '+1', 'x', '0', '', '']],
  ['a chunk size in 0x', ['Host: a', 'Transfer-Encoding: chunked', '', '0x1', 'x', '0', '', '']],
  ['a chunk size before a space', ['Host: a', 'Transfer-Encoding: chunked', '', '1 ', 'x', '0', '', '']],
  [
    'a chunk size beyond counting',
    ['Host: a', 'Transfer-Encoding: chunked', '', '1ffffffffffffffff', 'x', '0', '', ''],
  ],
  ['an empty chunk size', ['Host: a', 'Transfer-Encoding: chunked', '', '', 'x', '0', '', '']],
  ['a bare LF after a chunk size', ['Host: a', 'Transfer-Encoding: chunked', '', '1\nx', '0', '', '']],
  ['a bare LF after a chunk', ['Host: a', 'Transfer-Encoding: chunked', '', '1', 'x\n0', '', '']],
  [
    'a bare LF in a chunk extension',
    ['Host: a', 'Transfer-Encoding: chunked', '', '1;a\nb', 'x', '0', '', ''],
  ],
  [
    'a bare CR in a chunk extension',
    ['Host: a', 'Transfer-Encoding: chunked', '', '1;a\rb', 'x', '0', '', ''],
  ],
  [
    'a chunk that is longer than its size',
    ['Host: a', 'Transfer-Encoding: chunked', '', '1', 'xy', '0', '', ''],
  ],
  [
    'a trailer with a space before the colon',
    ['Host: a', 'Transfer-Encoding: chunked', '', '0', 'X : y', '', ''],
  ],
  ['a folded trailer', ['Host: a', 'Transfer-Encoding: chunked', '', '0', 'X: y', ' z', '', '']],
]

for (const [what, lines] of REFUSED) {
  test(`refuses ${what}, and whatever follows`, async () => {
    const { port, paths, faults } = await noting()
    const text = await exchange(port, 'POST /first HTTP/1.1', ...lines, HIDDEN)
    assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*\r\nmte-error: bad-request\r\n/)
    assert.match(text, /\r\nconnection: close\r\n[\s\S]*\r\n\r\n\{"type":.*"code":"bad-request"\}\n$/)
    assert.equal(text.match(/HTTP\/1\.1 \d/g)?.length, 1)
    assert.deepEqual(paths, [])
    assert.deepEqual(faults, [])
  })
}

for (const [what, line] of [
  ['an unknown method', 'BREW / HTTP/1.1'],
  ['a method in lower case', 'get / HTTP/1.1'],
  ['no version', 'GET /'],
  ['HTTP/0.9', 'GET / HTTP/0.9'],
  ['HTTP/1.2', 'GET / HTTP/1.2'],
  ['HTTP/2.0', 'GET / HTTP/2.0'],
  ['a space in the target', 'GET /a b HTTP/1.1'],
  ['a tab', 'GET\t/ HTTP/1.1'],
  ['NUL in the target', 'GET /\0 HTTP/1.1'],
  ['* for a GET', 'GET * HTTP/1.1'],
  ['a target that is an authority', 'GET a:80 HTTP/1.1'],
  ['a target without a slash', 'GET path HTTP/1.1'],
  ['another scheme', 'GET ftp://a/ HTTP/1.1'],
  ['a URL without an authority', 'GET http:///path HTTP/1.1'],
  ['a fragment', 'GET http://a/#b HTTP/1.1'],
] as const) {
  test(`refuses a request line with ${what}`, async () => {
    const { port, paths } = await noting()
    const text = await exchange(port, line, 'Host: a', '', HIDDEN)
    assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*\r\nmte-error: bad-request\r\n/)
    assert.deepEqual(paths, [])
  })
}

test('refuses chunks in HTTP/1.0', async () => {
  const { port, paths } = await noting()
  const text = await exchange(port, 'POST /first HTTP/1.0', 'Transfer-Encoding: chunked', '', '0', '', HIDDEN)
  assert.match(text, /^HTTP\/1\.1 400 /)
  assert.deepEqual(paths, [])
})

test('answers 400 when what follows in a body is broken, and the call sees no end of it', async () => {
  const begun = Promise.withResolvers<void>()
  let read: Promise<unknown> | undefined
  const { port } = await listen(async ({ request: { body } }) => {
    read = readAll(body)
    begun.resolve()
    await read
    return answer('ok')
  })
  const client = new RawClient(port).write('POST / HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', '', '')
  client.write('1', 'x', '')
  await begun.promise
  client.write('z', '')
  assert.match(await client.toEnd(), /^HTTP\/1\.1 400 [\s\S]*\r\nmte-error: bad-request\r\n/)
  await assert.rejects(read!, { code: 'message-truncated' })
})

test('resets an answer that has begun when the body of its request cannot be read', async () => {
  const { port } = await listen(async () => answer(new FedBody().push('begun')))
  const client = new RawClient(port)
  client.write('POST /first HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked', '', '1', 'x', '')
  await client.until(/begun/)
  client.write('\0\0', HIDDEN)
  assert.equal(await client.ended, 'ECONNRESET')
  assert.doesNotMatch(client.received, /HTTP\/1\.1 400|\r\n0\r\n\r\n/)
})

test('lets garbage behind a request change nothing of its answer, and refuses it after that', async () => {
  const before = 'GET /before HTTP/1.1\r\nHost: a\r\n\r\n'
  for (const first of ['', before]) {
    const paths: string[] = []
    const fed = new FedBody().push('begun')
    const { port } = await listen(async ({ request: { head } }) => {
      paths.push(head.path)
      return head.path === '/first' ? answer(fed) : answer('ok')
    })
    const client = new RawClient(port).write(`${first}POST /first HTTP/1.1`, 'Host: a', '', '')
    await client.until(/begun/)
    client.write('\0\0', HIDDEN)
    fed.push('ended').end()
    const text = await client.toEnd()
    assert.match(text, /5\r\nbegun\r\n5\r\nended\r\n0\r\n\r\nHTTP\/1\.1 400 Bad Request\r\n/)
    assert.equal(paths.at(-1), '/first')
  }
})

test('handles a first request before garbage, and lets nobody take a 400 for its answer', async () => {
  const { port, paths } = await noting()
  const client = new RawClient(port).write('GET /first HTTP/1.1', 'Host: a', '', 'GARBAGE', '', HIDDEN)
  await client.ended
  assert.doesNotMatch(client.received, /^HTTP\/1\.1 400/)
  assert.ok(!paths.includes('/hidden'))
})

test('sees in random mutations of a request one call or a refusal, never a second call', async () => {
  const { port, paths, faults } = await noting()
  const original = [
    'POST /first HTTP/1.1',
    'Host: a',
    'Connection: close',
    'Transfer-Encoding: chunked',
    '',
    '21',
    'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n',
    '0',
    '',
    '',
  ].join('\r\n')
  const body = original.indexOf('21\r\n')
  const piece = fc.constantFrom(
    '\r',
    '\n',
    '\r\n',
    ' ',
    '\t',
    '\0',
    ':',
    ';',
    ',',
    '0',
    '1',
    'a',
    '\x7f',
    '\xff',
    'Content-Length: 3\r\n',
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(body + 2), fc.boolean(), piece), { minLength: 1, maxLength: 3 }),
      async (edits) => {
        let text = original
        for (const [at, replace, what] of edits)
          text = text.slice(0, at) + what + text.slice(at + (replace ? 1 : 0))
        const client = new RawClient(port).write(text)
        client.socket.end()
        await client.ended
        assert.ok(!paths.includes('/hidden'), JSON.stringify(text))
        paths.length = 0
      },
    ),
    runs(300),
  )
  assert.deepEqual(faults, [])
})

test.run()
