/** Finds names that are meant to be others. */

/** Words that say in which unit or form a value is: who forgets one, or takes another, means the same variable. */
const UNITS = new Set(['URL', 'URI', 'SECONDS', 'SEC', 'MS', 'BYTES', 'SIZE'])
/** Names shorter than this are near to too many others: PORT to HOST, NAME to HOME. */
const LETTERS_MIN = 5
/** From this length on two slips may be in a name, not only one. */
const LETTERS_FOR_TWO_SLIPS = 10

/**
 * The name that another one is probably meant to be: one or two letters off, in another order of its words, or with
 * or without a plural, an underscore or a unit.
 * @returns undefined where none of the names is near
 */
export function meantName(written: string, names: readonly string[]): string | undefined {
  const long = names.filter((name) => letters(name).length >= LETTERS_MIN)
  return (
    long.find((name) => letters(name) === letters(written)) ??
    long.find((name) => words(name) === words(written)) ??
    long.find((name) => isNear(letters(name), letters(written)))
  )
}

function letters(name: string): string {
  return name.toUpperCase().replaceAll('_', '')
}

/** The words of a name without units, each in the singular, in the order of the alphabet. */
function words(name: string): string {
  const meaning = name
    .toUpperCase()
    .split('_')
    .filter((word) => !UNITS.has(word))
  return meaning
    .map((word) => word.replace(/S$/, ''))
    .sort()
    .join('_')
}

function isNear(name: string, written: string): boolean {
  const slipsMax = name.length < LETTERS_FOR_TWO_SLIPS ? 1 : 2
  // A slip changes the length by one at most: for nearly all names of an environment that is the answer.
  return Math.abs(name.length - written.length) <= slipsMax && slips(name, written) <= slipsMax
}

/** How many letters must be put in, left out, changed or swapped with the next to make one text of another. */
function slips(a: string, b: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const changed = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? beforeLast[j - 2]! + 1 : changed
      row.push(Math.min(last[j]! + 1, row[j - 1]! + 1, changed, swapped))
    }
    beforeLast = last
    last = row
  }
  return last[b.length]!
}
