/** The load: what is called and how often, and that every answer is the right one. */
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { HEAD, TestPeer } from '../support/peer.ts'
import { BODY_BYTES, bigHead, SMALL_JSON, STREAM } from './app.ts'
import { runProgram } from './processes.ts'
import { requireProgram } from './programs.ts'

const CONNECTIONS = 32
const CALLS_PER_SECOND = 1000
/** Each of many connections has one call a second. */
const MANY_CONNECTIONS = CALLS_PER_SECOND
/** So few that each is called often enough for tunnels, and so many that a sidecar gives tunnels to all of them. */
const MANY_PEERS = 20
const GOOD_CALLS_PER_SECOND = 500
const REPLAYS_PER_SECOND = 10_000
const REPLAY_CONNECTIONS = 4
const REPLAYS_IN_FLIGHT_MAX = 64
/** A flood begins so long before what is measured under it, and ends so long after. */
const FLOOD_MARGIN_S = 1

export interface Scenario {
  name: string
  title: string
  /** decides which figures are told */
  kind: 'closed-loop' | 'open-loop' | 'body' | 'flood'
  /** who answers behind the pairs */
  app: 'nginx' | 'node'
  /**
   * Calls `Host: app`, for a while or with one big body.
   * @throws Error when a call was not answered with 200 and the whole body
   */
  run(target: Target, extent: Extent): Promise<Load>
}

/** What is called, by its ports of this machine. */
export interface Target {
  /** where calls go in */
  outbound: number
  /** where a sidecar takes messages, and the secret of the messages */
  inbound: number
  secret: string
  /** what refuses everything with 409 over HTTP/2, at next to no cost */
  refusing: number
  /** folder for what is sent */
  folder: string
}

/** How much load: the scenarios of calls take the time, those of bodies the file. */
export interface Extent {
  /** whole */
  seconds: number
  /** in the folder `www` of the app */
  file: { path: string; bytes: number }
}

/** What a run came to. */
export interface Load {
  calls: number
  seconds: number
  /** of the big body; 0 where calls are what counts */
  bytes: number
  /** latencies of a call; 0 for a big body */
  p50Ms: number
  p99Ms: number
  flood?: Flood
}

/** What a flood of replays did to good calls: `Load` itself is that of the good calls under the flood. */
export interface Flood {
  /** how many were refused */
  replaysPerSecond: number
  /** how much fewer good calls were answered a second than without a flood, and how much later */
  dropPercent: number
  p50MoreMs: number
  /** the same with the flood on something that costs next to nothing: what the machine and the generator do to it */
  controlReplaysPerSecond: number
  controlDropPercent: number
  controlP50MoreMs: number
}

export const SCENARIOS: Scenario[] = [
  closedLoop('get-small', `GET of ${SMALL_JSON.length} bytes`),
  closedLoop('get-16k', 'GET of 16 KiB', { place: '/16k', answerBytes: BODY_BYTES }),
  closedLoop('post-16k', 'POST of 16 KiB', { place: '/post', bodyBytes: BODY_BYTES }),
  {
    name: 'open-loop',
    title: `GET of ${SMALL_JSON.length} bytes, ${CALLS_PER_SECOND} calls/s at fixed times`,
    kind: 'open-loop',
    app: 'nginx',
    run: ({ outbound }, { seconds }) => callAtFixedTimes(outbound, CALLS_PER_SECOND, seconds),
  },
  {
    name: 'body-get',
    title: 'one GET of a big body',
    kind: 'body',
    app: 'nginx',
    run: ({ outbound }, { file }) =>
      transfer(outbound, file.bytes, `/${path.basename(file.path)}`, 'size_download', []),
  },
  {
    name: 'body-post',
    title: 'one POST of a big body',
    kind: 'body',
    app: 'node',
    run: ({ outbound }, { file }) =>
      transfer(outbound, file.bytes, `/?bytes=${file.bytes}`, 'size_upload', [
        ...['--request', 'POST', '--header', 'expect:', '--upload-file', file.path],
      ]),
  },
]

/** What tells what Redis costs. */
export const REDIS_SCENARIOS: Scenario[] = [
  ...SCENARIOS.filter(({ kind }) => kind !== 'body'),
  closedLoop('post-small', 'POST of 64 bytes', { place: '/post', bodyBytes: 64 }),
  replayFlood('replay-flood', `${GOOD_CALLS_PER_SECOND} good calls/s at fixed times`, (port, seconds) =>
    callAtFixedTimes(port, GOOD_CALLS_PER_SECOND, seconds),
  ),
  replayFlood(
    'replay-flood-full',
    `good calls on ${CONNECTIONS} connections, as many as go`,
    (port, seconds) => callInTurn(port, seconds),
  ),
]

/** What tells what traces cost, or a mesh, or workers. */
export const CALL_SCENARIOS: Scenario[] = SCENARIOS.filter(({ kind }) => kind !== 'body')

/** What tells what a change costs: all that it must not make slower. */
export const ALL_SCENARIOS: Scenario[] = [
  ...SCENARIOS,
  closedLoop('big-head', 'GET with heads of 60 fields and 6 KiB both ways', {
    place: '/big-head',
    headers: bigHead(),
  }),
  {
    ...closedLoop('streams', `GET of ${STREAM.pieces} pieces of ${STREAM.pieceBytes} bytes, one by one`, {
      place: '/stream',
      answerBytes: STREAM.pieces * STREAM.pieceBytes,
    }),
    app: 'node',
  },
  closedLoop('many-peers', `GET of ${SMALL_JSON.length} bytes of ${MANY_PEERS} peers in turn`, {
    peers: MANY_PEERS,
  }),
  {
    name: 'many-connections',
    title: `GET of ${SMALL_JSON.length} bytes, ${MANY_CONNECTIONS} connections with one call a second each, at fixed times`,
    kind: 'open-loop',
    app: 'nginx',
    run: ({ outbound }, { seconds }) =>
      callAtFixedTimes(outbound, CALLS_PER_SECOND, seconds, MANY_CONNECTIONS),
  },
]

/** Has so many calls made that our sidecars have tunnels, if they are to have any. */
export async function callOften({ outbound }: Target, { seconds }: Extent): Promise<void> {
  await callInTurn(outbound, seconds, { answerBytes: 0 })
}

function closedLoop(name: string, title: string, turns: Turns = {}): Scenario {
  return {
    name,
    title: `${title}, ${CONNECTIONS} connections, each with one call after the other`,
    kind: 'closed-loop',
    app: 'nginx',
    run: ({ outbound, inbound }, { seconds }) => callInTurn(outbound, seconds, turns, inbound),
  }
}

/**
 * Good calls: first alone, then while a message is sent again and again to what refuses it at next to no cost, and
 * then while it is sent again and again to the sidecar that has run it.
 */
function replayFlood(
  name: string,
  title: string,
  good: (port: number, seconds: number) => Promise<Load>,
): Scenario {
  return {
    name,
    title: `${title}, under ${REPLAYS_PER_SECOND} replays/s of one message`,
    kind: 'flood',
    app: 'nginx',
    async run(target, { seconds }) {
      const { outbound, inbound, refusing } = target
      const message = await recordMessage(target)
      const alone = await good(outbound, seconds)
      const under = async (flooded: number) => {
        const [replaysPerSecond, load] = await Promise.all([
          replay(message, flooded, seconds + 2 * FLOOD_MARGIN_S),
          sleep(1000 * FLOOD_MARGIN_S).then(() => good(outbound, seconds)),
        ])
        const dropPercent = 100 * (1 - load.calls / load.seconds / (alone.calls / alone.seconds))
        return { load, replaysPerSecond, dropPercent, p50MoreMs: load.p50Ms - alone.p50Ms }
      }
      const control = await under(refusing)
      const { load, ...flood } = await under(inbound)
      return {
        ...load,
        flood: {
          ...flood,
          controlReplaysPerSecond: control.replaysPerSecond,
          controlDropPercent: control.dropPercent,
          controlP50MoreMs: control.p50MoreMs,
        },
      }
    },
  }
}

/** Pairs with a sidecar, has it run one message, sees that it refuses the same again, and keeps that in a file. */
async function recordMessage({ inbound, secret, folder }: Target): Promise<string> {
  const peer = await TestPeer.pair(inbound, secret)
  const message = peer.whole(0, '', { ...HEAD, method: 'GET', authority: 'app', path: '/small' })
  const { status } = await peer.send(message)
  if (status !== 200) throw new Error(`the message to be replayed was answered with ${status}, not 200`)
  const { reject } = await peer.send(message)
  if (reject?.name !== 'replayed') throw new Error(`a replay was not refused as one, but as ${reject?.name}`)
  const file = path.join(folder, 'message')
  writeFileSync(file, message)
  return file
}

/** @returns how many replays were refused a second */
async function replay(message: string, port: number, seconds: number): Promise<number> {
  const output = await runProgram(requireProgram('h2load'), [
    ...['--clients', String(REPLAY_CONNECTIONS), '--max-concurrent-streams', String(REPLAYS_IN_FLIGHT_MAX)],
    ...['--rps', String(REPLAYS_PER_SECOND / REPLAY_CONNECTIONS), '--duration', String(seconds)],
    ...['--data', message, `http://127.0.0.1:${port}/api/mte-message`],
  ])
  const [, accepted, refused, failed] =
    /^status codes: (\d+) 2xx, \d+ 3xx, (\d+) 4xx, (\d+) 5xx$/m.exec(output)?.map(Number) ?? []
  if (accepted !== 0 || failed !== 0) throw new Error(`a replay was not refused: ${output.trim()}`)
  return refused! / seconds
}

/** @param connections how many take turns; where it is not told, calls share as few as they need */
async function callAtFixedTimes(
  port: number,
  perSecond: number,
  seconds: number,
  connections = 0,
): Promise<Load> {
  const args = [
    path.join(import.meta.dirname, 'open-loop.ts'),
    port,
    '/small',
    perSecond,
    seconds,
    connections,
  ]
  return calls(await runProgram(process.execPath, args.map(String)))
}

/** What is called over each connection, one call after the other. */
interface Turns {
  /** a path; of the small answer, when not told */
  place?: string
  /** at least, of an answer; those of the small answer, when not told */
  answerBytes?: number
  /** of a POST; a GET has none */
  bodyBytes?: number
  headers?: [name: string, value: string][]
  /** how many peers are called in turn: the one sidecar by as many addresses of this machine */
  peers?: number
}

/** @param inbound port of the sidecar that is called, for `peers` */
async function callInTurn(
  port: number,
  seconds: number,
  { place = '/small', answerBytes = SMALL_JSON.length, bodyBytes = 0, headers = [], peers = 0 }: Turns = {},
  inbound = 0,
): Promise<Load> {
  const script = path.join(import.meta.dirname, 'wrk.lua')
  const load = ['--threads', '1', '--connections', String(CONNECTIONS), '--duration', `${seconds}s`]
  const url = `http://127.0.0.1:${port}${place}`
  const fields = [['Host', 'app'], ...headers].flatMap(([name, value]) => ['--header', `${name}: ${value}`])
  const urls = Array.from({ length: peers }, (_, i) => `http://127.0.0.${1 + i}:${inbound}`)
  const output = await runProgram(requireProgram('wrk'), [
    ...[...load, '--timeout', '10s', ...fields, '--script', script, url, '--', String(bodyBytes), ...urls],
  ])
  return calls(output, answerBytes)
}

/** Reads the outcome that wrk.lua and open-loop.ts print as their last line. */
function calls(output: string, answerBytesMin = 0): Load {
  const { refused, broken, bytes: received, ...load } = JSON.parse(output.trim().split('\n').at(-1)!)
  if (refused > 0) throw new Error(`${refused} of ${load.calls} calls were not answered with 200`)
  if (broken > 0) throw new Error(`${broken} calls had no answer: connections broke or timed out`)
  if (load.calls === 0) throw new Error('no call was answered')
  if (received < load.calls * answerBytesMin) throw new Error('answers are shorter than their bodies')
  return { ...load, bytes: 0 }
}

/** Carries one body by curl. `size` is curl's variable for the direction of the body. */
async function transfer(
  port: number,
  bytes: number,
  place: string,
  size: string,
  args: string[],
): Promise<Load> {
  const report = `%{http_code} %{${size}} %{time_total}`
  const output = await runProgram(requireProgram('curl'), [
    ...['--silent', '--show-error', '--noproxy', '*', '--max-time', '120', '--header', 'Host: app'],
    ...['--output', '/dev/null', '--write-out', report, ...args, `http://127.0.0.1:${port}${place}`],
  ])
  const [status, carried, seconds] = output.split(' ').map(Number)
  if (status !== 200) throw new Error(`the body was answered with ${status}`)
  if (carried !== bytes) throw new Error(`${carried} of ${bytes} bytes were carried`)
  return { calls: 1, seconds: seconds!, bytes, p50Ms: 0, p99Ms: 0 }
}
