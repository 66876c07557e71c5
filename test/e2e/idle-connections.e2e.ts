/** Ten thousand connections on which nothing happens, on either port. */
import assert from 'node:assert/strict'
import net from 'node:net'
import { call, once } from '../support/call.ts'
import { startProcess } from '../support/process.ts'
import { startServer } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const CONNECTIONS = 10_000
const MEMORY_BYTES_MAX = 300 * 2 ** 20

const test = suite('idle connections')

test(`${CONNECTIONS} idle connections on either port take less than 300 MB, and calls go on`, async () => {
  const app = await startServer((_request, response) => void response.end('here'))
  const billing = await startProcess({
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    OUTBOUND_PORT: 'off',
  })
  const orders = await startProcess({
    NAME: 'orders',
    PEERS: `billing=http://127.0.0.1:${billing.ports.inbound}`,
  })
  const outbound = orders.ports.outbound!
  for (const [sidecar, port] of [
    [orders, outbound],
    [billing, billing.ports.inbound!],
  ] as const) {
    const sockets: net.Socket[] = []
    for (let i = 0; i < CONNECTIONS; i += 100) {
      sockets.push(...(await Promise.all(Array.from({ length: 100 }, () => idle(port)))))
    }
    assert.equal((await call(outbound)).text, 'here')
    const bytes = sidecar.memoryBytes()
    assert.ok(bytes < MEMORY_BYTES_MAX, `${Math.round(bytes / 2 ** 20)} MiB`)
    for (const socket of sockets) socket.destroy()
  }
  await orders.stop()
  await billing.stop()
  await app.close()
}, 120_000)

/** A connection that made one call, got its answer and keeps still. */
async function idle(port: number): Promise<net.Socket> {
  const socket = net.connect(port, '127.0.0.1')
  socket.write('GET /api/mte-echo HTTP/1.1\r\nHost: nobody\r\n\r\n')
  await once(socket, 'data')
  return socket
}

test.run()
