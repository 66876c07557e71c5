/** Where hosts are, seen from this machine: a pod, a container or a host, whatever has the network interfaces. */
import dns from 'node:dns/promises'
import net from 'node:net'
import os from 'node:os'

/** `here`: at an address of this machine that others may reach, too */
type Place = 'loopback' | 'here' | 'elsewhere' | 'unknown'

/** How long a connection may take that is only tried, in ms. */
const CONNECT_PATIENCE_MS = 1000

/** The addresses of this machine at which others may reach it; none of those that need a zone (fe80::1%eth0). */
export function ownAddresses(): string[] {
  const all = Object.values(os.networkInterfaces()).flatMap((addresses) => addresses ?? [])
  return all.filter(({ internal, scopeid }) => !internal && !scopeid).map(({ address }) => address)
}

/** @param host name or address; IPv6 with brackets or without */
export async function placeOf(host: string): Promise<Place> {
  const addresses = await dns.lookup(withoutBrackets(host), { all: true }).catch(() => [])
  if (addresses.length === 0) return 'unknown'
  if (addresses.every(({ address }) => isLoopback(address))) return 'loopback'
  const own = new Set(ownAddresses())
  return addresses.some(({ address }) => own.has(address)) ? 'here' : 'elsewhere'
}

/** The port of a URL of http or https, in numbers. */
export function portOf({ protocol, port }: URL): number {
  return Number(port) || (protocol === 'https:' ? 443 : 80)
}

/** Does anybody take a connection there? */
export function accepts(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: withoutBrackets(host), port, timeout: CONNECT_PATIENCE_MS })
    const settle = (accepted: boolean) => {
      socket.destroy()
      resolve(accepted)
    }
    socket.on('connect', () => settle(true))
    socket.on('timeout', () => settle(false))
    socket.on('error', () => settle(false))
  })
}

export function withBrackets(address: string): string {
  return net.isIPv6(address) ? `[${address}]` : address
}

function withoutBrackets(host: string): string {
  return host.replace(/^\[|\]$/g, '')
}

function isLoopback(address: string): boolean {
  return /^127\.|^::1$|^::ffff:127\./.test(address)
}
