/** Where the connections of a client go, and what they trust. */
import net from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { trusting } from '../trust.ts'

/**
 * How to connect to an origin.
 *
 * Over TLS it is the origin's own host that is asked for and must be proven, whatever a request names.
 * @param protocols for ALPN, the preferred one first
 * @param ca PEM certificates that are trusted besides those of the system and of Node
 */
export function connectOptions(origin: URL, protocols: string[], ca?: readonly string[]): ConnectionOptions {
  const { hostname } = origin
  const secure = origin.protocol === 'https:'
  const host = hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
  const port = origin.port === '' ? (secure ? 443 : 80) : Number(origin.port)
  if (!secure) return { host, port }
  // An IP address is no server name (RFC 6066 section 3).
  const servername = net.isIP(host) ? '' : host
  return { host, port, servername, ALPNProtocols: protocols, secureContext: trusting(ca) }
}
