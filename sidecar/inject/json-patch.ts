/** JSON Patch (RFC 6902), as far as it is needed to add things, and the JSON Pointers (RFC 6901) in it. */

export interface Operation {
  op: 'add' | 'replace'
  /** JSON Pointer to the member or to the place in a list, where `-` is its end */
  path: string
  value: unknown
}

type Collection = Record<string, unknown> | unknown[]

/** The JSON Pointer through these members. */
export function pointer(...tokens: readonly (string | number)[]): string {
  return tokens.map((token) => `/${String(token).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}

/** The members that a JSON Pointer goes through. */
export function tokensOf(path: string): string[] {
  return path
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/**
 * Does what the operations say, one after the other, to a copy.
 * @throws Error for a path of which the parent, or for `replace` the member, does not exist
 */
export function applyPatch<T>(value: T, operations: readonly Operation[]): T {
  const copy = unshared(value)
  for (const operation of operations) apply(copy, operation)
  return copy
}

function apply(root: unknown, { op, path, value }: Operation): void {
  const tokens = tokensOf(path)
  const last = tokens.pop()
  let parent = root
  for (const token of tokens) parent = isCollection(parent) ? member(parent, token) : undefined
  if (last === undefined || !isCollection(parent)) throw new Error(`there is no parent of ${path}`)
  if (op === 'replace' && member(parent, last) === undefined) throw new Error(`there is no ${path}`)
  const added = unshared(value)
  if (!Array.isArray(parent)) {
    // Not by assignment, for which a member called __proto__ is another thing.
    Object.defineProperty(parent, last, {
      value: added,
      enumerable: true,
      configurable: true,
      writable: true,
    })
    return
  }
  const index = last === '-' ? parent.length : Number(last)
  if (!/^(?:-|0|[1-9][0-9]*)$/.test(last) || index > parent.length)
    throw new Error(`there is no place ${path}`)
  parent.splice(index, op === 'replace' ? 1 : 0, added)
}

/** A copy in which nothing is at two places, as structuredClone would let it be. */
function unshared<T>(value: T): T
function unshared(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => unshared(item))
  if (!isCollection(value) || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, unshared(item)]))
}

function member(collection: Collection, token: string): unknown {
  return Object.hasOwn(collection, token) ? Reflect.get(collection, token) : undefined
}

function isCollection(value: unknown): value is Collection {
  return typeof value === 'object' && value !== null
}
