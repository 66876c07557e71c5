/** What Istio tells the Envoy of a pod, as far as it matters to whoever is called through it. */

const API = 'type.googleapis.com/envoy.extensions'

/** Of Istio: where what leaves a pod is led to, and what comes to it; the last one answers GET /stats. */
export const MESH_PORTS = { outbound: 15001, inbound: 15006, admin: 15020 }
/** How soon an Envoy closes a connection on which nothing happens. */
const IDLE_TIMEOUT = '1s'
const ATTEMPTS_MAX = 3
const NO_LIMIT = 2 ** 32 - 1
const NO_LIMITS = {
  max_connections: NO_LIMIT,
  max_pending_requests: NO_LIMIT,
  max_requests: NO_LIMIT,
  max_retries: NO_LIMIT,
}
/** Of Istio's: the address from which an Envoy calls what is in its own pod. */
const INBOUND_SOURCE = '127.0.0.6'

/** What is called by name in the mesh. */
export interface Destination {
  name: string
  /** the service whose pods it leads to */
  service: string
  /** for how long one of them is waited for before the next one is tried; Envoy's way to write it */
  perTryTimeout?: string
}

export interface Workload {
  /** of its pod */
  name: string
  /** port at which others call it */
  port: number
  /** what others call it at */
  paths: readonly string[]
  destinations: readonly Destination[]
  /** files of the folder that all share */
  files: { certificate: string; key: string; authority: string; endpoints(service: string): string }
  /** URI of a workload in its certificate */
  identity(service: string): string
  /** may call it; others of the mesh may not */
  callers: readonly string[]
}

/** @returns Envoy's bootstrap, to be written as JSON */
export function envoyConfig(workload: Workload): object {
  const services = [...new Set(workload.destinations.map(({ service }) => service))]
  return {
    node: { id: workload.name, cluster: workload.name },
    admin: { address: address('0.0.0.0', MESH_PORTS.admin) },
    static_resources: {
      listeners: [...outboundListeners(workload), inboundListener(workload)],
      clusters: [
        { name: 'passthrough', type: 'ORIGINAL_DST', lb_policy: 'CLUSTER_PROVIDED' },
        ...services.map((service) => peerCluster(workload, service)),
        appCluster(),
      ],
    },
  }
}

/** What leaves the pod: to port 80 it is routed by Host, and all else goes where it was meant to go. */
function outboundListeners({ destinations }: Workload): object[] {
  const passthrough = {
    '@type': `${API}.filters.network.tcp_proxy.v3.TcpProxy`,
    stat_prefix: 'passthrough',
    cluster: 'passthrough',
  }
  const hosts = destinations.map(({ name, service, perTryTimeout }) => {
    const retries = {
      retry_on: '5xx,reset,connect-failure',
      num_retries: ATTEMPTS_MAX - 1,
      ...(perTryTimeout && { per_try_timeout: perTryTimeout }),
      retry_host_predicate: [
        {
          name: 'envoy.retry_host_predicates.previous_hosts',
          typed_config: { '@type': `${API}.retry.host.previous_hosts.v3.PreviousHostsPredicate` },
        },
      ],
      host_selection_retry_max_attempts: 5,
    }
    const route = { cluster: service, timeout: '0s', retry_policy: retries }
    return { name, domains: [name, `${name}:80`], routes: [{ match: { prefix: '/' }, route }] }
  })
  const anyOther = { match: { prefix: '/' }, route: { cluster: 'passthrough', timeout: '0s' } }
  return [
    {
      name: 'virtualOutbound',
      address: address('0.0.0.0', MESH_PORTS.outbound),
      traffic_direction: 'OUTBOUND',
      use_original_dst: true,
      filter_chains: [{ filters: [{ name: 'tcp', typed_config: passthrough }] }],
    },
    {
      name: '0.0.0.0_80',
      address: address('0.0.0.0', 80),
      traffic_direction: 'OUTBOUND',
      bind_to_port: false,
      filter_chains: [
        {
          filters: [httpManager('outbound', [...hosts, { name: 'any', domains: ['*'], routes: [anyOther] }])],
        },
      ],
    },
  ]
}

/** What comes to the pod: with mutual TLS alone, as where PeerAuthentication is STRICT. */
function inboundListener(workload: Workload): object {
  const route = { cluster: 'app', timeout: '0s' }
  const host = { name: 'inbound', domains: ['*'], routes: [{ match: { prefix: '/' }, route }] }
  const tls = {
    '@type': `${API}.transport_sockets.tls.v3.DownstreamTlsContext`,
    require_client_certificate: true,
    common_tls_context: tlsContext(workload),
  }
  return {
    name: 'virtualInbound',
    address: address('0.0.0.0', MESH_PORTS.inbound),
    traffic_direction: 'INBOUND',
    listener_filters: [
      listenerFilter('original_dst', 'original_dst.v3.OriginalDst'),
      listenerFilter('tls_inspector', 'tls_inspector.v3.TlsInspector'),
    ],
    filter_chains: [
      {
        filter_chain_match: { destination_port: workload.port, transport_protocol: 'tls' },
        filters: [httpManager('inbound', [host], [authorization(workload)])],
        transport_socket: { name: 'tls', typed_config: tls },
      },
    ],
  }
}

function httpManager(direction: 'inbound' | 'outbound', hosts: object[], filters: object[] = []): object {
  const router = { name: 'router', typed_config: { '@type': `${API}.filters.http.router.v3.Router` } }
  const manager = {
    '@type': `${API}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: direction,
    codec_type: 'AUTO',
    normalize_path: true,
    merge_slashes: true,
    path_with_escaped_slashes_action: 'UNESCAPE_AND_FORWARD',
    generate_request_id: true,
    server_name: 'istio-envoy',
    via: 'envoy',
    ...(direction === 'inbound' && { forward_client_cert_details: 'APPEND_FORWARD' }),
    common_http_protocol_options: { idle_timeout: IDLE_TIMEOUT },
    stream_idle_timeout: '0s',
    access_log: [{ name: 'stdout', typed_config: accessLog(direction) }],
    route_config: {
      virtual_hosts: hosts.map((host) => ({ ...host, include_request_attempt_count: true })),
      request_headers_to_add: [{ header: { key: 'x-mesh', value: direction } }],
      response_headers_to_add: [{ header: { key: 'x-mesh', value: direction } }],
    },
    http_filters: [...filters, router],
  }
  return { name: 'http', typed_config: manager }
}

/** As an AuthorizationPolicy of Istio: who may call what. */
function authorization({ callers, identity, paths }: Workload): object {
  const principals = callers.map((caller) => ({
    authenticated: { principal_name: { exact: identity(caller) } },
  }))
  const permissions = paths.map((path) => ({ url_path: { path: { exact: path } } }))
  const rbac = {
    '@type': `${API}.filters.http.rbac.v3.RBAC`,
    rules: { action: 'ALLOW', policies: { callers: { principals, permissions } } },
  }
  return { name: 'rbac', typed_config: rbac }
}

/** A line of JSON for each call, on standard output. */
function accessLog(direction: string): object {
  const line = {
    direction,
    method: '%REQ(:METHOD)%',
    authority: '%REQ(:AUTHORITY)%',
    path: '%REQ(:PATH)%',
    protocol: '%PROTOCOL%',
    status: '%RESPONSE_CODE%',
    flags: '%RESPONSE_FLAGS%',
    attempts: '%UPSTREAM_REQUEST_ATTEMPT_COUNT%',
    host: '%UPSTREAM_HOST%',
    trouble: '%UPSTREAM_TRANSPORT_FAILURE_REASON%',
  }
  return {
    '@type': `${API}.access_loggers.stream.v3.StdoutAccessLog`,
    log_format: { json_format: line },
  }
}

/** The pods of a service, each call to another one of them. */
function peerCluster(workload: Workload, service: string): object {
  const { files, identity } = workload
  const san = { san_type: 'URI', matcher: { exact: identity(service) } }
  const tls = {
    '@type': `${API}.transport_sockets.tls.v3.UpstreamTlsContext`,
    common_tls_context: tlsContext(workload, { match_typed_subject_alt_names: [san] }),
  }
  const file = { path_config_source: { path: files.endpoints(service) }, resource_api_version: 'V3' }
  return {
    name: service,
    type: 'EDS',
    eds_cluster_config: { eds_config: file },
    connect_timeout: '1s',
    lb_policy: 'ROUND_ROBIN',
    // As Istio has it: Envoy alone would retry no more than three calls at a time.
    circuit_breakers: { thresholds: [NO_LIMITS] },
    ...protocol({ http2_protocol_options: {} }),
    transport_socket: { name: 'tls', typed_config: tls },
  }
}

/** What a call from outside was meant for, in this pod. */
function appCluster(): object {
  return {
    name: 'app',
    type: 'ORIGINAL_DST',
    lb_policy: 'CLUSTER_PROVIDED',
    upstream_bind_config: { source_address: { address: INBOUND_SOURCE, port_value: 0 } },
    ...protocol({ http_protocol_options: {} }),
  }
}

function protocol(explicit: object): object {
  const options = {
    '@type': `${API}.upstreams.http.v3.HttpProtocolOptions`,
    common_http_protocol_options: { idle_timeout: IDLE_TIMEOUT },
    explicit_http_config: explicit,
  }
  return {
    typed_extension_protocol_options: { 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': options },
  }
}

function tlsContext({ files }: Workload, validation: object = {}): object {
  return {
    alpn_protocols: ['h2'],
    tls_certificates: [
      { certificate_chain: { filename: files.certificate }, private_key: { filename: files.key } },
    ],
    validation_context: { trusted_ca: { filename: files.authority }, ...validation },
  }
}

function listenerFilter(name: string, type: string): object {
  return {
    name: `envoy.filters.listener.${name}`,
    typed_config: { '@type': `${API}.filters.listener.${type}` },
  }
}

function address(host: string, port: number): object {
  return { socket_address: { address: host, port_value: port } }
}

/** As istio-init has it: all that leaves a pod goes to its Envoy, but for what Envoy itself sends, and all that comes. */
export function redirects(
  uid: number,
  excluded: { inbound: readonly number[]; outbound: readonly number[] },
): string {
  const { inbound, outbound, admin } = MESH_PORTS
  return [
    '*nat',
    ...['ISTIO_INBOUND', 'ISTIO_REDIRECT', 'ISTIO_IN_REDIRECT', 'ISTIO_OUTPUT'].map(
      (chain) => `:${chain} - [0:0]`,
    ),
    `-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports ${outbound}`,
    `-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports ${inbound}`,
    '-A PREROUTING -p tcp -j ISTIO_INBOUND',
    ...[admin, ...excluded.inbound].map((port) => `-A ISTIO_INBOUND -p tcp --dport ${port} -j RETURN`),
    '-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT',
    '-A OUTPUT -p tcp -j ISTIO_OUTPUT',
    ...excluded.outbound.map((port) => `-A ISTIO_OUTPUT -p tcp --dport ${port} -j RETURN`),
    `-A ISTIO_OUTPUT -s ${INBOUND_SOURCE}/32 -o lo -j RETURN`,
    `-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -m owner --uid-owner ${uid} -j ISTIO_IN_REDIRECT`,
    `-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner ${uid} -j RETURN`,
    `-A ISTIO_OUTPUT -m owner --uid-owner ${uid} -j RETURN`,
    '-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN',
    '-A ISTIO_OUTPUT -j ISTIO_REDIRECT',
    'COMMIT',
    '',
  ].join('\n')
}
