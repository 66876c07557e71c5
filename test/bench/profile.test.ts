import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { suite } from '../support/suite.ts'
import { tellProfiles } from './profile.ts'

const test = suite('profile')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-profile-'))
test.after(() => rmSync(folder, { recursive: true }))

const node = (id: number, functionName: string, url: string, children: number[] = []) => ({
  id,
  callFrame: { functionName, url, lineNumber: 6 },
  children,
})
const call = path.resolve('sidecar/call.ts')
/** 1,000 us each: `start` before the span; in it `read`, `read` once more, `<b>` that it calls, and idleness. */
const PROFILE = {
  nodes: [
    node(1, '(root)', '', [2, 3, 5, 6]),
    node(2, 'start', `file://${call}`),
    node(3, 'read', `file://${call}`, [4]),
    node(4, '<b>', 'node:net'),
    node(5, '(idle)', ''),
    node(6, 'read', `file://${call}`),
  ],
  startTime: 10_000,
  samples: [2, 3, 6, 4, 5],
  timeDeltas: [1000, 1000, 1000, 2000, 1000],
}
const SPAN = { fromUs: 11_500, toUs: 20_000 }

test('what was measured is told by what each function took by itself, without start and idleness', () => {
  writeFileSync(path.join(folder, 'a-1.cpuprofile'), JSON.stringify(PROFILE))
  const [, title, ...lines] = tellProfiles(folder, [SPAN]).split('\n')
  assert.match(title!, /sidecar a-1: 0\.0 s that were not idle; .*a-1\.html$/)
  assert.deepEqual(lines, [
    '  50.0 %  read  sidecar/call.ts:7',
    '  50.0 %  <b>  node:net:7',
    '   0.0 %  (root)  ',
  ])
})

test('the flame graph names each function with its place and share, calls of one from one place as one', () => {
  const page = readFileSync(path.join(folder, 'a-1.html'), 'utf8')
  const titles = [...page.matchAll(/title="([^"]*)"/g)].map(([, title]) => title)
  assert.deepEqual(titles, [
    '(root) \n100.0 %, 0.0 % by itself',
    'read sidecar/call.ts:7\n100.0 %, 50.0 % by itself',
    '&#60;b&#62; node:net:7\n50.0 %, 50.0 % by itself',
  ])
  assert.doesNotMatch(page, /<b>|<script|https?:/)
})

test('a process that did nothing meanwhile is told to have been idle', () => {
  assert.equal(tellProfiles(folder, []), `\n${path.basename(folder)}, sidecar a-1: idle`)
})

test('a folder without a profile is a failure', () => {
  const empty = mkdtempSync(path.join(folder, 'empty-'))
  assert.throws(() => tellProfiles(empty, [SPAN]), /no process left a CPU profile/)
})

test.run()
