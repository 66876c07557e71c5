import assert from 'node:assert/strict'
import { type Answer, type Body, type Caller, type Request, WholeBody } from '../sidecar/call.ts'
import { SidecarError } from '../sidecar/errors.ts'
import { SendError } from '../sidecar/http/send-error.ts'
import type { Logger } from '../sidecar/log.ts'
import { HELLO_BYTES } from '../sidecar/pair/handshake.ts'
import { PairingError } from '../sidecar/pair/initiating.ts'
import { MemoryStore } from '../sidecar/pair/memory-store.ts'
import type { Pairs } from '../sidecar/pair/pairs.ts'
import { StoreUnavailableError } from '../sidecar/pair/store.ts'
import { createPairs, identityOf, pairingLog, pairingProblem } from '../sidecar/pairing.ts'
import { suite } from './support/suite.ts'

const test = suite('pairing')

const PEER = 'http://payments:8080'
const SECRET = 'a secret of a mesh, 0123456789 0123456789'

type Sent = (url: string, request: Request, caller: Caller) => Promise<Answer>

/** A sidecar whose client does this with what it is to send. */
async function sidecar(
  send: Sent,
  options: { secrets?: string[]; responseTimeoutMs?: number } = {},
): Promise<Pairs> {
  const { secrets: clientIdSecrets = [SECRET], responseTimeoutMs = 60_000 } = options
  const clockMs = () => performance.now()
  return createPairs({
    identity: await identityOf({ name: 'orders', clientIdSecrets }),
    store: new MemoryStore(clockMs),
    client: { send },
    responseTimeoutMs,
    clockMs,
  })
}

const answer = (status: number, body: Body): Answer => ({ head: { status, fields: [] }, body })

/** A body that gives these pieces and then fails, or waits until its reader gives it up. */
function brokenBody(pieces: Buffer[], end: () => Promise<never>): Body {
  return { read: async () => pieces.shift() ?? end(), whole: () => undefined, trailers: [] }
}

/** What an app is told of a pairing that fails. */
async function told(pairs: Pairs): Promise<SidecarError> {
  const error = await pairs.begin(PEER).then(
    () => undefined,
    (error) => pairingProblem(error, PEER),
  )
  assert.ok(error instanceof SidecarError, `it is ${error}`)
  return error
}

test('posts a pairing to the peer, and takes its answer', async () => {
  const payments = await sidecar(() => Promise.reject(new Error('it calls nobody')))
  const requests: { url: string; request: Request }[] = []
  const orders = await sidecar(async (url, request) => {
    requests.push({ url, request })
    const hello = (await request.body.read())!
    assert.equal(hello.length, HELLO_BYTES)
    return answer(200, new WholeBody(await payments.answer(hello)))
  })
  assert.ok(await orders.begin(PEER))
  const [{ url, request }] = requests as [(typeof requests)[0]]
  assert.equal(requests.length, 1)
  assert.equal(url, PEER)
  assert.deepEqual(request.head, {
    method: 'POST',
    scheme: 'http',
    authority: '',
    path: '/api/mte-pair',
    fields: ['content-type', 'application/octet-stream', 'cache-control', 'no-store, no-transform'],
  })
})

test('tells an app that the peer did not answer, and when it was too slow', async () => {
  for (const [failure, status] of [
    ['connect', 502],
    ['reset', 502],
    ['connect-timeout', 504],
    ['response-timeout', 504],
  ] as const) {
    const {
      code,
      status: told504,
      message,
    } = await told(await sidecar(() => Promise.reject(new SendError(failure, true))))
    assert.deepEqual([code, told504], ['peer-unreachable', status])
    assert.ok(message.includes(PEER))
  }
})

test('tells an app that the answer was cut off, and does not cut off its call', async () => {
  const cut = () =>
    Promise.reject(new SidecarError('message-truncated', 'The other side stopped in the middle.'))
  const error = await told(await sidecar(async () => answer(200, brokenBody([Buffer.alloc(100)], cut))))
  assert.deepEqual([error.code, error.status], ['peer-unreachable', 502])
})

test('waits for the whole answer no longer than for its beginning', async () => {
  const abandoned: SidecarError[] = []
  const pairs = await sidecar(
    async (_url, _request, caller) => {
      const { promise, reject } = Promise.withResolvers<never>()
      caller.onGone((why) => {
        abandoned.push(why)
        reject(why)
      })
      return answer(
        200,
        brokenBody([Buffer.alloc(100)], () => promise),
      )
    },
    { responseTimeoutMs: 1 },
  )
  const error = await told(pairs)
  assert.deepEqual([error.code, error.status], ['peer-unreachable', 504])
  assert.equal(abandoned.length, 1)
})

test('reads no more of an answer than a pairing can have', async () => {
  let read = 0
  let gone = false
  const pairs = await sidecar(async (_url, _request, caller) => {
    caller.onGone(() => {
      gone = true
    })
    const endless: Body = {
      read: async () => {
        read += 1000
        return Buffer.alloc(1000)
      },
      whole: () => undefined,
      trailers: [],
    }
    return answer(200, endless)
  })
  assert.equal((await told(pairs)).code, 'not-a-relay')
  assert.ok(gone)
  assert.ok(read <= 5000)
})

test('has a code for each reason why there is no pair', () => {
  for (const [reason, code] of [
    ['secret-mismatch', 'secret-mismatch'],
    ['not-a-relay', 'not-a-relay'],
    ['refused', 'pairing-refused'],
    ['unavailable', 'peer-unreachable'],
  ] as const) {
    const problem = pairingProblem(new PairingError(reason, 'It is so.'), PEER)
    assert.ok(problem instanceof SidecarError)
    assert.deepEqual([problem.code, problem.status, problem.message], [code, 502, `${PEER}: It is so.`])
  }
  const away = pairingProblem(new StoreUnavailableError(), PEER)
  assert.ok(away instanceof SidecarError)
  assert.deepEqual([away.code, away.status], ['state-unavailable', 503])
  const other = new Error('another one')
  assert.equal(pairingProblem(other, PEER), other)
})

test('logs each pairing, and one a minute of those that fail alike', () => {
  const lines: unknown[] = []
  const write = (level: string) => (fields: object | string) => lines.push([level, fields])
  const log = { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug') }
  let nowMs = 0
  const event = pairingLog(log as Logger, () => nowMs)
  const ids = { trace_id: '0af7651916cd43dd8448eb211c80319c' }
  const failure = { role: 'initiator', peer: PEER, failure: { error: new Error('it is down') }, ids } as const
  event({ role: 'initiator', peer: PEER, ids })
  event(failure)
  nowMs = 59_999
  event(failure)
  event({ ...failure, failure: { error: new Error('it is no relay') } })
  nowMs = 60_000
  event(failure)
  const reasons = lines.map((line) =>
    (line as [string, { reason?: string }]).map((part) => (part as { reason?: string }).reason ?? part),
  )
  assert.deepEqual(reasons, [
    ['info', { role: 'initiator', peer: PEER, ...ids }],
    ['warn', 'it is down'],
    ['warn', 'it is no relay'],
    ['warn', 'it is down'],
  ])
})

test('accepts all listed secrets and calls with the first', async () => {
  const previous = 'the secret before that, 0123456789 0123456789'
  const payments = await sidecar(() => Promise.reject(new Error('it calls nobody')), {
    secrets: [SECRET, previous],
  })
  const hellos: Buffer[] = []
  const send: Sent = async (_url, { body }) => {
    const hello = (await body.read())!
    hellos.push(hello)
    return answer(200, new WholeBody(await payments.answer(hello)))
  }
  await (await sidecar(send, { secrets: [previous] })).begin(PEER)
  await (await sidecar(send, { secrets: [SECRET, previous] })).begin(PEER)
  await (await sidecar(send, { secrets: [SECRET] })).begin(PEER)
  const names = hellos.map((hello) => hello.subarray(4, 12).toString('hex'))
  assert.equal(names.length, 3)
  assert.notEqual(names[0], names[1])
  assert.equal(names[1], names[2])
})

test.run()
