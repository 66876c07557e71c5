/** What becomes of a call when copies of its message fail at awkward moments; what carries them is the test's. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { type Body, WholeBody } from '../sidecar/call.ts'
import { Cors } from '../sidecar/cors.ts'
import { SendError } from '../sidecar/http/send-error.ts'
import type { SendTo } from '../sidecar/message-carriage.ts'
import { Outbound } from '../sidecar/outbound.ts'
import { OutboundToken } from '../sidecar/outbound-token.ts'
import type { Pairs } from '../sidecar/pair/pairs.ts'
import { Routes } from '../sidecar/routes.ts'
import { Tunnels } from '../sidecar/tunnel/tunnels.ts'
import { HEAD_BYTES_MAX, MESSAGE } from './support/messages.ts'
import { readAll } from './support/pieces.ts'
import { FedBody, TestCaller } from './support/sending.ts'
import { suite } from './support/suite.ts'
import { testTelemetry } from './support/telemetry.ts'

const test = suite('outbound: copies')

const KIB = 1024

/** Posts a body to a peer; gives what the app gets. */
async function posted(body: Body, toPeer: SendTo, caller = new TestCaller()) {
  const outbound = new Outbound({
    routes: new Routes([], []),
    pairs: { begin: async () => MESSAGE, readReject: () => undefined } as unknown as Pairs,
    telemetry: testTelemetry(),
    toPeer,
    tunnels: new Tunnels({
      carriage: 'message',
      open: () => assert.fail(),
      onFailure() {},
      delay: () => assert.fail(),
      clockMs: () => 0,
    }),
    toPlain: () => assert.fail('nothing is sent in plain'),
    token: new OutboundToken([]),
    cors: new Cors({ origins: [], methods: [], allowedHeaders: undefined }),
    headBytesMax: HEAD_BYTES_MAX,
    bodyBytesMax: Number.POSITIVE_INFINITY,
    random: randomBytes,
    clockMs: () => performance.now(),
  })
  const fields = ['x-mte-upstream', 'http://billing:8080']
  const head = { method: 'POST', scheme: 'http', authority: 'billing', path: '/', fields }
  const socket = undefined as unknown as Socket
  const answer = await outbound.answer({ request: { head, body }, caller, absoluteForm: false, socket })
  return JSON.parse(String(answer.body.whole(KIB)))
}

test('what comes while a message waits to be sent again is sent with it, even past what is kept', async () => {
  const body = new FedBody().push(Buffer.alloc(200 * KIB))
  const copies: Buffer[] = []
  const toPeer: SendTo = async (_url, request) => {
    if (copies.length > 0) {
      copies.push(Buffer.concat(await readAll(request.body)))
      return { head: { status: 502, fields: [] }, body: new WholeBody() }
    }
    const head = await request.body.read()
    copies.push(Buffer.concat([head!, (await request.body.read())!]))
    // The connection breaks while the next piece is waited for, and that comes right after.
    request.body.read().catch(() => {})
    setImmediate(() => body.push(Buffer.alloc(100 * KIB)).end())
    throw new SendError('reset', true)
  }
  assert.equal((await posted(body, toPeer)).code, 'outcome-unknown')
  const [first, second] = copies
  assert.ok(second!.length > 300 * KIB)
  assert.ok(second!.subarray(0, first!.length).equals(first!))
  assert.equal(copies.length, 2)
})

test.run()
