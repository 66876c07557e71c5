/** The connection to Redis: fails fast while it is away, comes back by itself, and says what is wrong with it. */
import { isDeepStrictEqual } from 'node:util'
import { Cluster, type ClusterOptions, Redis, type RedisOptions } from 'ioredis'
import type { Logger } from '../log.ts'
import { StoreUnavailableError } from '../pair/store.ts'
import { trusting } from '../trust.ts'
import { describe, type RedisAddress } from './redis-url.ts'
import type { Script } from './script.ts'

/**
 * How long is waited for Redis to come back, and for an answer of it, in ms. A call that finds it away is sent again
 * twice, 50 and 500 ms later: with this it still fails within a second.
 */
const PATIENCE_MS = 400
/** A connection on which an answer is missing for so long is given up, in ms. */
const SILENCE_MS = 800
const CONNECT_TIMEOUT_MS = 800
/** Between two attempts to connect; drawn from the upper half of it, so that a fleet does not come back at once. */
const RECONNECT_MS_MAX = 1000
const RECONNECT_MS_MIN = 50
/** Between two attempts to find a sentinel that answers. */
const SENTINELS_AGAIN_MS = 250
/** The same complaint is logged so often, in ms. */
const LOGGED_AGAIN_MS = 60_000
const LOGGED_MAX = 100

export interface ConnectionOptions {
  address: RedisAddress
  /** PEM certificates that are trusted besides those of the system and of Node */
  ca: readonly string[] | undefined
  log: Logger
  /** monotonic */
  clockMs(): number
}

/** A script's answer: no script gives anything else. */
export type Reply = string | number | null | Reply[]

/** With it Redis does not even begin a script when its memory is full, or on a replica. */
const SHEBANG = '#!lua\n'

type Run = (keys: number, ...rest: (string | number)[]) => Promise<Reply>

/** One connection, or one to each node of a cluster. */
export class RedisConnection {
  readonly #redis: Redis | Cluster
  #address: RedisAddress
  readonly #name: string
  readonly #log: Logger
  readonly #clockMs: () => number
  /** since when there has been no connection that answers; undefined while there is one */
  #awaySinceMs: number | undefined
  #why: string
  /** connections that were lost, or not made, since the last answer */
  #failures = 0
  /** why Redis refused the last script, if it did */
  #refusal: string | undefined
  readonly #waiting = new Set<() => void>()
  readonly #logged = new Map<string, number>()
  #complained = false
  #wrongDatabase = false
  #closed = false

  constructor({ address, ca, log, clockMs }: ConnectionOptions) {
    this.#address = address
    this.#name = describe(address)
    this.#why =
      address.kind === 'cluster' ? 'none of its nodes says cluster_state:ok' : 'it has not answered yet'
    this.#log = log
    this.#clockMs = clockMs
    this.#awaySinceMs = clockMs()
    // Not by how often it tried to connect, which begins anew with every connection, whether it is of use or not.
    this.#redis = connect(address, ca, () => reconnectDelayMs(this.#failures++))
    this.#redis.on('error', (error: Error & { lastNodeError?: Error }) => {
      if (this.#closed) return
      this.#complain((error.lastNodeError ?? error).message)
      if (error.message.includes('DB index')) this.#wrongDatabase = true
    })
    this.#redis.on('connect', () => {
      this.#wrongDatabase = false
    })
    this.#redis.on('close', () => {
      this.#awaySinceMs ??= this.#clockMs()
    })
    // The client gives up for good when it is told to reconnect while it asks sentinels.
    this.#redis.on('end', () => {
      if (!this.#closed) setTimeout(() => this.#redis.connect().catch(() => {}), RECONNECT_MS_MAX).unref()
    })
    this.#redis.on('ready', () => {
      // The client would go on with another one.
      if (this.#wrongDatabase) this.#redis.disconnect(true)
      else this.#found()
    })
  }

  /** Why Redis does not do what it is asked, and what to do about that; undefined when it does. */
  trouble(): string | undefined {
    if (this.#awaySinceMs !== undefined) return this.#told(this.#why)
    return this.#refusal && this.#told(this.#refusal)
  }

  /**
   * Runs a script.
   * @throws StoreUnavailableError when it could not be run, or when its answer did not come in time: it may have run
   */
  async run(
    { name, lua }: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<Reply> {
    if (this.#awaySinceMs !== undefined) await this.#back(this.#awaySinceMs + PATIENCE_MS)
    try {
      const commands = this.#redis as unknown as Record<string, Run | undefined>
      if (!commands[name]) this.#redis.defineCommand(name, { lua: `${SHEBANG}${lua}` })
      const reply = await this.#inTime(commands[name]!(keys.length, ...keys, ...args))
      this.#failures = 0
      if (this.#refusal !== undefined) {
        this.#refusal = undefined
        this.#found()
      }
      return reply
    } catch (error) {
      if (error instanceof StoreUnavailableError) throw error
      // An error of the client holds the command, with all that was to be kept.
      const { message } = error as Error
      if (isRefusal(message)) {
        this.#refusal = message
        this.#complain(message)
        // Its address may lead to the new primary by now.
        if (message.startsWith('READONLY')) this.#giveUp(this.#clockMs())
      }
      throw new StoreUnavailableError(this.#told(isOfClient(message) ? this.#why : message))
    }
  }

  /**
   * What the server is configured to, by name; a cluster's is that of one of its nodes.
   * @returns undefined when this user may not ask that
   * @throws StoreUnavailableError
   */
  async settings(...names: string[]): Promise<Map<string, string> | undefined> {
    const flat = (await this.#asked('CONFIG', 'GET', ...names)) as string[] | undefined
    return flat && new Map(names.map((name) => [name, flat[flat.indexOf(name) + 1] ?? '']))
  }

  /**
   * What the server says of itself, by name as INFO gives it; a cluster's is that of one of its nodes.
   * @returns undefined when this user may not ask that
   * @throws StoreUnavailableError
   */
  async info(): Promise<Map<string, string> | undefined> {
    const text = (await this.#asked('INFO')) as string | undefined
    const lines = text?.split('\r\n').map((line) => line.split(':', 2) as [string, string])
    return lines && new Map(lines)
  }

  /** Resolves once Redis answers; @returns whether it does within so many ms. */
  async ready(withinMs: number): Promise<boolean> {
    try {
      if (this.#awaySinceMs !== undefined) await this.#back(this.#clockMs() + withinMs)
      return true
    } catch {
      return false
    }
  }

  /**
   * Logs in as another user, or with another password, from the next connection on.
   * @returns false where that takes a new process: the address differs in more than that, or is of a cluster
   */
  logInAs(address: RedisAddress): boolean {
    if (this.#redis instanceof Cluster || !isDeepStrictEqual(placeOf(address), placeOf(this.#address)))
      return false
    this.#address = address
    const nobody = { username: undefined, password: undefined, sentinelPassword: undefined }
    Object.assign(this.#redis.options, nobody, loginOf(address))
    return true
  }

  close(): void {
    this.#closed = true
    for (const wake of this.#waiting) wake()
    this.#redis.disconnect()
  }

  /** Asks the server; undefined when it refuses to tell. */
  async #asked(command: string, ...args: string[]): Promise<Reply | undefined> {
    if (this.#awaySinceMs !== undefined) await this.#back(this.#awaySinceMs + PATIENCE_MS)
    try {
      return await this.#inTime(this.#redis.call(command, ...args) as Promise<Reply>)
    } catch (error) {
      if (error instanceof StoreUnavailableError) throw error
      return undefined
    }
  }

  /** Resolves when Redis is back, and fails when that is not so by then. */
  async #back(untilMs: number): Promise<void> {
    const remainingMs = untilMs - this.#clockMs()
    if (remainingMs > 0) {
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer)
          this.#waiting.delete(wake)
          resolve()
        }
        const timer = setTimeout(wake, remainingMs)
        this.#waiting.add(wake)
      })
    }
    if (this.#awaySinceMs !== undefined) throw new StoreUnavailableError(this.#told(this.#why))
  }

  #inTime(answer: Promise<Reply>): Promise<Reply> {
    const startedMs = this.#clockMs()
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        // The answer may be there, and this process be the one that is late: what has arrived is read first.
        setImmediate(() => setImmediate(giveUp))
      }, PATIENCE_MS)
      let answered = false
      const giveUp = () => {
        if (answered) return
        this.#why = `no answer within ${PATIENCE_MS} ms`
        this.#giveUp(startedMs)
        reject(new StoreUnavailableError(this.#told(this.#why)))
      }
      const over = () => {
        answered = true
        clearTimeout(timer)
      }
      answer.finally(over).then(resolve, reject)
    })
  }

  /** Leaves the connection for a new one. */
  #giveUp(awaySinceMs: number): void {
    if (this.#awaySinceMs !== undefined) return
    this.#awaySinceMs = awaySinceMs
    this.#redis.disconnect(true)
  }

  #found(): void {
    this.#awaySinceMs = undefined
    this.#why = 'the connection broke'
    for (const wake of this.#waiting) wake()
    if (!this.#complained || this.#refusal !== undefined) return
    this.#complained = false
    this.#log.info({ redis: this.#name }, 'Redis is back')
  }

  #complain(why: string): void {
    if (isOfClient(why)) return
    this.#why = why
    const nowMs = this.#clockMs()
    if ((this.#logged.get(why) ?? Number.NEGATIVE_INFINITY) + LOGGED_AGAIN_MS > nowMs) return
    if (this.#logged.size >= LOGGED_MAX) this.#logged.clear()
    this.#logged.set(why, nowMs)
    this.#complained = true
    this.#log.warn(
      { redis: this.#name, reason: why, advice: adviceOn(why) },
      'Redis cannot be used: calls that need it fail',
    )
  }

  #told(why: string): string {
    return `Redis at ${this.#name}: ${why}; ${adviceOn(why)}`
  }
}

/** Lets work go on for which nobody waits. That Redis is away is told by whoever needs it. */
export function unlessAway(work: Promise<unknown>): void {
  work.catch((error) => {
    if (!(error instanceof StoreUnavailableError)) throw error
  })
}

function connect(
  address: RedisAddress,
  ca: readonly string[] | undefined,
  reconnectDelayMs: () => number,
): Redis | Cluster {
  const { kind, nodes, socketPath, primaryName, database } = address
  const tls = address.tls ? { tls: { secureContext: trusting(ca) } } : {}
  const common = {
    ...loginOf(address),
    ...tls,
    connectTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: SILENCE_MS,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    connectionName: 'mte-sidecar',
  } satisfies RedisOptions
  if (kind === 'cluster') {
    const { enableOfflineQueue, ...redisOptions } = common
    return new Cluster([...nodes], {
      enableOfflineQueue,
      clusterRetryStrategy: reconnectDelayMs,
      slotsRefreshTimeout: CONNECT_TIMEOUT_MS,
      // By then the call has failed.
      retryDelayOnClusterDown: 0,
      // The certificates name the hosts, if they name anything.
      ...(address.tls ? { dnsLookup: (host, done) => done(null, host) } : {}),
      redisOptions,
    } satisfies ClusterOptions)
  }
  const single = { ...common, db: database, retryStrategy: reconnectDelayMs }
  if (kind === 'sentinel') {
    return new Redis({
      ...single,
      sentinels: [...nodes],
      name: primaryName!,
      sentinelRetryStrategy: () => SENTINELS_AGAIN_MS,
      sentinelCommandTimeout: SILENCE_MS,
      ...(tls.tls ? { enableTLSForSentinelMode: true, sentinelTLS: tls.tls } : {}),
    })
  }
  return new Redis({ ...single, ...(socketPath === undefined ? nodes[0]! : { path: socketPath }) })
}

function loginOf({
  kind,
  username,
  password,
}: RedisAddress): Pick<RedisOptions, 'username' | 'password' | 'sentinelPassword'> {
  if (password === undefined) return {}
  if (username !== undefined) return { username, password }
  // A password alone is often that of the sentinels too, and those without one take any.
  return kind === 'sentinel' ? { password, sentinelPassword: password } : { password }
}

/** All that an address says but who logs in. */
function placeOf({
  username,
  password,
  ...place
}: RedisAddress): Omit<RedisAddress, 'username' | 'password'> {
  return place
}

function reconnectDelayMs(failures: number): number {
  const most = Math.min(RECONNECT_MS_MIN * 2 ** Math.min(failures, 10), RECONNECT_MS_MAX)
  return most / 2 + (Math.random() * most) / 2
}

/** Does the client only say that it has no connection, and not why? */
function isOfClient(message: string): boolean {
  return /Connection is closed|Stream isn't writeable|max retries per request|Cluster isn't ready/.test(
    message,
  )
}

/** Is it the server that says no? Then the connection is there. */
function isRefusal(message: string): boolean {
  return /^[A-Z]{2,} /.test(message) || message.startsWith('Too many Cluster redirections')
}

const ADVICE: readonly [RegExp, string][] = [
  [/WRONGPASS|NOAUTH|invalid password/, 'REDIS_URL must hold the right user and password'],
  [
    /NOPERM/,
    'allow this user ~mte:* and +eval +evalsha +info +time, hashes, strings, bitmaps and sorted sets',
  ],
  [
    /failed to connect to sentinel|sentinels are unreachable/i,
    'REDIS_URL must name the sentinels, and what they call the primary',
  ],
  [/unknown command/i, 'it must be Redis 7 or Valkey, with scripts (EVAL) and INFO allowed'],
  [/OOM/, 'give Redis more memory (maxmemory), with the policy noeviction'],
  [/READONLY/, 'REDIS_URL must name the primary, not a replica'],
  [/MOVED|CROSSSLOT/, 'this is a cluster: REDIS_URL must begin with redis+cluster://'],
  [/cluster support disabled/i, 'this is no cluster: REDIS_URL must begin with redis://'],
  [/CLUSTERDOWN|cluster_state/, 'are its nodes running, and has each slot a primary? see CLUSTER INFO'],
  [/WRONGTYPE/, 'something else has written to keys that begin with mte: there; delete those keys'],
  [/MISCONF|NOREPLICAS/, 'Redis takes no writes: see its log'],
  [/LOADING|BUSY|MASTERDOWN|TRYAGAIN/, 'Redis is not ready; it should be by itself soon'],
  [/DB index/, 'REDIS_URL names a database that this Redis does not have'],
  [
    /certificate|altname|SSL|TLS|self-signed/i,
    'CA_FILE must hold the authority of its certificate, which must name this host',
  ],
]

function adviceOn(why: string): string {
  const known = ADVICE.find(([pattern]) => pattern.test(why))
  return known ? known[1] : 'is it running, and does REDIS_URL say where?'
}
