/** Tests of the clients: each runs against a server of its own. */
import assert from 'node:assert/strict'
import http from 'node:http'
import type { Body, Send } from '../../sidecar/call.ts'
import type { ClientOptions } from '../../sidecar/http/http1-client.ts'
import { type Listening, listening, OPTIONS, readAll, requestOf, TestCaller } from './sending.ts'

export interface Client {
  send: Send
  close(): void
}

/** Makes what runs a test with a client of this class, against a server; both are closed after it. */
export function testing<C extends Client>(ClientClass: new (origin: URL, options: ClientOptions) => C) {
  return async (
    server: Promise<Listening>,
    body: (client: C, server: Listening) => Promise<void>,
    options: Partial<ClientOptions> = {},
  ): Promise<void> => {
    const open = await server
    const client = new ClientClass(open.url, { ...OPTIONS, ...options })
    try {
      await body(client, open)
    } finally {
      client.close()
      await open.close()
    }
  }
}

/** An app of node:http. */
export function httpApp(handler: http.RequestListener): Promise<Listening> {
  return listening(http.createServer({ keepAliveTimeout: 60_000 }, handler))
}

/** What servers that are written by hand answer. */
export const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

/** Gets something, and reads the whole answer. */
export async function get(client: Client, head = {}): Promise<string> {
  const answer = await client.send(requestOf(head), new TestCaller())
  return readAll(answer.body)
}

/** Posts a body, and reads the whole answer. */
export async function post(
  client: Client,
  body: Body | string = 'body',
  caller = new TestCaller(),
): Promise<string> {
  const answer = await client.send(requestOf({ method: 'POST' }, body), caller)
  return readAll(answer.body)
}

/**
 * Posts 200 MB to a server that sends back what it gets and takes no more before that was taken, and reads them
 * slowly: all of them come, and memory stays flat.
 */
export async function carriesMuch(client: Client): Promise<void> {
  const bytes = 200 * 1024 * 1024
  const piece = Buffer.alloc(64 * 1024, 'x')
  let left = bytes / piece.length
  const body = { trailers: [], whole: () => undefined, read: async () => (left-- > 0 ? piece : undefined) }
  const answer = await client.send(requestOf({ method: 'POST' }, body), new TestCaller())
  const before = process.memoryUsage.rss()
  let most = 0
  let got = 0
  for (let some = await answer.body.read(); some; some = await answer.body.read()) {
    got += some.length
    most = Math.max(most, process.memoryUsage.rss() - before)
    // Turns of the event loop in which nothing is taken.
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate)
  }
  assert.equal(got, bytes)
  assert.ok(most < 100 * 1024 * 1024, `${most >> 20} MiB more`)
}
