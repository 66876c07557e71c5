import http from 'node:http'

export interface CallOptions {
  method?: string
  path?: string
  /** names and values, in turns, or an object; `Host: billing` unless it is there */
  headers?: string[] | Record<string, string | string[]>
  body?: string | Buffer
  /** sent after a chunked body */
  trailers?: [string, string][]
  agent?: http.Agent
}

export interface CallAnswer {
  status: number
  headers: http.IncomingHttpHeaders
  rawHeaders: string[]
  body: Buffer
  text: string
  rawTrailers: string[]
  /** statuses and headers of interim responses */
  interim: { status: number; headers: http.IncomingHttpHeaders }[]
  /** the code of an answer that a sidecar made itself */
  code: string | undefined
}

/**
 * Makes one call over HTTP/1.1 and takes its whole answer.
 * @throws when the answer was cut off or reset
 */
export async function call(port: number, options: CallOptions = {}): Promise<CallAnswer> {
  const { method = 'GET', path = '/', body, trailers, agent = new http.Agent() } = options
  const headers = withHost(options.headers ?? {})
  const interim: CallAnswer['interim'] = []
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const request = http.request({
      host: '127.0.0.1',
      port,
      method,
      path,
      headers,
      agent,
      maxHeaderSize: 1024 * 1024,
    })
    request.maxHeadersCount = 0
    request.on('information', ({ statusCode, headers }) => interim.push({ status: statusCode, headers }))
    request.on('response', resolve)
    request.on('error', reject)
    if (trailers) {
      request.write(body ?? '')
      request.addTrailers(trailers)
      request.end()
    } else {
      // node:http announces no body of a GET, DELETE or OPTIONS by itself.
      if (body !== undefined && !Array.isArray(headers) && !('transfer-encoding' in headers)) {
        request.setHeader('content-length', Buffer.byteLength(body))
      }
      request.end(body)
    }
  })
  const pieces: Buffer[] = []
  for await (const piece of response) pieces.push(piece)
  const whole = Buffer.concat(pieces)
  return {
    status: response.statusCode!,
    headers: response.headers,
    rawHeaders: response.rawHeaders,
    body: whole,
    text: whole.toString('utf8'),
    rawTrailers: response.rawTrailers,
    interim,
    code: response.headers['mte-error'] as string | undefined,
  }
}

function withHost(headers: NonNullable<CallOptions['headers']>): http.OutgoingHttpHeaders {
  if (!Array.isArray(headers)) return { host: 'billing', ...headers }
  const named = headers.some((name, i) => i % 2 === 0 && name.toLowerCase() === 'host')
  return (named ? headers : ['host', 'billing', ...headers]) as unknown as http.OutgoingHttpHeaders
}

/** The next event of a kind; its first argument. */
export function once<T = unknown>(emitter: NodeJS.EventEmitter, event: string): Promise<T> {
  return new Promise((resolve, reject) => {
    emitter.once(event, resolve as (value: unknown) => void)
    if (event !== 'error') emitter.once('error', reject)
  })
}
