import assert from 'node:assert/strict'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import type { RequestHead, ResponseHead } from '../../sidecar/call.ts'
import {
  checkRequestHead,
  checkResponseHead,
  checkTrailers,
  FIELDS_MAX,
  fieldsFromRaw,
  HeadError,
  isBodyless,
  withoutFields,
} from '../../sidecar/http/fields.ts'
import { runs } from '../support/fuzz.ts'
import { BYTES_MAX, passesFields, refuses, refusesFields, refusesRequest, request } from '../support/heads.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/fields checks')
test('a head passes as it is', () => {
  const head = request({ fields: ['te', 'trailers', 'content-length', '3', 'x-a', ''] })
  assert.equal(checkRequestHead(head, BYTES_MAX), head)
  for (const status of [100, 102, 103, 199, 200, 204, 304, 404, 599])
    checkResponseHead({ status, fields: ['a', 'b'] }, BYTES_MAX)
})

test('a name is a token in lower case', () => {
  passesFields(["!#$%&'*+-.^_`|~09az", '1', '__proto__', '2', 'constructor', '3'])
  for (const name of [
    '',
    ':path',
    ':x',
    'A',
    'x-A',
    'a b',
    'a:',
    'a\t',
    'a\r\nb',
    'a\0',
    'é',
    'a"',
    'a(',
    'a/',
    'a[',
    'a{',
    'a\x7f',
    ' a',
    'a\n',
  ]) {
    refusesFields([name, 'v'])
  }
})

test('a value holds no control character but tabs, and no white space around it', () => {
  passesFields(['a', '', 'b', '\x21\x7e\x80\xff', 'c', 'x \t y'])
  for (let code = 0; code < 0x21; code++) {
    const character = String.fromCharCode(code)
    refusesFields(['a', `${character}x`])
    refusesFields(['a', `x${character}`])
    refusesFields(['a', character])
    if (code !== 0x20 && code !== 0x09) refusesFields(['a', `x${character}y`])
  }
  refusesFields(['a', 'x\x7fy'])
  refusesFields(['a', 'x\u0100y'])
})

test('a field of the connection is refused', () => {
  for (const name of [
    'connection',
    'proxy-connection',
    'keep-alive',
    'transfer-encoding',
    'upgrade',
    'te',
    'http2-settings',
  ]) {
    refusesFields([name, 'close'])
    refusesFields(['a', 'b', name, ''])
  }
})

test('a Host that is the authority is dropped, another one is refused', () => {
  assert.deepEqual(
    checkRequestHead(request({ fields: ['a', '1', 'host', 'example.com', 'b', '2'] }), BYTES_MAX).fields,
    ['a', '1', 'b', '2'],
  )
  for (const host of ['example.org', 'example.com:443', 'Example.com', ''])
    refusesRequest({ fields: ['host', host] })
  refusesRequest({ fields: ['host', 'example.com', 'host', 'example.com'] })
  refusesRequest({ authority: '', fields: ['host', 'a', 'host', 'b'] })
  refuses(() => checkResponseHead({ status: 200, fields: ['host', 'example.com'] }, BYTES_MAX), 'malformed')
})

test('a Host becomes the authority where that is empty, and is checked like one', () => {
  const checked = checkRequestHead(
    request({ authority: '', fields: ['host', 'example.com:80', 'a', '1'] }),
    BYTES_MAX,
  )
  assert.deepEqual(checked, request({ authority: 'example.com:80', fields: ['a', '1'] }))
  refusesRequest({ authority: '', fields: ['host', 'user@example.com'] })
})

test('an authority is host[:port] or empty', () => {
  for (const authority of [
    '',
    'billing',
    'a_b.example:8080',
    '127.0.0.1:1',
    '[::1]',
    '[2001:db8::1]:443',
    'a:',
    '*.x',
    '%41',
  ]) {
    assert.equal(checkRequestHead(request({ authority }), BYTES_MAX).authority, authority)
  }
  for (const authority of [
    'user@host',
    'a/b',
    'a?b',
    'a#b',
    'a,b',
    'a b',
    ' a',
    'a\t',
    'a\r\nb',
    'a\\b',
    'a:b',
    'a:1:2',
    'a:123456',
    ':80',
    '[::1',
    '::1',
    '[g]',
    '[]',
    'a"b',
    'a<b',
    'é',
    '\x7f',
    'a\n',
  ]) {
    refusesRequest({ authority })
  }
})

test('a method is a token in capitals and not CONNECT', () => {
  for (const method of ['GET', 'PROPFIND', 'M-SEARCH', 'X!1'])
    checkRequestHead(request({ method }), BYTES_MAX)
  for (const method of ['', 'get', 'Get', 'CONNECT', 'connect', 'G ET', 'GET ', 'GET\r\n', 'G/T', 'É', 'G\0'])
    refusesRequest({ method })
})

test('a scheme is http or https', () => {
  checkRequestHead(request({ scheme: 'http' }), BYTES_MAX)
  for (const scheme of ['', 'HTTP', 'ftp', 'https:', 'http ']) refusesRequest({ scheme })
})

test('a path begins with a slash and holds no control character, space or fragment', () => {
  for (const path of ['/', '//', '/a?b=c&d', '/\x21"$[]{}|\\^`~', '/\x80\xff', '/..', '/%23', '/*']) {
    assert.equal(checkRequestHead(request({ path }), BYTES_MAX).path, path)
  }
  for (const path of ['', 'a', '?', '*', '*/', 'http://example.com/', '\\', '/a#b', '/\x7f', '/\u0100'])
    refusesRequest({ path })
  for (let code = 0; code < 0x21; code++) refusesRequest({ path: `/a${String.fromCharCode(code)}` })
})

test('an asterisk is the path of OPTIONS alone', () => {
  checkRequestHead(request({ method: 'OPTIONS', path: '*' }), BYTES_MAX)
  for (const method of ['GET', 'options', 'HEAD', 'OPTIONSX']) refusesRequest({ method, path: '*' })
  refusesRequest({ method: 'OPTIONS', path: '*a' })
  refusesRequest({ method: 'OPTIONS', path: '' })
})

test('a status is 200 to 599, or interim but not 101', () => {
  for (const status of [101, 0, 99, 600, 999, -200, 200.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    refuses(() => checkResponseHead({ status, fields: [] }, BYTES_MAX), 'malformed', String(status))
  }
})

test('a response that never has a body announces none', () => {
  for (const status of [100, 103, 204]) {
    checkResponseHead({ status, fields: ['content-length', '0'] }, BYTES_MAX)
    refuses(
      () => checkResponseHead({ status, fields: ['content-length', '1'] }, BYTES_MAX),
      'malformed',
      String(status),
    )
  }
  for (const status of [200, 304]) checkResponseHead({ status, fields: ['content-length', '1'] }, BYTES_MAX)
})

test('answers to HEAD, and 204 and 304, end with their head', () => {
  assert.equal(isBodyless('HEAD', 200), true)
  assert.equal(isBodyless('GET', 204), true)
  assert.equal(isBodyless('POST', 304), true)
  assert.equal(isBodyless('GET', 200), false)
  assert.equal(isBodyless('OPTIONS', 205), false)
})

test('trailers hold no field of framing, routing or authentication', () => {
  checkTrailers(['grpc-status', '0', 'trailer', 'text', 'x-checksum', 'a'], BYTES_MAX)
  for (const name of [
    'content-length',
    'host',
    'te',
    'transfer-encoding',
    'authorization',
    'proxy-authorization',
  ]) {
    refuses(() => checkTrailers([name, name === 'te' ? 'trailers' : '1'], BYTES_MAX), 'malformed', name)
  }
})

test('a head is as large as its names and values, and its control data', () => {
  const fields = ['a', 'x'.repeat(9), 'bb', '']
  assert.equal(checkRequestHead(request({ fields }), 12 + 20).fields, fields)
  refuses(() => checkRequestHead(request({ fields }), 12 + 19), 'too-large')
  checkResponseHead({ status: 200, fields }, 12)
  refuses(() => checkResponseHead({ status: 200, fields }, 11), 'too-large')
  checkTrailers(fields, 12)
  refuses(() => checkTrailers(fields, 11), 'too-large')
})

test('a section has no more fields than node:http reads', () => {
  const many = Array.from({ length: FIELDS_MAX }, () => ['a', '']).flat()
  passesFields(many)
  refusesFields([...many, 'a', ''], 'too-large')
})

test('errors hold nothing of the call', () => {
  const secret = 'hunter2'
  const heads = [
    request({ method: `get${secret}` }),
    request({ path: secret }),
    request({ authority: `${secret}@` }),
    request({ scheme: secret }),
    request({ fields: [`A${secret}`, secret] }),
    request({ fields: ['a', `${secret}\0`] }),
    request({ fields: ['host', secret] }),
    request({ fields: ['content-length', secret] }),
  ]
  for (const head of heads) {
    assert.throws(
      () => checkRequestHead(head, BYTES_MAX),
      (error) => error instanceof HeadError && !`${error.stack}`.includes(secret),
    )
  }
})

const TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
const chars = (characters: string) => fc.constantFrom(...characters)
const name = fc
  .string({ unit: chars(TOKEN), minLength: 1, maxLength: 20 })
  .filter((it) => !['te', 'host', 'date', 'expect', 'trailer', 'upgrade'].includes(it))
const value = fc
  .string({
    unit: fc
      .integer({ min: 0x20, max: 0xff })
      .filter((it) => it !== 0x7f)
      .map((it) => String.fromCharCode(it)),
    maxLength: 30,
  })
  .map((it) => it.trim().replace(/^[ \t]+|[ \t]+$/g, ''))
const fields = fc.array(fc.tuple(name, value), { maxLength: 12 }).map((it) => it.flat())
const path = fc
  .string({
    unit: fc
      .integer({ min: 0x21, max: 0x7e })
      .filter((it) => it !== 0x23)
      .map((it) => String.fromCharCode(it)),
    maxLength: 30,
  })
  .map((it) => `/${it}`)

test('what passes the checks is sent by node:http as it is, and is what a server of node:http receives', async () => {
  let answer: ResponseHead = { status: 200, fields: [] }
  let received: Omit<RequestHead, 'scheme'> | undefined
  const server = http.createServer((incoming, outgoing) => {
    received = {
      method: incoming.method!,
      authority: incoming.headers.host!,
      path: incoming.url!,
      fields: fieldsFromRaw(incoming.rawHeaders),
    }
    outgoing.sendDate = false
    outgoing.writeHead(answer.status, answer.fields)
    outgoing.end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const agent = new http.Agent({ keepAlive: true })
  try {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('GET', 'DELETE', 'OPTIONS', 'PROPFIND', 'M-SEARCH'),
        fc.constantFrom('billing', 'a.example:8080', '[::1]:1', "a!$&'()*+;=-._~%41"),
        path,
        fields,
        fc.constantFrom(200, 204, 299, 304, 404, 599),
        fields,
        async (method, authority, path, fields, status, answered) => {
          const head = checkRequestHead({ method, scheme: 'http', authority, path, fields }, BYTES_MAX)
          answer = { status, fields: answered }
          checkResponseHead(answer, BYTES_MAX)
          const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
            const headers = ['host', head.authority, ...head.fields]
            http.request({ agent, port, method, path: head.path, headers }, resolve).on('error', reject).end()
          })
          response.resume()
          await new Promise((resolve) => response.on('end', resolve))
          assert.deepEqual(received, { method, authority, path, fields })
          assert.equal(response.statusCode, status)
          assert.deepEqual(
            withoutFields(fieldsFromRaw(response.rawHeaders), (it) => it === 'content-length'),
            withoutFields(answered, (it) => it === 'content-length'),
          )
        },
      ),
      runs(300),
    )
  } finally {
    agent.destroy()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})

test.run()
