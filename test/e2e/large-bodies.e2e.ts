/** Bodies of gigabytes through two sidecars, as processes, in memory that does not grow with them. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import http from 'node:http'
import { once } from '../support/call.ts'
import { carriage } from '../support/carriage.ts'
import { type SidecarProcess, startProcess } from '../support/process.ts'
import { type Server, startServer } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const GIB = 2 ** 30
const GROWTH_BYTES_MAX = 50 * 2 ** 20
/** A process takes what it needs for streaming at full speed while the first of it goes through. */
const WARM_UP_BYTES = GIB / 2
const PIECE = randomBytes(256 * 1024)
const DEADLINE_MS = 240_000

const test = suite(`large bodies, by ${carriage}`)

interface World {
  app: Server
  orders: SidecarProcess
  billing: SidecarProcess
}

let world: World
/** Looks at the memory whenever so much more has gone by. */
class MemoryWatch {
  #base = 0
  #most = 0
  #seen = 0
  #next = WARM_UP_BYTES

  passed(bytes: number): void {
    this.#seen += bytes
    if (this.#seen < this.#next) return
    this.#next += GIB / 16
    const now = Math.max(world.orders.memoryBytes(), world.billing.memoryBytes())
    if (this.#base === 0) this.#base = now
    this.#most = Math.max(this.#most, now)
  }

  check(): void {
    assert.ok(this.#base > 0, 'too little went by to tell')
    const growth = this.#most - this.#base
    assert.ok(growth < GROWTH_BYTES_MAX, `memory grew by ${Math.round(growth / 2 ** 20)} MiB`)
  }
}

test.before(async () => {
  const app = await startServer((request, response) => {
    if (request.method === 'GET') return void download(response, Number(request.headers['x-bytes']))
    const hash = createHash('sha256')
    let bytes = 0
    request.on('data', (piece) => {
      bytes += piece.length
      if (request.headers['x-hash']) hash.update(piece)
    })
    request.on('end', () => response.end(JSON.stringify({ bytes, hash: hash.digest('hex') })))
  })
  const billing = await startProcess({
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    OUTBOUND_PORT: 'off',
  })
  const orders = await startProcess({
    NAME: 'orders',
    PEERS: `billing=http://127.0.0.1:${billing.ports.inbound}`,
  })
  world = { app, orders, billing }
})

test.after(async () => {
  await world.orders.stop()
  await world.billing.stop()
  await world.app.close()
})

test(
  '5 GiB go up and memory does not grow',
  async () => {
    const watch = new MemoryWatch()
    const request = outbound({ method: 'POST', headers: { host: 'billing', 'transfer-encoding': 'chunked' } })
    const response = once<http.IncomingMessage>(request, 'response')
    for (let left = 5 * GIB; left > 0; left -= PIECE.length) {
      watch.passed(PIECE.length)
      if (!request.write(PIECE)) await once(request, 'drain')
    }
    request.end()
    assert.equal(JSON.parse(await text(await response)).bytes, 5 * GIB)
    watch.check()
  },
  DEADLINE_MS,
)

test(
  '5 GiB come down, to a reader that stops for a while too, and memory does not grow',
  async () => {
    const watch = new MemoryWatch()
    const request = outbound({ headers: { host: 'billing', 'x-bytes': String(5 * GIB) } })
    request.end()
    const response = await once<http.IncomingMessage>(request, 'response')
    let bytes = 0
    for await (const piece of response) {
      const before = Math.floor(bytes / GIB)
      bytes += piece.length
      watch.passed(piece.length)
      // Once a GiB the reader stops until all before it has come to a stop too.
      if (Math.floor(bytes / GIB) > before) await standstill()
    }
    assert.equal(bytes, 5 * GIB)
    watch.check()
  },
  DEADLINE_MS,
)

test(
  'a body of 1 GiB that goes up arrives as it was sent',
  async () => {
    const hash = createHash('sha256')
    const request = outbound({
      method: 'PUT',
      headers: { host: 'billing', 'x-hash': '1', 'content-length': String(GIB) },
    })
    const response = once<http.IncomingMessage>(request, 'response')
    for (let left = GIB; left > 0; left -= PIECE.length) {
      PIECE.writeUInt32BE(left / PIECE.length, 0)
      const piece = Buffer.from(PIECE)
      hash.update(piece)
      if (!request.write(piece)) await once(request, 'drain')
    }
    request.end()
    assert.deepEqual(JSON.parse(await text(await response)), { bytes: GIB, hash: hash.digest('hex') })
  },
  DEADLINE_MS,
)

let written = 0

async function download(response: http.ServerResponse, bytes: number): Promise<void> {
  response.writeHead(200, { 'content-length': bytes })
  written = 0
  for (let left = bytes; left > 0; left -= PIECE.length) {
    written += PIECE.length
    if (!response.write(PIECE.subarray(0, Math.min(left, PIECE.length)))) await once(response, 'drain')
  }
  response.end()
}

/** Waits until the app has not been able to write anything for a while. */
async function standstill(): Promise<void> {
  let before = -1
  for (let same = 0; same < 20; ) {
    same = written === before ? same + 1 : 0
    before = written
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

function outbound(options: http.RequestOptions): http.ClientRequest {
  return http.request({ host: '127.0.0.1', port: world.orders.ports.outbound, path: '/', ...options })
}

async function text(message: http.IncomingMessage): Promise<string> {
  let body = ''
  for await (const piece of message.setEncoding('utf8')) body += piece
  return body
}

test.run()
