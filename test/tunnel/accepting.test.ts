/** The tunnels that a peer opened: how many there may be, and that those that die leave nothing behind. */
import assert from 'node:assert/strict'
import type { Body } from '../../sidecar/call.ts'
import type { SidecarError } from '../../sidecar/errors.ts'
import { OpenCalls } from '../../sidecar/http/exchange.ts'
import { sealOpening, tunnelSecrets } from '../../sidecar/pair/tunnel-keys.ts'
import { AcceptedTunnels } from '../../sidecar/tunnel/accepting.ts'
import { Budget } from '../../sidecar/tunnel/budget.ts'
import { random, World } from '../pair/world.ts'
import { FedBody, TestCaller } from '../support/sending.ts'
import { suite } from '../support/suite.ts'
import { READY, request, TunnelEnd } from '../support/tunnel-end.ts'

const test = suite('tunnel: accepting')

const BUDGET_BYTES = 1024 * 1024 * 1024

/** Whose request carries a tunnel. */
class CarryingCaller extends TestCaller {
  aborted: SidecarError | undefined

  override abort(why: SidecarError): void {
    this.aborted ??= why
  }
}

class Accepting {
  nowMs = 0
  readonly world = new World()
  readonly budget = new Budget(BUDGET_BYTES)
  readonly open = new OpenCalls(3_600_000)
  readonly tunnels = new AcceptedTunnels({
    pairs: this.world.responder,
    random,
    handler: () => new Promise(() => {}),
    tunnel: {
      headBytesMax: 65_536,
      budget: this.budget,
      clockMs: () => this.nowMs,
      onRecord() {},
      onFault(error) {
        throw error
      },
    },
  })

  async accept(): Promise<{ caller: CarryingCaller; source: FedBody; records: Body; end: TunnelEnd }> {
    const message = await this.world.begin()
    const opening = sealOpening(message, random(12))
    const caller = new CarryingCaller()
    const source = new FedBody().push(opening)
    const records = await this.tunnels.accept(source, caller, this.open, () => {})
    const answer = await records.read()
    const { inbound, outbound } = tunnelSecrets(message, opening, answer!)
    const end = new TunnelEnd('initiator', { out: outbound, in: inbound }, (record) => source.push(record))
    return { caller, source, records, end }
  }

  later(ms: number): void {
    this.nowMs += ms
    this.tunnels.tick()
  }
}

/** Lets what was pushed be taken. */
const turn = () => new Promise(setImmediate)

test('whoever takes nothing of a tunnel that dies is cut off', async () => {
  const accepting = new Accepting()
  const { caller, end } = await accepting.accept()
  end.send(READY, request(1))
  await turn()
  assert.equal(accepting.open.size, 1)
  accepting.later(30_001)
  assert.ok(caller.aborted)
  assert.equal(accepting.open.size, 0)
  assert.equal(accepting.tunnels.size, 0)
  assert.equal(accepting.budget.leftBytes, BUDGET_BYTES)
})

test('a tunnel that is to end is there until it has ended, and is given up like any other', async () => {
  const accepting = new Accepting()
  const { caller, end } = await accepting.accept()
  end.send(READY)
  await turn()
  accepting.tunnels.retire()
  await turn()
  assert.equal(accepting.tunnels.size, 1)
  accepting.later(30_001)
  assert.ok(caller.aborted)
  assert.equal(accepting.tunnels.size, 0)
})

test('a tunnel that comes to its end is not cut off', async () => {
  const accepting = new Accepting()
  const { caller, end, records } = await accepting.accept()
  end.send(READY)
  await turn()
  accepting.tunnels.retire()
  end.take((await records.read())!)
  assert.deepEqual(
    (await end.until('goaway')).map(({ type }) => type),
    ['ready', 'goaway'],
  )
  assert.equal(await records.read(), undefined)
  assert.equal(caller.aborted, undefined)
  assert.equal(accepting.tunnels.size, 0)
  assert.equal(accepting.budget.leftBytes, BUDGET_BYTES)
})

test('a caller that goes away takes its tunnel with it', async () => {
  const accepting = new Accepting()
  const { caller, records } = await accepting.accept()
  caller.go()
  assert.equal(accepting.tunnels.size, 0)
  await records.read().then(
    () => assert.fail('there was a record'),
    () => {},
  )
  assert.equal(accepting.budget.leftBytes, BUDGET_BYTES)
})

test('a peer has 64 tunnels at most, however many it opens at once', async () => {
  const accepting = new Accepting()
  for (let i = 0; i < 60; i++) await accepting.accept()
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => accepting.accept()))
  const refused = outcomes.filter((outcome) => outcome.status === 'rejected')
  assert.equal(refused.length, 4)
  for (const { reason } of refused) assert.equal(reason.code, 'rate_limited')
  assert.equal(accepting.tunnels.size, 64)
})

test.run()
