/** Programs that do as Jaeger does, or do not. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export interface FakeJaeger {
  /** the folder that the program is in */
  folder: string
  file: string
  /** what it was started with */
  args(): string[]
  remove(): void
}

/** @param name of the program @param source what it does, given its arguments `args` */
export function fakeProgram(name: string, source: string): FakeJaeger {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-jaeger-'))
  const file = path.join(folder, name)
  const argsFile = path.join(folder, 'args.json')
  const program = `#!${process.execPath}
const args = process.argv.slice(2)
require('node:fs').writeFileSync(${JSON.stringify(argsFile)}, JSON.stringify(args))
${source}
`
  writeFileSync(file, program)
  chmodSync(file, 0o755)
  return {
    folder,
    file,
    args: () => JSON.parse(readFileSync(argsFile, 'utf8')),
    remove: () => rmSync(folder, { recursive: true }),
  }
}

/**
 * What a Jaeger does that knows a trace of so many spans, whatever it was sent, once it was sent something. It ends
 * with status 5 when its page is asked for /end.
 * @param ports expressions for the ports of OTLP and of the page
 */
export function jaegerSource(spans: number, [otlp, ui]: readonly [string, string] = PORTS_OF_CONFIG): string {
  return `
const http = require('node:http')
const config = JSON.parse(args.at(-1).replace('--config=yaml:', ''))
const portOf = (endpoint) => Number(endpoint.split(':')[1])
let sent = false
http.createServer((request, response) => {
  sent ||= request.method === 'POST' && request.url === '/v1/traces'
  request.resume().on('end', () => response.end())
}).listen(${otlp}, '127.0.0.1')
http.createServer((request, response) => {
  if (request.url === '/end') process.exit(5)
  if (request.url === '/api/v3/services') return response.end('{}')
  if (!sent || !/^\\/api\\/v3\\/traces\\/[0-9a-f]{32}$/.test(request.url)) return response.writeHead(404).end('{}')
  const spans = Array.from({ length: ${spans} }, () => ({}))
  response.end(JSON.stringify({ result: { resourceSpans: [{ scopeSpans: [{ spans }] }] } }))
}).listen(${ui}, '127.0.0.1')
`
}

const PORTS_OF_CONFIG = [
  'portOf(config.receivers.otlp.protocols.http.endpoint)',
  'portOf(config.extensions.jaeger_query.http.endpoint)',
] as const
