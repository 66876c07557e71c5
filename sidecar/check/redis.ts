/** Does Redis do what it is asked, and is it a good place for pairs? */
import type { Config } from '../config.ts'
import type { Logger } from '../log.ts'
import { StoreUnavailableError } from '../pair/store.ts'
import { printable } from '../printable.ts'
import { RedisConnection } from '../redis/connection.ts'
import { describe, type RedisAddress } from '../redis/redis-url.ts'
import { PROBE } from '../redis/script.ts'
import { type Finding, fail, ok, warn } from './finding.ts'
import { placeOf } from './places.ts'

/** Longer than a connection to a cluster or through sentinels takes, in ms. */
const PATIENCE_MS = 3000
const MAJOR_VERSION_MIN = 7

export async function checkRedis({ redis: address, ca }: Config): Promise<Finding[]> {
  if (!address) return []
  const where = `Redis at ${describe(address)}`
  const clockMs = () => performance.now()
  const connection = new RedisConnection({ address, ca, log: SILENT, clockMs })
  try {
    await connection.ready(PATIENCE_MS)
    const version = (await connection.info())?.get('redis_version') ?? ''
    if (Number.parseInt(version, 10) < MAJOR_VERSION_MIN) {
      return [
        fail(`${where} is version ${printable(version)}, which is too old.`, 'It must be Redis 7 or Valkey.'),
      ]
    }
    await connection.run(PROBE, [], [])
    return [
      ok(`${where} answers.`),
      ...(await checkWay(where, address)),
      ...(await checkHabits(where, connection)),
    ]
  } catch (error) {
    if (!(error instanceof StoreUnavailableError)) throw error
    const [reason = '', ...advice] = printable(error.message).split('; ')
    return [fail(sentence(reason), sentence(advice.join('; ')))]
  } finally {
    connection.close()
  }
}

/** Who else may come to it, or listen on the way? Whoever is on this machine needs neither. */
async function checkWay(where: string, { nodes, password, tls }: RedisAddress): Promise<Finding[]> {
  const places = await Promise.all(nodes.map(({ host }) => placeOf(host)))
  if (!places.includes('elsewhere')) return []
  const found: Finding[] = []
  if (password === undefined) {
    found.push(
      warn(
        `${where} asks for no password: whoever reaches it can delete pairs, and the marks that keep messages from running twice.`,
        'Set requirepass there, or a user of its own (ACL), and put it into REDIS_URL: redis://:password@host.',
      ),
    )
  }
  if (!tls) {
    found.push(
      warn(
        `${where} is on another host, and is spoken to without TLS: whoever is on the way can change what it keeps${password === undefined ? '' : ', and reads the password'}.`,
        'Let it listen with TLS, and write rediss:// in REDIS_URL; CA_FILE names the authority of its certificate.',
      ),
    )
  }
  return found
}

/** What it is configured to, as far as this user may ask. */
async function checkHabits(where: string, connection: RedisConnection): Promise<Finding[]> {
  const settings = await connection.settings(
    'appendonly',
    'save',
    'maxmemory',
    'maxmemory-policy',
    'min-replicas-to-write',
  )
  if (!settings) return []
  const found: Finding[] = []
  if (settings.get('appendonly') === 'yes' || settings.get('save') !== '') {
    found.push(
      warn(
        `${where} writes to disk, where keys outlive their pairs: who gets its files and the secret reads recordings of calls.`,
        'Set appendonly no and save "" there.',
      ),
    )
  }
  const policy = settings.get('maxmemory-policy')
  if (settings.get('maxmemory') !== '0' && policy !== 'noeviction') {
    found.push(
      warn(
        `${where} drops pairs when its memory is full (maxmemory-policy ${policy}), and calls fail then.`,
        'Set maxmemory-policy noeviction there.',
      ),
    )
  }
  const replicas = (await connection.info())?.get('connected_slaves') ?? '0'
  if (replicas !== '0' && settings.get('min-replicas-to-write') === '0') {
    found.push(
      warn(
        `${where} takes writes when it is cut off from its replicas, and those marks are lost once one of them is promoted.`,
        'Set min-replicas-to-write 1 there.',
      ),
    )
  }
  return found
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?]$/.test(text) ? '' : '.'}`
}

/** What is wrong is printed. */
const SILENT: Logger = { error() {}, warn() {}, info() {}, debug() {} }
