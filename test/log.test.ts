import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { suite } from './support/suite.ts'

const test = suite('log')

/** The lines that a process writes, on a standard error that is no terminal. */
function linesOf(script: string): Record<string, unknown>[] {
  const source = `import { createLogger } from ${JSON.stringify(import.meta.resolve('../sidecar/log.ts'))};${script}`
  const { stderr, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    encoding: 'utf8',
  })
  assert.equal(stdout, '')
  return stderr
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}

test('a line is a JSON object with time, level, message and fields, and nothing else', () => {
  const [line, ...more] = linesOf(`
    const log = createLogger('info')
    log.debug('unheard')
    log.info({ role: 'inbound', port: 8080 }, 'listening')`)
  const { time, ...rest } = line!
  assert.deepEqual(rest, { level: 'info', msg: 'listening', role: 'inbound', port: 8080 })
  assert.equal(new Date(String(time)).toISOString(), time)
  assert.deepEqual(more, [])
})

test('a line is written before the process can end', () => {
  assert.equal(
    linesOf(`createLogger('info').error('the last words'); process.exit(1)`)[0]!.msg,
    'the last words',
  )
})

test('an error is told with its cause and stack, and without its properties', () => {
  const [line] = linesOf(`
    const cause = Object.assign(new TypeError('inner'), { rawPacket: Buffer.from('hush') })
    createLogger('info').error({ err: Object.assign(new Error('outer', { cause }), { secret: 'hush' }) }, 'failed')`)
  const { stack, cause, ...rest } = line!.err as Record<string, Record<string, string>>
  assert.deepEqual(rest, { type: 'Error', message: 'outer' })
  assert.match(String(stack), /^Error: outer\n {4}at /)
  assert.deepEqual([cause?.type, cause?.message], ['TypeError', 'inner'])
  assert.equal(cause?.rawPacket, undefined)
})

test.run()
