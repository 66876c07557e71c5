/** What a file of tests tells whoever runs it, also when all is well: a table, or what it had to leave out. */

const MARK = '│ '

/** Prints it, so that `told` finds it. */
export function tell(lines: string): void {
  console.log(`\n${lines.replace(/^/gm, MARK)}`)
}

/** The lines in what a file of tests printed that are meant for whoever runs it. */
export function told(output: string): string[] {
  return output.split('\n').filter((line) => line.startsWith(MARK))
}
