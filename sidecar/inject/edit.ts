/** Does what a JSON Patch says to the text of a YAML or JSON document, and leaves every other byte as it is. */
import {
  type Document,
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  type LineCounter,
  type Pair,
  parseAllDocuments,
  stringify,
  visit,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml'
import { type Operation, tokensOf } from './json-patch.ts'

/** Text that takes the place of other text. */
export interface Edit {
  start: number
  end: number
  text: string
  /** of two that insert at one place, the one deeper in the document comes first */
  depth: number
  /** and of two that are as deep, the one of which this is lower */
  order: number
}

/** Something that cannot be edited in place. */
export class EditError extends Error {
  /** where, in the text */
  readonly offset: number

  constructor(message: string, offset: number) {
    super(message)
    this.name = 'EditError'
    this.offset = offset
  }
}

type Span = Omit<Edit, 'depth' | 'order'>
type Mapping = YAMLMap<unknown, unknown>
type Sequence = YAMLSeq<unknown>

/** As kubectl reads it: YAML 1.1, in which << merges. */
const YAML_VERSION = '1.1'

/** Reads the documents of a text; each tells its own errors. */
export function parseDocuments(source: string, lineCounter?: LineCounter): Document.Parsed[] {
  const options = { version: YAML_VERSION, merge: true, prettyErrors: false, logLevel: 'error' } as const
  const documents = parseAllDocuments(source, lineCounter ? { ...options, lineCounter } : options)
  return 'empty' in documents ? [] : documents
}

/** Where in the text something is, or else the nearest thing around it. */
export function offsetOf(document: Document.Parsed, path: string): number {
  let node: unknown = document.contents
  let offset = document.contents?.range[0] ?? document.range[0]
  for (const token of tokensOf(path)) {
    const found = isMap(node) ? pairOf(node, token) : isSeq(node) ? node.items[Number(token)] : undefined
    if (found === undefined) break
    offset = startOf(found)
    node = isPair(found) ? found.value : found
  }
  return offset
}

/** The text with the edits done, none of which overlap. */
export function applyEdits(source: string, edits: readonly Edit[]): string {
  let done = 0
  let text = ''
  for (const edit of edits.toSorted((a, b) => a.start - b.start || b.depth - a.depth || a.order - b.order)) {
    text += source.slice(done, edit.start) + edit.text
    done = edit.end
  }
  return text + source.slice(done)
}

/** Finds the edits of one document, and writes what is new in the style of the old. */
export class Editor {
  readonly #source: string
  readonly #document: Document.Parsed
  readonly #lineEnd: string
  readonly #isJson: boolean
  /** of one level */
  readonly #indent: number
  /** Are the items of a list deeper than the key of the list? */
  readonly #indentsLists: boolean
  #edits = 0

  /** @param source the whole text, of which the document may be a part */
  constructor(source: string, document: Document.Parsed) {
    this.#source = source
    this.#document = document
    this.#lineEnd = source.includes('\r\n') ? '\r\n' : '\n'
    const root = document.contents
    this.#isJson = (isMap(root) || isSeq(root)) && root.flow === true
    const { indent, indentsLists } = this.#style()
    this.#indent = indent ?? 2
    this.#indentsLists = indentsLists ?? true
  }

  /**
   * @param operation whose path does not lead into what another one adds; an object or a list is only set where there
   * is none, null or an empty one
   * @throws EditError where the text has a form in which it cannot be done
   */
  edit({ path, value }: Operation): Edit {
    const tokens = tokensOf(path)
    const last = tokens.pop()!
    const { node, key } = this.#find(tokens)
    const span = isSeq(node) ? this.#insert(node, key, last, value) : this.#set(node, last, value)
    const order = ++this.#edits
    // What goes before an item goes before what went there already.
    return { ...span, depth: tokens.length, order: isSeq(node) && last !== '-' ? -order : order }
  }

  /** The map or list at the end of a path, and its key. */
  #find(tokens: readonly string[]): { node: Mapping | Sequence; key: unknown } {
    let node: unknown = this.#document.contents
    let key: unknown
    for (const token of tokens) {
      const found = isMap(node) ? pairOf(node, token) : isSeq(node) ? node.items[Number(token)] : undefined
      if (found === undefined) {
        throw new EditError(`${token} comes from an anchor, by <<: write it out here`, startOf(node))
      }
      node = isPair(found) ? found.value : found
      key = isPair(found) ? found.key : undefined
      this.#refuseAlias(token, node)
    }
    if (isMap(node) || isSeq(node)) return { node, key }
    throw new EditError(`${tokens.at(-1)} must be a map or a list`, startOf(node))
  }

  #set(map: Mapping, name: string, value: unknown): Span {
    const pair = pairOf(map, name)
    if (!pair)
      return map.flow ? this.#intoFlow(map, map.items.length, value, name) : this.#append(map, name, value)
    this.#refuseAlias(name, pair.value)
    return typeof value === 'object' && !map.flow ? this.#fill(pair, name, value) : this.#replace(pair, value)
  }

  /** A map in block style gets one more member at its end. */
  #append(map: Mapping, name: string, value: unknown): Span {
    const column = this.#columnOf(startOf(map.items[0]))
    const at = this.#behindComments(endOf(map.items.at(-1)), column)
    return this.#lines(at, this.#block({ [name]: value }, column))
  }

  /** A member that is null, {} or [] gets its members, in block style. */
  #fill({ key, value: node }: Pair, name: string, value: unknown): Span {
    const [, ...members] = this.#block({ [name]: value }, this.#columnOf(startOf(key)))
    const start = this.#source.indexOf(':', endOf(key)) + 1
    const end = this.#lineBehind(endOf(node))
    const { text } = this.#lines(end, members)
    return { start, end, text: this.#source.slice(endOf(node), end) + text }
  }

  #replace({ key, value: node }: Pair, value: unknown): Span {
    const [start, end] = [startOf(node), endOf(node)]
    const text =
      typeof value === 'object' ? this.#flow(value, this.#lead(startOf(key))) : JSON.stringify(value)
    const isBlock = isScalar(node) && (node.type === 'BLOCK_LITERAL' || node.type === 'BLOCK_FOLDED')
    return { start, end, text: `${start === end ? ' ' : ''}${text}${isBlock ? this.#lineEnd : ''}` }
  }

  #insert(list: Sequence, key: unknown, token: string, value: unknown): Span {
    const index = token === '-' ? list.items.length : Number(token)
    if (list.flow) return this.#intoFlow(list, index, value)
    const column = this.#columnOf(startOf(list))
    // A comment at the column of the dashes belongs to the item behind it.
    const at =
      index === 0
        ? this.#lineBehind(endOf(key))
        : this.#behindComments(endOf(list.items[index - 1]), column + 1)
    return this.#lines(at, this.#block([value], column))
  }

  /** A map or list in flow style gets one more member: on a line of its own, if the others are. */
  #intoFlow(collection: Mapping | Sequence, index: number, value: unknown, name?: string): Span {
    const { items } = collection
    const neighbour = items[index] ?? items.at(-1)
    const lead = neighbour === undefined ? undefined : this.#lead(startOf(neighbour))
    const member = name === undefined ? this.#flow(value, lead) : this.#flowMember(name, value, lead)
    if (neighbour === undefined) return insertion(startOf(collection) + 1, member)
    const comma = lead === undefined ? ', ' : `,${this.#lineEnd}${lead}`
    return index < items.length
      ? insertion(startOf(neighbour), member + comma)
      : insertion(endOf(neighbour), comma + member)
  }

  /** @param lead what stands before it in its line, if that is space alone: then it may have lines of its own */
  #flow(value: unknown, lead: string | undefined): string {
    if (!this.#isJson) {
      return stringify(value, {
        version: YAML_VERSION,
        lineWidth: 0,
        collectionStyle: 'flow',
        flowCollectionPadding: false,
      }).trimEnd()
    }
    if (lead === undefined) return JSON.stringify(value)
    const first = (this.#document.contents as Mapping | Sequence).items[0]
    const indent = this.#lead(startOf(first)) ?? '  '
    return JSON.stringify(value, null, indent).replaceAll('\n', this.#lineEnd + lead)
  }

  #flowMember(name: string, value: unknown, lead: string | undefined): string {
    if (this.#isJson) return `${JSON.stringify(name)}: ${this.#flow(value, lead)}`
    return this.#flow({ [name]: value }, lead).slice(1, -1)
  }

  /** The lines of something in block style. */
  #block(value: unknown, column: number): string[] {
    const text = stringify(value, {
      version: YAML_VERSION,
      lineWidth: 0,
      indent: this.#indent,
      indentSeq: this.#indentsLists,
    })
    return text
      .trimEnd()
      .split('\n')
      .map((line) => ' '.repeat(column) + line)
  }

  #lines(at: number, lines: readonly string[]): Span {
    const text = lines.join(this.#lineEnd)
    const isOpenEnd = at === this.#source.length && !this.#source.endsWith('\n')
    return insertion(at, isOpenEnd ? this.#lineEnd + text : text + this.#lineEnd)
  }

  #style(): { indent: number | undefined; indentsLists: boolean | undefined } {
    let indent: number | undefined
    let indentsLists: boolean | undefined
    visit(this.#document, {
      Pair: (_, { key, value }) => {
        if (!isScalar(key)) return undefined
        if (isMap(value) && !value.flow && value.items.length > 0) {
          indent ??= this.#columnOf(startOf(value)) - this.#columnOf(startOf(key))
        }
        if (isSeq(value) && !value.flow) {
          indentsLists ??= this.#columnOf(startOf(value)) > this.#columnOf(startOf(key))
        }
        return indent !== undefined && indentsLists !== undefined ? visit.BREAK : undefined
      },
    })
    return { indent, indentsLists }
  }

  #refuseAlias(name: string, node: unknown): void {
    if (isAlias(node))
      throw new EditError(
        `${/^\d/.test(name) ? `item ${Number(name) + 1}` : name} is the alias *${node.source}: write it out here`,
        startOf(node),
      )
  }

  /** What stands before a place in its line; undefined: more than space. */
  #lead(offset: number): string | undefined {
    const lead = this.#source.slice(this.#lineStart(offset), offset)
    return lead.trim() === '' ? lead : undefined
  }

  #columnOf(offset: number): number {
    return offset - this.#lineStart(offset)
  }

  #lineStart(offset: number): number {
    const start = this.#source.lastIndexOf('\n', offset - 1) + 1
    return start === 0 && this.#source.startsWith('\uFEFF') ? 1 : start
  }

  /** Where the next line begins. */
  #lineBehind(offset: number): number {
    if (this.#source[offset - 1] === '\n') return offset
    const end = this.#source.indexOf('\n', offset)
    return end < 0 ? this.#source.length : end + 1
  }

  /** Where the line begins that is behind this one, and behind the comments under it that are at least so deep. */
  #behindComments(offset: number, column: number): number {
    const comment = /(?:[ \t]*\r?\n)*( *)#[^\n]*(?:\n|$)/y
    let end = this.#lineBehind(offset)
    for (;;) {
      comment.lastIndex = end
      const [text, indent] = comment.exec(this.#source) ?? []
      if (text === undefined || indent!.length < column) return end
      end += text.length
    }
  }
}

function pairOf(map: Mapping, name: string): Pair | undefined {
  return map.items.find(({ key }) => String(isScalar(key) ? key.value : key) === name)
}

function startOf(node: unknown): number {
  if (isPair(node)) return startOf(node.key)
  return rangeOf(node)[0]
}

/** The end of what is written, without the comments behind it, which the range of a collection may hold. */
function endOf(node: unknown): number {
  if (isPair(node)) return endOf(node.value ?? node.key)
  if ((isMap(node) || isSeq(node)) && !node.flow && node.items.length > 0) return endOf(node.items.at(-1))
  return rangeOf(node)[1]
}

function rangeOf(node: unknown): readonly number[] & { 0: number; 1: number } {
  const range = (node as { range?: [number, number, number] | null } | null)?.range
  if (!range) throw new EditError('something has a form that cannot be edited in place', 0)
  return range
}

function insertion(at: number, text: string): Span {
  return { start: at, end: at, text }
}
