import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import path from 'node:path'
import { DemoTraces } from '../sidecar/demo-traces.ts'
import { attributesOf, spansOf, startCollector } from './otel/collector.ts'
import { type FakeJaeger, fakeProgram, jaegerSource } from './support/fake-jaeger.ts'
import { suite } from './support/suite.ts'

const test = suite('demo with traces')

const root = path.dirname(import.meta.dirname)
const PAGE = /http:\/\/127\.0\.0\.1:[0-9]+\/trace\/[0-9a-f]{32}/
/** so that none of this machine is asked */
const NO_DOCKER = { JAEGER_BIN: '', PATH: '/bin' }

const begun: { remove(): void }[] = []
test.after(() => {
  for (const one of begun) one.remove()
})

test('the command shows the call as one tree through both apps and both sidecars, and in Jaeger', async () => {
  const jaeger = fake('jaeger', jaegerSource(14))
  const child = startDemo({ JAEGER_BIN: jaeger.file })
  const output = { stdout: '', stderr: '' }
  child.stdout!.on('data', (text) => (output.stdout += text))
  child.stderr!.on('data', (text) => (output.stderr += text))
  const [status] = await once(child, 'close')
  assert.deepEqual([status, output.stderr], [0, ''], output.stdout)

  const lines = output.stdout.split('\n')
  const tree = lines.filter((line) => /[+][0-9]+\.[0-9]{2} +[0-9]+\.[0-9]{2} ms/.test(line))
  const told = tree.map((line) => {
    const [, left, notes = ''] = /^(.*?) +[+].* ms *(.*)$/.exec(line)!
    return [left!.replace(/(?<=\S) +/g, ' '), notes.replace(/(in|out)=[0-9]+/g, '$1')]
  })
  assert.deepEqual(told, [
    ['orders POST CLIENT', 'server=billing status=201'],
    [' orders-mte POST SERVER', 'direction=outbound status=201'],
    ['  orders-mte mte.handshake INTERNAL', 'role=initiator peer=billing-mte'],
    ['   orders-mte POST CLIENT', 'server=127.0.0.1 status=200'],
    ['    billing-mte POST SERVER', 'direction=inbound status=200'],
    ['     billing-mte mte.handshake INTERNAL', 'role=responder peer=orders-mte'],
    ['  orders-mte mte.encode request INTERNAL', 'in out chunks=1'],
    ['  orders-mte POST CLIENT', 'peer=billing-mte server=127.0.0.1 status=201'],
    ['   billing-mte POST SERVER', 'direction=inbound peer=orders-mte status=201'],
    ['    billing-mte mte.decode request INTERNAL', 'in out chunks=1'],
    ['    billing-mte POST CLIENT', 'server=127.0.0.1 status=201'],
    ['     billing POST /v1/charges SERVER', 'status=201'],
    ['    billing-mte mte.encode response INTERNAL', 'in out chunks=1'],
    ['  orders-mte mte.decode response INTERNAL', 'in out chunks=1'],
  ])
  assert.ok(lines.every((line) => line.length <= 120 || line.includes(jaeger.file)))
  assert.equal(lines.filter((line) => line.startsWith('yes ')).length, 5)
  assert.match(output.stdout, /yes {2}the call is one trace through both apps and both sidecars: 14 spans/)
  assert.match(output.stdout, new RegExp(`The trace is in Jaeger: ${PAGE.source}\n`))
  assert.match(output.stdout, /10,000 of 10,000 more calls got their answer/)
  assert.match(output.stdout, /Jaeger ends with the demo/)
})

for (const signal of ['SIGTERM', 'SIGINT', 'SIGKILL'] as const)
  test(`Jaeger ends when ${signal} ends the demo`, async () => {
    const server = net.createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const neverReady = `require('node:net').connect(${port}, '127.0.0.1')`
    const child = startDemo({ JAEGER_BIN: fake('jaeger', neverReady).file })
    child.stdout!.resume()
    const [socket] = (await once(server, 'connection')) as [Socket]
    server.close()
    const ended = once(socket.resume(), 'close')
    child.kill(signal)
    await ended
  })

test('a Jaeger that ends at once is told with its last words, and the demo goes on', async () => {
  const { file } = fake('jaeger', 'console.error("warming up\\nno\\u0007 room"); process.exitCode = 3')
  const { printed } = await handOn({ ...NO_DOCKER, JAEGER_BIN: file })
  assert.deepEqual(printed, [
    `Jaeger starts: JAEGER_BIN is ${file}.`,
    'There is no Jaeger: it ended with status 3: no\\u0007 room',
    '',
  ])
})

test('a JAEGER_BIN that is no program is told', async () => {
  const { printed } = await handOn({ ...NO_DOCKER, JAEGER_BIN: '/there/is/none' })
  assert.match(printed.join('\n'), /There is no Jaeger: it cannot be run: .*ENOENT/)
})

test('without any Jaeger it says how to get one', async () => {
  const { printed } = await handOn({ ...NO_DOCKER, PATH: fake('none', '').folder })
  assert.match(printed.join('\n'), /start docker, or set JAEGER_BIN .*\n.*jaegertracing\.io\/download/)
})

test('a docker that does not answer is none', async () => {
  const docker = fake('docker', 'console.log(""); console.error("Cannot connect"); process.exitCode = 1')
  const { printed } = await handOn({ ...NO_DOCKER, PATH: docker.folder })
  assert.match(printed.join('\n'), /start docker/)
})

test('where there is docker it runs Jaeger, reachable from this machine alone', async () => {
  const published = (i: number) =>
    `Number(args.filter((arg) => arg.startsWith('127.0.0.1:'))[${i}].split(':')[1])`
  const docker = fake(
    'docker',
    `if (args[0] === 'info') return console.log('29.0.0')\n${jaegerSource(2, [published(0), published(1)])}`,
  )
  const { printed } = await handOn({ ...NO_DOCKER, PATH: `${docker.folder}:/bin` })
  assert.match(printed.join('\n'), /docker starts Jaeger/)
  assert.match(printed.join('\n'), new RegExp(`The trace is in Jaeger: ${PAGE.source}`))
  const args = docker.args()
  assert.deepEqual(args.slice(0, 2), ['run', '--rm'])
  const ports = args.filter((_, i) => args[i - 1] === '--publish')
  assert.deepEqual(
    ports.map((port) => port.replace(/:[0-9]+:/, ':…:')),
    ['127.0.0.1:…:4318', '127.0.0.1:…:16686'],
  )
})

test('all-in-one of Jaeger 1 is told its ports in its own way', async () => {
  const port = (name: string) => `Number(process.env.${name}.split(':')[1])`
  const ports = [port('COLLECTOR_OTLP_HTTP_HOST_PORT'), port('QUERY_HTTP_SERVER_HOST_PORT')] as const
  const jaeger = fake('jaeger-all-in-one', jaegerSource(2, ports).replace(/^const config.*$/m, ''))
  const { printed } = await handOn({ ...NO_DOCKER, JAEGER_BIN: jaeger.file })
  assert.match(printed.join('\n'), new RegExp(`The trace is in Jaeger: ${PAGE.source}`))
  assert.deepEqual(jaeger.args(), [])
})

test('where the variables of OpenTelemetry name a collector the trace goes there, and nothing is started', async () => {
  const collector = await startCollector()
  const jaeger = fake('jaeger', jaegerSource(2))
  try {
    const { printed, traceId } = await handOn({
      JAEGER_BIN: jaeger.file,
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
      JAEGER_UI_URL: 'https://jaeger.example/ui/',
    })
    assert.deepEqual(printed, [
      `The trace was sent to ${collector.url}: ${traceId}`,
      `https://jaeger.example/ui/trace/${traceId}`,
      '',
    ])
    assert.deepEqual(
      spansOf(collector.exports).map(({ name, traceId: id }) => [name, id]),
      [
        ['POST /v1/charges', traceId],
        ['POST', traceId],
      ],
    )
    const { resourceSpans } = JSON.parse(String(collector.exports[0]!.body))
    const services = resourceSpans.map((one: { resource: { attributes: [] } }) =>
      attributesOf(one.resource.attributes),
    )
    assert.deepEqual(services, [{ 'service.name': 'billing' }, { 'service.name': 'orders' }])
    assert.throws(() => jaeger.args(), /ENOENT/)
  } finally {
    collector.close()
  }
})

test('variables that cannot be used are told, and nothing is started', async () => {
  const jaeger = fake('jaeger', jaegerSource(2))
  const { printed } = await handOn({ JAEGER_BIN: jaeger.file, OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' })
  assert.deepEqual(printed, [
    'The trace is not exported:',
    'OTEL_EXPORTER_OTLP_ENDPOINT: must begin with http:// or https://',
    '',
  ])
  assert.throws(() => jaeger.args(), /ENOENT/)
})

test('spans that are not one tree through all services are no trace of the call', async () => {
  const traces = new DemoTraces()
  traces.calls('POST', 'billing').end(201)
  traces.serves('POST', '/v1/charges', {}).end(201)
  const printed: string[] = []
  assert.equal(await traces.show((line) => printed.push(line), 80), 0)
  assert.match(printed.join('\n'), /^orders {2}POST {2}CLIENT/m)
})

test('at a terminal it stays until Ctrl-C, and Jaeger with it', async () => {
  const { file } = fake('jaeger', jaegerSource(2))
  const { printed } = await handOn({ JAEGER_BIN: file }, async (traces, print) => {
    const left = traces.wait(print, true)
    process.emit('SIGINT')
    await left
  })
  assert.equal(printed.at(-1), 'Jaeger stays, with the trace at the address above. Ctrl-C ends it.')
})

test('a Jaeger that ends by itself is not waited for', async () => {
  const { file } = fake('jaeger', jaegerSource(2))
  const { printed } = await handOn({ JAEGER_BIN: file }, async (traces, print, page) => {
    const left = traces.wait(print, true)
    await fetch(new URL('/end', page)).catch(() => {})
    await left
  })
  assert.equal(printed.at(-1), 'Jaeger is not there any more: it ended with status 5')
})

test('a Jaeger that ends before it shows the trace is told', async () => {
  const source = jaegerSource(2).replace('response.end()', 'process.exit(5)')
  const { printed } = await handOn({ JAEGER_BIN: fake('jaeger', source).file })
  assert.match(printed.join('\n'), /The trace has not arrived in Jaeger/)
})

/** The call of two apps without sidecars, handed on in such an environment. */
async function handOn(
  env: Record<string, string>,
  then?: (traces: DemoTraces, print: (line: string) => void, page: string) => Promise<void>,
) {
  const before = { ...process.env }
  Object.assign(process.env, env)
  const traces = new DemoTraces()
  try {
    const call = traces.calls('POST', 'billing')
    traces.serves('POST', '/v1/charges', call.headers).end(201)
    call.end(201)
    await traces.show(() => {}, 80)
    const printed: string[] = []
    const print = (line: string) => printed.push(...line.split('\n'))
    await traces.handOn(print)
    await then?.(traces, print, PAGE.exec(printed.join('\n'))![0])
    return { printed, traceId: call.headers.traceparent!.split('-')[1]! }
  } finally {
    await traces.close()
    for (const name of Object.keys(env)) delete process.env[name]
    Object.assign(process.env, before)
  }
}

function fake(name: string, source: string): FakeJaeger {
  const program = fakeProgram(name, source)
  begun.push(program)
  return program
}

function startDemo(env: Record<string, string>): ChildProcess {
  const coverage = process.env.NODE_V8_COVERAGE
  const child = spawn(process.execPath, ['sidecar/main.ts', 'demo', '--traces'], {
    cwd: root,
    env: { PATH: process.env.PATH, ...env, ...(coverage ? { NODE_V8_COVERAGE: coverage } : {}) },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  begun.push({ remove: () => child.kill('SIGKILL') })
  return child
}

test.run()
