import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import path from 'node:path'
import { runDemo } from '../sidecar/demo.ts'
import { suite } from './support/suite.ts'

const test = suite('demo')

const root = path.dirname(import.meta.dirname)
const WORDS = ['/v1/charges', 'account=4711', 'x-order: order-2041', 'for-billing-only', 'Ada Lovelace']

test('the command shows a call side by side, times ten thousand more, and leaves by itself with 0', async () => {
  const child = spawn(process.execPath, ['sidecar/main.ts', 'demo'], { cwd: root })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', (text) => (output.stdout += text))
  child.stderr.on('data', (text) => (output.stderr += text))
  const [status] = await once(child, 'close')
  assert.deepEqual([status, output.stderr], [0, ''], output.stdout)

  const lines = output.stdout.split('\n')
  assert.ok(lines.every((line) => line.length <= 120))
  const [there, back] = lines.flatMap((line, i) => (line.includes('┼') ? [i] : []))
  assert.deepEqual(cells(lines[there! - 1]!), [
    'What orders sent',
    'What the network saw',
    'What billing got',
  ])
  assert.deepEqual(cells(lines[back! - 1]!), [
    'What billing answered',
    'What the network saw',
    'What orders got',
  ])
  for (const at of [there!, back!]) {
    const views = [0, 1, 2].map((column) =>
      lines.slice(at + 1, lines.indexOf('', at)).map((line) => cells(line)[column] ?? ''),
    )
    const [sent, network, got] = views as [string[], string[], string[]]
    assert.deepEqual(sent, got)
    assert.match(network.join('\n'), /^(POST \/api\/mte-message|200)\n[0-9]+ bytes:\n\n01 [19]1 /)
    for (const word of WORDS) {
      if (at === there) assert.ok(sent.join('\n').includes(word), word)
      assert.ok(!network.join('\n').includes(word), word)
    }
  }
  assert.equal(lines.filter((line) => line.startsWith('yes ')).length, 4)
  assert.match(output.stdout, /10,000 of 10,000 more calls got their answer, and each ran once/)
  assert.match(output.stdout, / [0-9,]+ a second\n.*p50 [0-9.]+ ms, p99 [0-9.]+ ms\n/)
  assert.match(output.stdout, /All of it was so\./)
})

test('where something is not so the demo says which, also in a narrow terminal', async () => {
  const { request } = http
  http.request = ((options: http.RequestOptions, onResponse: (response: http.IncomingMessage) => void) => {
    const headers = options.headers as Record<string, string>
    const changed = headers.host === 'billing' && options.path === '/v1/charges?account=4711'
    return request(
      changed ? { ...options, headers: { ...headers, 'x-order': 'another' } } : options,
      onResponse,
    )
  }) as typeof request
  const lines: string[] = []
  const print = (line: string) => lines.push(...line.split('\n'))
  try {
    assert.equal(await runDemo({ traces: false, print, columns: 80 }), false)
  } finally {
    http.request = request
  }
  assert.equal(
    lines.find((line) => line.length > 80),
    undefined,
  )
  const failed = lines.filter((line) => line.startsWith('NO '))
  assert.deepEqual(failed, ['NO   billing got the call as orders sent it'])
  assert.ok(lines.some((line) => line.startsWith('Not all of it was so')))
})

function cells(line: string): string[] {
  return line.split('│').map((cell) => cell.trim())
}

test.run()
