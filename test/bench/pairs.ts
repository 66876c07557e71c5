/** The pairs that are measured: two proxies back to back, and how each pair is started. */
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { nginxArgs, nginxConfig } from './app.ts'
import { envoyConfig } from './envoy.ts'
import { runProgram, type Service, startService } from './processes.ts'
import { type Program, requireProgram } from './programs.ts'

/** Where a pair stands: calls go to `outbound`, which calls `inbound`, which calls `app`. */
export interface Site {
  /** ports of 127.0.0.1 */
  outbound: number
  inbound: number
  app: number
  /** CLIENT_ID_SECRET of our sidecars */
  secret: string
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
}

export interface PairKind {
  name: string
  title: string
  /** what has to be installed */
  program?: Program
  /** Does it export spans? */
  traced?: true
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
  ours('ours', 'two sidecars, sealed messages between', () => ({})),
]

/** Our pair as it is, and with Redis on both sides. */
export const OURS: PairKind[] = [
  ours('memory', 'two sidecars, pairs in the memory of each', () => ({})),
  ours('redis', 'two sidecars, pairs in Redis', ({ redis }) => ({ REDIS_URL: redis })),
]

/** Our pair without traces, and with some or all calls sampled. */
export const TRACED: PairKind[] = [
  ours('off', 'two sidecars, no tracing', () => ({})),
  traced('1-percent', 'two sidecars, traces exported, 1 % of the calls sampled', '0.01'),
  traced('all', 'two sidecars, traces exported, all calls sampled', '1'),
]

/** Our pair as it is, and between the Envoys of a mesh. */
export const IN_MESH: PairKind[] = [
  ours('alone', 'two sidecars, nothing between', () => ({})),
  {
    name: 'in-mesh',
    title: 'two sidecars, a pair of Envoys between; CPU and memory are those of the sidecars',
    program: 'envoy',
    start: (site) => startSidecars(site, {}, site.between.outbound),
    startBetween: (site) => startProxy('envoy', envoyArgs, { ...site, ...site.between, app: site.inbound }),
  },
  proxy('envoys', 'that pair of Envoys alone', envoyArgs, 'envoy'),
]

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

/** Our pair: a process a side, as they are deployed. */
function ours(name: string, title: string, variables: (site: Site) => NodeJS.ProcessEnv): PairKind {
  return { name, title, start: (site) => startSidecars(site, variables(site)) }
}

/** Our pair as it exports traces. Only spans are: metrics and logs are as they are without. */
function traced(name: string, title: string, ratio: string): PairKind {
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
  return { ...ours(name, title, variables), traced: true }
}

function startSidecars(
  { outbound, inbound, app, secret, folder }: Site,
  common: NodeJS.ProcessEnv,
  peer = inbound,
): Service[] {
  const main = path.join(import.meta.dirname, '../../sidecar/main.ts')
  const start = (name: string, own: NodeJS.ProcessEnv) => {
    const shared = { PATH: process.env.PATH, CLIENT_ID_SECRET: secret, ADMIN_PORT: '0', ...common }
    const env = { ...shared, NAME: name, ...own }
    return startService(`sidecar-${name}`, process.execPath, [main, 'run'], folder, env)
  }
  return [
    start('b', { PORT: String(inbound), OUTBOUND_PORT: 'off', UPSTREAM: `http://127.0.0.1:${app}` }),
    start('a', { PORT: '0', OUTBOUND_PORT: String(outbound), PEERS: `app=http://127.0.0.1:${peer}` }),
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
