import http from 'node:http'
import { type Server, startServer } from './sidecars.ts'

export interface Http1Proxy extends Server {
  /** requests that came so far */
  requests: number
}

/** Starts a reverse proxy that speaks HTTP/1.1 alone, on both sides, and passes on bodies as they come. */
export async function startHttp1Proxy(to: number): Promise<Http1Proxy> {
  const agent = new http.Agent({ keepAlive: true })
  const server = await startServer((request, response) => {
    proxy.requests++
    const { method, url: path, rawHeaders: headers } = request
    const onward = http.request({
      host: '127.0.0.1',
      port: to,
      method,
      path,
      headers,
      agent,
    } as http.RequestOptions)
    const cut = () => response.socket?.resetAndDestroy()
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode!, answer.rawHeaders)
      response.flushHeaders()
      answer.on('error', cut)
      answer.pipe(response)
    })
    onward.on('error', cut)
    request.on('error', () => onward.destroy())
    response.on('close', () => {
      if (!response.writableFinished) onward.destroy()
    })
    request.pipe(onward)
  })
  const proxy: Http1Proxy = {
    ...server,
    requests: 0,
    async close() {
      agent.destroy()
      await server.close()
    },
  }
  return proxy
}
