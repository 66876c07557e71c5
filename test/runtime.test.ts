import assert from 'node:assert/strict'
import { runtimeDoubts } from '../sidecar/run.ts'
import { suite } from './support/suite.ts'

const test = suite('runtime')

test('a Node that takes a reset for an end is warned of, and no other', () => {
  for (const uv of ['1.52.0', '1.53.1', '2.0.0']) assert.deepEqual(runtimeDoubts({ node: '24.16.0', uv }), [])
  const [warning, ...others] = runtimeDoubts({ node: '24.11.0', uv: '1.51.0' })
  assert.match(warning!, /Node 24\.11\.0 .*24\.16/)
  assert.deepEqual(others, [])
})

test.run()
