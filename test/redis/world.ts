/** Processes that share pairs in a real Redis, in which time passes as the test likes. */
import { Redis } from 'ioredis'
import type { MeshSecret } from '../../sidecar/pair/secrets.ts'
import type { RedisStore } from '../../sidecar/redis/redis-store.ts'
import { type LogLine, openStore } from './open-store.ts'

const SKEW = 'test:skew'
const TIME = "redis.call('TIME')"
/** What the server's clock says, and the time that the test let pass. */
const SKEWED_TIME = `(function()
  local time = ${TIME}
  local micros = time[1] * 1000000 + time[2] + tonumber(redis.call('GET', '${SKEW}') or 0) * 1000
  return {math.floor(micros / 1000000), micros % 1000000}
end)()`

const { defineCommand } = Redis.prototype
Redis.prototype.defineCommand = function (name, definition) {
  return defineCommand.call(this, name, { ...definition, lua: definition.lua.replace(TIME, SKEWED_TIME) })
}

/** One Redis, and what shares it. */
export class RedisWorld {
  readonly url: string
  readonly redis: Redis
  readonly #opened: ReturnType<typeof openStore>[] = []
  #skewMs = 0

  private constructor(url: string) {
    this.url = url
    this.redis = new Redis(url)
  }

  /** Empties the database of this URL. */
  static async create(url: string): Promise<RedisWorld> {
    const world = new RedisWorld(url)
    await world.redis.flushall()
    return world
  }

  readonly clockMs = (): number => performance.now() + this.#skewMs

  /** The store as one process has it. */
  readonly open = (secrets?: readonly MeshSecret[]): RedisStore => {
    const opened = openStore(this.url, undefined, { clockMs: this.clockMs, ...(secrets ? { secrets } : {}) })
    this.#opened.push(opened)
    return opened.store
  }

  /** What all of them have logged. */
  get lines(): LogLine[] {
    return this.#opened.flatMap(({ lines }) => lines)
  }

  readonly advance = async (ms: number): Promise<void> => {
    this.#skewMs += ms
    await this.redis.incrbyfloat(SKEW, ms)
  }

  /** All keys but the test's own. */
  async keys(): Promise<string[]> {
    return (await this.redis.keys('*')).filter((key) => key !== SKEW).sort()
  }

  /** Resolves when there is no key with this part any more. */
  async gone(part: string): Promise<void> {
    while ((await this.keys()).some((key) => key.includes(part)));
  }

  async close(): Promise<void> {
    for (const { close } of this.#opened) await close()
    this.redis.disconnect()
  }
}
