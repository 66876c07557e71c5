/** Restarts, lost answers and somebody in between: what heals by itself, and that nothing runs twice. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { HEADER_BYTES } from '../sidecar/pair/message.ts'
import { type CallAnswer, call } from './support/call.ts'
import { type HttpVersion, type Meddle, type Middle, pass, startMiddle } from './support/middle.ts'
import { post } from './support/peer.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { SECRET, type Sidecar, startSidecar } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('healing')

let app: Recorder

test.before(async () => {
  app = await startRecorder('done')
})

test.after(() => app.close())

interface Parts {
  orders: Sidecar
  billing: Sidecar
  middle: Middle
  /** Stops billing's sidecar and starts it again, on the same port and without any memory. */
  restartBilling(): Promise<void>
  restartOrders(): Promise<void>
  /** Calls the app with a path of its own; `runs` says how often that reached the app. */
  call(method: string, headers?: Record<string, string>): Promise<CallAnswer & { runs(): number }>
}

let calls = 0

/** Runs a body with two sidecars that have paired, and somebody in between. */
async function between(version: HttpVersion, body: (parts: Parts) => Promise<void>): Promise<void> {
  const startBilling = (port: number) =>
    startSidecar({
      NAME: 'billing',
      UPSTREAM: `http://127.0.0.1:${app.port}`,
      OUTBOUND_PORT: 'off',
      PORT: port,
    })
  const billing = await startBilling(0)
  const middle = await startMiddle(billing.port('inbound'), version)
  const startOrders = () =>
    startSidecar({ NAME: 'orders', PEERS: `billing=${middle.url}`, CARRIAGE: 'message' })
  const parts: Parts = {
    orders: await startOrders(),
    billing,
    middle,
    async restartBilling() {
      const port = parts.billing.port('inbound')
      await parts.billing.close()
      parts.billing = await startBilling(port)
    },
    async restartOrders() {
      await parts.orders.close()
      parts.orders = await startOrders()
    },
    async call(method, headers = {}) {
      const path = `/${++calls}`
      const runs = () => app.seen.filter(({ url }) => url === path).length
      const answer = await call(parts.orders.port('outbound'), { method, path, headers, body: 'x' })
      return { ...answer, runs }
    },
  }
  try {
    assert.equal((await parts.call('GET')).text, 'done')
    await body(parts)
  } finally {
    await parts.orders.close()
    await middle.close()
    await parts.billing.close()
  }
}

for (const version of ['HTTP/2', 'HTTP/1.1'] as HttpVersion[]) {
  test(`a responder that restarted and lost everything costs no call, and runs each once (${version})`, async () => {
    await between(version, async (parts) => {
      for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']) {
        await parts.restartBilling()
        const pairings = parts.middle.pairings.length
        const answer = await parts.call(method)
        assert.deepEqual(
          [answer.status, answer.text, answer.runs()],
          [200, 'done', 1],
          `${method}: ${answer.text}`,
        )
        assert.equal(parts.middle.pairings.length, pairings + 1)
      }
    })
  })

  test(`many calls at once heal from a restart with one pairing (${version})`, async () => {
    await between(version, async (parts) => {
      await parts.restartBilling()
      const answers = await Promise.all(Array.from({ length: 30 }, () => parts.call('POST')))
      for (const answer of answers) assert.deepEqual([answer.text, answer.runs()], ['done', 1])
    })
  })

  test(`an initiator that restarted pairs again, and so do both (${version})`, async () => {
    await between(version, async (parts) => {
      await parts.restartOrders()
      assert.equal((await parts.call('POST')).text, 'done')
      await parts.restartOrders()
      await parts.restartBilling()
      const answer = await parts.call('POST')
      assert.deepEqual([answer.text, answer.runs()], ['done', 1])
    })
  })

  test(`a request that never arrived is sent again, and runs once (${version})`, async () => {
    await between(version, async (parts) => {
      const page = { status: 503, body: Buffer.from('<html>try again</html>') }
      for (const answer of ['cut', page, { status: 503, body: forgedRecord(0x0c) }] as const) {
        for (const method of ['GET', 'POST']) {
          parts.middle.onMessage = onceThenPass(async () => answer)
          const { text, runs } = await parts.call(method)
          assert.deepEqual([text, runs()], ['done', 1])
        }
      }
    })
  })

  test(`a POST whose answer was lost is not run again, and its app learns that it may have run (${version})`, async () => {
    await between(version, async (parts) => {
      for (const meddle of [forwardThen('cut'), onceThenPass(forwardThen('cut'))]) {
        parts.middle.onMessage = meddle
        const answer = await parts.call('POST')
        assert.deepEqual([answer.status, answer.code, answer.runs()], [502, 'outcome-unknown', 1])
        assert.equal(answer.headers['proxy-status'], 'mte-sidecar; error=connection_terminated')
      }
      parts.middle.onMessage = pass
      assert.equal((await parts.call('POST')).text, 'done')
    })
  })

  test(`a call that may be repeated is answered though its first answer was lost (${version})`, async () => {
    await between(version, async (parts) => {
      for (const method of ['GET', 'PUT']) {
        parts.middle.onMessage = onceThenPass(forwardThen('cut'))
        const answer = await parts.call(method)
        assert.deepEqual([answer.text, answer.runs()], ['done', 2], method)
      }
      parts.middle.onMessage = forwardThen('cut')
      assert.deepEqual((await parts.call('GET')).code, 'peer-unreachable')
    })
  })

  test(`a POST that ran before the responder restarted is not run again (${version})`, async () => {
    await between(version, async (parts) => {
      const runAndRestart: Meddle = async (passing) => {
        await passing.forward()
        await parts.restartBilling()
        return 'cut'
      }
      parts.middle.onMessage = onceThenPass(runAndRestart)
      const answer = await parts.call('POST')
      assert.deepEqual([answer.status, answer.code, answer.runs()], [502, 'outcome-unknown', 1])
      parts.middle.onMessage = onceThenPass(runAndRestart)
      assert.equal((await parts.call('GET')).text, 'done')
      assert.equal((await parts.call('POST')).text, 'done')
    })
  })
}

test('a POST with an Idempotency-Key is sent anew where another one is not', async () => {
  await between('HTTP/2', async (parts) => {
    const forged = forgeries.find(([what]) => what === 'a forged unknown_pair')![1]
    parts.middle.onMessage = onceThenPass(forged)
    assert.equal((await parts.call('POST', { 'idempotency-key': 'k' })).text, 'done')
    parts.middle.onMessage = onceThenPass(forged)
    assert.equal((await parts.call('POST')).code, 'outcome-unknown')
  })
})

test('a recording of the wire that is played again does nothing', async () => {
  await between('HTTP/2', async (parts) => {
    for (let i = 0; i < 5; i++) await parts.call('POST')
    const { pairings, messages } = parts.middle
    const before = app.seen.length
    const port = parts.billing.port('inbound')
    for (const message of messages) assert.equal((await post(port, '/api/mte-message', message)).status, 409)
    for (const hello of pairings) assert.equal((await post(port, '/api/mte-pair', hello)).status, 409)
    assert.equal((await parts.call('POST')).text, 'done')
    await parts.restartBilling()
    for (const message of messages) assert.equal((await post(port, '/api/mte-message', message)).status, 421)
    assert.equal(app.seen.length, before + 1)
    assert.equal((await parts.call('POST')).text, 'done')
  })
})

/** A record as a relay makes it, but for its authentication. */
function forgedRecord(code: number): Buffer {
  const record = Buffer.concat([Buffer.of(1, 0x7f, code, 0), randomBytes(72)])
  record.fill(0, 52, 60).writeUInt32BE(10_000_000, 56) // an old store
  return record
}

/** What an attacker answers, after the call has run, so that it looks as if it had not. */
const forgeries: [string, Meddle][] = [
  ['a forged unknown_pair', forwardThen({ status: 421, body: forgedRecord(0x01) })],
  ['a forged state_lost of an old store', forwardThen({ status: 421, body: forgedRecord(0x02) })],
  ['a forged block_out_of_reach', forwardThen({ status: 421, body: forgedRecord(0x03) })],
  ['a forged replayed', forwardThen({ status: 409, body: forgedRecord(0x04) })],
  ['a forged decrypt_failed', forwardThen({ status: 400, body: forgedRecord(0x05) })],
  ['a forged auth_failed', forwardThen({ status: 403, body: forgedRecord(0x09) })],
  ['a forged state_unavailable', forwardThen({ status: 503, body: forgedRecord(0x0c) })],
  ['a record of a code that is none', forwardThen({ status: 421, body: forgedRecord(0x55) })],
  ['a 421 without a record', forwardThen({ status: 421, body: Buffer.alloc(0) })],
  ['a 503 page', forwardThen({ status: 503, body: Buffer.from('<html>try again</html>') })],
  ['a 401 page', forwardThen({ status: 401, body: Buffer.from('<html>log in</html>') })],
  ['a 200 page', forwardThen({ status: 200, body: Buffer.from('<html>welcome</html>') })],
  ['an empty 200', forwardThen({ status: 200, body: Buffer.alloc(0) })],
  ['a 200 of random bytes', forwardThen({ status: 200, body: randomBytes(200) })],
  ['a response cut short', changed((body) => body.subarray(0, -1))],
  [
    'a response with a flipped bit',
    changed((body) => Buffer.concat([body.subarray(0, -1), Buffer.of(body.at(-1)! ^ 1)])),
  ],
  [
    'a true reject of the same bytes, sent once more',
    async (passing) => {
      await passing.forward()
      return passing.forward()
    },
  ],
]

for (const [what, meddle] of forgeries) {
  test(`${what} after a POST ran leads to no second run, be it the first answer or every one`, async () => {
    await between('HTTP/2', async (parts) => {
      for (const onMessage of [onceThenPass(meddle), meddle]) {
        parts.middle.onMessage = onMessage
        const answer = await parts.call('POST')
        assert.deepEqual(
          [answer.status, answer.code, answer.runs()],
          [502, 'outcome-unknown', 1],
          answer.text,
        )
      }
    })
  })
}

test('what another sidecar of the same secret says of a POST leads to no second run', async () => {
  const other = await startSidecar({ NAME: 'other', UPSTREAM: `http://127.0.0.1:${app.port}` })
  await between('HTTP/2', async (parts) => {
    parts.middle.onMessage = onceThenPass(async (passing) => {
      await passing.forward()
      return post(other.port('inbound'), passing.path, passing.body)
    })
    const answer = await parts.call('POST')
    assert.deepEqual([answer.code, answer.runs()], ['outcome-unknown', 1])
  })
  await other.close()
})

/** What earns a true `malformed` with the right echo, and takes no more of the message than its header. */
const EARNING_MALFORMED: [string, (message: Buffer) => { path: string; body: Buffer }][] = [
  ['its header alone', (message) => ({ path: '/api/mte-message', body: header(message) })],
  [
    'its header and a length that none may have',
    (message) => ({ path: '/api/mte-message', body: Buffer.concat([header(message), Buffer.of(1)]) }),
  ],
  ['its header as a pairing', (message) => ({ path: '/api/mte-pair', body: header(message) })],
]

for (const [what, earn] of EARNING_MALFORMED) {
  test(`a true malformed that was earned with ${what} is no proof that a POST did not run`, async () => {
    await between('HTTP/2', async (parts) => {
      const meddle: Meddle = async (passing) => {
        await passing.forward()
        const { path, body } = earn(passing.body)
        const answer = await post(parts.billing.port('inbound'), path, body)
        assert.deepEqual([answer.status, answer.body[2]], [400, 0x06])
        return answer
      }
      for (const onMessage of [onceThenPass(meddle), meddle]) {
        parts.middle.onMessage = onMessage
        const answer = await parts.call('POST')
        assert.deepEqual([answer.status, answer.code, answer.runs()], [502, 'outcome-unknown', 1])
      }
    })
  })
}

function header(message: Buffer): Buffer {
  return message.subarray(0, HEADER_BYTES)
}

test('a true state_lost of a store that is younger than the POST leads to no second run', async () => {
  await between('HTTP/2', async (parts) => {
    parts.middle.onMessage = onceThenPass(async (passing) => {
      await passing.forward()
      await parts.restartBilling()
      const answer = await passing.forward()
      assert.equal(answer.status, 421)
      return answer
    })
    const answer = await parts.call('POST')
    assert.deepEqual([answer.code, answer.runs()], ['outcome-unknown', 1])
  })
})

test("an answer to another call is not taken for this one's", async () => {
  await between('HTTP/2', async (parts) => {
    let earlier: { status: number; body: Buffer } | undefined
    parts.middle.onMessage = async (passing) => (earlier = await passing.forward())
    await parts.call('POST')
    parts.middle.onMessage = forwardThen(earlier!)
    const answer = await parts.call('POST')
    assert.deepEqual([answer.code, answer.runs()], ['outcome-unknown', 1])
  })
})

test('CLIENT_ID_SECRET is changed on one sidecar after the other, and no call fails', async () => {
  const fresh = 'the next secret for tests, of more than 32 characters'
  const names = ['a', 'b', 'c', 'd']
  const ports = new Map<string, number>()
  const sidecars = new Map<string, Sidecar>()
  const start = async (name: string, secrets: Record<string, string>) => {
    await sidecars.get(name)?.close()
    const UPSTREAM = `http://127.0.0.1:${app.port}`
    const sidecar = await startSidecar({ NAME: name, UPSTREAM, PORT: ports.get(name) ?? 0, ...secrets })
    sidecars.set(name, sidecar)
    ports.set(name, sidecar.port('inbound'))
  }
  const allCallAll = async (step: string) => {
    for (const from of names) {
      for (const to of names.filter((name) => name !== from)) {
        const headers = { 'x-mte-upstream': `http://127.0.0.1:${ports.get(to)}` }
        const answer = await call(sidecars.get(from)!.port('outbound'), {
          method: 'POST',
          headers,
          body: 'x',
        })
        assert.equal(answer.text, 'done', `${step}: ${from} calls ${to}`)
      }
    }
  }
  const before = app.seen.length
  for (const name of names) await start(name, {})
  await allCallAll('old secret')
  for (const name of names) {
    await start(name, { CLIENT_ID_SECRET: fresh, CLIENT_ID_SECRET_PREVIOUS: SECRET })
    await allCallAll(`${name} has both`)
  }
  for (const name of names) {
    await start(name, { CLIENT_ID_SECRET: fresh })
    await allCallAll(`${name} has the new one`)
  }
  assert.equal(app.seen.length - before, 9 * 12)
  await start('a', {})
  const headers = { 'x-mte-upstream': `http://127.0.0.1:${ports.get('b')}` }
  assert.equal((await call(sidecars.get('a')!.port('outbound'), { headers })).code, 'secret-mismatch')
  for (const sidecar of sidecars.values()) await sidecar.close()
})

function onceThenPass(meddle: Meddle): Meddle {
  let first = true
  return (passing) => {
    if (!first) return passing.forward()
    first = false
    return meddle(passing)
  }
}

function forwardThen(answer: Awaited<ReturnType<Meddle>>): Meddle {
  return async (passing) => {
    await passing.forward()
    return answer
  }
}

function changed(change: (body: Buffer) => Buffer): Meddle {
  return async (passing) => {
    const { status, body } = await passing.forward()
    return { status, body: change(body) }
  }
}

test.run()
