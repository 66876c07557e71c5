import assert from 'node:assert/strict'
import { methodName, spanName } from '../../sidecar/telemetry/method-name.ts'
import { suite } from '../support/suite.ts'

const test = suite('method name')

const KNOWN = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH']

test('a method of the standards is told as it is', () => {
  for (const method of KNOWN)
    assert.deepEqual([methodName(method), spanName(methodName(method))], [method, method])
})

test('any other is told alike, whatever it says; methods are case-sensitive', () => {
  for (const method of [
    '',
    'get',
    'Get',
    'GET ',
    'PROPFIND',
    'my-token',
    '_OTHER',
    'HTTP',
    'toString',
    '__proto__',
  ])
    assert.deepEqual([methodName(method), spanName(methodName(method))], ['_OTHER', 'HTTP'])
})

test.run()
