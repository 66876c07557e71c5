/** Writes values as expressions of CEL, in which admission policies are written. */
import { isFields } from '../inject/pod.ts'

/** What stands in texts for what is known only when the policy runs: each with its expression, which gives a text. */
export type Placeholders = ReadonlyMap<string, string>

/** What a value is where a condition does not hold. */
interface Otherwise {
  condition: string
  value: unknown
}

type Fields = Readonly<Record<string, unknown>>

const LINE_CHARACTERS_MAX = 90
/** Fields that are maps: their keys are no names of fields. */
const MAPS = ['requests', 'limits']

/**
 * The expression of a value some of which depends on conditions. Where a value differs from what it is otherwise, it is
 * written as depending on the condition; an item of a list that is not there otherwise, as one of a list that is added.
 * @param value what it is where every condition holds
 * @param type of objects, such as `Object.spec.volumes`; those within are of its fields
 * @throws Error where a member of an object is not there otherwise, which no condition can say
 */
export function celOf(
  value: unknown,
  type: string,
  placeholders: Placeholders = new Map(),
  others: readonly Otherwise[] = [],
): string {
  const write = (value: unknown, type: string, others: readonly Otherwise[]): string => {
    if (Array.isArray(value)) return writeList(value, type, others)
    if (isFields(value)) return writeObject(value, type, others)
    const plain = scalar(value, placeholders)
    let written = plain
    for (const other of others) {
      const otherwise = scalar(other.value, placeholders)
      if (otherwise !== plain) written = `(${other.condition} ? ${written} : ${otherwise})`
    }
    return written
  }
  const writeObject = (value: Fields, type: string, others: readonly Otherwise[]): string => {
    const isMap = MAPS.includes(type.split('.').at(-1)!)
    const members = Object.entries(value).map(([name, member]) => {
      const ofMember = others.map(({ condition, value }) => ({ condition, value: (value as Fields)[name] }))
      if (ofMember.some(({ value }) => value === undefined))
        throw new Error(`${type}.${name} is not always there`)
      return `${isMap ? text(name) : name}: ${write(member, `${type}.${name}`, ofMember)}`
    })
    return block(`${isMap ? '' : type}{`, '}', members)
  }
  const writeList = (value: unknown[], type: string, others: readonly Otherwise[]): string => {
    const parts: { conditions: string; items: string[] }[] = []
    for (const item of value) {
      const found = others.map((other) => ({
        condition: other.condition,
        value: (other.value as unknown[]).find((one) => keyOf(one) === keyOf(item)),
      }))
      const missing = found.filter(({ value }) => value === undefined)
      const conditions = missing.map(({ condition }) => condition).join(' && ')
      const written = write(
        item,
        type,
        found.filter(({ value }) => value !== undefined),
      )
      const last = parts.at(-1)
      if (last?.conditions === conditions) last.items.push(written)
      else parts.push({ conditions, items: [written] })
    }
    if (parts.length === 0) return '[]'
    return joined(parts.map(({ conditions, items }) => when(conditions, block('[', ']', items))))
  }
  return write(value, type, others)
}

/** Lists, one after the other, as one. */
export function joined(lists: readonly string[]): string {
  return lists.join(' +\n')
}

/** A list that is empty where the condition does not hold. */
export function when(condition: string, list: string): string {
  return condition === '' ? list : `(${condition} ? ${list} : [])`
}

export function indented(written: string): string {
  return written.replace(/^/gm, '  ')
}

/** A text; those of a list, with commas between. */
export function text(value: string | readonly string[]): string {
  return JSON.stringify(value).replaceAll('","', '", "')
}

/** A text, of which some may stand for what is known only when the policy runs. */
export function textWith(value: string, placeholders: Placeholders): string {
  const found = [...placeholders.keys()].find((placeholder) => value.includes(placeholder))
  if (found === undefined) return text(value)
  const parts = value.split(found).map((part) => (part === '' ? [] : [textWith(part, placeholders)]))
  return parts.flatMap((part, i) => (i === 0 ? part : [placeholders.get(found)!, ...part])).join(' + ')
}

function scalar(value: unknown, placeholders: Placeholders): string {
  return typeof value === 'string' ? textWith(value, placeholders) : String(value)
}

/** By what items of lists are told apart. */
function keyOf(item: unknown): string {
  return isFields(item) && typeof item.name === 'string' ? item.name : JSON.stringify(item)
}

function block(open: string, close: string, items: readonly string[]): string {
  const line = `${open}${items.join(', ')}${close}`
  if (line.length <= LINE_CHARACTERS_MAX && !line.includes('\n')) return line
  return `${open}\n${items.map(indented).join(',\n')}\n${close}`
}
