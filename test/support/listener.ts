/** A listener with a handler of the test's, and clients that speak to it byte by byte. */
import http2, { type ClientHttp2Session, type ClientHttp2Stream, type OutgoingHttpHeaders } from 'node:http2'
import net, { type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { type Answer, type Body, type Fields, type Request, WholeBody } from '../../sidecar/call.ts'
import { type Handler, Listener, type ListenerOptions } from '../../sidecar/http/listener.ts'
import { readAll } from './sending.ts'

export interface TestListener {
  port: number
  listener: Listener
  /** what `onFault` was told */
  faults: unknown[]
}

/** Listens on a free port of this machine; everything that it opened is closed with `closeListeners`. */
export async function listen(
  handler: Handler,
  options: Partial<ListenerOptions> = {},
): Promise<TestListener> {
  const faults: unknown[] = []
  const listener = new Listener({
    handler,
    headBytesMax: 64 * 1024,
    idleTimeoutMs: 30_000,
    onFault: (error) => faults.push(error),
    ...options,
  })
  const [address] = await listener.listen(['127.0.0.1'], 0)
  opened.push(() => listener.close())
  return { port: address!.port, listener, faults }
}

export type KeptRequest = Request['head'] & { absoluteForm: boolean; text: string; trailers: Fields }

/** A listener that keeps what requests it got, and answers with `ok`. */
export async function listenKeeping(): Promise<TestListener & { requests: KeptRequest[] }> {
  const requests: KeptRequest[] = []
  const listening = await listen(async ({ request: { head, body }, absoluteForm }) => {
    const text = await readAll(body)
    requests.push({ ...head, absoluteForm, text, trailers: body.trailers })
    return answer('ok')
  })
  return { ...listening, requests }
}

const opened: (() => void)[] = []

/** Closes all listeners and connections that were opened. */
export function closeListeners(): void {
  for (const close of opened.splice(0)) close()
}

export function answer(body: string | Body = '', fields: Fields = [], status = 200): Answer {
  return {
    head: { status, fields },
    body: typeof body === 'string' ? new WholeBody(Buffer.from(body)) : body,
  }
}

/** A connection on which a test writes and reads what it likes. */
export class RawClient {
  readonly socket: Socket
  /** everything that was received, one character a byte */
  received = ''
  /** how the connection ended: `end`, or the code of its error */
  readonly ended: Promise<string>
  #wake: () => void = () => {}

  constructor(port: number) {
    this.socket = net.connect({ host: '127.0.0.1', port, noDelay: true, allowHalfOpen: true })
    opened.push(() => this.socket.destroy())
    this.ended = new Promise((resolve) => {
      this.socket.on('end', () => resolve('end'))
      this.socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
      this.socket.on('close', () => resolve('closed'))
    })
    this.socket.on('data', (bytes: Buffer) => {
      this.received += bytes.toString('latin1')
      this.#wake()
    })
    this.ended.then(() => this.#wake())
  }

  write(...lines: string[]): this {
    this.socket.write(lines.join('\r\n'), 'latin1')
    return this
  }

  /** Waits until what was received matches; its match. @throws when the connection ended before */
  async until(pattern: RegExp): Promise<RegExpExecArray> {
    let over = false
    this.ended.then(() => {
      over = true
    })
    for (;;) {
      const match = pattern.exec(this.received)
      if (match) return match
      if (over)
        throw new Error(`the connection ended without ${pattern}; received: ${this.received.slice(0, 2000)}`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        if (pattern.test(this.received)) resolve()
        this.ended.then(() => resolve())
      })
    }
  }

  /** Everything that was received, once the other side ended the connection cleanly. */
  async toEnd(): Promise<string> {
    const how = await this.ended
    if (how !== 'end')
      throw new Error(`the connection ended with ${how}; received: ${this.received.slice(0, 2000)}`)
    this.socket.end()
    return this.received
  }
}

/** Sends bytes on a connection of their own; everything that came back until the other side ended it. */
export function exchange(port: number, ...lines: string[]): Promise<string> {
  return new RawClient(port).write(...lines).toEnd()
}

/** Requests of HTTP/2, to which fields may be added. */
export const GET: Fields = [':method', 'GET', ':path', '/', ':authority', 'a', ':scheme', 'http']
export const POST: Fields = [':method', 'POST', ':path', '/', ':authority', 'a', ':scheme', 'http']

/** A connection of node:http2. */
export function connectHttp2(port: number, options: http2.ClientSessionOptions = {}): ClientHttp2Session {
  const session = http2.connect(`http://127.0.0.1:${port}`, {
    strictSingleValueFields: false,
    maxSendHeaderBlockLength: 1024 * 1024,
    ...options,
  } as never)
  session.on('error', () => {})
  opened.push(() => session.destroy())
  const request = session.request.bind(session)
  session.request = (...args) => request(...args).on('error', () => {})
  return session
}

export interface Http2Answer {
  status: number
  /** names and values, pseudo-header fields too */
  raw: string[]
  body: string
  trailers: string[]
  /** the code with which the stream was closed */
  code: number
  /** did END_STREAM come? */
  ended: boolean
  interim: number[]
}

/** The whole answer on a stream, or what came of it. */
export function http2Answer(stream: ClientHttp2Stream): Promise<Http2Answer> {
  const answer: Http2Answer = {
    status: 0,
    raw: [],
    body: '',
    trailers: [],
    code: 0,
    ended: false,
    interim: [],
  }
  return new Promise((resolve) => {
    stream.on('headers', (headers) => answer.interim.push(headers[':status']!))
    stream.on('response', (headers, _flags, raw: string[]) => {
      answer.status = headers[':status']!
      answer.raw = raw
    })
    stream.on('data', (bytes: Buffer) => {
      answer.body += bytes.toString('latin1')
    })
    stream.on('trailers', (_headers, _flags, raw: string[]) => {
      answer.trailers = raw
    })
    // A stream that was reset without an error ends too: END_STREAM is pushed while it is open.
    stream.push = (piece, encoding) => {
      if (piece === null && !stream.closed) answer.ended = true
      return Readable.prototype.push.call(stream, piece, encoding)
    }
    stream.on('close', () => resolve({ ...answer, code: stream.rstCode ?? 0 }))
  })
}

/** One call over a connection of its own. */
export async function callHttp2(
  port: number,
  headers: Fields | OutgoingHttpHeaders,
  body?: string,
): Promise<Http2Answer> {
  const session = connectHttp2(port)
  const stream = session.request(headers as never, { endStream: body === undefined })
  if (body !== undefined) stream.end(body, 'latin1')
  const answer = await http2Answer(stream)
  session.close()
  return answer
}
