import assert from 'node:assert/strict'
import fc from 'fast-check'
import { hasDotSegment, joinPath } from '../../sidecar/http/fields.ts'
import { runs } from '../support/fuzz.ts'
import { refuses } from '../support/heads.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/fields paths')
test('a path is put below a base path', () => {
  assert.equal(joinPath('/', '/a?b'), '/a?b')
  assert.equal(joinPath('/', '*'), '*')
  assert.equal(joinPath('/base', '/a'), '/base/a')
  assert.equal(joinPath('/base/', '/a'), '/base/a')
  assert.equal(joinPath('/base', '/'), '/base/')
  assert.equal(joinPath('/base', '//a'), '/base//a')
  assert.equal(joinPath('/a/b', '/c?d=/../e'), '/a/b/c?d=/../e')
})

const CLIMBING = [
  '/..',
  '/.',
  '/../admin',
  '/./a',
  '/a/../../b',
  '/a/..',
  '/%2e%2e/admin',
  '/.%2E/admin',
  '/%2e./admin',
  '/..%2fadmin',
  '/a%2F..%2F..%2Fadmin',
  '/..%5cadmin',
  '/..\\admin',
  '/\\..\\admin',
  '/a\\../b',
  '/..;/admin',
  '/..;a=b/admin',
  '/..%3b/admin',
  '/..?a',
]
const STAYING = [
  '/',
  '/a',
  '/...',
  '/..a',
  '/a..',
  '/.well-known/x',
  '/a/.b/c',
  '/a.b',
  '/?/../',
  '/%2e%2e%2e',
  '/a;..',
  '/%252e%252e/',
]

test('a path that may climb out of the base path is refused', () => {
  for (const path of CLIMBING) {
    assert.equal(hasDotSegment(path), true, path)
    refuses(() => joinPath('/base', path), 'malformed', path)
    assert.equal(joinPath('/', path), path)
  }
  for (const path of STAYING) {
    assert.equal(hasDotSegment(path), false, path)
    assert.equal(joinPath('/base', path), `/base${path}`)
  }
  refuses(() => joinPath('/base', '*'), 'malformed')
})

test('what passes stays below the base path for the parser of URLs too', () => {
  const part = fc.constantFrom(
    '.',
    '..',
    '%2e',
    '%2E',
    '/',
    '\\',
    ';',
    '?',
    'a',
    '%2f',
    '%5C',
    '%',
    '2e',
    '//',
  )
  fc.assert(
    fc.property(fc.array(part, { maxLength: 10 }), (parts) => {
      const path = `/${parts.join('')}`
      let joined: string
      try {
        joined = joinPath('/base', path)
      } catch {
        return
      }
      for (const decoded of [joined, joined.replaceAll(/%2f/gi, '/').replaceAll(/%5c/gi, '\\')]) {
        assert.ok(new URL(`http://h${decoded}`).pathname.startsWith('/base/'), joined)
      }
    }),
    runs(3000),
  )
})

test.run()
