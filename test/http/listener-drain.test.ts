/** How a listener has its clients leave: none of them may lose a call over it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import type { Arrival } from '../../sidecar/http/listener.ts'
import { END_HEADERS, frame, GOAWAY, HEADERS, SETTINGS } from '../support/http2-peers.ts'
import {
  answer,
  closeListeners,
  connectHttp2,
  GET,
  http2Answer,
  listen,
  RawClient,
} from '../support/listener.ts'
import { FedBody } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener draining')
test.after(closeListeners)

const LINES = ['GET / HTTP/1.1', 'Host: a', '', '']
const ANSWER = /^HTTP\/1\.1 200 OK\r\ncontent-length: 2\r\n.*\r\n\r\nok$/s
const LAST_ANSWER = /\r\nconnection: close\r\n.*\r\n\r\nok$/s

async function ok(): Promise<ReturnType<typeof answer>> {
  return answer('ok')
}

/** A client that has had an answer, and keeps its connection for more. */
async function keptClient(port: number): Promise<RawClient> {
  const client = new RawClient(port).write(...LINES)
  await client.until(ANSWER)
  assert.doesNotMatch(client.received, /connection: close/)
  client.received = ''
  return client
}

test('HTTP/1.1: a connection that waits for its next call gets it answered, and is told that it was the last', async () => {
  const { port, listener } = await listen(ok)
  const client = await keptClient(port)
  listener.retire()
  client.write(...LINES)
  assert.match(await client.toEnd(), LAST_ANSWER)
})

test('HTTP/1.1: who was not told that an answer was the last gets the next one, too', async () => {
  const body = new FedBody().push('begun')
  const { port, listener } = await listen(async ({ request: { head } }: Arrival) =>
    head.path === '/stream' ? answer(body) : answer('ok'),
  )
  const client = new RawClient(port).write('GET /stream HTTP/1.1', 'Host: a', '', '')
  await client.until(/begun/)
  listener.retire()
  body.end()
  await client.until(/\r\n0\r\n\r\n$/)
  client.write(...LINES)
  assert.match(await client.toEnd(), LAST_ANSWER)
})

test('HTTP/1.1: a request that comes in pieces is not in the way, nor is one that is sent behind the last', async () => {
  const { port, listener } = await listen(ok)
  const [slow, hasty] = [await keptClient(port), await keptClient(port)]
  slow.write('GET / HTTP')
  listener.retire()
  hasty.write(`GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(10_000)}\r\n\r\n`.repeat(60))
  assert.match(await hasty.toEnd(), LAST_ANSWER)
  assert.equal(hasty.received.match(/HTTP\/1\.1 200/g)?.length, 1)
  slow.write('/1.1\r\nHost: a\r\n\r\n')
  assert.match(await slow.toEnd(), LAST_ANSWER)
})

test('connections on which nothing comes are closed, and cleanly', async () => {
  const { port, listener } = await listen(ok)
  const kept = await keptClient(port)
  const silent = new RawClient(port)
  await once(silent.socket, 'connect')
  const session = connectHttp2(port)
  const closed = once(session, 'close')
  assert.equal((await http2Answer(session.request(GET as never))).body, 'ok')
  listener.retire()
  const late = new RawClient(port)
  for (const client of [kept, silent, late]) assert.equal(await client.toEnd(), '')
  await closed
})

test('new connections are answered, each for one call over HTTP/1.1, and until they know better over HTTP/2', async () => {
  const { port, listener } = await listen(ok)
  listener.retire()
  assert.match(await new RawClient(port).write(...LINES).toEnd(), LAST_ANSWER)
  const session = connectHttp2(port)
  const [goaway, closed] = [once(session, 'goaway'), once(session, 'close')]
  const calls = Array.from({ length: 3 }, () => http2Answer(session.request(GET as never)))
  for (const { body, ended } of await Promise.all(calls)) assert.deepEqual([body, ended], ['ok', true])
  const [code, lastStreamId] = await goaway
  assert.deepEqual([code, lastStreamId], [0, 2 ** 31 - 1])
  await closed
})

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const PING = 6
const ACK = 1
const END_STREAM = 1
/** GET, http and / from the static table of HPACK, and `:authority: a` */
const BLOCK = Buffer.from([0x82, 0x86, 0x84, 0x01, 0x01, 0x61])

interface Frame {
  type: number
  flags: number
  payload: Buffer
}

function framesOf(received: string): Frame[] {
  const bytes = Buffer.from(received, 'latin1')
  const frames: Frame[] = []
  for (let at = 0; at + 9 <= bytes.length; ) {
    const end = at + 9 + bytes.readUIntBE(at, 3)
    frames.push({ type: bytes[at + 3]!, flags: bytes[at + 4]!, payload: bytes.subarray(at + 9, end) })
    at = end
  }
  return frames
}

test('HTTP/2: calls that were sent before GOAWAY was read are answered, however late it is', async () => {
  const { port, listener } = await listen(ok)
  const client = new RawClient(port)
  const call = (stream: number) =>
    client.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, BLOCK))
  const received = async (type: number, isIt: (frame: Frame) => boolean = () => true): Promise<Frame> => {
    for (;;) {
      const found = framesOf(client.received).find((each) => each.type === type && isIt(each))
      if (found) return found
      await once(client.socket, 'data')
    }
  }
  client.socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0)]))
  call(1)
  await client.until(/ok/)
  listener.retire()
  const first = await received(GOAWAY)
  assert.equal(first.payload.readUInt32BE(0), 2 ** 31 - 1)
  const ping = await received(PING, ({ flags }) => flags === 0)
  call(3)
  call(5)
  await client.until(/ok.*ok.*ok/s)
  client.socket.write(frame(PING, ACK, 0, ping.payload))
  const second = await received(GOAWAY, ({ payload }) => payload.readUInt32BE(0) < 2 ** 31 - 1)
  assert.deepEqual([second.payload.readUInt32BE(0), second.payload.readUInt32BE(4)], [5, 0])
  await client.toEnd()
})

test('HTTP/2: a client that does not answer pings is left behind', async () => {
  const { port, listener } = await listen(ok)
  const client = new RawClient(port)
  client.socket.write(
    Buffer.concat([PREFACE, frame(SETTINGS, 0, 0), frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK)]),
  )
  await client.until(/ok/)
  await listener.drain(0)
  assert.equal(await client.ended, 'end')
})

test('drains: answers what is open, then closes its connections, and takes no new ones', async () => {
  const bodies = [new FedBody(), new FedBody(), new FedBody()]
  const taken: FedBody[] = []
  const { port, listener } = await listen(async ({ request: { head } }) => {
    if (head.path === '/quick') return answer('ok')
    const body = bodies.pop()!
    taken.push(body)
    if (head.path === '/late') await body.read()
    return answer(body)
  })
  const idle = new RawClient(port).write('GET /quick HTTP/1.1', 'Host: a', '', '')
  await idle.until(/ok$/)
  const silent = new RawClient(port)
  const begun = new RawClient(port).write(...LINES)
  await begun.until(/\r\n\r\n$/)
  const late = new RawClient(port).write('GET /late HTTP/1.1', 'Host: a', '', '')
  const session = connectHttp2(port)
  const goaway = once(session, 'goaway')
  const http2Call = http2Answer(session.request(GET as never))
  while (taken.length < 3) await new Promise(setImmediate)
  assert.equal(listener.openCalls, 3)

  const drained = listener.drain(0)
  await goaway
  for (const client of [idle, silent]) await client.toEnd()
  const refused = net.connect(port, '127.0.0.1')
  const [error] = await once(refused, 'error')
  assert.equal(error.code, 'ECONNREFUSED')
  assert.equal(listener.openCalls, 3)

  for (const body of taken) body.push('first').push('rest').end()
  // Its head had left: it may have sent a call that nobody will answer, and so its connection stays for a moment.
  assert.match(await begun.toEnd(), /first.*rest\r\n0\r\n\r\n$|firstrest\r\n0\r\n\r\n$/s)
  assert.match(await late.toEnd(), /\r\nconnection: close\r\n[\s\S]*rest\r\n0\r\n\r\n$/)
  assert.equal((await http2Call).ended, true)
  await drained
  assert.equal(listener.openCalls, 0)
})

test('stays open for as long as it is sought, but not without bound', async () => {
  const { port, listener } = await listen(ok)
  let over = false
  const drained = listener.drain(1200).then(() => {
    over = true
  })
  const began = performance.now()
  let answered = 0
  for (;;) {
    const client = new RawClient(port).write(...LINES)
    const how = await client.ended
    if (how !== 'end') {
      // Reset, if it came at the very moment.
      assert.match(how, /^ECONN(REFUSED|RESET)$/)
      break
    }
    client.socket.end()
    assert.match(client.received, LAST_ANSWER)
    answered++
    assert.equal(over, false)
  }
  assert.ok(answered > 1 && performance.now() - began >= 1190)
  await drained
})

test.run()
