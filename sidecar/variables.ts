/** Every variable once: name, format, default, meaning, unit. */
import { contentOf, FORMATS } from './formats.ts'
import { parseRedisUrl } from './redis/redis-url.ts'

/** The format of each kind of variable, by name. */
export const ALL_FORMATS = {
  ...FORMATS,
  redisUrl: parseRedisUrl,
  redisUrlFile: (path: string) => contentOf(path, parseRedisUrl),
} as const

type Format = keyof typeof ALL_FORMATS

interface Variable<F extends Format, D extends string | null> {
  format: F
  /** as it would be written in the environment; null: none */
  default: D
  doc: string
}

/** All that can be configured, in the order in which it is told. */
export const VARIABLES = {
  UPSTREAM: variable(
    'baseUrl',
    null,
    'base URL of the local app; unset: this sidecar is for outbound calls only',
  ),
  CLIENT_ID_SECRET: variable(
    'clientIdSecret',
    null,
    'required: the secret shared by all sidecars that talk to each other, 32 characters or more',
  ),
  CLIENT_ID_SECRET_FILE: variable(
    'clientIdSecretFile',
    null,
    'file that holds it, instead; read again when it changes',
  ),
  CLIENT_ID_SECRET_PREVIOUS: variable(
    'clientIdSecret',
    null,
    'the secret before, still accepted while the new one is rolled out',
  ),
  CLIENT_ID_SECRET_PREVIOUS_FILE: variable(
    'clientIdSecretPreviousFile',
    null,
    'file that holds it, instead; read again when it changes; while it does not exist or is empty, there is none',
  ),
  OUTBOUND_TOKEN: variable(
    'outboundToken',
    null,
    'what every outbound call must show: x-mte-outbound-token, or Proxy-Authorization; unset: calls to OUTBOUND_PORT need none, and PORT takes no outbound calls',
  ),
  OUTBOUND_TOKEN_FILE: variable(
    'outboundTokenFile',
    null,
    'file that holds it, instead; read again when it changes',
  ),
  OUTBOUND_TOKEN_PREVIOUS: variable('outboundToken', null, 'the token before, still accepted'),
  OUTBOUND_TOKEN_PREVIOUS_FILE: variable(
    'outboundTokenPreviousFile',
    null,
    'file that holds it, instead; read again when it changes; while it does not exist or is empty, there is none',
  ),
  PEERS: variable(
    'peers',
    null,
    'billing=http://billing:8080,*.shop=http://{host}:{port}: authority that the app calls = base URL of its sidecar; * stands for any text, the longest match wins',
  ),
  PEERS_FILE: variable('peersFile', null, 'file with more of them, one a line; read again when it changes'),
  PASS_THROUGH_HOSTS: variable(
    'authorities',
    null,
    'host or host:port, comma-separated, that may be called in plain; all other authorities without a peer are refused',
  ),
  PASS_THROUGH_ROUTES: variable(
    'pathPrefixes',
    null,
    'path prefixes such as /healthz, comma-separated, that PORT forwards in plain to UPSTREAM',
  ),
  CA_FILE: variable(
    'certificatesFile',
    null,
    'PEM file of certificate authorities to trust for https:// besides those of the system and of Node',
  ),
  REDIS_URL: variable(
    'redisUrl',
    null,
    'where replicas share pairs: redis://user:password@host:6379/0, redis+cluster://a,b, redis+sentinel://a,b/primary, rediss in place of redis for TLS, or unix:/path; unset: pairs are kept in memory, and each process has its own',
  ),
  REDIS_URL_FILE: variable('redisUrlFile', null, 'file that holds it, instead'),
  PORT: variable(
    'port',
    '8080',
    "where peers' sidecars reach this one, on all addresses; 0 takes a free port",
  ),
  OUTBOUND_PORT: variable('portOrOff', '8081', "for the app's outbound calls, on loopback; off closes it"),
  ADMIN_PORT: variable(
    'port',
    '8082',
    '/livez, /readyz, /metrics, and from this machine the status page at / and /pairs; on ADMIN_HOST',
  ),
  ADMIN_HOST: variable('listenHost', '127.0.0.1', 'IP address or host name'),
  NAME: variable(
    'name',
    null,
    'what this sidecar calls itself to its peers; replicas that share pairs have one name, services that share a Redis different ones; unset: the host name, or relay with REDIS_URL',
  ),
  LOG_LEVEL: variable('logLevel', 'info', 'fatal, error, warn, info, debug, trace or silent'),
  DEBUG: variable('flag', 'false', 'true is LOG_LEVEL=debug'),
  ACCESS_LOG: variable(
    'flag',
    'false',
    'true, as well as LOG_LEVEL debug or trace, logs one line a call: peer, status, sizes and times; never path, headers or body',
  ),
  TRACE_CONTEXT: variable(
    'traceContext',
    'outside',
    'outside lets the network see traceparent, so that the proxies of a mesh can join the trace; inside hides it in the message; traces and metrics are exported once OTEL_EXPORTER_OTLP_ENDPOINT is set, and all standard OTEL_ variables count',
  ),
  CARRIAGE: variable(
    'carriage',
    'auto',
    'how calls go to peers: message seals each by itself, and any replica may take it; tunnel carries many in one long stream, at a fraction of the CPU; auto is message for peers that get few calls, and tunnel for those that get 100 a second',
  ),
  JAEGER_UI_URL: variable(
    'baseUrl',
    null,
    'base URL at which people open Jaeger: the status page then links to the traces of each peer',
  ),
  HEADERS: variable(
    'headers',
    null,
    'JSON object of strings, such as {"x-service-name":"billing"}: headers added to requests to UPSTREAM and to the responses that the app\'s caller gets',
  ),
  CORS_ORIGINS: variable(
    'origins',
    null,
    'origins such as https://www.example.com, comma-separated, or *: preflights are answered here, and CORS headers added; unset: neither',
  ),
  CORS_METHODS: variable(
    'methods',
    'GET,POST,PUT,DELETE',
    'methods that preflights allow; limits nothing but CORS',
  ),
  CORS_ALLOWED_HEADERS: variable('fieldNames', null, 'headers that preflights allow; unset: those asked for'),
  CONNECT_TIMEOUT_SECONDS: variable('seconds', '5', 'time to connect to a peer or to UPSTREAM'),
  RESPONSE_TIMEOUT_SECONDS: variable('seconds', '120', 'time to the first byte of a response'),
  IDLE_TIMEOUT_SECONDS: variable('seconds', '300', 'how long a call may go on without a byte either way'),
  MAX_HEADER_BYTES: variable('headerBytes', '65536', 'names and values of one head; beyond it status 431'),
  MAX_BODY_BYTES: variable(
    'bodyBytes',
    null,
    'of the body of one request; beyond it status 413; unset: no limit',
  ),
  DRAIN_SECONDS: variable('seconds', '30', 'time for open requests to finish after SIGTERM'),
  WORKERS: variable(
    'workers',
    '1',
    'processes that share the ports and the pairs: one for each core that calls should use; each takes the memory of a sidecar',
  ),
} as const

/** What each variable means; undefined: it is not set, and has no default. */
export type Values = {
  [N in keyof typeof VARIABLES]: (typeof VARIABLES)[N] extends Variable<infer F, infer D>
    ? ReturnType<(typeof ALL_FORMATS)[F]> | (D extends null ? undefined : never)
    : never
}

function variable<F extends Format, D extends string | null>(
  format: F,
  fallback: D,
  doc: string,
): Variable<F, D> {
  return { format, default: fallback, doc }
}
