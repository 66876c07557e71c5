/** A proxy of a mesh between two sidecars: it sees what they say to each other, and has its say in their traces. */
import http from 'node:http'
import type { Fields } from '../../sidecar/call.ts'
import { type Server, startServer } from './sidecars.ts'

/** A request that went by, with what answered it so far. */
export interface Passed {
  path: string
  fields: Fields
  request: Buffer[]
  response: Buffer[]
}

export interface MeshProxy extends Server {
  url: string
  /** messages and pairings, in the order in which they came */
  passed: Passed[]
  /** the newest message */
  message(): Passed
}

/**
 * Starts it; it speaks HTTP/1.1, and passes on bodies as they come.
 * @param to inbound port of the sidecar behind
 * @param rewrite what it makes of the fields of requests; it leaves them as they are unless that says otherwise
 */
export async function startMeshProxy(
  to: number,
  rewrite: (fields: Fields) => Fields = (fields) => fields,
): Promise<MeshProxy> {
  const passed: Passed[] = []
  const server = await startServer((request, response) => {
    const { method, url: path = '', rawHeaders } = request
    const fields = rawHeaders.map((item, i) => (i % 2 === 0 ? item.toLowerCase() : item))
    const one: Passed = { path, fields, request: [], response: [] }
    passed.push(one)
    const headers = rewrite(fields) as unknown as http.OutgoingHttpHeaders
    const onward = http.request({ host: '127.0.0.1', port: to, method, path, headers, agent: false })
    const cut = () => response.socket?.resetAndDestroy()
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode!, answer.rawHeaders)
      response.flushHeaders()
      answer.on('data', (piece) => one.response.push(piece))
      answer.on('error', cut)
      answer.pipe(response)
    })
    onward.on('error', cut)
    request.on('error', () => onward.destroy())
    response.on('close', () => {
      if (!response.writableFinished) onward.destroy()
    })
    request.on('data', (piece) => one.request.push(piece))
    request.pipe(onward)
  })
  return {
    ...server,
    url: `http://127.0.0.1:${server.port}`,
    passed,
    message: () => passed.findLast(({ path }) => path === '/api/mte-message')!,
  }
}
