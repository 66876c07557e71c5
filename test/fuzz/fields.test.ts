import assert from 'node:assert/strict'
import fc from 'fast-check'
import { SidecarError } from '../../sidecar/errors.ts'
import {
  checkRequestHead,
  checkResponseHead,
  checkTrailers,
  contentLength,
  fieldsFromRaw,
  HeadError,
  withoutFields,
} from '../../sidecar/http/fields.ts'
import { readHttp1Head } from '../../sidecar/http/http1-head.ts'
import { Http1Error, type Http1RequestHead, Http1RequestReader } from '../../sidecar/http/http1-reader.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('fuzz/fields')
const HEAD_BYTES_MAX = 400

/** Names that mean something here, in some case, and others; with a bit of what none may hold. */
const name = fc
  .oneof(
    fc.constantFrom(
      'host',
      'connection',
      'keep-alive',
      'proxy-connection',
      'upgrade',
      'te',
      'http2-settings',
    ),
    fc.constantFrom('content-length', 'transfer-encoding', 'trailer', 'expect', 'cookie', 'x-a', 'x-b'),
    fc.string({ minLength: 1, maxLength: 6, unit: fc.constantFrom(...'ab-:_ \t\r\n\0\xe4') }),
  )
  .chain((it) =>
    fc.constantFrom(
      it,
      it,
      it.toUpperCase(),
      it.replace(/^./, (first) => first.toUpperCase()),
    ),
  )
const value = fc.oneof(
  fc.constantFrom('', '0', '5', '+5', '5, 5', '0x5', '9'.repeat(16), 'chunked', 'gzip, chunked', 'Chunked'),
  fc.constantFrom(
    'close',
    'keep-alive',
    'x-a',
    'X-A, x-b',
    'close,cookie',
    'trailers',
    'Trailers',
    'websocket',
  ),
  fc.constantFrom('a', 'a:80', 'a, b', 'a b', 'y'.repeat(200)),
  fc.string({ maxLength: 6, unit: fc.constantFrom(...'ab,;: \t\r\n\0\x7f\xe4Ā') }),
)
const raw = fc.array(fc.tuple(name, value), { maxLength: 8 }).map((lines) => lines.flat())
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/
const PER_CONNECTION =
  /^(?:host|connection|keep-alive|proxy-connection|upgrade|http2-settings|transfer-encoding)$/

/** What a step gives, or undefined when it is refused as it should be. */
function attempt<T>(step: () => T): T | undefined {
  try {
    return step()
  } catch (error) {
    if (error instanceof HeadError) return undefined
    if (error instanceof SidecarError && error.status >= 400 && error.status !== 500) return undefined
    throw error
  }
}

/** What holds for fields that passed a check, whichever it was. */
function assertPlain(fields: readonly string[]): void {
  for (let i = 0; i < fields.length; i += 2) {
    assert.match(fields[i]!, TOKEN)
    assert.match(
      fields[i + 1]!,
      /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/,
    )
    assert.doesNotMatch(fields[i]!, PER_CONNECTION)
    if (fields[i] === 'te') assert.equal(fields[i + 1]!.toLowerCase(), 'trailers')
  }
  assert.ok(fields.join('').length <= HEAD_BYTES_MAX)
}

test('whatever the fields are, nothing of the connection is left, and what is left is as it was', () => {
  fc.assert(
    fc.property(raw, (lines) => {
      const fields = fieldsFromRaw(lines)
      const named = new Set<string>()
      for (let i = 0; i < lines.length; i += 2) {
        if (lines[i]!.toLowerCase() !== 'connection') continue
        for (const one of lines[i + 1]!.toLowerCase().split(','))
          named.add(one.replace(/^[ \t]+|[ \t]+$/g, ''))
      }
      let at = 0
      for (let i = 0; i < fields.length; i += 2) {
        assert.doesNotMatch(fields[i]!, PER_CONNECTION)
        // What is no token is refused later.
        if (TOKEN.test(fields[i]!)) assert.ok(!named.has(fields[i]!), fields[i]!)
        while (lines[at]!.toLowerCase() !== fields[i] || lines[at + 1] !== fields[i + 1]) at += 2
        at += 2
      }
    }),
    runs(20_000),
  )
})

test('whatever the fields are, each check refuses them, or they can be read in one way', () => {
  let taken = 0
  fc.assert(
    fc.property(raw, (lines) => {
      const fields = lines.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text))
      const head = attempt(() =>
        checkRequestHead(
          { method: 'POST', scheme: 'http', authority: 'a', path: '/', fields },
          HEAD_BYTES_MAX,
        ),
      )
      const response = attempt(() => checkResponseHead({ status: 200, fields }, HEAD_BYTES_MAX) ?? true)
      const trailers = attempt(() => checkTrailers(fields, HEAD_BYTES_MAX) ?? true)
      if (head) assertPlain(head.fields)
      if (response) assertPlain(withoutFields(fields, (it) => it === 'host'))
      if (head || response) contentLength(fields)
      if (trailers) {
        assertPlain(fields)
        assert.ok(!fields.some((text, i) => i % 2 === 0 && /^(?:te|content-length)$/.test(text)))
      }
      if (head) taken++
    }),
    runs(20_000),
  )
  assert.ok(taken > 1000, `${taken} were taken`)
})

test('whatever the reader lets through, its head is refused, or says one thing', () => {
  const target = fc.oneof(
    fc.constantFrom(
      '/',
      '/a?b',
      '*',
      'a',
      '',
      '//b',
      'http://b',
      'HTTPS://b:1/c',
      'http://b?c',
      'http:///',
      'a:80',
    ),
    fc.string({ maxLength: 12, unit: fc.constantFrom(...'htp:/?#@ab%*.\t \xe4') }),
  )
  let taken = 0
  fc.assert(
    fc.property(
      fc.constantFrom('GET', 'POST', 'OPTIONS', 'CONNECT', 'get'),
      target,
      fc.constantFrom('1.1', '1.1', '1.0', '0.9', '2.0'),
      fc.oneof(
        raw,
        raw.map((lines) => ['Host', 'a', ...lines]),
      ),
      (method, url, version, lines) => {
        let text = `${method} ${url} HTTP/${version}\r\n`
        for (let i = 0; i < lines.length; i += 2) text += `${lines[i]}: ${lines[i + 1]}\r\n`
        const heads: Http1RequestHead[] = []
        const sink = { onHead: (it: Http1RequestHead) => heads.push(it), onBody() {}, onEnd() {} }
        try {
          const reader = new Http1RequestReader(sink, { headBytesMax: HEAD_BYTES_MAX })
          reader.push(Buffer.from(`${text}\r\n`, 'latin1'))
        } catch (error) {
          assert.ok(error instanceof Http1Error, String(error))
        }
        const read = attempt(() => heads[0] && readHttp1Head(heads[0], HEAD_BYTES_MAX))
        if (!read) return
        taken++
        assert.equal(read.absoluteForm, /^https?:/i.test(url))
        const head = attempt(() => checkRequestHead(read.head, HEAD_BYTES_MAX))
        if (!head) return
        assertPlain(head.fields)
        assert.match(head.path, /^(?:\/[^#\s]*|\*)$/)
        assert.ok(head.path !== '*' || method === 'OPTIONS')
        assert.match(head.authority, /^[^/?#@,\s]*$/)
        if (read.absoluteForm) assert.ok(url.toLowerCase().includes(`//${head.authority.toLowerCase()}`))
      },
    ),
    runs(20_000),
  )
  assert.ok(taken > 200, `${taken} were taken`)
})

test.run()
