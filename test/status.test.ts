/** What a sidecar tells of itself, of what its parts tell. */
import assert from 'node:assert/strict'
import type { PairSummary } from '../sidecar/pair/store.ts'
import { type About, type Moment, type Status, statusOf } from '../sidecar/status.ts'
import { Recent, snapshotOf } from '../sidecar/telemetry/recent.ts'
import { suite } from './support/suite.ts'

const test = suite('status')

const ABOUT: About = { name: 'orders', version: '1.2.3', startedAtMs: 0, store: 'redis', jaeger: undefined }
const BILLING = 'http://billing:8080'

/** @param calls direction, peer and error of each */
function status(
  calls: readonly (readonly ['outbound' | 'inbound', string, string])[],
  more: Partial<Moment> & { about?: Partial<About> } = {},
): Status {
  const recent = new Recent(() => 0)
  for (const [direction, peer, error] of calls)
    recent.served({ direction, peer, method: 'GET', status: 200, error }, 0.001)
  const { about, ...moment } = more
  return statusOf(
    { ...ABOUT, ...about },
    {
      atMs: 1000,
      listening: [],
      notReady: [],
      degraded: [],
      storeTrouble: undefined,
      collector: { host: undefined, trouble: undefined },
      recent: snapshotOf([recent.tally()]),
      pairs: [],
      tunnels: { initiator: new Map(), responder: new Map() },
      peerName: (url) => (url === BILLING ? 'billing' : undefined),
      ...moment,
    },
  )
}

function pair(role: PairSummary['role'], peer: string): PairSummary {
  return { role, peer, secret: 'current', ageMs: 0, block: 0, messages: 0 }
}

test('a peer is failing when half of its calls fail', () => {
  const stateOf = (...errors: string[]) =>
    status(errors.map((error) => ['inbound', 'web', error] as const)).peers[0]!.state
  assert.equal(stateOf(''), 'ok')
  assert.equal(stateOf('', '', '503'), 'failures')
  assert.equal(stateOf('', '503'), 'failing')
  assert.equal(stateOf('503', 'upstream-timeout', ''), 'failing')
})

test('callers that went away are no failure of the peer', () => {
  const gone = status([['outbound', BILLING, 'caller-gone']]).peers[0]!
  assert.deepEqual([gone.state, gone.failures], ['ok', [{ code: 'caller-gone', count: 1 }]])
})

test('peers in trouble come first, then they go by name', () => {
  const { peers } = status(
    [
      ['inbound', 'b', ''],
      ['inbound', 'a', ''],
      ['outbound', 'http://z:80', 'peer-unreachable'],
    ],
    { pairs: [pair('responder', '0')] },
  )
  assert.deepEqual(
    peers.map(({ peer, state }) => [peer, state]),
    [
      ['http://z:80', 'failing'],
      ['a', 'ok'],
      ['b', 'ok'],
      ['0', 'idle'],
    ],
  )
})

test('pairs are counted by peer and direction, and one without calls is a peer too', () => {
  const pairs = [
    pair('initiator', BILLING),
    pair('initiator', BILLING),
    pair('responder', 'billing'),
    pair('responder', 'web'),
  ]
  const calls = [
    ['outbound', BILLING, ''],
    ['outbound', 'http://stock:8080', ''],
    ['inbound', 'web', ''],
  ] as const
  const rows = ({ peers }: Status) =>
    Object.fromEntries(peers.map((one) => [`${one.direction} ${one.peer}`, [one.name, one.pairs, one.calls]]))
  assert.deepEqual(rows(status(calls, { pairs })), {
    [`outbound ${BILLING}`]: ['billing', 2, 1],
    'outbound http://stock:8080': [undefined, 0, 1],
    'inbound web': ['web', 1, 1],
    'inbound billing': ['billing', 1, 0],
  })
  const away = status(calls, { pairs: undefined })
  assert.deepEqual([...new Set(away.peers.map((one) => one.pairs))], [undefined])
})

test('tunnels are counted by peer and direction, and a peer without any has none', () => {
  const tunnels = { initiator: new Map([[BILLING, 3]]), responder: new Map([['web', 2]]) }
  const calls = [
    ['outbound', BILLING, ''],
    ['inbound', BILLING, ''],
    ['inbound', 'billing', ''],
    ['inbound', 'web', ''],
    ['outbound', 'web', 'no-peer'],
  ] as const
  const rows = Object.fromEntries(
    status(calls, { tunnels }).peers.map((one) => [`${one.direction} ${one.peer}`, one.tunnels]),
  )
  assert.deepEqual(rows, {
    [`outbound ${BILLING}`]: 3,
    [`inbound ${BILLING}`]: 0,
    'inbound billing': 0,
    'inbound web': 2,
    'outbound web': 0,
  })
})

test('however many pairs there are, the peers that it tells are bounded', () => {
  const pairs = Array.from({ length: 1000 }, (_, i) => pair('responder', `peer-${i}`))
  assert.equal(status([], { pairs }).peers.length, 100)
})

test('a link to Jaeger searches for the peer, or for this sidecar alone where the peer has no name', () => {
  const jaeger = { url: 'https://jaeger.example/ui', service: 'orders & co-mte' }
  const hostile = '"}&service=x#\ud800'
  const { peers } = status(
    [
      ['outbound', BILLING, ''],
      ['outbound', 'http://stock:8080', ''],
      ['outbound', '', 'no-peer'],
      ['inbound', hostile, ''],
      ['inbound', 'other', ''],
    ],
    { about: { jaeger } },
  )
  const searches = Object.fromEntries(
    peers.map(({ peer, tracesUrl }) => {
      const { origin, pathname, searchParams, hash } = new URL(tracesUrl!)
      assert.deepEqual([origin, pathname, hash], ['https://jaeger.example', '/ui/search', ''])
      return [peer, Object.fromEntries(searchParams)]
    }),
  )
  const service = 'orders & co-mte'
  const tags = (name: string) => JSON.stringify({ 'service.peer.name': name })
  assert.deepEqual(searches, {
    [BILLING]: { service, tags: tags('billing-mte') },
    'http://stock:8080': { service },
    '': { service },
    [hostile]: { service, tags: tags('"}&service=x#\ufffd-mte') },
    other: { service },
  })
  assert.equal(status([['inbound', 'web', '']]).peers[0]!.tracesUrl, undefined)
})

test.run()
