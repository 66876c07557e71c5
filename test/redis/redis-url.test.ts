import assert from 'node:assert/strict'
import fc from 'fast-check'
import { Mistake } from '../../sidecar/formats.ts'
import { describe, parseRedisUrl, type RedisAddress } from '../../sidecar/redis/redis-url.ts'
import { runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('Redis URL')

const standalone = { kind: 'standalone', tls: false, database: 0 } as const
const cluster = { kind: 'cluster', tls: false, database: 0 } as const
const sentinel = { kind: 'sentinel', tls: false, primaryName: 'mymaster', database: 0 } as const
const login = { username: 'user', password: 'hush' }
const [a, b] = [
  { host: 'a', port: 6379 },
  { host: 'b', port: 7000 },
]

const SCHEMES =
  'must begin with redis://, redis+cluster://, redis+sentinel:// or unix:, or for TLS with rediss://, rediss+cluster:// or rediss+sentinel://'
const NO_HOST = 'must name a host, as in redis://host:6379'
const BAD_HOST = 'must have a host name or an IP address as its host, an IPv6 address in brackets'
const BAD_PORT = 'must have a port from 1 to 65535'
const ONE_HOST =
  'must name one host; the nodes of a cluster are redis+cluster://a,b, and sentinels redis+sentinel://a,b/primary'
const NO_PASSWORD =
  'must have a password before the @, as in redis://:password@host or redis://user:password@host'
const SPECIAL =
  'must have the special characters of user and password in the form %40 for @, %2F for /, %3F for ?, %23 for # and %25 for %'
const PERCENT = 'must have % only before two hexadecimal digits of UTF-8 text; % itself is %25'
const SPACE = 'must be without space and control characters; a space in a password is %20'
const BAD_DATABASE = 'must have a database from 0 to 65535, as in redis://host/1 or unix:/path?db=1'
const IN_A_CLUSTER = 'must be without a path: a cluster has one database only'
const NO_PRIMARY =
  "must have the sentinels' name of the primary behind the hosts, of letters, digits, '.', '-' and '_', as in redis+sentinel://a,b/mymaster or, with a database, redis+sentinel://a,b/mymaster/1"
const NO_SOCKET =
  'must have the absolute path of a socket, as in unix:/run/redis.sock or unix://user:password@/run/redis.sock'
const FRAGMENT = 'must be without #; in a password it is %23'
const NO_VALUE = 'must have name=value behind its ?'

function unknown(parameter: string): string {
  return `must not have the query parameter "${parameter}": the scheme says whether there is TLS, the path which database`
}

test('each form says where Redis is, and as whom to log in', () => {
  const good: [url: string, address: RedisAddress, described: string][] = [
    ['redis://a', { ...standalone, nodes: [a] }, 'redis://a:6379'],
    ['redis://a/', { ...standalone, nodes: [a] }, 'redis://a:6379'],
    ['redis://a/0', { ...standalone, nodes: [a] }, 'redis://a:6379'],
    ['REDIS://B.:7000/65535', { ...standalone, nodes: [b], database: 65535 }, 'redis://b:7000/65535'],
    ['rediss://a', { ...standalone, nodes: [a], tls: true }, 'rediss://a:6379'],
    [
      'redis://10.0.0.7',
      { ...standalone, nodes: [{ host: '10.0.0.7', port: 6379 }] },
      'redis://10.0.0.7:6379',
    ],
    ['redis://[0::1]:65535', { ...standalone, nodes: [{ host: '::1', port: 65535 }] }, 'redis://[::1]:65535'],
    ['redis://user:hush@a/2', { ...standalone, nodes: [a], ...login, database: 2 }, 'redis://a:6379/2'],
    ['redis://:hush@a', { ...standalone, nodes: [a], password: 'hush' }, 'redis://a:6379'],
    ['redis://:h:ush@a', { ...standalone, nodes: [a], password: 'h:ush' }, 'redis://a:6379'],
    [
      'redis://%40%3a:%25%2F%3f%23%20%C3%BCü@a',
      { ...standalone, nodes: [a], username: '@:', password: '%/?# üü' },
      'redis://a:6379',
    ],
    ['redis+cluster://a', { ...cluster, nodes: [a] }, 'redis+cluster://a:6379'],
    [
      'redis+cluster://user:hush@a,b:7000/',
      { ...cluster, nodes: [a, b], ...login },
      'redis+cluster://a:6379,b:7000',
    ],
    ['rediss+cluster://a', { ...cluster, nodes: [a], tls: true }, 'rediss+cluster://a:6379'],
    [
      'redis+sentinel://a,b:7000/mymaster',
      { ...sentinel, nodes: [{ host: 'a', port: 26379 }, b] },
      'redis+sentinel://a:26379,b:7000/mymaster',
    ],
    [
      'rediss+sentinel://user:hush@[::1],b:7000/m-1._/3',
      {
        ...sentinel,
        nodes: [{ host: '::1', port: 26379 }, b],
        tls: true,
        ...login,
        primaryName: 'm-1._',
        database: 3,
      },
      'rediss+sentinel://[::1]:26379,b:7000/m-1._/3',
    ],
    ['redis+sentinel://b:7000/mymaster/', { ...sentinel, nodes: [b] }, 'redis+sentinel://b:7000/mymaster'],
    ['unix:/run/r.sock', { ...standalone, nodes: [], socketPath: '/run/r.sock' }, 'unix:/run/r.sock'],
    ['unix:///run/r.sock?db=0', { ...standalone, nodes: [], socketPath: '/run/r.sock' }, 'unix:/run/r.sock'],
    [
      'unix://user:hush@/r%20%3F%40?db=2',
      { ...standalone, nodes: [], socketPath: '/r ?@', ...login, database: 2 },
      'unix:/r%20%3F%40?db=2',
    ],
  ]
  for (const [url, address, described] of good) {
    assert.deepEqual(parseRedisUrl(url), address, url)
    assert.equal(describe(address), described)
  }
})

test('a URL that is wrong is refused with what would be right', () => {
  const bad: [why: string, ...urls: string[]][] = [
    [
      SCHEMES,
      '',
      'a',
      'a:6379',
      'http://a',
      'user:hush@a:6379',
      ':hush@a',
      '//a',
      'redis:a',
      'redis:/a',
      'redis//a',
    ],
    [SCHEMES, 'rediss+sentinels://a', 'redis+tls://a', 'redis-cluster://a', 'unix+redis:/a', 'valkey://a'],
    [
      NO_HOST,
      'redis://',
      'redis://:6379',
      'redis:///0',
      'redis://:hush@',
      'redis://:hush@:6379',
      'redis://:hush',
    ],
    [`entry 1 ${NO_HOST}`, 'redis+cluster://', 'redis+cluster://,b', 'redis+sentinel:///mymaster'],
    [`entry 2 ${NO_HOST}`, 'redis+cluster://a,', 'redis+sentinel://a,:7000/mymaster'],
    [BAD_HOST, 'redis://::1', 'redis://[::1', 'redis://[::g]', 'redis://a..b', 'redis://-a', 'redis://%61'],
    [`entry 2 ${BAD_HOST}`, 'redis+cluster://a,::1', 'redis+sentinel://a,[b]/mymaster'],
    [
      BAD_PORT,
      'redis://a:0',
      'redis://a:65536',
      'redis://a:',
      'redis://a:x',
      'redis://a:-1',
      'redis://a:1:2',
      'redis://user:hush',
    ],
    [
      `entry 1 ${BAD_PORT}; entry 3 ${BAD_PORT}`,
      'redis+cluster://a:0,b,c:65536',
      'redis+sentinel://a:0,b,c:x/mymaster',
    ],
    [ONE_HOST, 'redis://a,b', 'rediss://:hush@a:7000,b:7000/0'],
    [
      NO_PASSWORD,
      'redis://user@a',
      'redis://user:@a',
      'redis://:@a',
      'redis://@a',
      'redis+cluster://user@a,b',
    ],
    [NO_PASSWORD, 'redis+sentinel://user:@a/mymaster', 'unix://user@/run/r.sock'],
    [
      SPECIAL,
      'redis://:hu@sh@a',
      'redis://:hu/sh@a',
      'redis://:hu?sh@a',
      'redis://:hu#sh@a',
      'redis://u@:hush@a',
    ],
    [SPECIAL, 'redis+cluster://:hush@a,:hush@b', 'unix://:hu/sh@/run/r.sock', 'unix:///hush@/run/r.sock'],
    [PERCENT, 'redis://:hu%sh@a', 'redis://:hush%@a', 'redis://%zz:hush@a', 'redis://:%FF@a', 'unix:/%'],
    [SPACE, ' redis://a', 'redis://a\n', 'redis://:hu sh@a', 'redis+cluster://a, b', 'redis://a\0'],
    [
      BAD_DATABASE,
      'redis://a/65536',
      'redis://a/-1',
      'redis://a/x',
      'redis://a/1/',
      'redis://a//',
      'redis://a/1e3',
    ],
    [BAD_DATABASE, 'redis+sentinel://a/mymaster/x', 'unix:/a?db=', 'unix:/a?db=65536', 'unix:/a?db=0x1'],
    [IN_A_CLUSTER, 'redis+cluster://a/0', 'redis+cluster://a,b/mymaster'],
    [
      NO_PRIMARY,
      'redis+sentinel://a',
      'redis+sentinel://a,b/',
      'redis+sentinel://a//1',
      'redis+sentinel://a/m%20m',
    ],
    [NO_PRIMARY, 'redis+sentinel://a/mymaster/0/'],
    [
      NO_SOCKET,
      'unix:',
      'unix:/',
      'unix:run/r.sock',
      'unix://run/r.sock',
      'unix://:hush@a/r.sock',
      'unix:/%00',
    ],
    [FRAGMENT, 'redis://a#', 'redis://a/0#x', 'unix:/a#b'],
    [unknown('db'), 'redis://a?db=1', 'redis+cluster://a/?db=1'],
    [unknown('password'), 'redis://a/0?password=hush', 'redis+sentinel://a/mymaster?password=hush&db=1'],
    [
      'must not have the query parameter "tls": a socket has db alone',
      'unix:/a?tls=true',
      'unix:/a?db=1&tls=',
    ],
    ['must have db once', 'unix:/a?db=1&db=1'],
    [
      NO_VALUE,
      'redis://a?',
      'redis://a?hush',
      'unix:/a?',
      'unix:/a?db=1&',
      'unix:/a?=1',
      'redis://a?hu%73h=1',
    ],
  ]
  for (const [why, ...urls] of bad) {
    for (const url of urls) assert.throws(() => parseRedisUrl(url), new Mistake(why), JSON.stringify(url))
  }
})

const secret = fc.string({ unit: 'binary' }).map((noise) => `hush${noise}hush`)

test('a password of whatever characters is read as it is, and never described', () => {
  const schemes = [
    'redis://@a',
    'rediss+cluster://@a,b',
    'redis+sentinel://@a/mymaster/1',
    'unix://@/r.sock?db=1',
  ]
  fc.assert(
    fc.property(fc.constantFrom(...schemes), secret, secret, (url, username, password) => {
      const encoded = [username, password].map(encodeURIComponent).join(':')
      const address = parseRedisUrl(url.replace('@', () => `${encoded}@`))
      assert.deepEqual([address.username, address.password], [username, password])
      const described = describe(address)
      assert.ok(!described.includes('hush'), described)
      const { username: _, password: __, ...rest } = address
      assert.deepEqual(parseRedisUrl(described), rest)
    }),
    runs(500),
  )
})

test('a password that is not encoded, or is in the wrong place, is never in the mistake', () => {
  const forms = [
    'redis://user:?@a:6379/0',
    'redis://:?@a',
    'redis://?@a',
    'redis://user:?',
    'redis://:x@?',
    'redis://a/?',
    'redis://a?password=?',
    'redis+cluster://:?@a,b',
    'redis+cluster://a,:?@b',
    'redis+sentinel://:?@a',
    'redis+sentinel://a/mymaster/?',
    'unix://:?@/',
    'unix:?/r.sock',
    'http://:?@a',
    '?',
  ]
  fc.assert(
    fc.property(fc.constantFrom(...forms), secret, (form, password) => {
      const at = form.lastIndexOf('?')
      const url = form.slice(0, at) + password + form.slice(at + 1)
      try {
        describe(parseRedisUrl(url))
      } catch (error) {
        assert.ok(error instanceof Mistake, `${JSON.stringify(url)} threw ${error}`)
        assert.ok(!error.message.includes('hush') && !error.message.includes('\n'), error.message)
      }
    }),
    runs(2000),
  )
})

test.run()
