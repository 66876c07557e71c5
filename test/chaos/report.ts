/** The table of what the faults did. */
import type { Outcome } from './trial.ts'

type Column = [title: string, cell: (outcome: Outcome) => string]

const COLUMNS: Column[] = [
  ['mode', ({ mode }) => mode],
  ['fault', ({ fault }) => fault],
  ['calls', ({ calls }) => String(calls)],
  ['executed twice', ({ executedTwice }) => String(executedTwice)],
  ['lost', ({ lost }) => String(lost)],
  ['told wrong', ({ toldWrong }) => String(toldWrong)],
  ['seconds to heal', ({ healedMs }) => (healedMs === undefined ? 'never' : (healedMs / 1000).toFixed(2))],
  ['failed', ({ failed }) => failuresOf(failed)],
]
/** Words, and numbers to the right. */
const TEXT_COLUMNS = ['mode', 'fault', 'failed']

/** The table, a line a fault; its last line says whether all is well, or what is not. */
export function reportOf(outcomes: readonly Outcome[]): string {
  const lines = [
    COLUMNS.map(([title]) => title),
    ...outcomes.map((outcome) => COLUMNS.map(([, cell]) => cell(outcome))),
  ]
  const widths = COLUMNS.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
  const table = lines.map((line) =>
    line
      .map((cell, i) =>
        TEXT_COLUMNS.includes(COLUMNS[i]![0]) ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!),
      )
      .join('  ')
      .trimEnd(),
  )
  const faults = outcomes.flatMap(({ mode, fault, faults }) =>
    faults.length > 0 ? [`${fault} (${mode}): ${faults.join(', ')}`] : [],
  )
  return [...table, '', faults.length === 0 ? 'all is well' : `not well: ${faults.join('; ')}`].join('\n')
}

function failuresOf(failed: Outcome['failed']): string {
  const all = Object.entries(failed).toSorted(([, a], [, b]) => b - a)
  const total = all.reduce((sum, [, count]) => sum + count, 0)
  return total === 0 ? '0' : `${total}: ${all.map(([failure, count]) => `${count} ${failure}`).join(', ')}`
}
