import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import { ConfigError, loadAdminAddress, loadConfig } from '../sidecar/config.ts'
import { suite } from './support/suite.ts'

const test = suite('config')
const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-config-'))
test.after(() => rmSync(folder, { recursive: true }))

const SECRET = '2DkV4DDabehO8cifDktdF9elKJL0CKrk'
const TOKEN = 'oCkx6rT0Vq2yN8sW'
const needed = { CLIENT_ID_SECRET: SECRET }

function file(name: string, content: string): string {
  const place = path.join(folder, name)
  writeFileSync(place, content)
  return place
}

function failureOf(env: Record<string, string>): ConfigError {
  try {
    loadConfig(env)
  } catch (error) {
    assert.ok(error instanceof ConfigError)
    return error
  }
  return assert.fail('the configuration must be refused')
}

function mistakesOf(env: Record<string, string>): readonly string[] {
  return failureOf({ ...needed, ...env }).mistakes
}

function warningsOf(env: Record<string, string>): string[] {
  return loadConfig({ ...needed, ...env }).warnings
}

test('the example of the original loads as it is', () => {
  const { config, warnings } = loadConfig({
    UPSTREAM: 'https://api.my-company.com',
    CLIENT_ID_SECRET: SECRET,
    OUTBOUND_TOKEN: 'abcdefg1234567',
    REDIS_URL: 'redis://10.0.1.230:6379',
    PORT: '3000',
    LOG_LEVEL: 'debug',
    HEADERS: '{"x-service-name":"mte-api-relay"}',
    CORS_ORIGINS: 'https://www.my-company.com,https://dashboard.my-company.com',
    CORS_METHODS: 'GET,POST,DELETE',
  })
  const { upstream, clientIdSecrets, outboundTokens, port, logLevel, headers, corsOrigins, corsMethods } =
    config
  assert.equal(upstream, 'https://api.my-company.com')
  assert.deepEqual([clientIdSecrets, outboundTokens], [[SECRET], ['abcdefg1234567']])
  assert.deepEqual([port, logLevel, headers], [3000, 'debug', ['x-service-name', 'mte-api-relay']])
  assert.deepEqual(corsOrigins, ['https://www.my-company.com', 'https://dashboard.my-company.com'])
  assert.deepEqual(corsMethods, ['GET', 'POST', 'DELETE'])
  assert.deepEqual(config.redis?.nodes, [{ host: '10.0.1.230', port: 6379 }])
  assert.equal(warnings.length, 2)
  assert.match(warnings[0]!, /^OUTBOUND_TOKEN: is short enough to be guessed; 16 characters/)
  assert.match(warnings[1]!, /^NAME: is relay while it is unset/)
})

test('the defaults are those that are documented, and hold no secret', () => {
  const { config, warnings } = loadConfig(needed)
  const { name, ...rest } = config
  assert.ok(name.length > 0)
  assert.deepEqual(rest, {
    upstream: undefined,
    clientIdSecrets: [SECRET],
    outboundTokens: [],
    peers: [],
    secretFiles: undefined,
    peersFile: undefined,
    passThroughHosts: [],
    passThroughRoutes: [],
    ca: undefined,
    redis: undefined,
    port: 8080,
    outboundPort: 8081,
    adminPort: 8082,
    adminHost: '127.0.0.1',
    accessLog: false,
    traceContext: 'outside',
    carriage: 'auto',
    jaegerUiUrl: undefined,
    otel: { traces: undefined, metrics: undefined, mistakes: [] },
    logLevel: 'info',
    headers: [],
    corsOrigins: [],
    corsMethods: ['GET', 'POST', 'PUT', 'DELETE'],
    corsAllowedHeaders: undefined,
    connectTimeoutMs: 5000,
    responseTimeoutMs: 120_000,
    idleTimeoutMs: 300_000,
    maxHeaderBytes: 65_536,
    maxBodyBytes: Number.POSITIVE_INFINITY,
    drainMs: 30_000,
    workers: 1,
  })
  assert.deepEqual(warnings, [])
})

test('an empty variable is as good as unset', () => {
  const empty = {
    UPSTREAM: '',
    PORT: '',
    PEERS: '',
    CLIENT_ID_SECRET_FILE: '',
    REDIS_URL: '',
    REDIS_URL_FILE: '',
    CORS_ORIGIN: '',
  }
  assert.deepEqual(loadConfig({ ...needed, ...empty }), loadConfig(needed))
  assert.match(failureOf({ CLIENT_ID_SECRET: '' }).message, /^CLIENT_ID_SECRET: is required/)
})

test('all mistakes are told at once, a line each, in the order of the table', () => {
  const { mistakes, message } = failureOf({
    DRAIN_SECONDS: '30s',
    PORT: '12abc',
    UPSTREAM: 'localhost:5000',
    PEERS: 'billing',
    MAX_BODY_BYTES: '1M',
    OUTBOUND_TOKEN_PREVIOUS: TOKEN,
  })
  assert.deepEqual(
    mistakes.map((line) => line.slice(0, line.indexOf(':'))),
    [
      'UPSTREAM',
      'CLIENT_ID_SECRET',
      'OUTBOUND_TOKEN_PREVIOUS',
      'PEERS',
      'PORT',
      'MAX_BODY_BYTES',
      'DRAIN_SECONDS',
    ],
  )
  assert.equal(message, mistakes.join('\n'))
})

test('what is wrong is never shown', () => {
  const hush = 'hush-hush'
  const names = [
    'UPSTREAM',
    'CLIENT_ID_SECRET',
    'PEERS',
    'PASS_THROUGH_ROUTES',
    'CA_FILE',
    'PORT',
    'HEADERS',
    'CORS_ORIGINS',
  ]
  const more = [
    'REDIS_URL',
    'LOG_LEVEL',
    'DEBUG',
    'CORS_METHODS',
    'MAX_HEADER_BYTES',
    'IDLE_TIMEOUT_SECONDS',
    'PEERS_FILE',
  ]
  const odd = {
    OUTBOUND_TOKEN: `${hush} `,
    ADMIN_HOST: `${hush}/`,
    CLIENT_ID_SECRET_FILE: file('hushed', hush),
  }
  const { mistakes, stack } = failureOf({
    ...Object.fromEntries([...names, ...more].map((name) => [name, hush])),
    ...odd,
  })
  for (const name of [...names, ...more, ...Object.keys(odd)]) {
    assert.ok(
      mistakes.some((line) => line.startsWith(`${name}: `)),
      `${name} must be told`,
    )
  }
  assert.ok(!stack?.includes(hush))
})

test('a secret may be in a file, and in one place only', () => {
  const inFiles = {
    CLIENT_ID_SECRET_FILE: file('secret', `${SECRET}\n`),
    CLIENT_ID_SECRET_PREVIOUS_FILE: file('secret-previous', `${SECRET}-previous`),
    OUTBOUND_TOKEN_FILE: file('token', TOKEN),
    OUTBOUND_TOKEN_PREVIOUS_FILE: file('token-previous', `${TOKEN}-previous`),
  }
  const { config, warnings } = loadConfig(inFiles)
  assert.deepEqual(config.clientIdSecrets, [SECRET, `${SECRET}-previous`])
  assert.deepEqual(config.outboundTokens, [TOKEN, `${TOKEN}-previous`])
  assert.deepEqual(warnings, [])
  assert.deepEqual(failureOf({ ...inFiles, CLIENT_ID_SECRET: SECRET, OUTBOUND_TOKEN: TOKEN }).mistakes, [
    'CLIENT_ID_SECRET_FILE: must not be set beside CLIENT_ID_SECRET: keep one of the two',
    'OUTBOUND_TOKEN_FILE: must not be set beside OUTBOUND_TOKEN: keep one of the two',
  ])
})

test('a file of a previous secret that is missing or empty holds none, and any other must be readable', () => {
  const missing = path.join(folder, 'missing')
  for (const none of [missing, file('empty', ''), file('line', '\n')]) {
    const { config } = loadConfig({
      ...needed,
      CLIENT_ID_SECRET_PREVIOUS_FILE: none,
      OUTBOUND_TOKEN: TOKEN,
      OUTBOUND_TOKEN_PREVIOUS_FILE: none,
    })
    assert.deepEqual([config.clientIdSecrets, config.outboundTokens], [[SECRET], [TOKEN]])
  }
  for (const name of ['CLIENT_ID_SECRET_PREVIOUS_FILE', 'OUTBOUND_TOKEN_PREVIOUS_FILE'] as const) {
    const [mistake] = mistakesOf({ OUTBOUND_TOKEN: TOKEN, [name]: folder })
    assert.match(mistake!, new RegExp(`^${name}: must name a file .*EISDIR`))
  }
  for (const name of ['CLIENT_ID_SECRET_FILE', 'OUTBOUND_TOKEN_FILE'] as const) {
    const { mistakes } = failureOf({ CLIENT_ID_SECRET: name.startsWith('C') ? '' : SECRET, [name]: missing })
    assert.match(mistakes[0]!, new RegExp(`^${name}: must name a file .*ENOENT`))
  }
})

test('the files of secrets can be read again, and those of the environment are what they were', () => {
  const CLIENT_ID_SECRET_FILE = file('again', SECRET)
  const { config } = loadConfig({ CLIENT_ID_SECRET_FILE, OUTBOUND_TOKEN: TOKEN })
  assert.deepEqual(config.secretFiles?.paths, [CLIENT_ID_SECRET_FILE])
  file('again', `${SECRET}-next`)
  assert.deepEqual(config.secretFiles?.read(), {
    clientIdSecrets: [`${SECRET}-next`],
    outboundTokens: [TOKEN],
    redis: undefined,
  })
  for (const [content, mistake] of [
    ['short', /^CLIENT_ID_SECRET_FILE: names a file that holds a mistake: must have 32/],
    [`${SECRET} `, /^CLIENT_ID_SECRET_FILE: .* without space at its ends/],
    ['', /^CLIENT_ID_SECRET_FILE: names a file/],
  ] as const) {
    file('again', content)
    assert.throws(
      () => config.secretFiles?.read(),
      (error) => error instanceof ConfigError && error.mistakes.length === 1 && mistake.test(error.message),
    )
  }
})

test('secrets that are meant to differ and do not are told, wherever they are', () => {
  assert.match(
    mistakesOf({ CLIENT_ID_SECRET_PREVIOUS: SECRET })[0]!,
    /^CLIENT_ID_SECRET_PREVIOUS: must differ from CLIENT_ID_SECRET;/,
  )
  assert.match(
    mistakesOf({ OUTBOUND_TOKEN_FILE: file('same', SECRET) })[0]!,
    /^OUTBOUND_TOKEN: must differ from CLIENT_ID_SECRET;/,
  )
  const [mistake] = mistakesOf({ OUTBOUND_TOKEN: TOKEN, OUTBOUND_TOKEN_PREVIOUS: TOKEN })
  assert.match(mistake!, /^OUTBOUND_TOKEN_PREVIOUS: must differ from OUTBOUND_TOKEN;/)
})

test('peers come from the variable and the file, and each authority is named once', () => {
  const PEERS_FILE = file('peers', 'b=http://b\n*.shop=http://{host}')
  const { config } = loadConfig({ ...needed, PEERS: 'a=http://a', PEERS_FILE, PASS_THROUGH_HOSTS: 'c' })
  assert.deepEqual(
    config.peers.map((peer) => peer.url),
    ['http://a'],
  )
  assert.equal(config.peersFile?.path, PEERS_FILE)
  assert.deepEqual(
    config.peersFile?.peers.map((peer) => peer.url),
    ['http://b', 'http://{host}'],
  )
  assert.deepEqual(config.passThroughHosts, [{ text: 'c', host: 'c', port: undefined }])
  assert.match(mistakesOf({ PEERS: 'a=http://a,A=http://b' })[0]!, /^PEERS: must not name "a" again/)
  assert.match(mistakesOf({ PEERS: 'b=http://x', PEERS_FILE })[0]!, /^PEERS_FILE: must not name "b" again/)
  assert.match(
    mistakesOf({ PEERS_FILE, PASS_THROUGH_HOSTS: '*.shop' })[0]!,
    /^PASS_THROUGH_HOSTS: must not name "\*\.shop" again/,
  )
})

test('no two ports are the same, unless each is any free one', () => {
  assert.match(mistakesOf({ PORT: '8081' })[0]!, /^OUTBOUND_PORT: must differ from PORT, which is 8081 too/)
  assert.match(mistakesOf({ ADMIN_PORT: '8080' })[0]!, /^ADMIN_PORT: must differ from PORT/)
  const { config } = loadConfig({ ...needed, PORT: '0', OUTBOUND_PORT: '0', ADMIN_PORT: '0' })
  assert.deepEqual([config.port, config.outboundPort, config.adminPort], [0, 0, 0])
  assert.equal(loadConfig({ ...needed, OUTBOUND_PORT: 'off' }).config.outboundPort, 'off')
})

test('the number of processes is a whole one from 1 to 64', () => {
  for (const workers of [1, 2, 64])
    assert.equal(loadConfig({ ...needed, WORKERS: String(workers) }).config.workers, workers)
  for (const WORKERS of ['0', '65', '-1', '1.5', '2x', ' 2', 'all', '1e1'])
    assert.deepEqual(mistakesOf({ WORKERS }), ['WORKERS: must be a whole number of processes, from 1 to 64'])
})

test('an upstream that is the sidecar itself is told', () => {
  assert.match(
    mistakesOf({ UPSTREAM: 'http://localhost:8080' })[0]!,
    /^UPSTREAM: must be the app and not this sidecar, .* the PORT$/,
  )
  assert.match(mistakesOf({ UPSTREAM: 'http://127.0.0.1', ADMIN_PORT: '80' })[0]!, /is the ADMIN_PORT$/)
  assert.equal(loadConfig({ ...needed, UPSTREAM: 'http://app:8080' }).config.upstream, 'http://app:8080')
})

test('routes need an upstream to lead to', () => {
  assert.match(
    mistakesOf({ PASS_THROUGH_ROUTES: '/healthz' })[0]!,
    /^PASS_THROUGH_ROUTES: must not be set without UPSTREAM/,
  )
  const { config } = loadConfig({ ...needed, PASS_THROUGH_ROUTES: '/healthz', UPSTREAM: 'http://app' })
  assert.deepEqual(config.passThroughRoutes, ['/healthz'])
})

test('Redis is where the variable says, or the file', () => {
  const url = 'redis+sentinel://:pass%20word@a,b:7000/mymaster/1'
  const address = {
    kind: 'sentinel',
    nodes: [
      { host: 'a', port: 26379 },
      { host: 'b', port: 7000 },
    ],
    primaryName: 'mymaster',
    tls: false,
    password: 'pass word',
    database: 1,
  }
  const inFile = { REDIS_URL_FILE: file('redis-url', `${url}\n`) }
  assert.deepEqual(loadConfig({ ...needed, REDIS_URL: url }).config.redis, address)
  assert.deepEqual(loadConfig({ ...needed, ...inFile }).config.redis, address)
  assert.deepEqual(mistakesOf({ REDIS_URL: url, ...inFile }), [
    'REDIS_URL_FILE: must not be set beside REDIS_URL: keep one of the two',
  ])
  assert.match(mistakesOf({ REDIS_URL: 'redis:6379' })[0]!, /^REDIS_URL: must begin with redis:/)
  const [mistake] = mistakesOf({ REDIS_URL_FILE: file('redis-url-wrong', 'redis://hush@a') })
  assert.match(mistake!, /^REDIS_URL_FILE: names a file that holds a mistake: must have a password(?!.*hush)/)
})

test("the password of Redis is none of the sidecars' secrets", () => {
  const REDIS_URL = `redis://:${SECRET}@redis`
  const redisFile = { REDIS_URL_FILE: file('redis-url-secret', REDIS_URL) }
  for (const redis of [{ REDIS_URL }, redisFile]) {
    assert.deepEqual(mistakesOf(redis), [
      'REDIS_URL: must have a password that differs from CLIENT_ID_SECRET; mte-sidecar keygen makes new ones',
    ])
  }
})

test('without a NAME the host is the name, and relay, with a warning, where Redis is shared', () => {
  assert.equal(loadConfig(needed).config.name, os.hostname())
  const redis = [{ REDIS_URL: 'redis://a' }, { REDIS_URL_FILE: file('redis-url-plain', 'redis://a') }]
  for (const env of redis) {
    const { config, warnings } = loadConfig({ ...needed, ...env })
    assert.equal(config.name, 'relay')
    assert.deepEqual(warnings, [
      'NAME: is relay while it is unset beside REDIS_URL; set it: replicas that share pairs need one NAME, services that share a Redis different ones',
    ])
    const named = loadConfig({ ...needed, ...env, NAME: 'billing' })
    assert.deepEqual([named.config.name, named.warnings], ['billing', []])
  }
})

test('a log at level debug or trace has a line a call', () => {
  for (const [env, expected] of [
    [{ LOG_LEVEL: 'debug' }, true],
    [{ LOG_LEVEL: 'trace' }, true],
    [{ DEBUG: 'true' }, true],
    [{ ACCESS_LOG: 'true', LOG_LEVEL: 'info' }, true],
    [{ DEBUG: 'true', LOG_LEVEL: 'info' }, false],
    [{ LOG_LEVEL: 'warn' }, false],
  ] as const)
    assert.equal(loadConfig({ ...needed, ...env }).config.accessLog, expected, JSON.stringify(env))
})

test('DEBUG=true is LOG_LEVEL=debug, and LOG_LEVEL wins', () => {
  assert.equal(loadConfig({ ...needed, DEBUG: 'true' }).config.logLevel, 'debug')
  assert.equal(loadConfig({ ...needed, DEBUG: 'false', LOG_LEVEL: 'warn' }).config.logLevel, 'warn')
  const { config, warnings } = loadConfig({ ...needed, DEBUG: 'true', LOG_LEVEL: 'warn' })
  assert.equal(config.logLevel, 'warn')
  assert.match(warnings.join(), /^DEBUG: says nothing while LOG_LEVEL is set/)
  assert.deepEqual(warningsOf({ DEBUG: 'true', LOG_LEVEL: 'debug' }), [])
})

test('certificates to trust come from a file', () => {
  const certificates = tls.rootCertificates.slice(0, 2).join('\n')
  assert.equal(loadConfig({ ...needed, CA_FILE: file('ca.pem', certificates) }).config.ca?.length, 2)
})

test('a misspelt variable is a warning with the right name', () => {
  const meant = {
    CORS_ORIGIN: 'CORS_ORIGINS',
    CORS_HEADERS_ALLOWED: 'CORS_ALLOWED_HEADERS',
    OUTBOUND_TOKENS: 'OUTBOUND_TOKEN',
    UPSTREAM_URL: 'UPSTREAM',
    upstream: 'UPSTREAM',
    UPSTEAM: 'UPSTREAM',
    PEER: 'PEERS',
    PEERS_FILES: 'PEERS_FILE',
    REDIS_URI: 'REDIS_URL',
    REDIS_FILE_URL: 'REDIS_URL_FILE',
    LOGLEVEL: 'LOG_LEVEL',
    HEADER: 'HEADERS',
    PASSTHROUGH_ROUTES: 'PASS_THROUGH_ROUTES',
    PASS_TROUGH_HOST: 'PASS_THROUGH_HOSTS',
    CONNECT_TIMEOUT: 'CONNECT_TIMEOUT_SECONDS',
    IDLE_TIMEOUT_MS: 'IDLE_TIMEOUT_SECONDS',
    MAX_BODY_SIZE: 'MAX_BODY_BYTES',
    DRIAN_SECONDS: 'DRAIN_SECONDS',
  }
  const env = Object.fromEntries(Object.keys(meant).map((name) => [name, 'hush']))
  assert.deepEqual(
    warningsOf(env),
    Object.entries(meant).map(([name, right]) => `${name}: is no variable of mte-sidecar; ${right} is`),
  )
})

test('a misspelt variable is told also when the right one is missed', () => {
  const { mistakes, warnings } = failureOf({ CLIENT_SECRET_ID: SECRET })
  assert.match(mistakes.join(), /^CLIENT_ID_SECRET: is required/)
  assert.deepEqual(warnings, ['CLIENT_SECRET_ID: is no variable of mte-sidecar; CLIENT_ID_SECRET is'])
})

test('a variable of the original that says nothing here is a warning that tells what to do instead', () => {
  const warnings = warningsOf({ MTE_ROUTES: '/v1', DOMAIN_MAP: '{}' })
  assert.match(warnings[0]!, /^MTE_ROUTES: is not supported, and limits nothing: .*; let the app refuse/)
  assert.match(warnings[1]!, /^DOMAIN_MAP: is not supported; run a sidecar for each upstream/)
  assert.equal(warnings.length, 2)
  assert.deepEqual(warningsOf({ MTE_ROUTES: '', DOMAIN_MAP: '' }), [])
})

test('the ordinary variables of shells, containers, pods and other tools are not taken for misspelt ones', () => {
  const ordinary = `
    HOST HOSTNAME PATH HOME PWD OLDPWD USER LOGNAME SHELL SHLVL TERM LANG LC_ALL TZ EDITOR PAGER TMPDIR MAIL DISPLAY
    NODE_ENV NODE_OPTIONS NODE_VERSION NODE_EXTRA_CA_CERTS NODE_DEBUG DEBUG_COLORS DEBUG_DEPTH DEBUG_FD NO_COLOR
    FORCE_COLOR CI PORTS GAME HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy no_proxy SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE
    KUBERNETES_PORT KUBERNETES_PORT_443_TCP KUBERNETES_PORT_443_TCP_ADDR KUBERNETES_PORT_443_TCP_PORT KUBERNETES_PORT_443_TCP_PROTO
    KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_SERVICE_PORT_HTTPS POD_NAME POD_NAMESPACE POD_IP NODE_NAME
    REDIS_HOST REDIS_PORT REDIS_PORT_6379_TCP REDIS_SERVICE_HOST REDIS_PASSWORD BILLING_PORT BILLING_SERVICE_HOST SERVICE_NAME
    UPSTREAM_PORT UPSTREAM_SERVICE_HOST PEERS_SERVICE_PORT ADMIN_SERVICE_HOST ADMIN_PASSWORD ADMIN_TOKEN ADMIN_EMAIL
    CLIENT_ID DATABASE_URL PGHOST PGPORT PGCONNECT_TIMEOUT AWS_REGION AWS_CONTAINER_CREDENTIALS_RELATIVE_URI STREAM
    LOG_FORMAT LOG_FILE OTEL_SERVICE_NAME OTEL_RESOURCE_ATTRIBUTES OTEL_PROPAGATORS TRACE_ID npm_package_name npm_config_user_agent npm_lifecycle_event INIT_CWD COLOR
    INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET SYSTEMD_EXEC_PID LISTEN_FDS XDG_RUNTIME_DIR SSH_CONNECTION _ container`
  const env = Object.fromEntries(
    ordinary
      .trim()
      .split(/\s+/)
      .map((name) => [name, 'x']),
  )
  assert.deepEqual(warningsOf(env), [])
})

test('mistakes in the variables of OpenTelemetry are told with the others', () => {
  const env = {
    ...needed,
    PORT: 'x',
    TRACE_CONTEXT: 'hidden',
    CARRIAGE: 'pigeon',
    OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318',
  }
  assert.throws(() => loadConfig(env), {
    mistakes: [
      'PORT: must be a port from 0 to 65535',
      'TRACE_CONTEXT: must be outside or inside',
      'CARRIAGE: must be auto, message or tunnel',
      'OTEL_EXPORTER_OTLP_ENDPOINT: must begin with http:// or https://',
    ],
  })
})

test('tunnels have no room for larger heads', () => {
  const larger = { ...needed, MAX_HEADER_BYTES: '65537' }
  assert.equal(loadConfig({ ...larger, CARRIAGE: 'auto' }).config.carriage, 'auto')
  assert.equal(loadConfig({ ...needed, CARRIAGE: 'tunnel' }).config.carriage, 'tunnel')
  assert.throws(() => loadConfig({ ...larger, CARRIAGE: 'tunnel' }), {
    mistakes: [
      'CARRIAGE: must not be tunnel where MAX_HEADER_BYTES is more than 65536: such heads go as messages',
    ],
  })
})

test('what is exported is read', () => {
  const { config } = loadConfig({
    ...needed,
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://user:secret@collector:4318',
  })
  assert.equal(config.otel.traces?.endpoint, 'http://collector:4318')
  assert.equal(config.otel.metrics?.endpoint, 'http://collector:4318')
})

test('where the admin port is can be read whatever the rest is like', () => {
  assert.deepEqual(loadAdminAddress({ PORT: 'x', PEERS_FILE: '/none' }), { host: '127.0.0.1', port: 8082 })
  assert.deepEqual(loadAdminAddress({ ADMIN_HOST: '::', ADMIN_PORT: '9' }), { host: '::', port: 9 })
  assert.throws(
    () => loadAdminAddress({ ADMIN_PORT: 'x' }),
    new ConfigError(['ADMIN_PORT: must be a port from 0 to 65535'], []),
  )
})

test.run()
