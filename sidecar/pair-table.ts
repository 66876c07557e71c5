/** How pairs look at a terminal. */
import type { ListedPair } from './admin.ts'
import { printable } from './printable.ts'

const HEAD = ['PEER', 'ROLE', 'SECRET', 'AGE', 'MESSAGES', 'BLOCK', 'TUNNELS']
const GAP = '  '

/** A line for each pair, below a line that names the columns. */
export function pairTable(pairs: readonly ListedPair[]): string {
  const rows = pairs.map(({ peer, role, secret, ageMs, messages, block, tunnels }) => [
    printable(peer),
    printable(role),
    printable(secret),
    age(ageMs),
    String(messages),
    String(block),
    String(tunnels),
  ])
  const lines = [HEAD, ...rows]
  const widths = HEAD.map((_, column) => Math.max(...lines.map((cells) => cells[column]!.length)))
  return lines
    .map((cells) =>
      cells
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join(GAP)
        .trimEnd(),
    )
    .join('\n')
}

function age(ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  if (minutes === 0) return `${Math.floor(ms / 1000)} s`
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`
}
