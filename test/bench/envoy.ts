/** The configuration of a pair of Envoys: HTTP/2 and mutual TLS 1.3 between. */
import type { Site } from './pairs.ts'

const API = 'type.googleapis.com/envoy.extensions'
const NO_LIMIT = 1_000_000

/** @returns Envoy's bootstrap, to be written as JSON */
export function envoyConfig({ outbound, inbound, app, certificates }: Site): object {
  return {
    static_resources: {
      listeners: [
        listener('outbound', outbound, 'peer'),
        listener('inbound', inbound, 'app', serverTls(certificates)),
      ],
      clusters: [
        cluster('peer', inbound, { http2_protocol_options: {} }, clientTls(certificates)),
        cluster('app', app, { http_protocol_options: {} }),
      ],
    },
  }
}

function listener(name: string, port: number, to: string, tls?: object): object {
  const router = { '@type': `${API}.filters.http.router.v3.Router` }
  const manager = {
    '@type': `${API}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: name,
    codec_type: 'AUTO',
    generate_request_id: false,
    route_config: {
      virtual_hosts: [
        {
          name: 'all',
          domains: ['*'],
          routes: [{ match: { prefix: '/' }, route: { cluster: to, timeout: '0s' } }],
        },
      ],
    },
    http_filters: [{ name: 'router', typed_config: router }],
  }
  const filters = [{ name: 'http', typed_config: manager }]
  return { name, address: address(port), filter_chains: [{ filters, ...(tls && { transport_socket: tls }) }] }
}

function cluster(name: string, port: number, protocol: object, tls?: object): object {
  const limits = { max_connections: NO_LIMIT, max_requests: NO_LIMIT, max_pending_requests: NO_LIMIT }
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    circuit_breakers: { thresholds: [limits] },
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: address(port) } }] }],
    },
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': `${API}.upstreams.http.v3.HttpProtocolOptions`,
        explicit_http_config: protocol,
      },
    },
    ...(tls && { transport_socket: tls }),
  }
}

function clientTls(certificates: string): object {
  const name = { san_type: 'DNS', matcher: { exact: 'b' } }
  return {
    name: 'tls',
    typed_config: {
      '@type': `${API}.transport_sockets.tls.v3.UpstreamTlsContext`,
      sni: 'b',
      common_tls_context: tlsContext(certificates, 'a', { match_typed_subject_alt_names: [name] }),
    },
  }
}

function serverTls(certificates: string): object {
  return {
    name: 'tls',
    typed_config: {
      '@type': `${API}.transport_sockets.tls.v3.DownstreamTlsContext`,
      require_client_certificate: true,
      common_tls_context: tlsContext(certificates, 'b'),
    },
  }
}

function tlsContext(certificates: string, side: 'a' | 'b', validation: object = {}): object {
  return {
    alpn_protocols: ['h2'],
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    tls_certificates: [
      {
        certificate_chain: { filename: `${certificates}/${side}.crt` },
        private_key: { filename: `${certificates}/${side}.key` },
      },
    ],
    validation_context: { trusted_ca: { filename: `${certificates}/ca.crt` }, ...validation },
  }
}

function address(port: number): object {
  return { socket_address: { address: '127.0.0.1', port_value: port } }
}
