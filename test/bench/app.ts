/** What answers behind every pair: one nginx, and an app in Node for what nginx cannot do. */
import { once } from 'node:events'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { findFreePorts, type Service, startService, waitForAnswer } from './processes.ts'
import { requireProgram } from './programs.ts'

export const BODY_BYTES = 16_384
/** A head of 6 KiB. */
const BIG_HEAD = { fields: 60, valueBytes: 90 }
/** What `/stream` of the app in Node answers with: pieces that come one by one, as those of an event stream do. */
export const STREAM = { pieces: 100, pieceBytes: 100 }
export const SMALL_JSON = JSON.stringify({
  id: 1,
  title: 'delectus aut autem',
  completed: false,
  userId: 1,
  note: '0123456789'.repeat(4),
})

export interface App {
  /** port of nginx: `/small`, `/big-head`, `/16k`, POST to `/post`, and whatever is in the folder */
  nginx: number
  /**
   * port of the app in Node: `/stream`, and a sink, which answers with 200 once it has read the bytes that `?bytes=`
   * asks for, and 400 otherwise
   */
  node: number
  /** port of nginx that refuses every request over HTTP/2 with 409, as a sidecar does a replay */
  refusing: number
  /** what nginx serves */
  folder: string
  service: Service
}

/** Starts the app in an empty folder; it stays until the benchmark ends. */
export async function startApp(folder: string): Promise<App> {
  const www = path.join(folder, 'www')
  mkdirSync(www, { recursive: true })
  writeFileSync(path.join(www, '16k'), 'x'.repeat(BODY_BYTES))
  const [nginx, refusing] = (await findFreePorts(2)) as [number, number]
  const config = path.join(folder, 'nginx.conf')
  writeFileSync(config, nginxConfig(nginxServers(nginx, refusing, folder)))
  const service = startService('app', requireProgram('nginx'), nginxArgs(config), folder)
  await waitForAnswer(nginx, [service])
  return { nginx, refusing, node: await startNodeApp(), folder: www, service }
}

/** The fields of a head of 6 KiB. */
export function bigHead(): [name: string, value: string][] {
  const value = 'x'.repeat(BIG_HEAD.valueBytes)
  return Array.from({ length: BIG_HEAD.fields }, (_, i) => [`x-field-${i}`, value])
}

/** Makes a file of zeros that takes no room on the disk. */
export function makeSparseFile(file: string, bytes: number): { path: string; bytes: number } {
  writeFileSync(file, '')
  truncateSync(file, bytes)
  return { path: file, bytes }
}

/** A whole configuration of nginx: one worker, keep-alive, no access log, no limits, everything in its own folder. */
export function nginxConfig(servers: string): string {
  const places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  return `
worker_processes 1; daemon off; user root; pid nginx.pid; error_log stderr;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; client_max_body_size 0;
  ${places.map((place) => `${place}_temp_path temp_${place};`).join(' ')}
  ${servers}
}`
}

export function nginxArgs(config: string): string[] {
  return ['-e', 'stderr', '-p', path.dirname(config), '-c', config]
}

/**
 * The app's servers. `return` answers before the body is read, so POSTs take a second hop: proxy_pass reads the
 * whole body first, and then sends nothing of it.
 */
function nginxServers(port: number, refusing: number, folder: string): string {
  const hop = path.join(folder, 'hop.sock')
  const fields = bigHead().map(([name, value]) => `add_header ${name} ${value};`)
  return `
  upstream hop { server unix:${hop}; keepalive 64; }
  server {
    listen 127.0.0.1:${port} reuseport; sendfile on;
    location /small { default_type application/json; return 200 '${SMALL_JSON}'; }
    location /big-head { ${fields.join(' ')} return 200 '${SMALL_JSON}'; }
    location /post {
      client_body_buffer_size ${2 * BODY_BYTES};
      proxy_pass http://hop; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_method GET;
    }
    location / { root www; }
  }
  server { listen 127.0.0.1:${refusing} http2; location / { return 409; } }
  server { listen unix:${hop}; location / { default_type application/json; return 200 '${SMALL_JSON}'; } }`
}

async function startNodeApp(): Promise<number> {
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url!, 'http://app')
    request.on('error', () => {}) // the caller tells that its call broke
    if (pathname === '/stream') stream(response)
    else sink(request, response, Number(searchParams.get('bytes') ?? 0))
  })
  server.unref()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

function sink(request: http.IncomingMessage, response: http.ServerResponse, wanted: number): void {
  let received = 0
  request.on('data', (piece: Buffer) => {
    received += piece.length
  })
  request.on('end', () => {
    response.statusCode = received === wanted ? 200 : 400
    response.end()
  })
}

/** Each piece in a turn of its own: those of one turn would leave as one. */
function stream(response: http.ServerResponse, left = STREAM.pieces): void {
  if (left === 0) return void response.end()
  response.write('x'.repeat(STREAM.pieceBytes))
  setImmediate(stream, response, left - 1)
}
