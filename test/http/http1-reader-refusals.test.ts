import assert from 'node:assert/strict'
import { Http1Error } from '../../sidecar/http/http1-reader.ts'
import { Hearer, readRequests, readResponse, type Told } from '../support/http1-reader.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/http1-reader refuses')

/** What must not be told, wherever it stands in what is refused. */
const HIDDEN = 'GET /hidden HTTP/1.1\r\nHost: hidden\r\n\r\n'

/** Whole and byte by byte it is refused, in plain words, once so many heads were told, and no end of the last one. */
function assertRefused(
  read: (pieceBytes: number | undefined, hearer: Hearer) => Told[],
  heads: number,
): void {
  for (const pieceBytes of [undefined, 1]) {
    const hearer = new Hearer()
    assert.throws(
      () => read(pieceBytes, hearer),
      (error) => {
        assert.ok(error instanceof Http1Error, `${error}`)
        assert.equal(error.kind, 'malformed')
        assert.match(error.message, /^[A-Z][\x20-\x7e]+\.$/)
        assert.doesNotMatch(error.message, /hidden|hello/)
        // Not for what is missing in the end.
        assert.doesNotMatch(error.message, /ended in the middle/)
        return true
      },
    )
    assert.equal(hearer.told.length, heads)
    assert.equal(hearer.told.at(-1)?.trailers, undefined)
  }
}

/** Heads of requests of which nothing may be told. */
const HEADS: [string, string][] = [
  ['an unknown method', 'BREW / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a method in lower case', 'get / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a method in mixed case', 'Get / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a method that begins as another', 'GETS / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['no method', ' / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a request line of one word', 'GET\r\nHost: a\r\n\r\n'],
  ['no target', 'GET HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['an empty target', 'GET  HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['no version', 'GET /\r\nHost: a\r\n\r\n'],
  ['HTTP/0.9', 'GET / HTTP/0.9\r\nHost: a\r\n\r\n'],
  ['HTTP/1.2', 'GET / HTTP/1.2\r\nHost: a\r\n\r\n'],
  ['HTTP/1.10', 'GET / HTTP/1.10\r\nHost: a\r\n\r\n'],
  ['HTTP/2.0', 'GET / HTTP/2.0\r\nHost: a\r\n\r\n'],
  ['http/1.1', 'GET / http/1.1\r\nHost: a\r\n\r\n'],
  ['RTSP', 'GET / RTSP/1.0\r\nHost: a\r\n\r\n'],
  ['two spaces behind the method', 'GET  / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['two spaces behind the target', 'GET /  HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a space behind the version', 'GET / HTTP/1.1 \r\nHost: a\r\n\r\n'],
  ['a space before the method', ' GET / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['tabs in the request line', 'GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a space in the target', 'GET /a b HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a tab in the target', 'GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['NUL in the target', 'GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['DEL in the target', 'GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a byte above 0x7F in the target', 'GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a fragment', 'GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a fragment of a URL', 'GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a target without a slash', 'GET a HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['an authority as a target', 'GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['* for a GET', 'GET * HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a target that begins with *', 'OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['another scheme', 'GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a URL without an authority', 'GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a URL with user information', 'GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a URL with a backslash', 'GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a path for CONNECT', 'CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a URL for CONNECT', 'CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ['a response', 'HTTP/1.1 200 OK\r\nHost: a\r\n\r\n'],
  ['the beginning of a TLS connection', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc'],
  ['no Host', 'GET / HTTP/1.1\r\nX: y\r\n\r\n'],
  ['two Hosts that differ', 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'],
  ['two Hosts that are the same', 'GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n'],
  ['bare line feeds', 'GET / HTTP/1.1\nHost: a\n\n'],
  ['a bare line feed behind a field', 'GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n'],
  ['a bare line feed as the end of the head', 'GET / HTTP/1.1\r\nHost: a\r\n\n'],
  ['a bare line feed before the end of the head', 'GET / HTTP/1.1\r\nHost: a\n\r\n'],
  ['bare carriage returns', 'GET / HTTP/1.1\rHost: a\r\r'],
  ['a bare carriage return in a value', 'GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n'],
  ['a carriage return too many', 'GET / HTTP/1.1\r\nHost: a\r\r\n\r\n'],
  ['a carriage return too many in the end', 'GET / HTTP/1.1\r\nHost: a\r\n\r\r\n'],
  ['a bare carriage return behind the head', 'GET / HTTP/1.1\r\nHost: a\r\n\rGET'],
  ['a bare line feed before a request line', '\nGET / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a folded value', 'GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n'],
  ['a value folded with a colon', 'GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z: a\r\n\r\n'],
  ['a value folded with a tab', 'GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz: a\r\n\r\n'],
  ['a space before the first name', 'GET / HTTP/1.1\r\n Host: a\r\n\r\n'],
  ['a space before the colon', 'GET / HTTP/1.1\r\nHost : a\r\n\r\n'],
  ['a tab before the colon', 'GET / HTTP/1.1\r\nHost\t: a\r\n\r\n'],
  ['an empty name', 'GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n'],
  ['a line without a colon', 'GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n'],
  ['a line without a colon before one with it', 'GET / HTTP/1.1\r\nX\r\nHost: a\r\n\r\n'],
  ...[...'"(),/;<=>?@[\\]{} \t\0\x01\x7f\x80\xff'].map((unfit): [string, string] => [
    `${JSON.stringify(unfit)} in a name`,
    `GET / HTTP/1.1\r\nHost: a\r\nX${unfit}Y: z\r\n\r\n`,
  ]),
  ...[...'\0\x01\x08\x0b\x0c\x1b\x1f\x7f'].map((unfit): [string, string] => [
    `${JSON.stringify(unfit)} in a value`,
    `GET / HTTP/1.1\r\nHost: a\r\nX: y${unfit}z\r\n\r\n`,
  ]),
]

for (const [what, text] of HEADS) {
  test(what, () => {
    assertRefused((pieceBytes, hearer) => readRequests(text + HIDDEN, pieceBytes, hearer), 0)
  })
}

/** Fields that tell no length, or two, in requests and responses alike. */
const FRAMINGS: [string, string[]][] = [
  ['a length and chunks', ['Content-Length: 5', 'Transfer-Encoding: chunked']],
  ['chunks and a length', ['Transfer-Encoding: chunked', 'Content-Length: 5']],
  ['two lengths that differ', ['Content-Length: 5', 'Content-Length: 6']],
  ['two lengths that are the same', ['Content-Length: 5', 'content-length: 5']],
  ...[
    '5, 5',
    '5,5',
    '+5',
    '-5',
    '-0',
    '5 5',
    '0x5',
    '5.0',
    '5e0',
    '"5"',
    '5;',
    '',
    '\xb2',
    '9'.repeat(20),
  ].map((length): [string, string[]] => [
    `the length ${length || 'that is empty'}`,
    [`Content-Length: ${length}`],
  ]),
  ...[
    ...['chunked, chunked', 'chunked, gzip', 'gzip, chunked', 'gzip', 'identity', 'chunked,', ',chunked', ''],
    ...[
      'chunkedx',
      'xchunked',
      'chunke',
      '"chunked"',
      "'chunked'",
      'chunked;a=b',
      'chunked ',
      'chunked\t',
      '\xa0chunked',
    ],
  ].map((coding): [string, string[]] => [
    `the coding ${JSON.stringify(coding)}`,
    [`Transfer-Encoding: ${coding}`],
  ]),
  ['chunks twice', ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked']],
  ['chunks behind another coding', ['Transfer-Encoding: identity', 'Transfer-Encoding: chunked']],
  ['chunks before another coding', ['Transfer-Encoding: chunked', 'Transfer-Encoding: gzip']],
]

for (const [what, fields] of FRAMINGS) {
  test(what, () => {
    const head = `${fields.join('\r\n')}\r\n\r\n5\r\nhello\r\n0\r\n\r\n`
    const request = `POST / HTTP/1.1\r\nHost: a\r\n${head}${HIDDEN}`
    assertRefused((pieceBytes, hearer) => readRequests(request, pieceBytes, hearer), 0)
    const response = `HTTP/1.1 200 OK\r\n${head}`
    assertRefused((pieceBytes, hearer) => readResponse('GET', response, pieceBytes, hearer), 0)
  })
}

test('chunks in HTTP/1.0', () => {
  const chunked = 'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n'
  const request = `POST / HTTP/1.0\r\n${chunked}`
  assertRefused((pieceBytes, hearer) => readRequests(request, pieceBytes, hearer), 0)
  const response = `HTTP/1.0 200 OK\r\n${chunked}`
  assertRefused((pieceBytes, hearer) => readResponse('GET', response, pieceBytes, hearer), 0)
})

/** Bodies in chunks that are none, or go on as none. */
const CHUNKS: [string, string][] = [
  ...[
    ...['', ' 5', '5 ', '\t5', '5\t', '+5', '-5', '0x5', '5h', '5_', '0_5', '5.', '"5"', '\xb2', '5\0'],
    ...[
      '5;',
      '5; a',
      '5 ;a',
      '5;a=',
      '5;=b',
      '5;;a',
      '5;a = b',
      '5;a="b',
      '5;a="b\\"c"',
      '5;a="\x7f"',
      '5;a="\0"',
      '5;\x80',
    ],
    ...['5;a\r', '5\r', 'ffffffffffffffff', '10000000000000005', '20000000000005', '0000000000000005'],
  ].map((line): [string, string] => [
    `the chunk size ${JSON.stringify(line)}`,
    `${line}\r\nhello\r\n0\r\n\r\n`,
  ]),
  ['a bare line feed behind a chunk size', '5\nhello\r\n0\r\n\r\n'],
  ['a bare line feed in an extension', '5;a\nb\r\nhello\r\n0\r\n\r\n'],
  ['a bare carriage return in an extension', '5;a\rb\r\nhello\r\n0\r\n\r\n'],
  ['a chunk that is longer than its size', '4\r\nhello\r\n0\r\n\r\n'],
  ['a chunk that is shorter than its size', '6\r\nhello\r\n0\r\n\r\n'],
  ['a bare line feed behind a chunk', '5\r\nhello\n0\r\n\r\n'],
  ['a bare carriage return behind a chunk', '5\r\nhello\r0\r\n\r\n'],
  ['nothing behind a chunk', '5\r\nhello0\r\n\r\n'],
  ['an empty line behind a chunk', '5\r\nhello\r\n\r\n0\r\n\r\n'],
  ['a bare line feed as the end', '5\r\nhello\r\n0\r\n\n'],
  ['a carriage return too many as the end', '5\r\nhello\r\n0\r\n\r\r\n'],
  ['a bare line feed behind the last size', '5\r\nhello\r\n0\n\r\n'],
  ['a trailer with a space before the colon', '0\r\nX : y\r\n\r\n'],
  ['a trailer with a space before its name', '0\r\n X: y\r\n\r\n'],
  ['a folded trailer', '0\r\nX: y\r\n z\r\n\r\n'],
  ['a trailer without a colon', '0\r\nX\r\n\r\n'],
  ['a trailer without a name', '0\r\n: y\r\n\r\n'],
  ['NUL in a trailer', '0\r\nX: y\0\r\n\r\n'],
  ['a bare line feed behind a trailer', '0\r\nX: y\n\r\n'],
  ...[
    'Content-Length: 5',
    'Transfer-Encoding: chunked',
    'Host: b',
    'Connection: close',
    'Proxy-Connection: close',
    'Upgrade: x',
  ].map((field): [string, string] => [`the trailer ${field}`, `0\r\n${field}\r\n\r\n`]),
]

for (const [what, body] of CHUNKS) {
  test(what, () => {
    const request = `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${body}${HIDDEN}`
    assertRefused((pieceBytes, hearer) => readRequests(request, pieceBytes, hearer), 1)
    const response = `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${body}${HIDDEN}`
    assertRefused((pieceBytes, hearer) => readResponse('GET', response, pieceBytes, hearer), 1)
  })
}

/** Heads of responses of which nothing may be told. */
const RESPONSES: [string, string][] = [
  ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
  ['a status of four digits', 'HTTP/1.1 2000 OK\r\n\r\n'],
  ['a status below 100', 'HTTP/1.1 099 OK\r\n\r\n'],
  ['a status above 599', 'HTTP/1.1 600 OK\r\n\r\n'],
  ['a status with a sign', 'HTTP/1.1 -20 OK\r\n\r\n'],
  ['a status with a letter', 'HTTP/1.1 2x0 OK\r\n\r\n'],
  ['no status', 'HTTP/1.1\r\n\r\n'],
  ['two spaces before the status', 'HTTP/1.1  200 OK\r\n\r\n'],
  ['a tab behind the status', 'HTTP/1.1 200\tOK\r\n\r\n'],
  ['NUL in the reason', 'HTTP/1.1 200 O\0K\r\n\r\n'],
  ['a bare carriage return in the reason', 'HTTP/1.1 200 O\rK\r\n\r\n'],
  ['HTTP/1.2', 'HTTP/1.2 200 OK\r\n\r\n'],
  ['HTTP/2', 'HTTP/2 200 OK\r\n\r\n'],
  ['ICY', 'ICY 200 OK\r\n\r\n'],
  ['a request', HIDDEN],
  ['an empty line before it', '\r\nHTTP/1.1 200 OK\r\n\r\n'],
  ['a switch of protocols', 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'],
  ['an interim one that ends the connection', 'HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n'],
  ['an interim one of HTTP/1.0', 'HTTP/1.0 100 Continue\r\n\r\n'],
  ['a 204 that announces a body', 'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello'],
  ['a folded value', 'HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n'],
  ['a space before the colon', 'HTTP/1.1 200 OK\r\nX : y\r\n\r\n'],
  ['bare line feeds', 'HTTP/1.1 200 OK\n\n'],
]

for (const [what, text] of RESPONSES) {
  test(`a response with ${what}`, () => {
    assertRefused((pieceBytes, hearer) => readResponse('GET', text, pieceBytes, hearer), 0)
  })
}

test('what is no HTTP as soon as that shows', () => {
  assert.throws(() => readRequests('\x80'), /method/)
  assert.throws(() => readRequests('hello'), /method/)
  assert.throws(() => readResponse('GET', 'HTTP/2'), /status line/)
  assert.throws(() => readResponse('GET', '220 smtp'), /status line/)
})

test.run()
