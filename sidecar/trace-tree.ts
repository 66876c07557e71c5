/** A trace as a tree of spans, and as text for a terminal. */
import { printable } from './printable.ts'

export type SpanKindName = 'INTERNAL' | 'SERVER' | 'CLIENT' | 'PRODUCER' | 'CONSUMER'
export type AttributeValue = string | number | boolean

/** One span, as whatever collects spans tells it. */
export interface TraceSpan {
  spanId: string
  /** undefined, or of a span that is not among them: a root */
  parentId: string | undefined
  service: string
  name: string
  kind: SpanKindName
  attributes: Readonly<Record<string, AttributeValue>>
  status: 'UNSET' | 'OK' | 'ERROR'
  startUs: number
  durationUs: number
  /** ids of spans that it is linked to, of this trace or another */
  links: readonly string[]
}

/** A span with what it caused, in the order in which that began. */
export interface TraceNode extends TraceSpan {
  children: TraceNode[]
}

/** What a line of the text says in other columns, or what would only make it longer. */
const UNPRINTED = /^(http\.request\.method|server\.port|network\.|otel\.|client\.|user_agent\.|url\.scheme)/
const COLUMN_GAP = '  '
const ATTRIBUTES_INDENT = 4

/** Puts the spans of a trace in order. @returns its roots: more than one where a span between them is missing */
export function traceTrees(spans: Iterable<TraceSpan>): TraceNode[] {
  const nodes = new Map<string, TraceNode>()
  for (const span of spans) nodes.set(span.spanId, { ...span, children: [] })
  const roots: TraceNode[] = []
  for (const node of [...nodes.values()].sort(byStart)) {
    const parent = node.parentId === undefined ? undefined : nodes.get(node.parentId)
    const siblings = parent?.children ?? roots
    siblings.push(node)
  }
  return roots
}

/** Of two that began in the same microsecond, that comes first which does not send anything. */
function byStart(a: TraceSpan, b: TraceSpan): number {
  return a.startUs - b.startUs || Number(a.kind === 'CLIENT') - Number(b.kind === 'CLIENT')
}

/** Every span of a tree, each before what it caused. */
export function* walk(node: TraceNode, depth = 0): Generator<{ node: TraceNode; depth: number }> {
  yield { node, depth }
  for (const child of node.children) yield* walk(child, depth + 1)
}

/**
 * The tree as lines of text: service (indented by what caused what), name, kind, when it began after the root and
 * how long it took, whether it failed, and its attributes.
 * @param columns width of the terminal: where a line does not fit in, attributes have lines of their own
 */
export function formatTree(root: TraceNode, columns = Number.POSITIVE_INFINITY): string {
  const nodes = [...walk(root)]
  const names = new Map(nodes.map(({ node }) => [node.spanId, `${node.service} ${node.name}`]))
  const rows = nodes.map(({ node, depth }) => ({
    depth,
    left: [`${' '.repeat(depth)}${node.service}`, node.name, node.kind].map(printable),
    right: [`+${milliseconds(node.startUs - root.startUs)}`, `${milliseconds(node.durationUs)} ms`],
    rest: [
      ...(node.status === 'ERROR' ? ['ERROR'] : []),
      ...Object.entries(node.attributes)
        .filter(([name]) => !UNPRINTED.test(name))
        .map(([name, value]) => `${name}=${value}`),
      ...node.links.map((id) => `linked to ${names.get(id) ?? `span ${id}`}`),
    ]
      .map(printable)
      .join(' '),
  }))
  const width = (side: 'left' | 'right', column: number) =>
    Math.max(...rows.map((row) => row[side][column]!.length))
  const lines = rows.map(({ depth, left, right, rest }) => {
    const cells = [
      ...left.map((text, column) => text.padEnd(width('left', column))),
      ...right.map((text, column) => text.padStart(width('right', column))),
    ]
    return { depth, line: cells.join(COLUMN_GAP), rest }
  })
  const fits = lines.every(({ line, rest }) => line.length + COLUMN_GAP.length + rest.length <= columns)
  return lines
    .map(({ depth, line, rest }) => {
      if (rest === '') return line
      return fits ? line + COLUMN_GAP + rest : `${line}\n${' '.repeat(depth + ATTRIBUTES_INDENT)}${rest}`
    })
    .join('\n')
}

function milliseconds(us: number): string {
  return (us / 1000).toFixed(2)
}
