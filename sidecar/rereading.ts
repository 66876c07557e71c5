/** What is read again while the sidecar runs: PEERS_FILE, and the files that hold secrets. */
import { isDeepStrictEqual } from 'node:util'
import { type Config, ConfigError, type SecretFiles, type Secrets } from './config.ts'
import { attempt, FORMATS, Mistake } from './formats.ts'
import type { Logger } from './log.ts'
import type { OutboundToken } from './outbound-token.ts'
import type { Identity } from './pair/handshake.ts'
import type { Pairs } from './pair/pairs.ts'
import { meshSecrets } from './pairing.ts'
import type { RedisConnection } from './redis/connection.ts'
import type { Routes } from './routes.ts'
import { watchFiles } from './watch-files.ts'

/** Has the peers of the file count: before it returns, and whenever they change. A mistake is logged, and changes nothing. */
export function watchPeersFile(
  path: string,
  routes: Pick<Routes, 'setFilePeers'>,
  log: Logger,
): { close(): void } {
  return watchFiles([path], () => {
    const read = attempt(() => FORMATS.peersFile(path).peers)
    return () => {
      const set = read instanceof Mistake ? read : attempt(() => routes.setFilePeers(read))
      if (set instanceof Mistake) log.warn(`PEERS_FILE ${set.message}; the peers stay as they were`)
      else log.info({ peers: (read as unknown[]).length }, 'PEERS_FILE was read')
    }
  })
}

/** Those who use secrets. */
export interface SecretUsers {
  token: OutboundToken
  pairs: Pairs
  /** undefined: pairs are kept in memory */
  redis: RedisConnection | undefined
  /** told that those of pairs have changed: what was opened with others is to end */
  onPairSecrets(): void
}

/**
 * Has the secrets of the files count whenever they change: all that changed together at once, or, with a mistake in any
 * of them, none. Logs which variables changed, or what the mistake is.
 */
export function watchSecrets(
  files: SecretFiles,
  config: Pick<Config, 'name' | keyof Secrets>,
  identity: Identity,
  { token, pairs, redis, onPairSecrets }: SecretUsers,
  log: Logger,
): { close(): void } {
  let current: Secrets = config
  let { secrets: mesh } = identity
  const change = async (secrets: Secrets) => {
    const changed = changedNames(current, secrets)
    if (changed.length === 0) return
    mesh = await meshSecrets(secrets.clientIdSecrets, config.name, mesh)
    token.set(secrets.outboundTokens)
    pairs.setSecrets(mesh)
    onPairSecrets()
    current = secrets
    log.info({ changed }, 'secrets have changed')
    if (changed.includes('REDIS_URL') && !redis?.logInAs(secrets.redis!))
      log.warn(
        'REDIS_URL says more than another user or password, or is that of a cluster: restart the sidecar',
      )
  }
  return watchFiles(files.paths, () => {
    const read = secretsOf(files)
    return async () => {
      if (!(read instanceof ConfigError)) return change(read)
      for (const mistake of read.mistakes) log.warn(`${mistake}; all secrets stay as they were`)
    }
  })
}

function secretsOf(files: SecretFiles): Secrets | ConfigError {
  try {
    return files.read()
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
}

function changedNames(before: Secrets, after: Secrets): string[] {
  const named = ({ clientIdSecrets, outboundTokens, redis }: Secrets) => ({
    CLIENT_ID_SECRET: clientIdSecrets[0],
    CLIENT_ID_SECRET_PREVIOUS: clientIdSecrets[1],
    OUTBOUND_TOKEN: outboundTokens[0],
    OUTBOUND_TOKEN_PREVIOUS: outboundTokens[1],
    REDIS_URL: redis,
  })
  const old = named(before)
  return Object.entries(named(after)).flatMap(([name, value]) =>
    isDeepStrictEqual(value, old[name as keyof typeof old]) ? [] : [name],
  )
}
