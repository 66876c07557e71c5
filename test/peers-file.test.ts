import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { Mistake } from '../sidecar/formats.ts'
import { watchPeersFile } from '../sidecar/peers-file.ts'
import { suite } from './support/suite.ts'

const test = suite('peers file')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-peers-'))
test.after(() => rmSync(folder, { recursive: true }))

/** Watches a file; `told` gives what is told next, and fails when that takes too long. */
function watch(file: string, onPeers: (texts: string[]) => void = () => {}) {
  const events = new EventEmitter()
  const log: string[] = []
  const tell = (text: string) => {
    log.push(text)
    events.emit('told', text)
  }
  const watcher = watchPeersFile(file, {
    onPeers: (peers) => {
      const texts = peers.map(({ pattern, url }) => `${pattern.text}=${url}`)
      onPeers(texts)
      tell(texts.join(' '))
    },
    onMistake: (message) => tell(`mistake: ${message}`),
  })
  const told = async () => {
    const [text] = await once(events, 'told', { signal: AbortSignal.timeout(5000) })
    return String(text)
  }
  return { log, told, [Symbol.dispose]: () => watcher.close() }
}

test('the peers are told at once', () => {
  const file = path.join(folder, 'at-once')
  writeFileSync(file, 'a=http://a\nb=http://b\n')
  using watched = watch(file)
  assert.deepEqual(watched.log, ['a=http://a b=http://b'])
})

test('a file that is written to, or replaced by another, is read again', async () => {
  const file = path.join(folder, 'changing')
  writeFileSync(file, 'a=http://a')
  using watched = watch(file)
  writeFileSync(file, 'a=http://b')
  assert.equal(await watched.told(), 'a=http://b')
  writeFileSync(`${file}.new`, 'a=http://c')
  renameSync(`${file}.new`, file)
  assert.equal(await watched.told(), 'a=http://c')
})

test('a symbolic link that is turned, as Kubernetes turns those of a ConfigMap, is noticed', async () => {
  const mount = path.join(folder, 'mount')
  for (const version of ['1', '2']) {
    mkdirSync(path.join(mount, version), { recursive: true })
    writeFileSync(path.join(mount, version, 'peers'), `a=http://a${version}`)
  }
  symlinkSync('1', path.join(mount, '..data'))
  symlinkSync('..data/peers', path.join(mount, 'peers'))
  using watched = watch(path.join(mount, 'peers'))
  symlinkSync('2', path.join(mount, '..data_tmp'))
  renameSync(path.join(mount, '..data_tmp'), path.join(mount, '..data'))
  assert.equal(await watched.told(), 'a=http://a2')
})

test('content that is wrong is told once, and right content after it is taken', async () => {
  const file = path.join(folder, 'wrong')
  writeFileSync(file, 'a=http://a')
  using watched = watch(file)
  writeFileSync(file, 'a=http://a\nnonsense')
  assert.match(await watched.told(), /^mistake: names a file that holds a mistake: line 2 must have the form/)
  rmSync(file)
  assert.match(await watched.told(), /^mistake: must name a file .*ENOENT/)
  writeFileSync(file, 'a=http://c')
  assert.equal(await watched.told(), 'a=http://c')
  assert.equal(watched.log.length, 4)
})

test('a mistake that the taker of the peers finds is told like one in the file', () => {
  const file = path.join(folder, 'refused')
  writeFileSync(file, 'a=http://a')
  using watched = watch(file, () => {
    throw new Mistake('must not name "a" again')
  })
  assert.deepEqual(watched.log, ['mistake: must not name "a" again'])
})

test.run()
