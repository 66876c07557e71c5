import assert from 'node:assert/strict'
import type { Fields } from '../../sidecar/call.ts'
import {
  contentLength,
  field,
  fieldsFromRaw,
  isForSidecar,
  isFromSidecar,
  withField,
  withoutFields,
} from '../../sidecar/http/fields.ts'
import { refuses, refusesFields } from '../support/heads.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/fields')
test('fields are taken with names in lower case, values and order as they are', () => {
  assert.deepEqual(fieldsFromRaw(['X-B', 'One', 'accept', '*/*', 'x-b', 'Two', 'EMPTY', '']), [
    'x-b',
    'One',
    'accept',
    '*/*',
    'x-b',
    'Two',
    'empty',
    '',
  ])
})

test('Host, pseudo-header fields and what concerns the connection are left out', () => {
  for (const name of [
    ':path',
    ':status',
    'Host',
    'Connection',
    'Proxy-Connection',
    'Keep-Alive',
    'Transfer-Encoding',
    'Upgrade',
    'TE',
    'HTTP2-Settings',
  ]) {
    assert.deepEqual(fieldsFromRaw(['a', '1', name, 'close', 'b', '2']), ['a', '1', 'b', '2'], name)
    assert.deepEqual(fieldsFromRaw([name.toUpperCase(), 'keep-alive']), [], name)
  }
})

test('te is left out unless it says trailers and nothing else', () => {
  assert.deepEqual(fieldsFromRaw(['TE', 'Trailers']), ['te', 'Trailers'])
  assert.deepEqual(fieldsFromRaw(['TE', 'trailers, gzip']), [])
  assert.deepEqual(fieldsFromRaw(['TE', '']), [])
})

test('whatever Connection names is left out, in any case, wherever it stands', () => {
  const raw = [
    'X-One',
    '1',
    'Connection',
    'close, X-One ,\tx-two',
    'X-Two',
    '2',
    'x-three',
    '3',
    'connection',
    ' X-THREE\t',
    'x-on',
    '4',
  ]
  assert.deepEqual(fieldsFromRaw(raw), ['x-on', '4'])
  assert.deepEqual(fieldsFromRaw(['te', 'trailers', 'connection', 'TE']), [])
  assert.deepEqual(fieldsFromRaw(['a', '1', 'connection', '', 'connection', ' , ']), ['a', '1'])
})

test('one field is found, the first of several, by its whole name', () => {
  const fields = ['x-a', 'x-b', 'x-b', '1', 'x-b', '2']
  assert.equal(field(fields, 'x-b'), '1')
  assert.equal(field(fields, 'x-a'), 'x-b')
  assert.equal(field(fields, '1'), undefined)
})

test('fields are left out by name, and the array is the same when there is nothing to leave out', () => {
  const fields = Object.freeze(['a', '1', 'b', 'a', 'a', '2', 'c', '3']) as Fields
  assert.deepEqual(
    withoutFields(fields, (name) => name === 'a'),
    ['b', 'a', 'c', '3'],
  )
  assert.equal(
    withoutFields(fields, (name) => name === '1'),
    fields,
  )
  assert.deepEqual(
    withoutFields(fields, () => true),
    [],
  )
})

test('a field is set instead of all of its name', () => {
  const fields = Object.freeze(['a', '1', 'b', '2', 'a', '3']) as Fields
  assert.deepEqual(withField(fields, 'a', '4'), ['b', '2', 'a', '4'])
  assert.deepEqual(withField(fields, 'c', ''), ['a', '1', 'b', '2', 'a', '3', 'c', ''])
})

test('the fields between an app and its own sidecar are known', () => {
  assert.deepEqual(
    ['x-mte-upstream', 'x-mte-', 'proxy-authorization', 'x-mte', 'authorization', 'mte-error'].filter(
      isForSidecar,
    ),
    ['x-mte-upstream', 'x-mte-', 'proxy-authorization'],
  )
  assert.deepEqual(['mte-error', 'x-mte-error', 'mte-errors'].filter(isFromSidecar), ['mte-error'])
})

test('a content length is one decimal number of 1 to 15 digits', () => {
  assert.equal(contentLength(['content-length', '0']), 0)
  assert.equal(contentLength(['a', 'b', 'content-length', '000000000000042']), 42)
  assert.equal(contentLength(['content-length', '999999999999999']), 999999999999999)
  assert.equal(contentLength(['a', 'content-length', 'b', '1']), undefined)
  for (const value of [
    '',
    '-1',
    '+1',
    '1.0',
    '1e3',
    '0x10',
    '1,1',
    '1, 1',
    ' 1',
    '1 ',
    '1000000000000000',
    'a',
    '٣',
    '1\n',
  ]) {
    refuses(() => contentLength(['content-length', value]), 'malformed', value)
    refusesFields(['content-length', value])
  }
  refuses(() => contentLength(['content-length', '1', 'a', 'b', 'content-length', '1']), 'malformed')
})

test.run()
