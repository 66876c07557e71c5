/** What can befall the world. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { startLink } from '../support/link.ts'
import { startRedis } from '../support/redis.ts'
import type { Replica, Side, World } from './world.ts'

/** How long a network or a server stays away. */
const AWAY_MS = 2000
/** Until HAProxy has seen that a sidecar is back: whoever takes one after the other waits for that. */
const SEEN_WITHIN_MS = 500
const SYNC_POLL_MS = 50

export interface Fault {
  name: string
  /** must no call fail? */
  sparesCalls: boolean
  /** Brings it about, and resolves when it is over: all that is needed runs again. */
  strike(world: World): Promise<void>
}

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
  await sleep(SEEN_WITHIN_MS)
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
      await RESTART[first](world)
      await RESTART[then](world)
      delete secrets.previous
      await RESTART.initiators(world)
      await RESTART.responders(world)
    },
  }
}

const RESTART: Record<SideName, (world: World) => Promise<void>> = {
  responders: ({ responders }) => inTurn(responders.replicas, restart),
  // Who calls over HTTP/1.1 cannot know whether the connection at hand is being closed: nobody is left who has one.
  initiators: ({ initiators }) =>
    inTurn(initiators.replicas, async (replica) => {
      await replica.takeOut()
      await restart(replica)
      await replica.putBack()
    }),
}

async function inTurn(
  replicas: readonly Replica[],
  strike: (replica: Replica) => Promise<void>,
): Promise<void> {
  for (const replica of replicas) {
    await sleep(SEEN_WITHIN_MS)
    await strike(replica)
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
