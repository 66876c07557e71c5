/** What can befall the world. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { startLink } from '../support/link.ts'
import { startRedis } from '../support/redis.ts'
import type { Replica, Side, World } from './world.ts'

/** How long a network or a server stays away. */
const AWAY_MS = 2000
const SYNC_POLL_MS = 50

export interface Fault<Scene = World> {
  name: string
  /** must no call fail? */
  sparesCalls: boolean
  /** of the load; when not told, as many as it makes by itself */
  callsPerSecond?: number
  /** Brings it about, and resolves when it is over: all that is needed runs again. */
  strike(world: Scene): Promise<void>
}

/** Restarts are what happens every day: they are tried at the pace of a day. */
const RESTARTS_CALLS_PER_SECOND = 200

type SideName = 'responders' | 'initiators'

export const FAULTS: readonly Fault[] = [
  ...ofEachSide('killed in turn', ({ replicas }) => inTurn(replicas, killAndStart)),
  fault('all sidecars killed', async ({ responders, initiators }) => {
    const all = [...responders.replicas, ...initiators.replicas]
    await Promise.all(all.map((replica) => replica.kill()))
    await Promise.all(all.map((replica) => replica.start()))
  }),
  ...ofEachSide('Redis flushed', async ({ redis, replicas }) => {
    await redis.cli('FLUSHALL')
    await killAndStart(replicas[0]!)
  }),
  ...ofEachSide('Redis killed, empty', async (side) => {
    await side.redis.kill()
    await away(side)
    await side.redis.start()
  }),
  ...ofEachSide('Redis failover', failOver),
  ...ofEachSide('Redis cut off', async (side) => {
    side.link.cut()
    await away(side)
    side.link.heal()
  }),
  ...ofEachSide('Redis frozen', async (side) => {
    side.link.freeze()
    await away(side)
    side.link.heal()
  }),
  fault('network cut off', async ({ path: { link } }) => {
    link.cut()
    await sleep(AWAY_MS)
    link.heal()
  }),
  fault('network frozen', async ({ path: { link } }) => {
    link.freeze()
    await sleep(AWAY_MS)
    link.heal()
  }),
  fault('network reset', async ({ path }) => path.reset()),
  fault('network replayed', ({ path }) => path.replay()),
  rollingSecret('responders', 'initiators'),
  rollingSecret('initiators', 'responders'),
]

function fault(name: string, strike: Fault['strike']): Fault {
  return { name, sparesCalls: false, strike }
}

function ofEachSide(what: string, strike: (side: Side) => Promise<void>): Fault[] {
  return (['responders', 'initiators'] as const).map((side) =>
    fault(`${side}: ${what}`, (world) => strike(world[side])),
  )
}

/** One sidecar starts meanwhile: an initiator that runs has all the keys that it needs for a minute. */
async function away({ replicas }: Side): Promise<void> {
  await Promise.all([sleep(AWAY_MS), killAndStart(replicas[0]!)])
}

/**
 * To a replica that lacks the last writes: what the first sidecar leased when it started, and the marks of calls that the
 * second one was killed at, so that what it had not answered is sent again.
 */
async function failOver(side: Side): Promise<void> {
  const { redis, link, replicas } = side
  const [first, second] = replicas as [Replica, Replica]
  const feed = await startLink(redis.port)
  const promoted = await startRedis({ replicaOf: feed.port })
  while (!String(await promoted.cli('INFO', 'replication')).includes('master_link_status:up'))
    await sleep(SYNC_POLL_MS)
  feed.cut()
  await killAndStart(first)
  await first.seen()
  await Promise.all([redis.kill(), second.kill()])
  await promoted.cli('REPLICAOF', 'NO', 'ONE')
  link.retarget(promoted.port)
  side.redis = promoted
  await second.start()
  await feed.close()
  await redis.stop()
}

/**
 * A new secret comes beside the old one, in each sidecar after the other, and then the old one goes. It goes first
 * where pairs are made, so that nobody is left with a pair that the other side cannot know any more.
 */
function rollingSecret(first: SideName, then: SideName): Fault {
  return {
    name: `secret changed, ${first} first`,
    sparesCalls: true,
    async strike(world) {
      const { secrets } = world
      secrets.previous = secrets.current
      secrets.current = randomBytes(32).toString('base64url')
      await inTurn(world[first].replicas, restart)
      await inTurn(world[then].replicas, restart)
      delete secrets.previous
      await inTurn(world.initiators.replicas, restart)
      await inTurn(world.responders.replicas, restart)
    },
  }
}

/**
 * The sidecars of a side restart one after the other, again and again: asked to drain first, as Kubernetes does, or by
 * SIGTERM alone, as docker stop does.
 * @param count restarts in all of each kind
 */
export function rollingRestarts(count: number): Fault[] {
  const kinds: [string, (replica: Replica) => Promise<void>][] = [
    ['restarts by SIGTERM', restart],
    ['restarts after drain', drainAndRestart],
  ]
  return kinds.flatMap(([kind, strike]) =>
    ofEachSide(`${count} ${kind}`, ({ replicas }) => {
      const turns = Array.from({ length: count }, (_, i) => replicas[i % replicas.length]!)
      return inTurn(turns, strike)
    }).map((restarts) => ({
      ...restarts,
      sparesCalls: true,
      callsPerSecond: RESTARTS_CALLS_PER_SECOND,
    })),
  )
}

async function inTurn(
  replicas: readonly Replica[],
  strike: (replica: Replica) => Promise<void>,
): Promise<void> {
  for (const replica of replicas) {
    await strike(replica)
    await replica.seen()
  }
}

async function killAndStart(replica: Replica): Promise<void> {
  await replica.kill()
  await replica.start()
}

async function restart(replica: Replica): Promise<void> {
  await replica.stop()
  await replica.start()
}

async function drainAndRestart(replica: Replica): Promise<void> {
  await replica.drain()
  await restart(replica)
}
