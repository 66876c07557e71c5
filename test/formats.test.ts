import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import fc from 'fast-check'
import { baseUrl, checkOnce, FORMATS, hostAndPort, Mistake } from '../sidecar/formats.ts'
import { runs } from './support/fuzz.ts'
import { suite } from './support/suite.ts'

const test = suite('formats')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-formats-'))
test.after(() => rmSync(folder, { recursive: true }))

/** Checks that each value is refused, in words that match. */
function refuses(parse: (raw: string) => unknown, raws: readonly string[], why: RegExp): void {
  for (const raw of raws) {
    const isRight = (error: unknown) => error instanceof Mistake && why.test(error.message)
    assert.throws(() => parse(raw), isRight, `${JSON.stringify(raw)} must be refused with ${why}`)
  }
}

function fileOf(content: string | Buffer): string {
  const file = path.join(folder, 'content')
  writeFileSync(file, content)
  return file
}

test('a base URL is given in its normal form, without a slash at its end', () => {
  assert.equal(baseUrl('http://Billing:80/'), 'http://billing')
  assert.equal(baseUrl('HTTPS://billing:8443/api/'), 'https://billing:8443/api')
  assert.equal(baseUrl('http://[0:0::1]:7781'), 'http://[::1]:7781')
})

test('a base URL that is none is refused without showing it', () => {
  refuses(baseUrl, ['billing', 'ftp://billing', 'redis://billing', '//billing'], /must begin with http/)
  refuses(baseUrl, ['http://me:password@billing', 'http://me@billing/x'], /without user name and password$/)
  refuses(baseUrl, ['http://billing?x', 'http://billing/#x'], /without a query/)
  const odd = [
    'http://',
    'http:// billing',
    'http://bil ling',
    'http://billing:0',
    'http://billing:65536',
    'http://a\\b',
  ]
  refuses(
    baseUrl,
    [...odd, 'http://[::g]', 'http://-x', 'http://{host}'],
    /^must have the form http:\/\/host:port/,
  )
})

test('an authority is a host in its normal form, with a port or without', () => {
  assert.deepEqual(hostAndPort('Billing.'), { host: 'billing', port: undefined })
  assert.deepEqual(hostAndPort('[0::1]:80'), { host: '[::1]', port: 80 })
  for (const bad of [
    '',
    'a:0',
    'a:65536',
    'a:1:2',
    '::1',
    '[::1',
    'a/b',
    'a b',
    'me@a',
    'http://a',
    '.',
    'a..b',
  ]) {
    assert.equal(hostAndPort(bad), undefined, bad)
  }
})

test('peers are authorities or patterns with base URLs, which may hold {host} and {port}', () => {
  const peers = FORMATS.peers(
    'Billing=http://Billing:7781/, *.shop:443 = https://{host}:{port} ,[0::1]=http://x',
  )
  assert.deepEqual(peers, [
    { pattern: { text: 'billing', host: 'billing', port: undefined }, url: 'http://billing:7781' },
    { pattern: { text: '*.shop:443', host: '*.shop', port: 443 }, url: 'https://{host}:{port}' },
    { pattern: { text: '[::1]', host: '[::1]', port: undefined }, url: 'http://x' },
  ])
})

test('each peer that is wrong is told by its place', () => {
  refuses(FORMATS.peers, ['a=http://a,b'], /^entry 2 must have the form authority=http:\/\/host:port$/)
  refuses(FORMATS.peers, ['a=http://a,'], /^entry 2 must/)
  refuses(FORMATS.peers, ['http://a=http://b', '*.*=http://b', '=http://b'], /^entry 1 must begin with host/)
  refuses(
    FORMATS.peers,
    ['a=http://me:pw@b'],
    /^entry 1 must give a base URL for "a", which must be without user name/,
  )
  refuses(FORMATS.peers, ['a=http://{other}'], /base URL for "a", which must have the form/)
  refuses(FORMATS.peers, ['a,b=http://b,c'], /^entry 1 .*; entry 3 /)
})

test('a file of peers has one a line, comments and empty lines, whatever the line ends', () => {
  const { peers } = FORMATS.peersFile(fileOf('# ours\r\n\r\nbilling=http://b:1\r\n  *.shop=http://{host}\n'))
  assert.deepEqual(
    peers.map(({ pattern, url }) => [pattern.text, url]),
    [
      ['billing', 'http://b:1'],
      ['*.shop', 'http://{host}'],
    ],
  )
  refuses(
    FORMATS.peersFile,
    [fileOf('# ours\n\na=http://a\nb: http://b')],
    /mistake: line 4 must have the form/,
  )
})

test('an authority that is named twice is refused', () => {
  const patterns = FORMATS.authorities('a,a:80,*.a')
  checkOnce(patterns)
  assert.throws(() => checkOnce([...patterns, ...FORMATS.authorities('A:080')]), /"a:80" again/)
})

test("a path prefix never stands for every call, nor for what is the sidecar's own", () => {
  assert.deepEqual(FORMATS.pathPrefixes('/healthz, /static/'), ['/healthz', '/static/'])
  refuses(
    FORMATS.pathPrefixes,
    ['/', 'healthz', '//x', '/a/../b', '/a/./b', '/a?b', '/%61'],
    /must be a path prefix/,
  )
  refuses(FORMATS.pathPrefixes, ['/healthz,/api/mte-pair'], /^entry 2 must not begin with \/api\/mte-/)
})

test('a port is a whole number up to 65535', () => {
  assert.equal(FORMATS.port('0'), 0)
  assert.equal(FORMATS.port('65535'), 65535)
  refuses(
    FORMATS.port,
    ['12abc', '-1', '65536', '1e3', ' 80', '0x50', '80.0', 'off'],
    /^must be a port from 0 to 65535$/,
  )
  assert.equal(FORMATS.portOrOff('off'), 'off')
  refuses(FORMATS.portOrOff, ['no'], /to 65535, or off$/)
})

test('a port that Kubernetes set for a Service is told as that', () => {
  refuses(FORMATS.port, ['tcp://10.0.0.1:80'], /Kubernetes .*enableServiceLinks: false/)
})

test('seconds become milliseconds, and are never none or more than a timer can hold', () => {
  assert.equal(FORMATS.seconds('0.25'), 250)
  assert.equal(FORMATS.seconds('2147483'), 2_147_483_000)
  refuses(
    FORMATS.seconds,
    ['0', '0.0', '-1', '5s', '1e3', '2147484', '.5', 'NaN', '0.0001'],
    /^must be a number of seconds/,
  )
})

test('bytes are a whole number within bounds', () => {
  assert.equal(FORMATS.headerBytes('65536'), 65536)
  assert.equal(FORMATS.bodyBytes('1'), 1)
  refuses(FORMATS.headerBytes, ['64k', '1023', '16777217'], /from 1024 to 16777216$/)
  refuses(FORMATS.bodyBytes, ['0', '1.5', '99999999999999999'], /^must be a whole number of bytes/)
})

test('a shared secret is long, and without what an editor leaves behind', () => {
  const secret = 'x'.repeat(32)
  assert.equal(FORMATS.clientIdSecret(secret), secret)
  refuses(FORMATS.clientIdSecret, ['x'.repeat(31), '😀'.repeat(31)], /must have 32 characters or more/)
  refuses(
    FORMATS.clientIdSecret,
    [`${secret}\n`, ` ${secret}`, `x\ty${secret}`],
    /without control characters/,
  )
})

test('an outbound token fits into a header', () => {
  assert.equal(FORMATS.outboundToken('abcdefg1234567'), 'abcdefg1234567')
  refuses(FORMATS.outboundToken, ['a b', 'tökén', 'a\n'], /must be printable ASCII without space/)
})

test('a file may hold what is secret, with a line end after it', () => {
  const secret = 'ü'.repeat(32)
  assert.equal(FORMATS.clientIdSecretFile(fileOf(`${secret}\r\n`)), secret)
  assert.equal(FORMATS.outboundTokenFile(fileOf('token\n')), 'token')
  refuses(
    FORMATS.clientIdSecretFile,
    [fileOf('short-secret')],
    /^names a file that holds a mistake: must have 32(?!.*short-secret)/,
  )
  refuses(FORMATS.clientIdSecretFile, [fileOf(Buffer.alloc(40, 0xff))], /must name a file of UTF-8 text/)
  refuses(
    FORMATS.clientIdSecretFile,
    [folder, path.join(folder, 'none')],
    /that can be read \((EISDIR|ENOENT)\)$/,
  )
})

test('a name is printable text that fits into a pairing', () => {
  assert.equal(FORMATS.name('billing ü'), 'billing ü')
  refuses(
    FORMATS.name,
    [' x', 'a\nb', 'ü'.repeat(128), '\u202e'],
    /^must be 1 to 255 bytes of printable text$/,
  )
})

test('levels, flags and addresses are what they say', () => {
  assert.equal(FORMATS.logLevel('warn'), 'warn')
  refuses(FORMATS.logLevel, ['WARN', 'verbose'], /^must be one of fatal, error, warn/)
  assert.deepEqual([FORMATS.flag('true'), FORMATS.flag('false')], [true, false])
  refuses(FORMATS.flag, ['1', 'yes', 'TRUE'], /^must be true or false$/)
  assert.equal(FORMATS.listenHost('::1'), '::1')
  refuses(FORMATS.listenHost, ['[::1]', 'localhost:80', 'a b'], /^must be an IP address or a host name/)
})

test('headers are an object of strings, in lower case', () => {
  assert.deepEqual(FORMATS.headers('{"X-Service-Name":"mte-api-relay","x-b":""}'), [
    'x-service-name',
    'mte-api-relay',
    'x-b',
    '',
  ])
  refuses(
    FORMATS.headers,
    ['x', '[]', 'null', '"x"', '{"a":1}', '{"a":["b"]}'],
    /^must be a JSON object of strings/,
  )
  refuses(FORMATS.headers, ['{"a":"b","A":"c"}'], /each name once/)
  refuses(FORMATS.headers, ['{"a":"b\\r\\nc: d"}', '{"a":"ü"}'], /printable ASCII/)
  refuses(FORMATS.headers, ['{"a":" b"}'], /must not hold "a"/)
})

test("headers that frame, route or authenticate between sidecars are not the user's to set", () => {
  const names = ['Content-Length', 'transfer-encoding', 'connection', 'upgrade', 'host', 'te', 'keep-alive']
  const ours = ['x-mte-upstream', 'X-MTE-anything', 'proxy-authorization', 'mte-error']
  refuses(
    FORMATS.headers,
    [...names, ...ours].map((name) => JSON.stringify({ [name]: '1' })),
    /must not hold/,
  )
})

test('a header with its value where a name belongs is refused without showing it', () => {
  const whole = '{"a":"b","authorization: Bearer hush":""}'
  refuses(FORMATS.headers, [whole], /^must have names of headers as its keys; key 2 is none$/)
})

test('origins are as browsers send them', () => {
  assert.deepEqual(FORMATS.origins('https://www.a.com, http://localhost:3000'), [
    'https://www.a.com',
    'http://localhost:3000',
  ])
  assert.deepEqual(FORMATS.origins('*'), ['*'])
  refuses(
    FORMATS.origins,
    ['https://a.com/', 'https://A.com', 'https://a.com:443'],
    /such as https:\/\/a\.com,/,
  )
  refuses(FORMATS.origins, ['a.com', 'null', 'https://a.com,*'], /must be an origin as browsers send it/)
})

test('methods and names of headers are tokens', () => {
  assert.deepEqual(FORMATS.methods('GET, PATCH'), ['GET', 'PATCH'])
  refuses(FORMATS.methods, ['get', '*', 'GET,', 'G ET'], /must be a method in capitals/)
  assert.deepEqual(FORMATS.fieldNames('X-A,content-type'), ['x-a', 'content-type'])
  refuses(FORMATS.fieldNames, ['*', 'x a'], /must be the name of a header/)
})

test('a file of certificates holds at least one, and none that is broken', () => {
  const [first = '', second = ''] = tls.rootCertificates
  assert.equal(FORMATS.certificatesFile(fileOf(`# ours\n${first}\n${second}\n`)).length, 2)
  refuses(FORMATS.certificatesFile, [fileOf('nothing')], /must hold a certificate in PEM form/)
  const broken = first.replace(/\n[^\n]+\n/, '\nAAAA\n')
  refuses(
    FORMATS.certificatesFile,
    [fileOf(`${second}\n${broken}`)],
    /certificate 2 must be a valid certificate/,
  )
})

test('whatever the value, a format gives a value or a mistake of one line that does not show it', () => {
  const files = /File$/
  for (const [name, parse] of Object.entries(FORMATS).filter(([format]) => !files.test(format))) {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'binary' }), (noise) => {
        const raw = `hush${noise}\u0000`
        try {
          parse(raw)
        } catch (error) {
          assert.ok(error instanceof Mistake, `${name} threw ${error}`)
          assert.ok(!error.message.includes('\n') && !error.message.includes('hush'), error.message)
        }
      }),
      runs(200),
    )
  }
})

test.run()
