/** Kinds of traffic between two apps: what one does, and what the other answers. */
import { createHash } from 'node:crypto'
import type http from 'node:http'
import type { Fields } from '../../../sidecar/call.ts'
import type { AppCall, AppCallHead, AppProtocol } from '../../support/app-client.ts'
import { type CallAnswer, once } from '../../support/call.ts'
import { seen } from './seen.ts'

export interface Kind {
  name: string
  /** that the app calls in; HTTP/1.1 where it is not told */
  protocol?: AppProtocol
  /** Must every connection that is idle be closed before? */
  afterIdle?: true
  /** how many calls it makes; one where it is not told */
  calls?: number
  answer: http.RequestListener
  /** @returns what the caller saw, the same each time */
  call(caller: KindCaller): Promise<unknown>
}

/** On behalf of one kind. */
export interface KindCaller {
  begin(head?: AppCallHead): AppCall
  /** Makes a call over the one connection that is kept alive. */
  again(options: { method: string; body?: string }): Promise<CallAnswer>
}

const PIECES = 256
const PIECE = createHash('shake256', { outputLength: 64 * 1024 })
  .update('a piece')
  .digest()
const HEAD_BYTES = 60_000
const EVENTS = 10
/** Longer than the least patient route of the mesh waits, and shorter than any other. */
const SLOW_MS = 500

const METHODS = 'PUT PATCH DELETE OPTIONS PROPFIND REPORT PURGE M-SEARCH QUERY LINK'.split(' ')
const KEPT_ALIVE = ['POST', 'GET', 'PUT', 'POST', 'PATCH']
const PATHS = [
  '//a//b/',
  '/a%2Fb%2f..%2Fc',
  '/a/../b/./c/..',
  '/%2e%2e/a',
  '/a;v=1/b;w=2;',
  '/a?x=//&y=%2F..&z=a;b?c',
  '/a%5Cb%00c%25',
  '/%E4%BD%A0/%ff',
  '/a//../b?',
]
const STATUSES = [200, 201, 202, 204, 301, 304, 400, 401, 404, 409, 421, 429, 500, 502, 503, 504]

const echo: http.RequestListener = (request, response) => {
  response.flushHeaders()
  request.pipe(response)
}

const whole = async (call: AppCall) => seen(await call.whole())

/** An app that takes its time over each of several calls at once. */
export const SLOW: Kind = {
  name: 'slow app',
  calls: 8,
  answer: (_request, response) => setTimeout(() => response.end('done'), SLOW_MS),
  call: ({ begin }) =>
    Promise.all(
      Array.from({ length: 8 }, () =>
        whole(begin({ method: 'POST', fields: ['content-length', '1'] }).end('x')),
      ),
    ),
}

export const KINDS: readonly Kind[] = [
  {
    name: 'GET',
    answer: (_request, response) => response.end('got'),
    call: ({ begin }) => whole(begin({ path: '/a?b=c' }).end()),
  },
  {
    name: 'POST',
    answer: echo,
    call: ({ begin }) => whole(begin({ method: 'POST', fields: ['content-length', '5'] }).end('hello')),
  },
  {
    name: 'POST, nothing in it',
    answer: echo,
    call: ({ begin }) => whole(begin({ method: 'POST', fields: ['content-length', '0'] }).end()),
  },
  { name: 'large body, both ways', answer: echo, call: large },
  {
    name: 'server-sent events, the first at once',
    answer: (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: first\n\n')
    },
    async call({ begin }) {
      const stream = begin({ fields: ['accept', 'text/event-stream'] }).end()
      const { status } = await stream.head
      const first = String(await stream.read())
      stream.abort()
      return { status, first }
    },
  },
  { name: 'duplex, ten turns', answer: echo, call: duplex },
  {
    name: 'trailers of the request',
    answer: echo,
    call: ({ begin }) =>
      whole(
        begin({
          method: 'POST',
          fields: ['transfer-encoding', 'chunked', 'trailer', 'x-sum'],
          trailers: true,
        }).end('body', ['x-sum', 'abc']),
      ),
  },
  {
    name: 'trailers of the answer',
    answer(_request, response) {
      response.writeHead(200, { trailer: 'x-sum' })
      response.write('body')
      response.addTrailers({ 'x-sum': 'abc' })
      response.end()
    },
    call: ({ begin }) => whole(begin().end()),
  },
  {
    name: '100-continue',
    answer(request, response) {
      response.writeContinue()
      echo(request, response)
    },
    async call({ begin }) {
      const sent = begin({ method: 'POST', fields: ['expect', '100-continue', 'content-length', '5'] })
      await sent.informed(1)
      return await whole(sent.end('hello'))
    },
  },
  {
    name: 'early hints',
    answer(_request, response) {
      response.writeEarlyHints({ link: ['</a.css>; rel=preload', '</b.js>; rel=preload'] })
      response.end('done')
    },
    call: ({ begin }) => whole(begin().end()),
  },
  {
    name: '60 KB of fields, both ways',
    answer: (request, response) =>
      response
        .writeHead(200, ['content-length', '0', ...manyFields(request.headers['x-letter'] as string)])
        .end(),
    call: ({ begin }) => whole(begin({ fields: ['x-letter', 'b', ...manyFields('a')] }).end()),
  },
  {
    name: 'fields: case, order, repeated, cookies',
    answer: (_request, response) =>
      response
        .writeHead(200, [
          ...[
            'X-MiXed',
            'A',
            'set-cookie',
            'a=1; Path=/',
            'x-b',
            '1',
            'Set-Cookie',
            'b=2',
            'x-b',
            '2',
            'X-Empty',
            '',
          ],
          ...['via', '1.1 app', 'server', 'app', 'x-envoy-upstream-service-time', '7', 'content-length', '0'],
        ])
        .end(),
    call: ({ begin }) =>
      whole(
        begin({
          fields: [
            ...[
              'X-MiXed',
              'A',
              'x-b',
              '1',
              'cookie',
              'a=1; b=2',
              'X-B',
              '2',
              'x-empty',
              '',
              'accept',
              'a',
              'accept',
              'b',
            ],
            ...['x-forwarded-for', '10.0.0.1', 'x-forwarded-proto', 'https', 'x-request-id', 'of the app'],
            ...['x-envoy-retry-on', '5xx', 'user-agent', 'app/1', 'x_y', 'z', 'via', '1.1 caller'],
          ],
        }).end(),
      ),
  },
  {
    name: `methods ${METHODS.join(', ')}`,
    calls: METHODS.length,
    answer: echo,
    call: ({ begin }) =>
      inTurn(METHODS, (method) => whole(begin({ method, fields: ['content-length', '4'] }).end('body'))),
  },
  {
    name: 'paths with //, .., ; and escapes',
    calls: PATHS.length,
    answer: (request, response) => response.end(request.url),
    call: ({ begin }) => inTurn(PATHS, (path) => whole(begin({ path }).end())),
  },
  {
    name: 'HEAD',
    answer: (_request, response) => response.writeHead(200, { 'content-length': '1234', etag: '"a"' }).end(),
    call: ({ begin }) => whole(begin({ method: 'HEAD' }).end()),
  },
  {
    name: 'statuses from 200 to 504',
    calls: STATUSES.length,
    answer(request, response) {
      const status = Number(request.url!.slice(1))
      request.resume()
      request.on('end', () => {
        response.writeHead(status, { 'x-a': '1', 'retry-after': '3', location: 'http://billing//elsewhere' })
        response.end(status === 204 || status === 304 ? undefined : 'words')
      })
    },
    call: ({ begin }) =>
      inTurn(STATUSES, (status) =>
        whole(begin({ method: 'POST', path: `/${status}`, fields: ['content-length', '1'] }).end('x')),
      ),
  },
  {
    name: 'aborted upload',
    answer(request, response) {
      request.resume()
      request.once('data', () => response.writeEarlyHints({ link: '</a.css>' }))
    },
    async call({ begin }) {
      const sent = begin({ method: 'POST', fields: ['content-length', '1000000'] })
      sent.request.on('error', () => {})
      sent.request.write(PIECE)
      await sent.informed(1)
      sent.abort()
      return 'aborted'
    },
  },
  {
    name: 'aborted download',
    async answer(_request, response) {
      response.on('error', () => {})
      while (!response.destroyed)
        if (!response.write(PIECE)) await Promise.race([once(response, 'drain'), closed(response)])
    },
    async call({ begin }) {
      const sent = begin().end()
      for (let bytes = 0; bytes < 4 * PIECE.length; ) bytes += (await sent.read())!.length
      sent.abort()
      return 'aborted'
    },
  },
  {
    name: 'app that breaks off its answer',
    async answer(request, response) {
      response.writeHead(200, { 'content-length': '1000000' })
      response.write(PIECE)
      await once(request.resume(), 'end')
      response.destroy()
    },
    async call({ begin }) {
      const sent = begin({ method: 'POST' })
      const { status } = await sent.head
      await sent.read()
      sent.end('break')
      return {
        status,
        rest: await sent.whole().then(
          () => 'whole',
          () => 'cut',
        ),
      }
    },
  },
  SLOW,
  {
    name: 'five calls over one connection',
    calls: KEPT_ALIVE.length,
    answer: echo,
    call: keptAlive,
  },
  {
    name: 'five more, once all connections have been idle',
    afterIdle: true,
    calls: KEPT_ALIVE.length,
    answer: echo,
    call: keptAlive,
  },
  {
    name: 'h2c: GET',
    protocol: 'h2c',
    answer: (_request, response) => response.end('got'),
    call: ({ begin }) => whole(begin({ path: '//a/../b?c' }).end()),
  },
  { name: 'h2c: large body, both ways', protocol: 'h2c', answer: echo, call: large },
  {
    name: 'h2c: gRPC, unary',
    protocol: 'h2c',
    answer: grpc('0'),
    call: ({ begin }) => whole(begin(GRPC).end(grpcMessage('hello'))),
  },
  {
    name: 'h2c: gRPC, in error',
    protocol: 'h2c',
    answer: grpc('14'),
    call: ({ begin }) => whole(begin(GRPC).end(grpcMessage('hello'))),
  },
  {
    name: 'h2c: gRPC, both stream',
    protocol: 'h2c',
    answer: grpc('0'),
    call: ({ begin }) => duplex({ begin: () => begin(GRPC) }),
  },
]

const GRPC: AppCallHead = {
  method: 'POST',
  path: '/shop.Billing/Charge',
  fields: ['content-type', 'application/grpc+proto', 'te', 'trailers', 'grpc-timeout', '5S'],
}

function grpcMessage(text: string): Buffer {
  const message = Buffer.from(text)
  return Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message])
}

/** Sends each message back, and then a status. */
function grpc(status: string): http.RequestListener {
  return (request, response) => {
    response.writeHead(200, {
      'content-type': 'application/grpc+proto',
      trailer: 'grpc-status, grpc-message',
    })
    response.flushHeaders()
    request.on('data', (piece) => response.write(piece))
    request.on('end', () => {
      response.addTrailers({ 'grpc-status': status, 'grpc-message': 'in%20words' })
      response.end()
    })
  }
}

async function large({ begin }: Pick<KindCaller, 'begin'>): Promise<unknown> {
  const sent = begin({ method: 'POST' })
  const send = async () => {
    for (let i = 0; i < PIECES; i++) if (!sent.request.write(PIECE)) await once(sent.request, 'drain')
    sent.end()
  }
  const [, answer] = await Promise.all([send(), sent.whole()])
  return seen(answer)
}

async function duplex({ begin }: Pick<KindCaller, 'begin'>): Promise<unknown> {
  const sent = begin({ method: 'POST' })
  await sent.head
  const events: string[] = []
  for (let i = 0; i < EVENTS; i++) {
    sent.request.write(`tick ${i}`)
    events.push(String(await sent.read()))
  }
  return { events, ...seen(await sent.end('last').whole()) }
}

function keptAlive({ again }: KindCaller): Promise<unknown> {
  return inTurn(KEPT_ALIVE, async (method) => {
    const { status, text } = await again({ method, body: method === 'GET' ? '' : 'body' })
    return `${method} ${status} ${text}`
  })
}

async function inTurn<T>(items: readonly T[], make: (item: T) => Promise<unknown>): Promise<unknown[]> {
  const all: unknown[] = []
  for (const item of items) all.push(await make(item))
  return all
}

async function closed(response: http.ServerResponse): Promise<void> {
  if (!response.closed) await once(response, 'close')
}

function manyFields(letter: string): Fields {
  return Array.from({ length: HEAD_BYTES / 1000 }, (_, i) => [`x-${i}`, letter.repeat(990)]).flat()
}
