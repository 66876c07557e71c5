/** How tunnels are opened: as one long request to a peer, and as the answer to one. */
import { type Answer, Attempt, type Body, type Fields, type Request } from '../call.ts'
import { SidecarError } from '../errors.ts'
import { readAtMost } from '../http/body-limits.ts'
import { outerHead, TUNNEL_PATH } from '../outer.ts'
import type { Pairs } from '../pair/pairs.ts'
import type { RejectName } from '../pair/reject.ts'
import { ANSWER_BYTES, isTunnelAnswer, sealOpening, tunnelSecrets } from '../pair/tunnel-keys.ts'
import { type InitiatorOptions, InitiatorTunnel } from './initiator.ts'
import type { Tunnel } from './tunnel.ts'

/** From the first byte that is sent until the other end is ready, in ms. */
const READY_WITHIN_MS = 2_000
/** Longer than any reject record. */
const RECORD_BYTES_MAX = 1024
/** So many openings are tried anew, at once, where a reject says that this may help. */
const TRIES_MAX = 3
const HEAD = outerHead(TUNNEL_PATH)

/** No tunnel could be opened. */
export class OpeningError extends Error {
  /** the reject that the peer gave, where it gave one that is its own */
  readonly reject: RejectName | undefined

  constructor(message: string, reject?: RejectName) {
    super(message)
    this.name = 'OpeningError'
    this.reject = reject
  }
}

export interface OpeningOptions {
  pairs: Pairs
  random(length: number): Buffer
  /** Sends a request to a peer over a connection of its own; `onLeave`: the other end wants no more calls on it. */
  send(url: string, request: Request, caller: Attempt, onLeave: () => void): Promise<Answer>
  tunnel: Omit<
    InitiatorOptions,
    'secrets' | 'peer' | 'socket' | 'isWanted' | 'onReady' | 'onRetired' | 'onClosed'
  >
}

/** Told of what becomes of a tunnel. */
export type TunnelEvents = Pick<InitiatorOptions, 'onRetired' | 'onClosed'>

/**
 * Opens a tunnel to a peer, until its other end has shown that it has the keys.
 * @param url base URL of the peer's sidecar
 * @throws OpeningError, or what `pairs.begin` or `send` throws
 */
export async function openTunnel(
  url: string,
  options: OpeningOptions,
  events: TunnelEvents,
): Promise<InitiatorTunnel> {
  for (let tries = 1; ; tries++) {
    try {
      return await open(url, options, events)
    } catch (error) {
      if (!(error instanceof OpeningError) || !mayHelp(error.reject) || tries === TRIES_MAX) throw error
    }
  }
}

function mayHelp(reject: RejectName | undefined): boolean {
  switch (reject) {
    case 'unknown_pair':
    case 'state_lost':
    case 'block_out_of_reach':
    case 'replayed':
    case 'decrypt_failed':
    case 'state_unavailable':
      return true
    default:
      return false
  }
}

async function open(url: string, options: OpeningOptions, events: TunnelEvents): Promise<InitiatorTunnel> {
  const { pairs, random, send } = options
  const message = await pairs.begin(url)
  const opening = sealOpening(message, random(12))
  const attempt = new Attempt()
  const late = new OpeningError(`No tunnel was ready within ${READY_WITHIN_MS / 1000} s.`)
  const timer = setTimeout(
    () => attempt.abandon(new SidecarError('peer-unreachable', late.message)),
    READY_WITHIN_MS,
  )
  const made = Promise.withResolvers<InitiatorTunnel>()
  made.promise.catch(() => {})
  let tunnel: InitiatorTunnel | undefined
  try {
    const request = { head: HEAD, body: new OutgoingRecords(opening, made.promise) }
    const answer = await send(url, request, attempt, () => tunnel?.retire())
    if (answer.head.status !== 200) throw await refused(url, answer, options, opening, message.pairId)
    const ready = Promise.withResolvers<void>()
    const { source, start, rest } = await readStart(answer.body, ANSWER_BYTES)
    if (!start || !isTunnelAnswer(start)) throw new OpeningError('What answered is no tunnel of a sidecar.')
    const secrets = tunnelSecrets(message, opening, start)
    message.forgetKeys()
    tunnel = new InitiatorTunnel({
      ...options.tunnel,
      secrets: { out: secrets.outbound, in: secrets.inbound },
      peer: message.peer,
      socket: answer.socket,
      isWanted: () => pairs.isUsedFor(url, message.mesh),
      onRetired: events.onRetired,
      onReady: ready.resolve,
      onClosed(broke) {
        ready.reject(new OpeningError('The tunnel broke before it was ready.'))
        attempt.abandon(new SidecarError('caller-gone', 'The tunnel is over.'))
        events.onClosed(broke)
      },
    })
    made.resolve(tunnel)
    follow(source, rest, tunnel)
    await ready.promise
    return tunnel
  } catch (error) {
    made.reject(error)
    const failure = attempt.abandoned ? late : error
    attempt.abandon(new SidecarError('caller-gone', 'The tunnel is not wanted.'))
    throw failure
  } finally {
    clearTimeout(timer)
  }
}

async function refused(
  url: string,
  { head, body }: Answer,
  { pairs }: OpeningOptions,
  opening: Buffer,
  pairId: Buffer,
): Promise<OpeningError> {
  const record = await readAtMost(body, RECORD_BYTES_MAX).catch(() => NOTHING)
  const reject = pairs.readReject(record, opening, 'message')
  if (!reject) return new OpeningError(`Something that is no sidecar answered with status ${head.status}.`)
  if (reject.name === 'unknown_pair' || reject.name === 'state_lost' || reject.name === 'block_out_of_reach')
    await pairs.lost(url, pairId)
  return new OpeningError(`The peer's sidecar refused the tunnel: ${reject.name}.`, reject.name)
}

/** Hands a tunnel what comes in, until either is over. */
export async function follow(source: Body, start: Buffer, tunnel: Tunnel): Promise<void> {
  try {
    tunnel.take(start)
    while (!tunnel.isOver) tunnel.take(await source.read())
  } catch (error) {
    tunnel.die(error)
  }
}

/**
 * Reads the first bytes of a body.
 * @returns `start` undefined: there were fewer; `rest` is what came with them
 */
export async function readStart(
  source: Body,
  bytes: number,
): Promise<{ source: Body; start: Buffer | undefined; rest: Buffer }> {
  let read: Buffer = NOTHING
  while (read.length < bytes) {
    const piece = await source.read()
    if (!piece) return { source, start: undefined, rest: read }
    read = read.length === 0 ? piece : Buffer.concat([read, piece])
  }
  return { source, start: read.subarray(0, bytes), rest: read.subarray(bytes) }
}

/** The body of the long request, or of its answer: what opens the tunnel, and then its records. */
export class OutgoingRecords implements Body {
  readonly trailers: Fields = []
  #start: Buffer | undefined
  readonly #tunnel: Promise<Tunnel>

  /** @param start goes before the records */
  constructor(start: Buffer, tunnel: Promise<Tunnel>) {
    this.#start = start
    this.#tunnel = tunnel
  }

  async read(): Promise<Buffer | undefined> {
    const start = this.#start
    this.#start = undefined
    return start ?? (await this.#tunnel).records.read()
  }

  whole(): undefined {}
}

const NOTHING = Buffer.alloc(0)
