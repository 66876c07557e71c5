/**
 * What the other end of a tunnel may not do (relay1 tunnels, sections 2 and 3): a record that does not open,
 * frames that break the structure. It kills the tunnel. The message says in plain words what was wrong and
 * holds nothing of what was received.
 */
export class TunnelError extends Error {
  override readonly name = 'TunnelError'
}
