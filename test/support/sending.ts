/** What it takes to call a `Send`, and raw servers that do to it what real ones seldom do. */
import assert from 'node:assert/strict'
import net, { type AddressInfo, type Server, type Socket } from 'node:net'
import { type Body, type Fields, type Request, type ResponseHead, WholeBody } from '../../sidecar/call.ts'
import { SidecarError } from '../../sidecar/errors.ts'
import type { WatchedCaller } from '../../sidecar/http/exchange.ts'
import { SendError, type SendFailure } from '../../sidecar/http/send-error.ts'

export const OPTIONS = { headBytesMax: 64 * 1024, connectTimeoutMs: 5000, responseTimeoutMs: 5000 }

/** A request to send: a GET without a body unless more is said. */
export function requestOf(head: Partial<Request['head']> = {}, body: Body | string = ''): Request {
  return {
    head: { method: 'GET', scheme: 'http', authority: 'app.example', path: '/', fields: [], ...head },
    body: typeof body === 'string' ? new WholeBody(Buffer.from(body)) : body,
  }
}

/** A body that is fed by a test, piece by piece. */
export class FedBody implements Body {
  trailers: Fields = []
  #fed: (Buffer | undefined | Error)[] = []
  #wake: (() => void) | undefined
  #onRead: (() => void) | undefined
  /** resolves when somebody waits for a piece that is not there yet */
  readonly awaited = new Promise<void>((resolve) => {
    this.#onRead = resolve
  })

  push(...pieces: (Buffer | string)[]): this {
    return this.#feed(...pieces.map((piece) => Buffer.from(piece)))
  }

  end(trailers: Fields = []): this {
    this.trailers = trailers
    return this.#feed(undefined)
  }

  fail(error: Error = new SidecarError('message-truncated', 'The body was cut off before its end.')): this {
    return this.#feed(error)
  }

  async read(): Promise<Buffer | undefined> {
    while (this.#fed.length === 0) {
      this.#onRead?.()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const next = this.#fed[0]
    if (next instanceof Buffer) this.#fed.shift()
    if (next instanceof Error) throw next
    return next
  }

  whole(): undefined {}

  #feed(...items: (Buffer | undefined | Error)[]): this {
    this.#fed.push(...items)
    this.#wake?.()
    return this
  }
}

/** Whoever waits for an answer, in a test. */
export class TestCaller implements WatchedCaller {
  readonly informed: ResponseHead[] = []
  readonly gone = new SidecarError('caller-gone', 'The caller went away.')
  #callbacks: ((why: SidecarError) => void)[] = []
  #onInform: ((head: ResponseHead) => void) | undefined

  watch(): void {}

  carryOthers(): undefined {}

  abort(_why: SidecarError): void {}

  inform(head: ResponseHead): void {
    this.informed.push(head)
    this.#onInform?.(head)
  }

  /** The next interim response. */
  nextInformed(): Promise<ResponseHead> {
    return new Promise((resolve) => {
      this.#onInform = resolve
    })
  }

  onGone(callback: (why: SidecarError) => void): void {
    this.#callbacks.push(callback)
  }

  /** Goes away. */
  go(): void {
    for (const callback of this.#callbacks.splice(0)) callback(this.gone)
  }
}

/** All of a body, to its clean end. */
export async function readAll(body: Body): Promise<string> {
  const pieces: Buffer[] = []
  for (let piece = await body.read(); piece; piece = await body.read()) pieces.push(piece)
  return Buffer.concat(pieces).toString('latin1')
}

/** Reads a body that must be cut off; what came of it before. */
export async function readUntilCut(body: Body): Promise<string> {
  const pieces: Buffer[] = []
  const all = async () => {
    for (let piece = await body.read(); piece; piece = await body.read()) pieces.push(piece)
  }
  await assert.rejects(all, (error) => error instanceof SidecarError && error.code === 'message-truncated')
  return Buffer.concat(pieces).toString('latin1')
}

/** The failure of a call that must get no answer. */
export async function failureOf(answer: Promise<unknown>): Promise<{ failure: SendFailure; sent: boolean }> {
  const error = await answer.then(
    () => assert.fail('there was an answer'),
    (reason) => reason,
  )
  if (!(error instanceof SendError)) throw error
  return { failure: error.failure, sent: error.sent }
}

export interface Listening {
  port: number
  url: URL
  /** connections that were accepted so far */
  connections: number
  /** those that are open */
  sockets: Set<Socket>
  /** Takes no more connections; those that are open stay. */
  stop(): void
  /** Destroys the connections, too. */
  close(): Promise<void>
}

/** Lets a server listen on a free port of 127.0.0.1. */
export async function listening(server: Server, protocol = 'http'): Promise<Listening> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    listener.connections++
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const listener: Listening = {
    port,
    url: new URL(`${protocol}://127.0.0.1:${port}`),
    connections: 0,
    sockets,
    stop: () => server.close(),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
  return listener
}

/** A server that does with each connection what it is told. */
export function rawServer(onSocket: (socket: Socket, nth: number) => void): Promise<Listening> {
  let nth = 0
  return listening(net.createServer((socket) => onSocket(socket, ++nth)))
}

/** Everything that comes in on a socket until a text has come. */
export function received(socket: Socket, until: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const onData = (bytes: Buffer) => {
      text += bytes.toString('latin1')
      if (!text.includes(until)) return
      socket.off('data', onData)
      resolve(text)
    }
    socket.on('data', onData)
    socket.once('close', () =>
      reject(new Error(`closed before ${JSON.stringify(until)} came: ${JSON.stringify(text)}`)),
    )
  })
}
