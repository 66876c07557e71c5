/** What a sidecar does with messages that it must not take: nothing of them reaches the app. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import net from 'node:net'
import type { RequestHead } from '../sidecar/call.ts'
import { endOfBody } from '../sidecar/http/bhttp.ts'
import { once } from './support/call.ts'
import { HEAD, post, TestPeer } from './support/peer.ts'
import { type Server, type Sidecar, startServer, startSidecar } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('refusals')

let app: Server
let billing: Sidecar
let peer: TestPeer
/** requests that reached the app, and whether each was complete */
let reached: { url: string | undefined; complete: Promise<boolean> }[] = []
let nextIndex = 0

test.before(async () => {
  app = await startServer((request, response) => {
    const complete = new Promise<boolean>((resolve) => {
      request.on('end', () => resolve(request.complete))
      request.on('close', () => resolve(request.complete))
      request.on('error', () => {})
    })
    reached.push({ url: request.url, complete })
    request.resume()
    request.on('end', () => response.end('done'))
  })
  billing = await startSidecar({
    NAME: 'billing',
    UPSTREAM: `http://127.0.0.1:${app.port}`,
    MAX_HEADER_BYTES: 4096,
  })
  peer = await TestPeer.pair(billing.port('inbound'))
})

test.after(async () => {
  await billing.close()
  await app.close()
})

async function refuses(name: string, status: number, ...pieces: Buffer[]): Promise<void> {
  reached = []
  const answer = await peer.send(...pieces)
  assert.equal(answer.status, status, `${name} expected, ${answer.body.toString('latin1')}`)
  assert.equal(answer.reject?.name, name)
  assert.equal(answer.reject?.authentic, true)
  assert.deepEqual(reached, [])
}

test('a message that is as it should be reaches the app, and its response can be opened', async () => {
  const message = peer.message(nextIndex++)
  reached = []
  const answer = await peer.send(
    message.sealer.seal(Buffer.from('\x02\x03GET\x04http\x07billing\x02/a', 'latin1')),
    message.sealer.end(),
  )
  assert.equal(answer.status, 200)
  assert.equal(answer.headers['content-type'], 'application/octet-stream')
  assert.match(peer.open(message, answer.body).toString('latin1'), /done/)
  assert.deepEqual(
    reached.map(({ url }) => url),
    ['/a'],
  )
})

test('a pair id that this sidecar never gave out is unknown', async () => {
  const message = peer.whole(nextIndex++)
  message[2]! ^= 1
  await refuses('unknown_pair', 421, message)
})

test('a pair that is not there any more is lost', async () => {
  const other = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  const strange = await TestPeer.pair(other.port('inbound'))
  await other.close()
  await refuses('state_lost', 421, strange.whole(0))
})

test('a block too far ahead is out of reach', async () => {
  const { sealer } = peer.message(0, 65)
  await refuses('block_out_of_reach', 421, sealer.end(Buffer.from('\0\x03GET\x04http\x01b\x01/', 'latin1')))
})

test('a message that came before is replayed, and runs once', async () => {
  const message = peer.whole(nextIndex++)
  reached = []
  assert.equal((await peer.send(message)).status, 200)
  assert.equal(reached.length, 1)
  await refuses('replayed', 409, message)
})

test('of two that come at the same time one runs', async () => {
  const message = peer.whole(nextIndex++)
  reached = []
  const answers = await Promise.all(Array.from({ length: 8 }, () => peer.send(message)))
  assert.deepEqual(answers.map(({ status }) => status).sort(), [200, ...Array(7).fill(409)])
  assert.equal(reached.length, 1)
})

test('a flipped bit anywhere is refused, and the message may still run as it was', async () => {
  const message = peer.whole(nextIndex++)
  for (let at = 0; at < message.length; at++) {
    const changed = Buffer.from(message)
    changed[at]! ^= 1 << (at % 8)
    reached = []
    const { status, reject } = await peer.send(changed)
    assert.ok(status >= 400 && status < 500, `byte ${at}: ${status}`)
    assert.ok(reject?.authentic, `byte ${at}`)
    assert.deepEqual(reached, [])
  }
  assert.equal((await peer.send(message)).status, 200)
})

test('a message cut to any length is refused', async () => {
  const message = peer.whole(nextIndex++, '')
  for (let length = 0; length < message.length; length++) {
    reached = []
    const { status, reject } = await peer.send(message.subarray(0, length))
    assert.equal(status, 400)
    assert.equal(reject?.name, length > 0 && length < 45 ? 'malformed' : reject?.name)
    assert.deepEqual(reached, [])
  }
})

test('another version or kind is refused as what it is', async () => {
  const message = peer.whole(nextIndex++)
  message[0] = 2
  await refuses('unsupported', 400, message)
  const other = peer.whole(nextIndex++)
  other[1] = 0x12
  await refuses('malformed', 400, other)
})

test('a chunk that is longer than agreed is refused before it has come', async () => {
  const { header } = peer.message(nextIndex++)
  await refuses(
    'malformed',
    400,
    Buffer.concat([header, Buffer.from([0x80, 0x01, 0x00, 0x11])]),
    randomBytes(100),
  )
})

test('more head than MAX_HEADER_BYTES is too large', async () => {
  await refuses('too_large', 413, peer.whole(nextIndex++, '', { ...HEAD, fields: ['x', 'y'.repeat(5000)] }))
})

const malformed: [string, Partial<RequestHead>][] = [
  ['CR LF in a value', { fields: ['x', 'a\r\nx-injected: 1'] }],
  ['NUL in a value', { fields: ['x', 'a\0b'] }],
  ['a name with a space', { fields: ['x y', '1'] }],
  ['a name in capitals', { fields: ['X', '1'] }],
  ['a pseudo-header as field', { fields: [':path', '/other'] }],
  ['Transfer-Encoding', { fields: ['transfer-encoding', 'chunked'] }],
  ['Connection', { fields: ['connection', 'x'] }],
  ['Upgrade', { fields: ['upgrade', 'websocket'] }],
  ['TE other than trailers', { fields: ['te', 'gzip'] }],
  ['two Content-Lengths', { fields: ['content-length', '12', 'content-length', '12'] }],
  ['a Content-Length that the body has not', { fields: ['content-length', '11'] }],
  ['a Content-Length with a sign', { fields: ['content-length', '+12'] }],
  ['a Host that is not the authority', { fields: ['host', 'other'] }],
  ['an absolute path inside', { path: 'http://other/planted' }],
  ['a path without a slash', { path: 'planted' }],
  ['a path with a space', { path: '/a b' }],
  ['a path with a fragment', { path: '/a#b' }],
  ['a path with a line end', { path: '/a\r\nHost: other' }],
  ['an asterisk for a POST', { path: '*' }],
  ['a method that is none', { method: 'PO ST' }],
  ['CONNECT', { method: 'CONNECT' }],
  ['an authority with a user', { authority: 'a@b' }],
  ['a scheme of its own', { scheme: 'gopher' }],
]
for (const [what, head] of malformed) {
  test(`${what} inside is malformed, and nothing reaches the app`, async () => {
    await refuses('malformed', 400, peer.whole(nextIndex++, 'planted body', { ...HEAD, ...head }))
  })
}

test('padding that is not zero is malformed', async () => {
  const { sealer } = peer.message(nextIndex++)
  await refuses(
    'malformed',
    400,
    sealer.end(Buffer.from('\0\x03GET\x04http\x01b\x01/\0\0\0\0\x01', 'latin1')),
  )
})

test('dot segments reach the app as they are, or not at all below a base path', async () => {
  reached = []
  await peer.send(peer.whole(nextIndex++, '', { ...HEAD, path: '/a/../b' }))
  assert.equal(reached[0]?.url, '/a/../b')
  const based = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}/base` })
  const other = await TestPeer.pair(based.port('inbound'))
  for (const [index, path] of ['/../b', '/%2e%2e/b', '/a/..;/b', '/a\\..\\b'].entries()) {
    reached = []
    const message = other.message(index)
    const { body } = await other.send(
      message.sealer.end(
        Buffer.from(`\0\x03GET\x04http\x01b${String.fromCharCode(path.length)}${path}`, 'latin1'),
      ),
    )
    assert.match(other.open(message, body).toString('latin1'), /bad-request/)
    assert.deepEqual(reached, [])
  }
  await based.close()
})

test('a message that breaks in the middle resets the request to the app, and never ends it', async () => {
  const cases: [string, (sealed: Buffer, end: Buffer) => Buffer[]][] = [
    ['ends without its final chunk', (piece) => [piece]],
    ['has a chunk twice', (piece, end) => [piece, piece, end]],
    ['lacks a chunk', (_piece, end) => [end]],
    [
      'has a flipped bit',
      (piece, end) => [piece, Buffer.concat([end.subarray(0, -1), Buffer.of(end.at(-1)! ^ 1)])],
    ],
    ['has bytes after its end', (piece, end) => [piece, end, Buffer.alloc(20)]],
  ]
  for (const [what, make] of cases) {
    const { start, sealer } = peer.begun(nextIndex++)
    const piece = sealer.seal(Buffer.from('\x05hello', 'latin1'))
    const end = sealer.end(endOfBody([]))
    reached = []
    const { status } = await peer.send(start, ...make(piece, end))
    assert.equal(status, 400, what)
    for (const { complete } of reached) assert.equal(await complete, false, what)
  }
})

test('a peer that breaks off in the middle resets the request to the app', async () => {
  const { start, sealer } = peer.begun(nextIndex++)
  reached = []
  const arrived = once(app.server, 'request')
  const socket = net.connect(billing.port('inbound'), '127.0.0.1')
  const bytes = Buffer.concat([start, sealer.seal(Buffer.from('\x05hello', 'latin1'))])
  socket.write('POST /api/mte-message HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n')
  socket.write(`${bytes.length.toString(16)}\r\n`)
  socket.write(bytes)
  socket.write('\r\n')
  await arrived
  socket.destroy()
  assert.equal(await reached[0]!.complete, false)
})

test('a pairing that is no pairing is refused with what is wrong', async () => {
  const port = billing.port('inbound')
  for (const [bytes, status] of [
    [Buffer.alloc(0), 400],
    [randomBytes(1915), 400],
    [randomBytes(1917), 400],
    [Buffer.concat([Buffer.from([1, 1, 0, 1]), randomBytes(1912)]), 401],
  ] as const) {
    const answer = await post(port, '/api/mte-pair', bytes)
    assert.equal(answer.status, status)
    assert.equal(answer.body.length, 76)
  }
})

test('nothing reaches the app undecoded', async () => {
  for (const path of [
    '/',
    '/planted',
    '/api/mte-messages',
    '/api/',
    '//api/mte-message',
    '/api/mte-message/..',
  ]) {
    reached = []
    const answer = await post(billing.port('inbound'), path, Buffer.from('planted'))
    assert.equal(answer.status, 404, path)
    assert.equal(answer.headers['mte-error'], 'not-found')
    assert.match(answer.headers['content-type']!, /problem\+json/)
    assert.deepEqual(reached, [])
  }
})

test.run()
