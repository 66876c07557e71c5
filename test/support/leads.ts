/**
 * NODE_OPTIONS with which connections lead elsewhere, for tests of addresses that are not here.
 * @param to where connections go, by where they are meant to go: `host:port` each
 */
export function leads(to: Record<string, string>): string {
  const hook = `
    import net from 'node:net'
    const to = ${JSON.stringify(to)}
    const { connect } = net.Socket.prototype
    net.Socket.prototype.connect = function (...args) {
      const options = Array.isArray(args[0]) ? args[0][0] : args[0]
      const [host, port] = to[options.host + ':' + options.port]?.split(':') ?? []
      if (host) Object.assign(options, { host, port: Number(port) })
      return connect.apply(this, args)
    }`
  return `--import=data:text/javascript,${encodeURIComponent(hook)}`
}
