import { execFileSync } from 'node:child_process'
/** The pairs that are measured: two proxies back to back, and how each pair is started. */
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { nginxArgs, nginxConfig } from './app.ts'
import { envoyConfig } from './envoy.ts'
import { runProgram, type Service, startService } from './processes.ts'
import { profilerArgs } from './profile.ts'
import { type Program, requireProgram } from './programs.ts'

/** Where a pair stands: calls go to `outbound`, which calls `inbound`, which calls `app`. */
export interface Site {
  /** ports of 127.0.0.1 */
  outbound: number
  inbound: number
  app: number
  /** CLIENT_ID_SECRET of our sidecars */
  secret: string
  /** port at which our sidecar that calls tells its metrics */
  admin: number
  /** ports of what is between the two sides, where something is: calls to `outbound` reach the inbound side */
  between: { outbound: number; inbound: number }
  /** URL of the Redis, where there is one */
  redis: string | undefined
  /** OTLP endpoint of the pair, where there is a collector */
  collector: string | undefined
  /** folder that `makeCertificates` filled */
  certificates: string
  /** folder of the pair's own */
  folder: string
  /** folder that gets a CPU profile of each of our processes when it stops, if they are to make any */
  profiles: string | undefined
}

export interface PairKind {
  name: string
  title: string
  /** what has to be installed */
  program?: Program
  /** Is it made of our sidecars? */
  ours?: true
  /** Does it export spans? */
  traced?: true
  /** name of the pair that it is compared with; none for that pair itself */
  base?: string
  /**
   * Starts the pair, without waiting until it answers.
   * @returns the processes that are charged for it
   */
  start(site: Site): Service[]
  /** Starts what is between its two sides, and is not charged. */
  startBetween?(site: Site): Service[]
}

/** In the order of measuring. The first is the app alone, to tell what is added to it. */
export const PAIRS: PairKind[] = [
  { name: 'direct', title: 'the app alone', start: () => [] },
  proxy('nginx', 'nginx with mutual TLS, HTTP/1.1 between', (site) =>
    nginxArgs(write(site, nginxPair(site))),
  ),
  proxy('haproxy', 'HAProxy with mutual TLS, HTTP/2 between', (site) => [
    '-db',
    '-f',
    write(site, haproxyPair(site)),
  ]),
  proxy('envoy', 'Envoy with mutual TLS, HTTP/2 between', envoyArgs),
  ...ours({ name: 'ours', title: 'two sidecars' }),
]

/** Our pair as it is, and with Redis on both sides. */
export const WITH_REDIS: PairKind[] = [
  ...ours({ name: 'memory', title: 'two sidecars, pairs in the memory of each' }),
  ...ours({
    name: 'redis',
    title: 'two sidecars, pairs in Redis',
    base: 'memory',
    variables: ({ redis }) => ({ REDIS_URL: redis }),
  }),
]

/** Our pair without traces, and with some or all calls sampled. */
export const TRACED: PairKind[] = [
  ...ours({ name: 'off', title: 'two sidecars, no tracing' }),
  ...traced('1-percent', 'two sidecars, traces exported, 1 % of the calls sampled', '0.01'),
  ...traced('all', 'two sidecars, traces exported, all calls sampled', '1'),
]

/** Our pair as it is, and between the Envoys of a mesh. */
export const IN_MESH: PairKind[] = [
  ...ours({ name: 'alone', title: 'two sidecars, nothing between' }),
  ...ours({
    name: 'in-mesh',
    title: 'two sidecars, a pair of Envoys between; CPU and memory are those of the sidecars',
    base: 'alone',
    mesh: true,
  }),
  { ...proxy('envoys', 'that pair of Envoys alone', envoyArgs, 'envoy'), base: 'alone' },
]

/** Our pair with one process a side, and with two. */
export const WITH_WORKERS: PairKind[] = [
  ...ours({ name: '1-worker', title: 'two sidecars of one process each' }),
  ...ours({
    name: '2-workers',
    title: 'two sidecars of two workers each',
    base: '1-worker',
    variables: () => ({ WORKERS: '2' }),
  }),
]

/** Our pair, and that of another checkout, which is what it is compared with. */
export function withBaseline(checkout: string): PairKind[] {
  return [
    ...ours({ name: 'baseline', title: `two sidecars of ${checkout}`, checkout }),
    ...ours({ name: 'ours', title: 'two sidecars of this checkout', base: 'baseline' }),
  ]
}

/** Makes a CA and for both sides, a and b, a certificate of it: `a.crt`, `a.key`, and `a.pem` with both. */
export async function makeCertificates(folder: string): Promise<void> {
  const config = path.join(folder, 'openssl.cnf')
  writeFileSync(config, '[req]\ndistinguished_name = name\n[name]\n') // the system's would add extensions
  const make = (name: string, ...args: string[]) =>
    runProgram(
      requireProgram('openssl'),
      [
        ...['req', '-config', config, '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'],
        ...['-nodes', '-days', '2', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.crt`],
        ...args,
      ],
      folder,
    )
  await make('ca', '-addext', 'basicConstraints=critical,CA:TRUE')
  for (const side of ['a', 'b']) {
    await make(side, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-addext', `subjectAltName=DNS:${side}`)
    const parts = [`${side}.crt`, `${side}.key`].map((name) => readFileSync(path.join(folder, name), 'utf8'))
    writeFileSync(path.join(folder, `${side}.pem`), parts.join(''))
  }
}

/** A pair whose two sides are one process with one worker. */
function proxy(
  name: string,
  title: string,
  args: (site: Site) => string[],
  program = name as Program,
): PairKind {
  return { name, title, program, start: (site) => startProxy(program, args, site) }
}

function startProxy(program: Program, args: (site: Site) => string[], site: Site): Service[] {
  return [startService(program, requireProgram(program), args(site), site.folder)]
}

function envoyArgs(site: Site): string[] {
  return [
    ...['--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning'],
    ...['--config-path', write(site, JSON.stringify(envoyConfig(site)))],
  ]
}

/** What our pair is made of. */
interface Sidecars extends Pick<PairKind, 'name' | 'title' | 'base' | 'traced'> {
  /** what both sides have besides */
  variables?(site: Site): NodeJS.ProcessEnv
  /** folder of the sidecar's code; that of this checkout, when not told */
  checkout?: string
  /** Is a pair of Envoys between? */
  mesh?: true
}

/** Our pair, a sidecar a side as they are deployed: as it is, and, under a name of its own, with CARRIAGE=message. */
function ours(sidecars: Sidecars): PairKind[] {
  const { name, title, base, variables, checkout, mesh, ...kind } = sidecars
  return [
    { suffix: '', words: '', carriage: 'auto' },
    { suffix: '-by-message', words: ', by message alone', carriage: 'message' },
  ].map(({ suffix, words, carriage }) => ({
    ...kind,
    name: name + suffix,
    title: title + words,
    ours: true,
    ...(base && { base: base + suffix }),
    start: (site) => startSidecars(site, { CARRIAGE: carriage, ...variables?.(site) }, checkout, mesh),
    ...(mesh && { program: 'envoy', startBetween: startMesh }),
  }))
}

function startMesh(site: Site): Service[] {
  return startProxy('envoy', envoyArgs, { ...site, ...site.between, app: site.inbound })
}

/** Our pair as it exports traces. Only spans are: metrics and logs are as they are without. */
function traced(name: string, title: string, ratio: string): PairKind[] {
  const variables = ({ collector }: Site) => ({
    OTEL_TRACES_EXPORTER: 'otlp',
    OTEL_METRICS_EXPORTER: 'none',
    OTEL_LOGS_EXPORTER: 'none',
    OTEL_EXPORTER_OTLP_ENDPOINT: collector,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf',
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: ratio,
    // As usual, 5 s, few spans would be exported when their measurement is over, and cost nothing in it.
    OTEL_BSP_SCHEDULE_DELAY: '1000',
  })
  return ours({ name, title, base: 'off', traced: true, variables })
}

/** What the image runs it with. */
const AS_IN_IMAGE = { args: ['--max-semi-space-size=4'], env: { MALLOC_ARENA_MAX: '2' } }

const builds = new Map<string, string>()

/** The program of a checkout as it is published, built once. */
function built(checkout: string): string {
  let main = builds.get(checkout)
  if (main === undefined) {
    execFileSync('npm', ['run', '--silent', 'build'], { cwd: checkout })
    main = path.join(checkout, 'dist/sidecar/main.js')
    builds.set(checkout, main)
  }
  return main
}

/** @returns the side that is called, and the one that calls */
function startSidecars(
  { outbound, inbound, admin, app, between, secret, folder, profiles }: Site,
  common: NodeJS.ProcessEnv,
  checkout = path.join(import.meta.dirname, '../..'),
  mesh = false,
): Service[] {
  const peer = mesh ? between.outbound : inbound
  // A profile names lines of the source.
  const main = profiles ? path.join(checkout, 'sidecar/main.ts') : built(checkout)
  const start = (name: string, own: NodeJS.ProcessEnv) => {
    const args = [...(profiles ? profilerArgs(profiles, name) : []), ...AS_IN_IMAGE.args, main, 'run']
    const shared = { PATH: process.env.PATH, CLIENT_ID_SECRET: secret, ...AS_IN_IMAGE.env, ...common }
    const env = { ...shared, NAME: name, ...own }
    return startService(`sidecar-${name}`, process.execPath, args, folder, env)
  }
  return [
    start('b', {
      ADMIN_PORT: '0',
      PORT: String(inbound),
      OUTBOUND_PORT: 'off',
      UPSTREAM: `http://127.0.0.1:${app}`,
    }),
    start('a', {
      ADMIN_PORT: String(admin),
      PORT: '0',
      OUTBOUND_PORT: String(outbound),
      PEERS: `app=http://127.0.0.1:${peer}`,
    }),
  ]
}

function write(site: Site, config: string): string {
  const file = path.join(site.folder, 'config')
  writeFileSync(file, config)
  return file
}

function nginxPair({ outbound, inbound, app, certificates }: Site): string {
  const upstream = 'proxy_http_version 1.1; proxy_set_header Connection ""'
  return nginxConfig(`
  upstream peer { server 127.0.0.1:${inbound}; keepalive 64; }
  upstream app { server 127.0.0.1:${app}; keepalive 64; }
  proxy_max_temp_file_size 0; proxy_request_buffering off; # bodies stream, as they do through the others
  server {
    listen 127.0.0.1:${outbound};
    location / {
      proxy_pass https://peer; ${upstream};
      proxy_ssl_certificate ${certificates}/a.crt; proxy_ssl_certificate_key ${certificates}/a.key;
      proxy_ssl_trusted_certificate ${certificates}/ca.crt; proxy_ssl_verify on; proxy_ssl_name b;
      proxy_ssl_protocols TLSv1.3;
    }
  }
  server {
    listen 127.0.0.1:${inbound} ssl;
    ssl_certificate ${certificates}/b.crt; ssl_certificate_key ${certificates}/b.key;
    ssl_client_certificate ${certificates}/ca.crt; ssl_verify_client on; ssl_protocols TLSv1.3;
    location / { proxy_pass http://app; ${upstream}; }
  }`)
}

function haproxyPair({ outbound, inbound, app, certificates }: Site): string {
  const tls = `ca-file ${certificates}/ca.crt verify required alpn h2 ssl-min-ver TLSv1.3`
  return `
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend outbound
  bind 127.0.0.1:${outbound}
  default_backend peer
backend peer
  server peer 127.0.0.1:${inbound} ssl crt ${certificates}/a.pem verifyhost b ${tls} pool-max-conn 64
frontend inbound
  bind 127.0.0.1:${inbound} ssl crt ${certificates}/b.pem ${tls}
  default_backend app
backend app
  server app 127.0.0.1:${app} pool-max-conn 64
`
}
