import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { watchFiles } from '../sidecar/watch-files.ts'
import { SecretMount } from './support/secret-mount.ts'
import { suite } from './support/suite.ts'

const test = suite('watch-files')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-watch-'))
test.after(() => rmSync(folder, { recursive: true }))

const NOTICED_WITHIN_MS = 2000

/** Watches files; `next` gives the texts that are read next, and fails when that takes too long. */
function watch(files: string[]) {
  const events = new EventEmitter()
  const log: string[][] = []
  const watcher = watchFiles(files, () => {
    const texts = files.map((file) => (existsSync(file) ? readFileSync(file, 'utf8') : 'none'))
    return () => {
      log.push(texts)
      events.emit('put', texts)
    }
  })
  const next = async () => {
    const [texts] = await once(events, 'put', { signal: AbortSignal.timeout(NOTICED_WITHIN_MS) })
    return texts as string[]
  }
  return { log, next, [Symbol.dispose]: () => watcher.close() }
}

const at = (name: string) => path.join(folder, name)

test('files are read at once', () => {
  writeFileSync(at('at-once'), 'one')
  using watched = watch([at('at-once'), at('missing')])
  assert.deepEqual(watched.log, [['one', 'none']])
})

test('a file that is written to, replaced, removed or made is read again', async () => {
  const file = at('changing')
  writeFileSync(file, 'one')
  using watched = watch([file])
  writeFileSync(file, 'two')
  assert.deepEqual(await watched.next(), ['two'])
  writeFileSync(`${file}.new`, 'six')
  renameSync(`${file}.new`, file)
  assert.deepEqual(await watched.next(), ['six'])
  rmSync(file)
  assert.deepEqual(await watched.next(), ['none'])
  writeFileSync(file, 'ten')
  assert.deepEqual(await watched.next(), ['ten'])
  assert.equal(watched.log.length, 5)
})

test('a symbolic link that is turned, as Kubernetes turns its own, is noticed for all files at once', async () => {
  using mount = new SecretMount({ a: 'a1', b: 'b1' })
  using watched = watch([mount.file('a'), mount.file('b')])
  mount.turn({ a: 'a2', b: 'b2' })
  assert.deepEqual(await watched.next(), ['a2', 'b2'])
  mount.turn({ a: 'a3' })
  assert.deepEqual(await watched.next(), ['a3', 'none'])
  assert.equal(watched.log.length, 3)
})

test('what was read while the files changed is never put into effect', async () => {
  using mount = new SecretMount({ a: 'a1', b: 'b1' })
  const files = [mount.file('a'), mount.file('b')]
  const put: string[][] = []
  const { promise: whole, resolve } = Promise.withResolvers<void>()
  let reads = 0
  const watcher = watchFiles(files, () => {
    const first = readFileSync(files[0]!, 'utf8')
    if (++reads === 2) mount.turn({ a: 'a3', b: 'b3' })
    const texts = [first, readFileSync(files[1]!, 'utf8')]
    return () => {
      put.push(texts)
      if (texts[0] === 'a3') resolve()
    }
  })
  mount.turn({ a: 'a2', b: 'b2' })
  await whole
  watcher.close()
  assert.deepEqual(put, [
    ['a1', 'b1'],
    ['a3', 'b3'],
  ])
})

test('nothing is read while what was read before is being put into effect', async () => {
  const file = at('slow')
  writeFileSync(file, '1')
  using other = watch([file])
  const reads: string[] = []
  const { promise: last, resolve } = Promise.withResolvers<void>()
  const watcher = watchFiles([file], () => {
    const text = readFileSync(file, 'utf8')
    reads.push(text)
    return async () => {
      if (text === '333') resolve()
      if (text !== '22') return
      writeFileSync(file, '333')
      while ((await other.next())[0] !== '333');
      assert.deepEqual(reads, ['1', '22'])
    }
  })
  writeFileSync(file, '22')
  await last
  watcher.close()
  assert.deepEqual(reads, ['1', '22', '333'])
})

test('nothing is read any more once it is closed', async () => {
  const file = at('closed')
  writeFileSync(file, 'one')
  const closed = watch([file])
  closed[Symbol.dispose]()
  using watched = watch([file])
  writeFileSync(file, 'two')
  await watched.next()
  assert.deepEqual(closed.log, [['one']])
})

test.run()
