/** Calls of an app to its sidecar, over either protocol, piece by piece. */
import http from 'node:http'
import http2, { type ClientHttp2Session } from 'node:http2'
import { Readable, type Writable } from 'node:stream'
import type { Fields, ResponseHead } from '../../sidecar/call.ts'
import { field, fieldsFromRaw } from '../../sidecar/http/fields.ts'

export type AppProtocol = 'HTTP/1.1' | 'h2c'
export const APP_PROTOCOLS: readonly AppProtocol[] = ['HTTP/1.1', 'h2c']

export interface AppCallHead {
  method?: string
  authority?: string
  path?: string
  fields?: Fields
  /** will trailers follow? */
  trailers?: boolean
}

export interface WholeAnswer extends ResponseHead {
  body: Buffer
  text: string
  trailers: Fields
  interim: ResponseHead[]
  /** the code of an answer that a sidecar made itself */
  code: string | undefined
}

/** A call that is under way: its request is written, its answer read, as the test likes. */
export class AppCall {
  readonly request: Writable
  /** interim responses so far */
  readonly interim: ResponseHead[] = []
  /** of the answer; rejects where none comes */
  readonly head: Promise<ResponseHead>
  /** resolves when the call is over, whatever came of it */
  readonly closed: Promise<void>
  readonly #message: Promise<Message>
  readonly #abort: () => void
  readonly #setTrailers: (trailers: Fields) => void
  #onInterim: (() => void) | undefined
  #pieces: AsyncIterator<Buffer> | undefined

  constructor(begun: Begun) {
    this.request = begun.request
    this.#message = begun.message
    this.#abort = begun.abort
    this.#setTrailers = begun.setTrailers
    this.closed = new Promise((resolve) => begun.request.once('close', resolve))
    this.head = begun.message.then(({ head }) => head)
    for (const promise of [this.head, this.#message]) promise.catch(() => {})
    begun.onInterim((head) => {
      this.interim.push(head)
      this.#onInterim?.()
    })
  }

  /** Sends the rest of the request. */
  end(body?: string | Buffer, trailers: Fields = []): this {
    if (body !== undefined) this.request.write(body)
    this.#setTrailers(trailers)
    this.request.end()
    return this
  }

  /** Resolves when there are that many interim responses. */
  async informed(count: number): Promise<ResponseHead[]> {
    while (this.interim.length < count) {
      await new Promise<void>((resolve) => {
        this.#onInterim = resolve
      })
    }
    return this.interim
  }

  /**
   * The next piece of the answer's body, or undefined at its clean end.
   * @throws when it was cut off
   */
  async read(): Promise<Buffer | undefined> {
    const message = await this.#message
    this.#pieces ??= message.body[Symbol.asyncIterator]()
    const { value, done } = await this.#pieces.next()
    if (!done) return value
    if (!message.complete()) throw new Error('The answer ended without its end.')
    return undefined
  }

  /**
   * The rest of the answer.
   * @throws when there is none, or it was cut off
   */
  async whole(): Promise<WholeAnswer> {
    const { head, trailers } = await this.#message
    const pieces: Buffer[] = []
    for (let piece = await this.read(); piece; piece = await this.read()) pieces.push(piece)
    const body = Buffer.concat(pieces)
    const code = field(head.fields, 'mte-error')
    return { ...head, body, text: body.toString(), trailers: trailers(), interim: this.interim, code }
  }

  /** Goes away in the middle. */
  abort(): void {
    this.#abort()
  }
}

interface Message {
  head: ResponseHead
  body: Readable
  complete(): boolean
  trailers(): Fields
}

interface Begun {
  request: Writable
  message: Promise<Message>
  onInterim(callback: (head: ResponseHead) => void): void
  setTrailers(trailers: Fields): void
  abort(): void
}

/** Begins a call over a connection of its own. */
export function beginCall(protocol: AppProtocol, port: number, head: AppCallHead = {}): AppCall {
  if (protocol === 'HTTP/1.1') return new AppCall(overHttp1(port, head))
  const session = connectH2c(port)
  const call = beginStream(session, head)
  call.closed.then(() => session.close())
  return call
}

/** Makes a whole call over a connection of its own. */
export function makeCall(
  protocol: AppProtocol,
  port: number,
  {
    body,
    trailers,
    ...head
  }: Omit<AppCallHead, 'trailers'> & { body?: string | Buffer; trailers?: Fields } = {},
): Promise<WholeAnswer> {
  return beginCall(protocol, port, { ...head, trailers: trailers !== undefined })
    .end(body, trailers)
    .whole()
}

/** A connection for many calls. */
export function connectH2c(port: number): ClientHttp2Session {
  // Sidecars pass on what is repeated.
  const options = {
    strictSingleValueFields: false,
    maxHeaderListPairs: 5000,
    settings: { maxHeaderListSize: 1 << 20 },
  }
  const session = http2.connect(`http://127.0.0.1:${port}`, {
    ...options,
    maxSendHeaderBlockLength: 1 << 20,
  } as never)
  return session.on('error', () => {})
}

/** Begins a call over a connection that is there. */
export function beginStream(session: ClientHttp2Session, head: AppCallHead = {}): AppCall {
  return new AppCall(overHttp2(session, head))
}

function overHttp1(port: number, head: AppCallHead): Begun {
  const { method = 'GET', authority = 'billing', path = '/', fields = [] } = head
  const options = { host: '127.0.0.1', port, method, path, agent: false, maxHeaderSize: 1 << 20 } as const
  const request = http.request({ ...options, headers: ['host', authority, ...fields] })
  request.maxHeadersCount = 0
  // Sends the head now, and unlike flushHeaders not in UTF-8.
  request.write(Buffer.alloc(0))
  const message = new Promise<Message>((resolve, reject) => {
    request.on('response', (response) =>
      resolve({
        head: { status: response.statusCode!, fields: fieldsFromRaw(response.rawHeaders) },
        body: response,
        complete: () => response.complete,
        trailers: () => fieldsFromRaw(response.rawTrailers),
      }),
    )
    request.on('error', reject)
  })
  return {
    request,
    message,
    onInterim: (callback) =>
      request.on('information', ({ statusCode, rawHeaders }) =>
        callback({ status: statusCode, fields: fieldsFromRaw(rawHeaders) }),
      ),
    setTrailers: (trailers) => trailers.length > 0 && request.addTrailers(pairs(trailers)),
    abort: () => request.destroy(),
  }
}

function overHttp2(session: ClientHttp2Session, head: AppCallHead): Begun {
  const { method = 'GET', authority = 'billing', path = '/', fields = [], trailers = false } = head
  const pseudo = [':method', method, ':scheme', 'http', ':authority', authority, ':path', path]
  const stream = session.request([...pseudo, ...fields] as never, {
    endStream: false,
    waitForTrailers: trailers,
  })
  // node:http2 drops what nobody has begun to read when a stream closes.
  stream.pause()
  let complete = false
  let received: Fields = []
  let sent: Fields = []
  // A stream that was reset without an error ends too: END_STREAM is pushed while it is open.
  stream.push = (piece, encoding) => {
    if (piece === null && !stream.closed) complete = true
    return Readable.prototype.push.call(stream, piece, encoding)
  }
  stream.on('trailers', (_headers, _flags, raw: string[]) => {
    received = fieldsFromRaw(raw)
  })
  stream.on('wantTrailers', () => stream.sendTrailers(Object.fromEntries(pairs(sent))))
  const message = new Promise<Message>((resolve, reject) => {
    stream.on('response', (headers, _flags, raw: string[]) =>
      resolve({
        head: { status: Number(headers[':status']), fields: fieldsFromRaw(raw) },
        body: stream,
        complete: () => complete,
        trailers: () => received,
      }),
    )
    stream.on('error', reject)
    stream.on('close', () => reject(new Error('The stream closed without an answer.')))
  })
  return {
    request: stream,
    message,
    onInterim: (callback) =>
      stream.on('headers', (headers, _flags, raw: string[]) =>
        callback({ status: Number(headers[':status']), fields: fieldsFromRaw(raw) }),
      ),
    setTrailers: (trailers) => {
      sent = trailers
    },
    // close(code) would send the end of a complete request first.
    abort: () => stream.destroy(new Error('The test gave it up.')),
  }
}

function pairs(fields: Fields): [string, string][] {
  const all: [string, string][] = []
  for (let i = 0; i < fields.length; i += 2) all.push([fields[i]!, fields[i + 1]!])
  return all
}
