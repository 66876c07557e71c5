/** Where Redis is: what a REDIS_URL says, and how it is named without its user and password. */
import { each, hostAndPort, Mistake } from '../formats.ts'

/** Where Redis is, and as whom to log in there. Holds a secret: `describe` is what may be shown of it. */
export interface RedisAddress {
  kind: 'standalone' | 'cluster' | 'sentinel'
  /** the server, some nodes of the cluster, or the sentinels; none with a socket. IPv6 without brackets */
  nodes: readonly Node[]
  /** absolute path of the server's Unix socket */
  socketPath?: string
  /** what the sentinels call the primary; with sentinels only */
  primaryName?: string
  tls: boolean
  /** only beside a password */
  username?: string
  /** never empty */
  password?: string
  /** 0 in a cluster */
  database: number
}

interface Node {
  host: string
  port: number
}

/** A URL in its parts, each as it is written but the scheme. */
interface Parts {
  /** in lower case, with what separates it */
  scheme: string
  /** user and password; undefined: there is no @ */
  login: string | undefined
  hosts: string
  path: string
  query: string | undefined
}

const SCHEMES = new Map<string, Pick<RedisAddress, 'kind' | 'tls'>>([
  ['redis://', { kind: 'standalone', tls: false }],
  ['rediss://', { kind: 'standalone', tls: true }],
  ['redis+cluster://', { kind: 'cluster', tls: false }],
  ['rediss+cluster://', { kind: 'cluster', tls: true }],
  ['redis+sentinel://', { kind: 'sentinel', tls: false }],
  ['rediss+sentinel://', { kind: 'sentinel', tls: true }],
])
const DEFAULT_PORT = 6379
const DEFAULT_SENTINEL_PORT = 26379
const DATABASE_MAX = 65535

/**
 * Reads a URL of one of these forms; in user, password and the path of a socket `%` and two digits stand for a byte:
 *
 *     redis://[user:password@]host[:port][/database]              or :password@ alone
 *     redis+cluster://[user:password@]host[:port],…
 *     redis+sentinel://[user:password@]host[:port],…/primary[/database]
 *     unix:/path[?db=database], or unix://user:password@/path
 *
 * and `rediss` for `redis` with TLS.
 * @throws Mistake without anything taken from the URL but the name of a query parameter
 */
export function parseRedisUrl(text: string): RedisAddress {
  const { scheme, login, hosts, path, query } = partsOf(text)
  const family = SCHEMES.get(scheme)
  if (!family) {
    return {
      kind: 'standalone',
      nodes: [],
      socketPath: socketPath(hosts, path),
      tls: false,
      ...credentials(login),
      database: socketDatabase(query),
    }
  }
  const [parameter] = parametersOf(query)
  if (parameter) {
    throw new Mistake(
      `must not have the query parameter "${parameter[0]}": the scheme says whether there is TLS, the path which database`,
    )
  }
  return { ...family, ...credentials(login), ...SERVERS[family.kind](hosts, path) }
}

/** Names it in the form of its URL, without user and password. */
export function describe({ kind, nodes, socketPath, primaryName, tls, database }: RedisAddress): string {
  if (socketPath !== undefined) {
    const path = socketPath.split('/').map(encodeURIComponent).join('/')
    return `unix:${path}${database === 0 ? '' : `?db=${database}`}`
  }
  const [scheme] = [...SCHEMES].find(([, family]) => family.kind === kind && family.tls === tls)!
  const hosts = nodes.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`).join(',')
  const name = primaryName === undefined ? '' : `/${primaryName}`
  return `${scheme}${hosts}${name}${database === 0 ? '' : `/${database}`}`
}

/** What hosts and path say, by the kind of Redis. */
const SERVERS = {
  standalone(hosts: string, path: string): Pick<RedisAddress, 'nodes' | 'database'> {
    if (hosts.includes(',')) {
      throw new Mistake(
        'must name one host; the nodes of a cluster are redis+cluster://a,b, and sentinels redis+sentinel://a,b/primary',
      )
    }
    return { nodes: [node(hosts, DEFAULT_PORT)], database: database(path.slice(1) || '0') }
  },

  cluster(hosts: string, path: string): Pick<RedisAddress, 'nodes' | 'database'> {
    if (path.length > 1) throw new Mistake('must be without a path: a cluster has one database only')
    return { nodes: each(hosts.split(','), 'entry', (host) => node(host, DEFAULT_PORT)), database: 0 }
  },

  sentinel(hosts: string, path: string): Pick<RedisAddress, 'nodes' | 'primaryName' | 'database'> {
    const [, primaryName = '', digits = '', ...more] = path.split('/')
    // Sentinels take no other names.
    if (!/^[A-Za-z0-9._-]+$/.test(primaryName) || more.length > 0) {
      throw new Mistake(
        "must have the sentinels' name of the primary behind the hosts, of letters, digits, '.', '-' and '_', as in redis+sentinel://a,b/mymaster or, with a database, redis+sentinel://a,b/mymaster/1",
      )
    }
    const nodes = each(hosts.split(','), 'entry', (host) => node(host, DEFAULT_SENTINEL_PORT))
    return { nodes, primaryName, database: database(digits || '0') }
  },
} as const

function partsOf(text: string): Parts {
  if (/[\s\p{Cc}]/u.test(text)) {
    throw new Mistake('must be without space and control characters; a space in a password is %20')
  }
  const scheme = /^[a-z+]+:(?:\/\/)?/i.exec(text)?.[0].toLowerCase() ?? ''
  if (!SCHEMES.has(scheme) && !scheme.startsWith('unix:')) {
    throw new Mistake(
      'must begin with redis://, redis+cluster://, redis+sentinel:// or unix:, or for TLS with rediss://, rediss+cluster:// or rediss+sentinel://',
    )
  }
  const [, authority = '', path = '', query, fragment] =
    /^([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/.exec(text.slice(scheme.length)) ?? []
  const [hosts = '', login, ...more] = authority.split('@').reverse()
  // What follows may be the end of a password that has one of these in it, and so is looked at no further.
  if (more.length > 0 || [path, query, fragment].some((part) => part?.includes('@'))) {
    throw new Mistake(
      'must have the special characters of user and password in the form %40 for @, %2F for /, %3F for ?, %23 for # and %25 for %',
    )
  }
  if (fragment !== undefined) throw new Mistake('must be without #; in a password it is %23')
  return { scheme, login, hosts, path, query }
}

function credentials(login: string | undefined): Pick<RedisAddress, 'username' | 'password'> {
  if (login === undefined) return {}
  const colon = login.indexOf(':')
  const username = decoded(login.slice(0, Math.max(colon, 0)))
  const password = colon < 0 ? '' : decoded(login.slice(colon + 1))
  if (password === '') {
    throw new Mistake(
      'must have a password before the @, as in redis://:password@host or redis://user:password@host',
    )
  }
  return username === '' ? { password } : { username, password }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Mistake('must have % only before two hexadecimal digits of UTF-8 text; % itself is %25')
  }
}

function node(text: string, defaultPort: number): Node {
  const parsed = hostAndPort(text)
  if (parsed) return { host: parsed.host.replace(/^\[|\]$/g, ''), port: parsed.port ?? defaultPort }
  const host = text.replace(/:[^:\]]*$/, '')
  if (host === '') throw new Mistake('must name a host, as in redis://host:6379')
  if (hostAndPort(host)) throw new Mistake('must have a port from 1 to 65535')
  throw new Mistake('must have a host name or an IP address as its host, an IPv6 address in brackets')
}

function database(digits: string): number {
  const number = /^[0-9]{1,5}$/.test(digits) ? Number(digits) : Number.NaN
  if (number <= DATABASE_MAX) return number
  throw new Mistake(`must have a database from 0 to ${DATABASE_MAX}, as in redis://host/1 or unix:/path?db=1`)
}

function socketPath(hosts: string, path: string): string {
  const file = decoded(path)
  if (hosts === '' && /^\/\P{Cc}+$/u.test(file)) return file
  throw new Mistake(
    'must have the absolute path of a socket, as in unix:/run/redis.sock or unix://user:password@/run/redis.sock',
  )
}

function socketDatabase(query: string | undefined): number {
  const parameters = parametersOf(query)
  const unknown = parameters.find(([name]) => name !== 'db')
  if (unknown) throw new Mistake(`must not have the query parameter "${unknown[0]}": a socket has db alone`)
  if (parameters.length > 1) throw new Mistake('must have db once')
  return database(parameters[0]?.[1] ?? '0')
}

function parametersOf(query: string | undefined): [name: string, value: string][] {
  if (query === undefined) return []
  return query.split('&').map((text) => {
    const [, name, value] = /^([A-Za-z_-]+)=(.*)$/.exec(text) ?? []
    if (name === undefined || value === undefined) throw new Mistake('must have name=value behind its ?')
    return [name, value]
  })
}
