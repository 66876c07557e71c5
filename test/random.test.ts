import assert from 'node:assert/strict'
import { randomPool } from '../sidecar/random.ts'
import { suite } from './support/suite.ts'

const test = suite('random')

test('a pool gives as many bytes as were asked for, and none twice', () => {
  const random = randomPool()
  const given = new Set<string>()
  for (let i = 0; i < 2000; i++) {
    const bytes = random(12)
    assert.equal(bytes.length, 12)
    given.add(bytes.toString('hex'))
  }
  assert.equal(given.size, 2000)
})

test('what was given stays as it was', () => {
  const random = randomPool()
  const first = random(12)
  const before = first.toString('hex')
  for (let i = 0; i < 1000; i++) random(12)
  assert.equal(first.toString('hex'), before)
})

test('a pool gives more than it holds, and nothing', () => {
  const random = randomPool()
  for (const length of [0, 1, 4095, 4096, 4097, 100_000]) {
    const bytes = random(length)
    assert.equal(bytes.length, length)
    assert.equal(length < 4095 || new Set(bytes).size > 200, true)
  }
})

test('two pools give different bytes', () => {
  assert.notDeepEqual(randomPool()(32), randomPool()(32))
})

test.run()
