import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { Logger } from '../sidecar/log.ts'
import { watchPeersFile } from '../sidecar/rereading.ts'
import { Routes } from '../sidecar/routes.ts'
import { suite } from './support/suite.ts'

const test = suite('rereading')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-peers-'))
test.after(() => rmSync(folder, { recursive: true }))

/** Watches a PEERS_FILE; `logged` gives the next line of the log, and fails when that takes too long. */
function watch(file: string) {
  const events = new EventEmitter()
  const log: string[] = []
  const write = (first: object | string, message = '') => {
    log.push(typeof first === 'string' ? first : `${message} ${JSON.stringify(first)}`)
    events.emit('line', log.at(-1))
  }
  const logger: Logger = { error: write, warn: write, info: write, debug: write }
  const routes = new Routes([{ pattern: { text: 'a', host: 'a', port: undefined }, url: 'http://a' }], [])
  const watcher = watchPeersFile(file, routes, logger)
  const logged = async () => {
    const [line] = await once(events, 'line', { signal: AbortSignal.timeout(5000) })
    return String(line)
  }
  const url = (authority: string) => {
    const route = routes.find(authority, 'http')
    return route?.kind === 'peer' ? route.url : undefined
  }
  return { log, logged, url, [Symbol.dispose]: () => watcher.close() }
}

test('the peers of PEERS_FILE count at once, and others when it changes', async () => {
  const file = path.join(folder, 'peers')
  writeFileSync(file, 'b=http://b\nc=http://c\n')
  using watched = watch(file)
  assert.deepEqual(watched.log, ['PEERS_FILE was read {"peers":2}'])
  assert.equal(watched.url('b'), 'http://b')
  writeFileSync(file, 'b=http://b2')
  assert.equal(await watched.logged(), 'PEERS_FILE was read {"peers":1}')
  assert.deepEqual(
    ['a', 'b', 'c'].map((authority) => watched.url(authority)),
    ['http://a', 'http://b2', undefined],
  )
})

test('a mistake in PEERS_FILE is told once, the peers stay, and right content after it is taken', async () => {
  const file = path.join(folder, 'wrong')
  writeFileSync(file, 'b=http://b')
  using watched = watch(file)
  writeFileSync(file, 'b=http://c\nnonsense')
  assert.match(
    await watched.logged(),
    /^PEERS_FILE names a file that holds a mistake: line 2 must have the form .*; the peers stay as they were$/,
  )
  assert.equal(watched.url('b'), 'http://b')
  rmSync(file)
  assert.match(await watched.logged(), /^PEERS_FILE must name a file .*ENOENT/)
  writeFileSync(file, 'a=http://c')
  assert.match(await watched.logged(), /^PEERS_FILE must not name "a" again/)
  assert.equal(watched.url('b'), 'http://b')
  writeFileSync(file, 'b=http://d')
  assert.match(await watched.logged(), /^PEERS_FILE was read/)
  assert.equal(watched.url('b'), 'http://d')
  assert.equal(watched.log.length, 5)
})

test.run()
