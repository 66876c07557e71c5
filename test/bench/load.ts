/** The load: what is called and how often, and that every answer is the right one. */
import path from 'node:path'
import { BODY_BYTES, SMALL_JSON } from './app.ts'
import { runProgram } from './processes.ts'
import { requireProgram } from './programs.ts'

const CONNECTIONS = 32
const CALLS_PER_SECOND = 1000

export interface Scenario {
  name: string
  title: string
  /** decides which figures are told */
  kind: 'closed-loop' | 'open-loop' | 'body'
  /** who answers behind the pairs */
  app: 'nginx' | 'sink'
  /**
   * Calls `Host: app` at a port of this machine, for a while or with one big body.
   * @throws Error when a call was not answered with 200 and the whole body
   */
  run(port: number, extent: Extent): Promise<Load>
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
}

export const SCENARIOS: Scenario[] = [
  closedLoop('get-small', `GET of ${SMALL_JSON.length} bytes`, '/small', SMALL_JSON.length),
  closedLoop('get-16k', 'GET of 16 KiB', '/16k', BODY_BYTES),
  closedLoop('post-16k', 'POST of 16 KiB', '/post', SMALL_JSON.length, [String(BODY_BYTES)]),
  {
    name: 'open-loop',
    title: `GET of ${SMALL_JSON.length} bytes, ${CALLS_PER_SECOND} calls/s at fixed times`,
    kind: 'open-loop',
    app: 'nginx',
    async run(port, { seconds }) {
      const args = [path.join(import.meta.dirname, 'open-loop.ts'), port, '/small', CALLS_PER_SECOND, seconds]
      return calls(await runProgram(process.execPath, args.map(String)))
    },
  },
  {
    name: 'body-get',
    title: 'one GET of a big body',
    kind: 'body',
    app: 'nginx',
    run: (port, { file }) => transfer(port, file.bytes, `/${path.basename(file.path)}`, 'size_download', []),
  },
  {
    name: 'body-post',
    title: 'one POST of a big body',
    kind: 'body',
    app: 'sink',
    run: (port, { file }) =>
      transfer(port, file.bytes, `/?bytes=${file.bytes}`, 'size_upload', [
        ...['--request', 'POST', '--header', 'expect:', '--upload-file', file.path],
      ]),
  },
]

function closedLoop(
  name: string,
  title: string,
  place: string,
  answerBytes: number,
  args: string[] = [],
): Scenario {
  return {
    name,
    title: `${title}, ${CONNECTIONS} connections, each with one call after the other`,
    kind: 'closed-loop',
    app: 'nginx',
    async run(port, { seconds }) {
      const script = path.join(import.meta.dirname, 'wrk.lua')
      const load = ['--threads', '1', '--connections', String(CONNECTIONS), '--duration', `${seconds}s`]
      const url = `http://127.0.0.1:${port}${place}`
      const output = await runProgram(requireProgram('wrk'), [
        ...[...load, '--timeout', '10s', '--header', 'Host: app', '--script', script, url, '--', ...args],
      ])
      return calls(output, answerBytes)
    },
  }
}

/** Reads the outcome that wrk.lua and open-loop.ts print as their last line. */
function calls(output: string, answerBytesMin = 0): Load {
  const { refused, broken, received, ...load } = JSON.parse(output.trim().split('\n').at(-1)!)
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
