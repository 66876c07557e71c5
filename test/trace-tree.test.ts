import assert from 'node:assert/strict'
import fc from 'fast-check'
import { formatTree, type TraceSpan, traceTrees, walk } from '../sidecar/trace-tree.ts'
import { runs } from './support/fuzz.ts'
import { suite } from './support/suite.ts'

const test = suite('trace tree')

function span(spanId: string, parentId?: string, more: Partial<TraceSpan> = {}): TraceSpan {
  return {
    spanId,
    parentId,
    service: 'orders',
    name: 'POST',
    kind: 'INTERNAL',
    attributes: {},
    status: 'UNSET',
    startUs: 0,
    durationUs: 0,
    links: [],
    ...more,
  }
}

test('spans are below what caused them, in the order in which they began, however they came', () => {
  const [root, ...others] = traceTrees([
    span('later', 'root', { startUs: 20 }),
    span('below', 'early', { startUs: 15 }),
    span('early', 'root', { startUs: 10 }),
    span('root', undefined, { startUs: 5 }),
  ])
  assert.deepEqual(others, [])
  assert.deepEqual(
    [...walk(root!)].map(({ node, depth }) => [node.spanId, depth]),
    [
      ['root', 0],
      ['early', 1],
      ['below', 2],
      ['later', 1],
    ],
  )
})

test('of spans that began at once, that comes last which sent something', () => {
  const [root] = traceTrees([span('root'), span('sends', 'root', { kind: 'CLIENT' }), span('works', 'root')])
  assert.deepEqual(
    root!.children.map(({ spanId }) => spanId),
    ['works', 'sends'],
  )
})

test('a span whose parent is missing is a root beside the others', () => {
  const trees = traceTrees([span('a'), span('b', 'missing'), span('c', 'b')])
  assert.deepEqual(
    trees.map(({ spanId, children }) => [spanId, children.map((child) => child.spanId)]),
    [
      ['a', []],
      ['b', ['c']],
    ],
  )
})

test('every span is in one place of one tree', () => {
  // The parent of each is one before it, or none.
  const parents = fc.array(fc.nat(), { maxLength: 40 })
  fc.assert(
    fc.property(parents, (numbers) => {
      const spans = numbers.map((number, i) => {
        const parent = number % (i + 1)
        return span(String(i), parent === i ? undefined : String(parent), { startUs: number })
      })
      const found = traceTrees(spans).flatMap((tree) => [...walk(tree)])
      assert.deepEqual(found.map(({ node }) => node.spanId).sort(), spans.map(({ spanId }) => spanId).sort())
      for (const { node } of found)
        for (const child of node.children) assert.equal(child.parentId, node.spanId)
    }),
    runs(200),
  )
})

test('a tree is text with the cause of each span to be seen, and when it was, and what is known of it', () => {
  const [root] = traceTrees([
    span('1', undefined, { kind: 'CLIENT', startUs: 1_000_000, durationUs: 12_345 }),
    span('2', '1', {
      service: 'orders-mte',
      kind: 'SERVER',
      startUs: 1_000_500,
      durationUs: 11_000,
      attributes: { 'http.request.method': 'POST', 'mte.direction': 'outbound', 'error.type': 'no-peer' },
      status: 'ERROR',
    }),
    span('3', '2', {
      service: 'orders-mte',
      name: 'mte.encode request',
      startUs: 1_001_000,
      durationUs: 70,
      attributes: { 'mte.chunk.count': 2 },
      links: ['1', 'of another'],
    }),
  ])
  assert.equal(
    formatTree(root!),
    [
      'orders        POST                CLIENT    +0.00  12.35 ms',
      ' orders-mte   POST                SERVER    +0.50  11.00 ms  ERROR mte.direction=outbound error.type=no-peer',
      '  orders-mte  mte.encode request  INTERNAL  +1.00   0.07 ms  mte.chunk.count=2 linked to orders POST linked to span of another',
    ].join('\n'),
  )
})

test('in a narrow terminal attributes are below the line that they are of', () => {
  const [root] = traceTrees([
    span('1', undefined, { attributes: { 'mte.chunk.count': 2 } }),
    span('2', '1', { status: 'ERROR' }),
  ])
  const lines = ['orders   POST  INTERNAL  +0.00  0.00 ms', ' orders  POST  INTERNAL  +0.00  0.00 ms']
  const wide = `${lines[0]}  mte.chunk.count=2\n${lines[1]}  ERROR`
  assert.equal(formatTree(root!, 58), wide)
  assert.equal(formatTree(root!, 57), `${lines[0]}\n    mte.chunk.count=2\n${lines[1]}\n     ERROR`)
})

test('where the terminal is too narrow, attributes have lines of their own', () => {
  const [root] = traceTrees([
    span('1', undefined, { attributes: { a: 'b' } }),
    span('2', '1', { attributes: { c: 'd' } }),
    span('3', '1'),
  ])
  const line = 'orders   POST  INTERNAL  +0.00  0.00 ms'
  const below = ' orders  POST  INTERNAL  +0.00  0.00 ms'
  assert.equal(formatTree(root!, 44), [`${line}  a=b`, `${below}  c=d`, below].join('\n'))
  assert.equal(formatTree(root!, 43), [line, '    a=b', below, '     c=d', below].join('\n'))
})

test('names and attributes cannot move the terminal', () => {
  const [root] = traceTrees([span('1', undefined, { name: '\u001b[2J', attributes: { a: 'b\nc' } })])
  assert.match(formatTree(root!), /^orders {2}\\u001b\[2J {2}INTERNAL {2}\+0\.00 {2}0\.00 ms {2}a=b\\u000ac$/)
})

test.run()
