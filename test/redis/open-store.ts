import type { Logger } from '../../sidecar/log.ts'
import type { MeshSecret } from '../../sidecar/pair/secrets.ts'
import { RedisConnection } from '../../sidecar/redis/connection.ts'
import { RedisStore } from '../../sidecar/redis/redis-store.ts'
import { parseRedisUrl } from '../../sidecar/redis/redis-url.ts'
import { identity } from '../pair/vectors.ts'

const { secrets: ownSecrets } = await identity('payments')

export interface LogLine {
  level: string
  fields: unknown
  message: string
}

/** A store with a connection of its own. Times that a test lets pass are no matter of the connection. */
export function openStore(
  url: string,
  ca?: readonly string[],
  rest: { secrets?: readonly MeshSecret[]; clockMs?: () => number } = {},
): { store: RedisStore; lines: LogLine[]; close(): Promise<void> } {
  const lines: LogLine[] = []
  const write = (level: string) => (fields: unknown, message?: string) => {
    lines.push({ level, fields, message: message ?? '' })
  }
  const log: Logger = {
    error: write('error'),
    warn: write('warn'),
    info: write('info'),
    debug: write('debug'),
  }
  const clockMs = () => performance.now()
  const connection = new RedisConnection({ address: parseRedisUrl(url), ca, log, clockMs })
  const { secrets = ownSecrets, ...options } = rest
  const store = new RedisStore({ connection, log, clockMs, ...options })
  store.setSecrets(secrets)
  return { store, lines, close: () => store.close() }
}
