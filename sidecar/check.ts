/** Tries what a configuration names, and says in plain words what works and what to do about the rest. */
import { Attempt, NO_BODY } from './call.ts'
import type { Config } from './config.ts'
import { asSidecarError, type ErrorCode, SidecarError } from './errors.ts'
import { Http1Client } from './http/http1-client.ts'
import { PeerClient } from './http/peer-client.ts'
import { SendError } from './http/send-error.ts'
import type { Logger } from './log.ts'
import { MemoryStore } from './pair/memory-store.ts'
import { StoreUnavailableError } from './pair/store.ts'
import { createPairs, identityOf, pairingProblem } from './pairing.ts'
import { printable } from './printable.ts'
import { RedisConnection } from './redis/connection.ts'
import { describe, type RedisAddress } from './redis/redis-url.ts'
import { PROBE } from './redis/script.ts'

/** Longer than a connection to a cluster or through sentinels takes, in ms. */
const REDIS_PATIENCE_MS = 3000

/** What to do about an error that a peer's pairing made. */
const ADVICE: Partial<Record<ErrorCode, string>> = {
  'peer-unreachable':
    "Is the peer's sidecar running, and is this the address and PORT of it that can be reached from here?",
  'not-a-relay':
    "The URL must be that of the peer's sidecar (its PORT), not of its app or of something in between that answers itself.",
  'secret-mismatch': 'Give both sidecars the same CLIENT_ID_SECRET, and restart the one that you change.',
  'pairing-refused':
    'clock_skew: set the clocks of both machines. rate_limited: try again in a minute. Anything else: run the same version on both.',
}

/**
 * @param urls peers' sidecars to pair with besides those of the configuration
 * @returns whether all is well
 */
export async function runCheck(
  config: Config,
  urls: readonly string[],
  print: (line: string) => void = console.log,
): Promise<boolean> {
  const peers = [...config.peers, ...(config.peersFile?.peers ?? [])].map((peer) => peer.url)
  const patterns = peers.filter((url) => /[{}]/.test(url))
  const named = new Set([...peers.filter((url) => !patterns.includes(url)), ...urls])
  print('ok    The configuration can be read.')
  const results = [await checkUpstream(config, print), await checkRedis(config, print)]
  const { connectTimeoutMs, responseTimeoutMs, maxHeaderBytes: headBytesMax, ca } = config
  const client = new PeerClient({ connectTimeoutMs, responseTimeoutMs, headBytesMax, ...(ca ? { ca } : {}) })
  const clockMs = () => performance.now()
  const pairs = createPairs({
    identity: await identityOf(config),
    store: new MemoryStore(clockMs),
    client,
    responseTimeoutMs,
    clockMs,
  })
  for (const url of named) {
    try {
      await pairs.begin(url)
      print(`ok    The peer at ${url} has paired with us.`)
      results.push(true)
    } catch (error) {
      const { code, message } = asSidecarError(pairingProblem(error, url))
      print(`FAIL  ${message}`)
      if (ADVICE[code]) print(`      ${ADVICE[code]}`)
      results.push(false)
    }
  }
  client.close()
  for (const url of patterns)
    print(
      `--    PEERS has ${url}, which stands for many: name one of them, mte-sidecar check http://host:port`,
    )
  if (named.size === 0 && patterns.length === 0)
    print('--    PEERS names no peer: calls need x-mte-upstream, or this sidecar is for inbound calls only.')
  return results.every(Boolean)
}

async function checkRedis({ redis: address, ca }: Config, print: (line: string) => void): Promise<boolean> {
  if (!address) return true
  const clockMs = () => performance.now()
  const connection = new RedisConnection({ address, ca, log: SILENT, clockMs })
  try {
    await connection.ready(REDIS_PATIENCE_MS)
    await connection.run(PROBE, [], [])
    print(`ok    Redis at ${describe(address)} answers.`)
    await warnOfHabits(connection, address, print)
    return true
  } catch (error) {
    if (!(error instanceof StoreUnavailableError)) throw error
    const [reason = '', ...advice] = printable(error.message).split('; ')
    print(`FAIL  ${sentence(reason)}`)
    print(`      ${sentence(advice.join('; '))}`)
    return false
  } finally {
    connection.close()
  }
}

/** Warns of what makes a Redis that works a bad place for pairs. */
async function warnOfHabits(
  connection: RedisConnection,
  address: RedisAddress,
  print: (line: string) => void,
): Promise<void> {
  const settings = await connection.settings('appendonly', 'save', 'maxmemory', 'maxmemory-policy')
  if (!settings) return
  const where = `Redis at ${describe(address)}`
  if (settings.get('appendonly') === 'yes' || settings.get('save') !== '') {
    print(
      `--    ${where} writes to disk, where keys outlive their pairs: who gets its files and the secret reads`,
    )
    print(`      recordings of calls. Set appendonly no and save "" there.`)
  }
  const policy = settings.get('maxmemory-policy')
  if (settings.get('maxmemory') !== '0' && policy !== 'noeviction') {
    print(
      `--    ${where} drops pairs when its memory is full (maxmemory-policy ${policy}), and calls fail then.`,
    )
    print('      Set maxmemory-policy noeviction there.')
  }
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?]$/.test(text) ? '' : '.'}`
}

async function checkUpstream(config: Config, print: (line: string) => void): Promise<boolean> {
  const { upstream, connectTimeoutMs, responseTimeoutMs, maxHeaderBytes: headBytesMax, ca } = config
  if (upstream === undefined) {
    print('--    UPSTREAM is not set: this sidecar is for outbound calls only.')
    return true
  }
  const client = new Http1Client(new URL(upstream), {
    connectTimeoutMs,
    responseTimeoutMs,
    headBytesMax,
    ...(ca ? { ca } : {}),
  })
  const attempt = new Attempt()
  try {
    const head = { method: 'HEAD', scheme: 'http', authority: '', path: '/', fields: [] }
    const answer = await client.send({ head, body: NO_BODY }, attempt)
    attempt.abandon(new SidecarError('caller-gone', 'That it answers is all that matters.'))
    print(`ok    The app at ${upstream} answers (status ${answer.head.status} to HEAD /).`)
    return true
  } catch (error) {
    if (!(error instanceof SendError)) throw error
    print(`FAIL  The app at ${upstream} does not answer: ${error.message}.`)
    print('      Is it running, and does UPSTREAM hold its address and port?')
    return false
  } finally {
    client.close()
  }
}

/** What is wrong is printed. */
const SILENT: Logger = { error() {}, warn() {}, info() {}, debug() {} }
