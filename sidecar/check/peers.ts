/** Do the peers pair with us, with the current secret, at about our time, and are they others than we? */
import { randomBytes } from 'node:crypto'
import { Attempt, NO_BODY } from '../call.ts'
import type { Config } from '../config.ts'
import { asSidecarError, type ErrorCode } from '../errors.ts'
import { readAtMost } from '../http/body-limits.ts'
import { PeerClient } from '../http/peer-client.ts'
import { CLOCK_SKEW_MAX_MS } from '../pair/handshake.ts'
import { PairingError } from '../pair/initiating.ts'
import { MemoryStore } from '../pair/memory-store.ts'
import type { Pairs } from '../pair/pairs.ts'
import type { RejectName } from '../pair/reject.ts'
import { createPairs, identityOf, pairingProblem } from '../pairing.ts'
import { printable } from '../printable.ts'
import { certificateAdvice } from './certificate-advice.ts'
import { type Finding, fail, note, ok, warn } from './finding.ts'
import { placeOf, portOf } from './places.ts'

const CLOCK_WARNING_MS = CLOCK_SKEW_MAX_MS / 10
const ECHO_BYTES_MAX = 4096

/** What to do about an error that a peer's pairing made. */
const ADVICE: Partial<Record<ErrorCode, string>> = {
  'peer-unreachable':
    "Is the peer's sidecar running, and is this the address and PORT of it that can be reached from here?",
  'not-a-relay':
    "The URL must be that of the peer's sidecar (its PORT), not of its app or of something in between that answers itself.",
  'secret-mismatch':
    'Give both sidecars the same CLIENT_ID_SECRET, to the last character; restart the one whose variable you change.',
  'pairing-refused': "Run the same version on both sides; the log of the peer's sidecar says more.",
}

/** What to do about a reject that says more than its error. */
const ADVICE_ON_REJECT: Partial<Record<RejectName, string>> = {
  clock_skew: 'Set the clocks of both machines, and of all replicas behind this URL: by NTP, for example.',
  rate_limited:
    'Try again in a minute: too many pairings came there at once, all by this NAME or by all peers.',
}

/** What the pairings of a check share. */
interface Prober {
  config: Config
  client: PeerClient
  /** by each secret alone, the current one first */
  pairs: Pairs[]
}

/** @param urls peers' sidecars to pair with besides those of the configuration */
export async function checkPeers(config: Config, urls: readonly string[]): Promise<Finding[]> {
  const peers = [...config.peers, ...(config.peersFile?.peers ?? [])].map((peer) => peer.url)
  const patterns = peers.filter((url) => /[{}]/.test(url))
  const named = new Set([...peers.filter((url) => !patterns.includes(url)), ...urls])
  if (named.size === 0 && patterns.length === 0) {
    return [
      note('PEERS names no peer: calls need x-mte-upstream, or this sidecar is for inbound calls only.'),
    ]
  }
  const prober = await proberOf(config)
  const found = await Promise.all([...named].map((url) => checkPeer(prober, url)))
  prober.client.close()
  const open = patterns.map((url) =>
    note(`PEERS has ${url}, which stands for many: name one of them, mte-sidecar check http://host:port`),
  )
  return [...found.flat(), ...open]
}

async function proberOf(config: Config): Promise<Prober> {
  const { name, connectTimeoutMs, responseTimeoutMs, maxHeaderBytes: headBytesMax, ca } = config
  const client = new PeerClient({ connectTimeoutMs, responseTimeoutMs, headBytesMax, ...(ca ? { ca } : {}) })
  const clockMs = () => performance.now()
  const pairs = await Promise.all(
    config.clientIdSecrets.map(async (secret) =>
      createPairs({
        identity: await identityOf({ name, clientIdSecrets: [secret] }),
        // Not in Redis: a sidecar that runs beside this keeps its own.
        store: new MemoryStore(clockMs),
        client,
        responseTimeoutMs,
        clockMs,
      }),
    ),
  )
  return { config, client, pairs }
}

async function checkPeer({ config, client, pairs }: Prober, url: string): Promise<Finding[]> {
  let refusal: unknown
  for (const [i, one] of pairs.entries()) {
    try {
      const { peer } = await one.begin(url)
      const paired = ok(`The peer at ${url} has paired with us; it is called ${printable(peer)}.`)
      return [
        paired,
        ...(i === 0 ? [] : [onlyPrevious(url)]),
        ...checkClock(url, await clockAheadMs(client, url)),
        ...(peer === config.name ? [comesBack(url, peer)] : []),
      ]
    } catch (error) {
      refusal = error
      if (!(error instanceof PairingError && error.reason === 'secret-mismatch')) break
    }
  }
  return [await failure(refusal, url, { config, client })]
}

async function failure(
  error: unknown,
  url: string,
  { config, client }: Omit<Prober, 'pairs'>,
): Promise<Finding> {
  const { code, message } = asSidecarError(pairingProblem(error, url))
  const reject = error instanceof PairingError ? error.reject : undefined
  if (code === 'secret-mismatch' && config.clientIdSecrets.length > 1) {
    return fail(
      `${url}: The peer knows neither our CLIENT_ID_SECRET nor our CLIENT_ID_SECRET_PREVIOUS: one must be its own.`,
      ADVICE[code],
    )
  }
  if (code === 'peer-unreachable' && (await isOurPort(url, config))) {
    return fail(message, 'That is the PORT of this sidecar: PEERS must name the one of the other app.')
  }
  const certificate = certificateAdvice(error)
  if (certificate !== undefined) return fail(message, certificate)
  const aheadMs = reject === 'clock_skew' ? await clockAheadMs(client, url) : undefined
  const clocks = aheadMs === undefined ? '' : ` Its clock is ${inWords(aheadMs)} ours.`
  return fail(message + clocks, (reject && ADVICE_ON_REJECT[reject]) ?? ADVICE[code])
}

function onlyPrevious(url: string): Finding {
  return warn(
    `The peer at ${url} does not know our CLIENT_ID_SECRET, but CLIENT_ID_SECRET_PREVIOUS only: without that no pair could be made.`,
    'Both must have the new one as CLIENT_ID_SECRET before CLIENT_ID_SECRET_PREVIOUS goes on either side.',
  )
}

function checkClock(url: string, aheadMs: number | undefined): Finding[] {
  if (aheadMs === undefined || Math.abs(aheadMs) < CLOCK_WARNING_MS) return []
  return [
    warn(
      `The clock of the peer at ${url} is ${inWords(aheadMs)} ours: beyond ${CLOCK_SKEW_MAX_MS / 1000} s it refuses to pair at first, and traces do not fit together.`,
      'Set the clocks of both machines: by NTP, for example.',
    ),
  ]
}

/**
 * What a peer's clock is ahead of ours at least, in ms: by how much more nobody knows, as its answer takes a while.
 * @returns undefined when no sidecar says what time it is
 */
async function clockAheadMs(client: PeerClient, url: string): Promise<number | undefined> {
  const mark = randomBytes(8).toString('hex')
  const head = { method: 'GET', scheme: 'http', authority: '', path: `/api/mte-echo?msg=${mark}`, fields: [] }
  const askedMs = Date.now()
  try {
    const { body } = await client.send(url, { head, body: NO_BODY }, new Attempt())
    const { message, timestamp } = JSON.parse(String(await readAtMost(body, ECHO_BYTES_MAX)))
    const theirsMs = Date.parse(timestamp)
    // Something in between may keep answers.
    if (message !== mark || Number.isNaN(theirsMs)) return undefined
    return Math.max(theirsMs - Date.now(), 0) || Math.min(theirsMs - askedMs, 0)
  } catch {
    return undefined
  }
}

function inWords(aheadMs: number): string {
  return `${Math.round(Math.abs(aheadMs) / 1000)} s ${aheadMs < 0 ? 'behind' : 'ahead of'}`
}

function comesBack(url: string, peer: string): Finding {
  return warn(
    `The peer at ${url} is this sidecar or a replica of it, as it is called ${printable(peer)} too: calls to it come back to our own app.`,
    'PEERS must name the sidecar of the other app; if this is it, give each a NAME of its own.',
  )
}

/** Would a sidecar of this configuration be there? */
async function isOurPort(url: string, { port }: Config): Promise<boolean> {
  const parsed = new URL(url)
  if (portOf(parsed) !== port) return false
  const place = await placeOf(parsed.hostname)
  return place === 'loopback' || place === 'here'
}
