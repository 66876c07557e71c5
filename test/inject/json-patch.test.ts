import assert from 'node:assert/strict'
import fc from 'fast-check'
import { applyPatch, type Operation, pointer, tokensOf } from '../../sidecar/inject/json-patch.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('json patch')

const add = (path: string, value: unknown): Operation => ({ op: 'add', path, value })
const replace = (path: string, value: unknown): Operation => ({ op: 'replace', path, value })

test('members and items are added where RFC 6902 says, and what was given stays as it was', () => {
  const before = { a: ['x', 'y'], b: {} }
  const after = applyPatch(before, [
    add('/a/0', 'w'),
    add('/a/-', 'z'),
    add('/a/2', 'm'),
    add('/b/c~1d', 1),
    add('/b/~0', 2),
  ])
  assert.deepEqual(after, { a: ['w', 'x', 'm', 'y', 'z'], b: { 'c/d': 1, '~': 2 } })
  assert.deepEqual(before, { a: ['x', 'y'], b: {} })
})

test('add takes the place of a member that is there, replace of a member or an item', () => {
  const before: unknown = { a: null, b: [1, 2] }
  assert.deepEqual(applyPatch(before, [add('/a', { c: 1 }), replace('/b/1', 3)]), { a: { c: 1 }, b: [1, 3] })
})

test('a path that leads nowhere is an error', () => {
  const value = { a: ['x'], b: 'text' }
  for (const operation of [
    add('/none/c', 1),
    add('/a/2', 1),
    add('/a/01', 1),
    add('/a/x', 1),
    add('/b/c', 1),
    add('', 1),
    replace('/none', 1),
    replace('/a/1', 1),
    replace('/toString', 1),
  ]) {
    assert.throws(() => applyPatch(value, [operation]), /there is no/, operation.path)
  }
})

test('a member called __proto__ is one like any other', () => {
  const after = applyPatch(JSON.parse('{"a":{}}'), [add('/a/__proto__', { b: 1 })])
  assert.equal(JSON.stringify(after), '{"a":{"__proto__":{"b":1}}}')
  assert.equal(Object.getPrototypeOf(after.a), Object.prototype)
})

test('every name comes back from its pointer', () => {
  fc.assert(
    fc.property(fc.array(fc.string()), (names) => assert.deepEqual(tokensOf(pointer(...names)), names)),
    runs(200),
  )
})

test.run()
