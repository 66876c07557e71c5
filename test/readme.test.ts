/** README is held to what it describes. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import packageJson from '../package.json' with { type: 'json' }
import { ERRORS } from '../sidecar/errors.ts'
import { VARIABLES } from '../sidecar/variables.ts'
import { suite } from './support/suite.ts'

const test = suite('README')
const readme = readFileSync(path.join(import.meta.dirname, '../README.md'), 'utf8')

/** The rows of the table in a section: the names in the first cell, and the second cell. */
function table(section: string): { names: string[]; cell: string }[] {
  const text = readme.split(`\n## ${section}\n`)[1]?.split('\n## ')[0] ?? ''
  const rows = text.split('\n').filter((line) => line.startsWith('| '))
  return rows.slice(1).map((row) => {
    const [, first = '', cell = ''] = row.split('|')
    return { names: first.trim().split(', '), cell }
  })
}

function namesIn(section: string): string[] {
  return table(section)
    .flatMap(({ names }) => names)
    .sort()
}

test('it lists every variable and no other', () => {
  const secretFile = /^(?:(?:CLIENT_ID_SECRET|OUTBOUND_TOKEN)(?:_PREVIOUS)?|REDIS_URL)_FILE$/
  const told = Object.keys(VARIABLES).filter((name) => !secretFile.test(name))
  assert.deepEqual(namesIn('Variables'), told.sort())
})

test('it tells the default of every variable that has one', () => {
  for (const { names, cell } of table('Variables')) {
    const defaults = names.map((name) => VARIABLES[name as keyof typeof VARIABLES].default)
    for (const value of defaults) if (value !== null) assert.ok(cell.includes(`\`${value}\``), names.join())
  }
})

test('it lists every code of an error and no other', () => {
  assert.deepEqual(namesIn('Answers that the sidecar makes itself'), Object.keys(ERRORS).sort())
})

test('it says what every dependency is for', () => {
  const { dependencies, devDependencies } = packageJson
  assert.deepEqual(
    namesIn('What its packages are for'),
    [...Object.keys(dependencies), ...Object.keys(devDependencies)].sort(),
  )
})

test.run()
