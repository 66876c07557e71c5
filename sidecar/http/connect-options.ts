/** Where the connections of a client go, and what they trust. */
import net from 'node:net'
import tls, { type ConnectionOptions, type SecureContext } from 'node:tls'

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
  return { host, port, servername, ALPNProtocols: protocols, secureContext: trusting(ca ?? NO_OTHERS) }
}

const NO_OTHERS: readonly string[] = []
/** By the list that they were made for: reading some hundred certificates takes a while. */
const contexts = new WeakMap<readonly string[], SecureContext>()

function trusting(ca: readonly string[]): SecureContext {
  let context = contexts.get(ca)
  if (!context) {
    const all = new Set([...tls.getCACertificates('default'), ...tls.getCACertificates('system'), ...ca])
    context = tls.createSecureContext({ ca: [...all] })
    contexts.set(ca, context)
  }
  return context
}
