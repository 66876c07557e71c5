/** Somebody on the path of a tunnel who cuts, changes, repeats and moves what goes by: calls are never run twice nor answered falsely. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import http2 from 'node:http2'
import { type CallAnswer, call } from '../support/call.ts'
import { type Gateway, type Part, startGateway, type Way } from '../support/gateway.ts'
import { openTunnel } from '../support/hand-made.ts'
import { TestPeer } from '../support/peer.ts'
import { type Recorder, startRecorder } from '../support/recorder.ts'
import { type Sidecar, startSidecar } from '../support/sidecars.ts'
import { suite } from '../support/suite.ts'

const test = suite('tunnel: on the path')

let app: Recorder
let billing: Sidecar
let gateway: Gateway
let orders: Sidecar

test.before(async () => {
  app = await startRecorder((seen, response) => response.end(`answer to ${seen.headers['x-id']}`))
  billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  gateway = await startGateway(billing.port('inbound'))
  orders = await startSidecar({ NAME: 'orders', PEERS: `billing=${gateway.url}`, CARRIAGE: 'tunnel' })
  await posted()
})

test.after(async () => {
  for (const part of [orders, gateway, billing, app]) await part.close()
})

interface Outcome {
  /** undefined: the connection broke */
  answer: CallAnswer | undefined
  /** how often it reached the app, whole */
  runs: number
}

/** Makes a POST, and looks what became of it. */
async function posted(method = 'POST'): Promise<Outcome> {
  const id = randomUUID()
  const answer = await call(orders.port('outbound'), {
    method,
    headers: { 'x-id': id },
    body: 'some body',
  }).catch((): undefined => {})
  const runs = app.seen.filter(({ headers }) => headers['x-id'] === id).length
  if (answer?.status === 200) assert.equal(answer.text, `answer to ${id}`)
  return { answer, runs }
}

/** Asserts that a POST was answered or not, that it ran once at most, and that the app was told no wrong. */
function isSound({ answer, runs }: Outcome): void {
  assert.ok(runs <= 1, `${runs} runs`)
  if (answer?.status === 200) assert.equal(runs, 1)
  else if (answer) assert.match(answer.code ?? '', /^(outcome-unknown|peer-unreachable)$/)
  if (runs === 1 && answer && answer.status !== 200) assert.equal(answer.code, 'outcome-unknown')
}

/** What is open breaks, and what is done to the next tunnel is undone: then a call works. */
async function works(): Promise<void> {
  gateway.onPart = ({ bytes }) => bytes
  gateway.cutBehind = undefined
  gateway.cut()
  await gateway.over(gateway.tunnels)
  const { answer, runs } = await posted()
  assert.equal(answer?.status, 200, String(answer?.text))
  assert.equal(runs, 1)
}

/** Where parts of a tunnel with one POST end that goes one way. */
async function endsOf(way: Way): Promise<number[]> {
  await works()
  const bytes = gateway.recorded(gateway.tunnels, way)
  const ends = [way === 'up' ? 60 : 34]
  while (ends.at(-1)! < bytes.length) ends.push(ends.at(-1)! + 4 + bytes.readUInt32BE(ends.at(-1)))
  return ends
}

/** Makes a POST by a new tunnel, to which something is done. */
async function postedBy(meddle: (tunnel: number) => void): Promise<Outcome> {
  gateway.onPart = ({ bytes }) => bytes
  gateway.cut()
  await gateway.over(gateway.tunnels)
  meddle(gateway.tunnels + 1)
  return posted()
}

for (const way of ['up', 'down'] as const)
  test(`a tunnel that is cut behind every byte that goes ${way}, from its opening to a call's end`, async () => {
    const ends = await endsOf(way)
    assert.equal(ends.length, 3)
    for (let at = 0; at < ends[2]!; at++) {
      const tunnels = gateway.tunnels
      const outcome = await postedBy((tunnel) => {
        gateway.cutBehind = { tunnel, way, bytes: at }
      })
      isSound(outcome)
      // Whoever has not heard READY asks for another tunnel, and sends nothing before.
      const isReady = way === 'up' ? at > ends[0]! : at >= ends[1]!
      if (outcome.answer?.status === 200) assert.equal(gateway.tunnels, tunnels + 2)
      if (way === 'down') assert.equal(outcome.answer?.status, isReady ? 502 : 200, `behind ${at} bytes`)
      else if (isReady) assert.equal(outcome.runs, 0, `behind ${at} bytes`)
    }
    await works()
  })

for (const method of ['GET', 'PUT'])
  test(`a ${method} that was under way in a tunnel that broke is sent again, once`, async () => {
    await works()
    gateway.cut()
    await gateway.over(gateway.tunnels)
    const tunnels = gateway.tunnels
    gateway.onPart = ({ tunnel, way, n, bytes }) => {
      if (tunnel !== tunnels + 1 || way !== 'down' || n !== 2) return bytes
      gateway.cut()
      return undefined
    }
    const { answer, runs } = await posted(method)
    assert.equal(answer?.status, 200, String(answer?.text))
    assert.equal(runs, 2)
    await works()
  })

const flipped = (bytes: Buffer, at: number) => {
  const copy = Buffer.from(bytes)
  copy[at]! ^= 1 << (at % 8)
  return copy
}

test('a bit that is flipped anywhere in the answer, or in READY, makes no tunnel: the next one carries the call', async () => {
  for (const [n, from, bytes] of [
    [0, 0, 34],
    [1, 4, 36],
  ] as const)
    for (let at = from; at < bytes; at++) {
      const tunnels = gateway.tunnels
      const { answer, runs } = await postedBy((tunnel) => {
        gateway.onPart = (part) =>
          part.tunnel === tunnel && part.way === 'down' && part.n === n ? flipped(part.bytes, at) : part.bytes
      })
      assert.equal(answer?.status, 200, `part ${n}, byte ${at}: ${answer?.text}`)
      assert.equal(runs, 1)
      assert.equal(gateway.tunnels, tunnels + 2)
    }
  await works()
})

test('a bit that is flipped anywhere in the record of a call or of its answer ends it', async () => {
  let wrong = 0
  for (const way of ['up', 'down'] as const)
    for (let at = 4; at < 120; at += 3) {
      const outcome = await postedBy(() => {
        gateway.onPart = ({ n, bytes, ...part }) =>
          part.way === way && n === 2 ? flipped(bytes, Math.min(at, bytes.length - 1)) : bytes
      })
      isSound(outcome)
      assert.notEqual(outcome.answer?.status, 200)
      assert.equal(outcome.runs, way === 'up' ? 0 : 1)
      wrong++
    }
  assert.equal(wrong, 2 * 39)
  await works()
})

test('a length of a record that is out of its range ends it', async () => {
  for (const length of [0, 16, 262_161, 0xffffffff]) {
    const outcome = await postedBy(() => {
      gateway.onPart = ({ way, n, bytes }) => {
        const copy = Buffer.from(bytes)
        if (way === 'up' && n === 2) copy.writeUInt32BE(length)
        return copy
      }
    })
    isSound(outcome)
    assert.equal(outcome.runs, 0)
    assert.equal(outcome.answer?.code, 'outcome-unknown')
  }
  await works()
})

/** What is done with records of a new tunnel, and what then must not run. */
const MEDDLING: [string, (held: Part[], part: Part) => Buffer | undefined, Way][] = [
  ['left out', (_held, { n, bytes }) => (n === 1 ? undefined : bytes), 'up'],
  ['repeated', (_held, { n, bytes }) => (n === 1 ? Buffer.concat([bytes, bytes]) : bytes), 'up'],
  [
    'swapped',
    (held, { n, bytes }) => {
      const before = held.find((part) => part.n === 1)
      if (n === 1) return undefined
      return n === 2 ? Buffer.concat([bytes, before!.bytes]) : bytes
    },
    'up',
  ],
]

for (const [what, meddle, way] of MEDDLING)
  test(`records that are ${what} end the tunnel, and nothing runs`, async () => {
    const outcome = await postedBy(() => {
      const held: Part[] = []
      gateway.onPart = (part) => {
        if (part.way !== way) return part.bytes
        held.push(part)
        return meddle(held, part)
      }
    })
    isSound(outcome)
    assert.equal(outcome.runs, 0)
    assert.equal(outcome.answer?.code, 'outcome-unknown')
    await works()
  })

test('the record of a call that is repeated runs once', async () => {
  const outcome = await postedBy(() => {
    gateway.onPart = ({ way, n, bytes }) => (way === 'up' && n === 2 ? Buffer.concat([bytes, bytes]) : bytes)
  })
  isSound(outcome)
  await works()
})

test('the record of a call from another tunnel, at its very place, does not run there', async () => {
  await works()
  const first = gateway.recorded(gateway.tunnels, 'up')
  const ready = 60 + 4 + first.readUInt32BE(60)
  const record = first.subarray(ready, ready + 4 + first.readUInt32BE(ready))
  const before = app.seen.length
  const outcome = await postedBy(() => {
    gateway.onPart = ({ way, n, bytes }) => (way === 'up' && n === 2 ? record : bytes)
  })
  assert.equal(outcome.answer?.code, 'outcome-unknown')
  assert.equal(app.seen.length, before)
  await works()
})

/** Sends bytes to the sidecar as if they opened a tunnel; its status, and what it answers. */
async function sent(bytes: Buffer): Promise<{ status: number; body: Buffer }> {
  const session = http2.connect(billing.url)
  try {
    const stream = session.request({ ':method': 'POST', ':path': '/api/mte-tunnel' })
    stream.end(bytes)
    const status = await new Promise<number>((resolve, reject) => {
      stream.on('response', (headers) => resolve(Number(headers[':status'])))
      stream.on('error', reject)
    })
    const pieces: Buffer[] = []
    for await (const piece of stream) pieces.push(piece)
    return { status, body: Buffer.concat(pieces) }
  } finally {
    session.destroy()
  }
}

test('an opening, or a whole tunnel, that was recorded is refused, and nothing runs', async () => {
  await works()
  const recorded = gateway.recorded(gateway.tunnels, 'up')
  const before = app.seen.length
  for (const bytes of [recorded.subarray(0, 60), recorded]) {
    const { status, body } = await sent(bytes)
    assert.equal(status, 409)
    assert.equal(body[2], 0x04)
  }
  gateway.cut()
  await gateway.over(gateway.tunnels)
  assert.equal((await sent(recorded)).status, 409)
  assert.equal(app.seen.length, before)
})

test('an opening that is cut behind every byte, or of which any bit is flipped, is refused, and spends nothing', async () => {
  const peer = await TestPeer.pair(billing.port('inbound'))
  const opening = peer.opening(0)
  for (let at = 0; at < opening.length; at++) {
    const { status, body } = await sent(opening.subarray(0, at))
    assert.deepEqual([status, body[2]], [400, 0x06], `cut behind ${at} bytes`)
    const changed = await sent(flipped(opening, at))
    const code = changed.body[2]!
    if (at === 0) assert.equal(code, 0x07)
    else if (at === 1) assert.equal(code, 0x06)
    else if (at < 26) assert.equal(code, 0x01, `byte ${at}`)
    else assert.ok([0x03, 0x05].includes(code), `byte ${at}: ${code}`)
  }
  const { end, close } = await openTunnel(billing.port('inbound'), peer, 0)
  assert.equal((await end.next()).type, 'ready')
  close()
})

test.run()
