import assert from 'node:assert/strict'
import { type CarriedAnswer, PairingError } from '../../sidecar/pair/initiating.ts'
import { REJECTS, type RejectName } from '../../sidecar/pair/reject.ts'
import { suite } from '../support/suite.ts'
import { identity } from './vectors.ts'
import { HOUR_MS, NEW, NOW, OLD, orders, PEER, random, record, secretOf, World } from './world.ts'

const test = suite('pair/pairs: pairing')

/** Why there is no pair; fails when there is one. */
async function pairingError(begun: Promise<unknown>): Promise<PairingError> {
  const error = await begun.then(
    () => undefined,
    (error) => error,
  )
  assert.ok(error instanceof PairingError, `it is ${error}`)
  return error
}

/** While a secret is rotated: what each side lists, and the secret by which they pair. */
const ROTATION: [initiator: string[], responder: string[], by: string | undefined][] = [
  [[NEW, OLD], [OLD], OLD],
  [[NEW, OLD], [NEW, OLD], NEW],
  [[NEW, OLD], [OLD, NEW], NEW],
  [[NEW, OLD], [NEW], NEW],
  [[OLD], [NEW, OLD], OLD],
  [[NEW], [NEW, OLD], NEW],
  [[OLD], [NEW], undefined],
  [[NEW], [OLD], undefined],
]

for (const [initiator, responder, by] of ROTATION) {
  const words = (list: string[]) => list.map((secret) => (secret === NEW ? 'new' : 'old')).join(', ')
  const outcome = by ? `by the ${words([by])} one` : 'not at all'
  test(`pairs ${outcome} where we have the secrets ${words(initiator)} and the peer has ${words(responder)}`, async () => {
    const world = new World({
      initiator: await identity('orders', ...initiator),
      responder: await identity('payments', ...responder),
    })
    if (by) {
      await world.run(await world.begin())
      const expected = await identity('payments', by)
      assert.deepEqual(world.hellos.at(-1)!.subarray(4, 12), expected.secrets[0]!.pskId)
    } else {
      const error = await pairingError(world.begin())
      assert.deepEqual([error.reason, error.reject], ['secret-mismatch', 'psk_unknown'])
    }
    const listed = (await identity('orders', ...initiator)).secrets.map(({ pskId }) => pskId.toString('hex'))
    const tried = world.hellos.map((hello) => hello.subarray(4, 12).toString('hex'))
    assert.deepEqual(tried, listed.slice(0, tried.length))
  })
}

test('falls back to no secret that it does not list, whatever it is answered', async () => {
  const world = new World({ initiator: await identity('orders', NEW, OLD) })
  world.carry = async () => ({
    status: 401,
    body: record('psk_unknown', world.hellos.at(-1)!, { secret: OLD }),
  })
  assert.equal((await pairingError(world.begin())).reason, 'secret-mismatch')
  assert.equal(world.hellos.length, 2)
})

for (const aheadMs of [HOUR_MS, -HOUR_MS]) {
  test(`heals a clock that is ${aheadMs / HOUR_MS} h ahead by one more pairing, and remembers it`, async () => {
    const world = new World({ aheadMs })
    const first = await world.begin()
    assert.equal(world.hellos.length, 2)
    await world.run(first)
    await world.initiator.lost(PEER, first.pairId)
    world.advance(60_000)
    await world.run(await world.begin())
    assert.equal(world.hellos.length, 3)
  })
}

test('adjusts its clock once a pairing, and then gives up', async () => {
  const world = new World()
  world.carry = async (hello) => ({
    status: 400,
    body: record('clock_skew', hello, { timeMs: NOW + HOUR_MS }),
  })
  const error = await pairingError(world.begin())
  assert.deepEqual([error.reason, error.reject], ['refused', 'clock_skew'])
  assert.equal(world.hellos.length, 2)
})

test('does not adjust its clock for one who cannot prove who he is', async () => {
  const world = new World()
  const { carry } = world
  world.carry = async (hello) => ({
    status: 400,
    body: record('clock_skew', hello, { secret: OLD, timeMs: NOW + HOUR_MS }),
  })
  const error = await pairingError(world.begin())
  assert.deepEqual([error.reason, error.reject], ['refused', 'clock_skew'])
  assert.equal(world.hellos.length, 1)
  world.carry = carry
  await world.run(await world.begin())
  assert.equal(world.hellos.length, 2)
})

test('tells that the peer refused, and how, after one message', async () => {
  const names = (Object.keys(REJECTS) as RejectName[]).filter(
    (name) => name !== 'psk_unknown' && name !== 'clock_skew' && name !== 'state_unavailable',
  )
  for (const name of names) {
    const world = new World({ initiator: { ...orders, secrets: [...orders.secrets, ...secretOf.values()] } })
    world.carry = async (hello) => ({ status: REJECTS[name].status, body: record(name, hello) })
    const error = await pairingError(world.begin())
    assert.deepEqual([error.reason, error.reject], ['refused', name])
    assert.match(error.message, new RegExp(name))
    assert.equal(world.hellos.length, 1)
  }
})

test('tells that what answers is no relay with the secret', async () => {
  const html = Buffer.from('<html>hello</html>')
  for (const [status, body] of [
    [200, html],
    [200, Buffer.alloc(0)],
    [200, random(1588)],
    [404, html],
    [421, random(76)],
    [301, Buffer.alloc(0)],
    [500, html],
  ] as const) {
    const world = new World()
    world.carry = async () => ({ status, body })
    const error = await pairingError(world.begin())
    assert.deepEqual([error.reason, error.reject], ['not-a-relay', undefined])
  }
})

test('takes no answer that was given to another message, or was changed', async () => {
  const world = new World()
  const { carry } = world
  let before: CarriedAnswer | undefined
  world.carry = async (hello) => (before = await carry(hello))
  const first = await world.begin()
  await world.initiator.lost(PEER, first.pairId)
  world.carry = async () => before!
  assert.equal((await pairingError(world.begin())).reason, 'not-a-relay')
  world.carry = async (hello) => {
    const answer = await carry(hello)
    answer.body[answer.body.length - 1]! ^= 1
    return answer
  }
  assert.equal((await pairingError(world.begin())).reason, 'not-a-relay')
})

test('tells that something between answers that the peer is away', async () => {
  for (const status of [502, 503, 504]) {
    const world = new World()
    world.carry = async () => ({ status, body: Buffer.from('upstream connect error') })
    const error = await pairingError(world.begin())
    assert.equal(error.reason, 'unavailable')
    assert.match(error.message, new RegExp(String(status)))
    assert.equal(world.hellos.length, 3)
  }
})

test('pairs once more, with another message, when what stood in the way may be over in a moment', async () => {
  const ways: ((world: World) => typeof world.carry)[] = [
    (world) => () => Promise.reject(world.passing),
    () => async () => ({ status: 503, body: Buffer.from('upstream connect error') }),
    () => async (hello) => ({ status: 503, body: record('state_unavailable', hello) }),
  ]
  for (const way of ways) {
    for (const failures of [1, 2, 3]) {
      const world = new World()
      const { carry } = world
      const fail = way(world)
      let left = failures
      world.carry = (hello) => (left-- > 0 ? fail(hello) : carry(hello))
      if (failures === 3) await assert.rejects(world.begin())
      else await world.run(await world.begin())
      assert.deepEqual(world.delays, [50, 500].slice(0, failures))
      assert.equal(new Set(world.hellos.map((hello) => hello.toString('hex'))).size, world.hellos.length)
    }
  }
})

test('says that the store of the peer is away', async () => {
  const world = new World()
  world.carry = async (hello) => ({ status: 503, body: record('state_unavailable', hello) })
  const error = await pairingError(world.begin())
  assert.deepEqual([error.reason, error.reject], ['unavailable', 'state_unavailable'])
  assert.match(error.message, /its store is away/)
})

test.run()
