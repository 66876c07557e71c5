/** The example for Docker Compose, brought up as its README says. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { walk } from '../../sidecar/trace-tree.ts'
import { type Docker, startDocker } from '../support/docker.ts'
import { waitForTree } from '../support/jaeger.ts'
import { suite } from '../support/suite.ts'

const test = suite('compose')
const folder = path.join(import.meta.dirname, '../../mesh-examples/compose')
const readme = readFileSync(path.join(folder, 'README.md'), 'utf8')
const JAEGER = new URL('http://localhost:16686/api/v3/')
const UP_DEADLINE_MS = 5 * 60_000
const POLL_MS = 200
/** A call in a pair that is there already: what one sidecar does, and what the other does. */
const SPANS = 8

/** What is to be typed, in the README's words, that begins so. */
function typed(beginning: string): string {
  const found = [...readme.matchAll(/^ {4}(.+)$|`(docker [^`]+)`/gm)].map(
    ([, block, inline]) => block ?? inline!,
  )
  const lines = found.filter((line) => line.startsWith(beginning))
  assert.equal(lines.length, 1, `${beginning} is in the README ${lines.length} times`)
  return lines[0]!
}

interface Charge {
  order: number
  charged: number
  /** URL */
  trace: string
}

let docker: Docker
let up: ReturnType<Docker['start']>
let printed = ''

const shell = (line: string) => docker.shell(line, folder)
const compose = (words: string) => shell(`docker compose ${words}`)

test.before(async () => {
  docker = await startDocker()
}, UP_DEADLINE_MS)
test.after(async () => {
  await compose('down --volumes')
  await docker.stop()
}, UP_DEADLINE_MS)

async function order(): Promise<Charge> {
  return JSON.parse(await shell(`${typed('curl')} --silent --show-error --fail`))
}

/** As soon as it is answered: until then nobody listens, or one of the sidecars is not there yet. */
async function orderWhenUp(): Promise<Charge> {
  for (;;) {
    try {
      return await order()
    } catch (error) {
      if (up.exitCode !== null) throw new Error(`${(error as Error).message}\n${printed}`)
      await sleep(POLL_MS)
    }
  }
}

test(
  'comes up by one command, and answers one curl',
  async () => {
    await compose('build')
    const [program, ...words] = typed('docker compose up').split(' ')
    assert.equal(program, 'docker')
    up = docker.start(folder, ...words)
    for (const stream of [up.stdout, up.stderr])
      stream.setEncoding('utf8').on('data', (text) => {
        printed += text
      })
    const { order, charged } = await orderWhenUp()
    assert.deepEqual({ order, charged }, { order: 7, charged: 1200 })
  },
  UP_DEADLINE_MS,
)

test('shows that call as one trace through both sidecars', async () => {
  const { trace } = await order()
  assert.match(trace, /^http:\/\/localhost:16686\/trace\/[0-9a-f]{32}$/)
  const tree = await waitForTree(JAEGER, trace.split('/').at(-1)!, SPANS, 20_000)
  const services = new Set([...walk(tree)].map(({ node }) => node.service))
  assert.deepEqual([...services].sort(), ['billing-mte', 'orders-mte'])
})

test('has all that its README tells to look at', async () => {
  assert.match(await shell(typed('docker compose logs')), /"direction":"inbound".*"msg":"call"/)
  assert.match(
    await shell(typed('docker compose exec orders-sidecar mte-sidecar pairs')),
    /http:\/\/billing:7781/,
  )
  const status = JSON.parse(await shell(typed('docker compose exec orders wget')))
  assert.equal(status.store, 'redis')
  await shell(typed('docker compose exec orders-sidecar mte-sidecar check'))
  assert.match(await shell(typed('docker run --rm mte-sidecar:0.1.0 keygen')), /^CLIENT_ID_SECRET=/)
})

test('lets nobody past the sidecar, and nobody read a secret that is not theirs', async () => {
  const refused = /Connection refused/
  await assert.rejects(compose('exec --no-TTY orders wget -qO- http://billing:3000/charges'), refused)
  await assert.rejects(compose('exec --no-TTY orders wget -qO- http://billing:7781/charges'), /404/)
  const owners = await compose(
    'run --rm --no-TTY --no-deps secrets ls -ln /run/secrets/mte-sidecar /run/secrets/redis',
  )
  const files = owners.split('\n').filter((line) => line.startsWith('-'))
  assert.equal(files.length, 3)
  for (const line of files) assert.match(line, /^-r-------- +1 (?:65532 +65532|999 +999) /)
})

test('goes on when a sidecar or an app starts anew', async () => {
  for (const service of ['billing-sidecar', 'orders-sidecar', 'billing']) {
    await compose(`restart ${service}`)
    assert.equal((await orderWhenUp()).order, 7)
  }
})

test('is stopped by Ctrl-C, with every sidecar done', async () => {
  const left = once(up, 'exit')
  up.kill('SIGINT')
  await left
  const states = await compose("ps --all --format '{{.Service}} {{.ExitCode}}'")
  for (const sidecar of ['orders-sidecar', 'billing-sidecar'])
    assert.match(states, new RegExp(`^${sidecar} 0$`, 'm'))
})

test(
  'keeps its secret, so that it can be brought up again',
  async () => {
    up = docker.start(folder, 'compose', 'up')
    await orderWhenUp()
    await shell(typed('docker compose down'))
    assert.equal(await compose('ps --all --quiet'), '')
    const volumes = await docker.run('volume', 'ls', '--quiet', '--filter', 'name=mte-sidecar-example')
    assert.equal(volumes, '')
  },
  UP_DEADLINE_MS,
)

/** As MTE API Relay's guide has it, but for the image and the values that are to be updated. */
const ORIGINAL = `
version: "3.8"
services:
  mte-api-relay:
    image: mte-sidecar:0.1.0
    ports:
      - "8080:8080"
    environment:
      - UPSTREAM=https://api.my-company.com
      - CLIENT_ID_SECRET=2DkV4DDabehO8cifDktdF9elKJL0CKrk
      - OUTBOUND_TOKEN=abcdefg1234567
      - REDIS_URL=redis://redis:6379
    depends_on:
      - redis
  redis:
    image: "redis:alpine"
`

test('runs the Compose file of the original', async () => {
  const place = mkdtempSync(path.join(os.tmpdir(), 'mte-original-'))
  writeFileSync(path.join(place, 'docker-compose.yaml'), ORIGINAL)
  try {
    await docker.shell('docker compose up --detach --wait', place)
    const { message } = JSON.parse(
      await docker.shell("curl -fsS 'http://localhost:8080/api/mte-echo?msg=test'", place),
    )
    assert.equal(message, 'test')
    const check = 'docker compose exec --no-TTY mte-api-relay mte-sidecar check || true'
    assert.match(await docker.shell(check, place), /ok +Redis at redis:\/\/redis:6379 answers/)
  } finally {
    await docker.shell('docker compose down', place)
    rmSync(place, { recursive: true })
  }
})

test.run()
