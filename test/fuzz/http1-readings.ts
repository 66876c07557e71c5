/** What bytes mean to the readers of the sidecar, and what they mean to node:http. */
import http, { type IncomingMessage } from 'node:http'
import { Duplex } from 'node:stream'
import { fieldsFromRaw } from '../../sidecar/http/fields.ts'
import {
  Http1Error,
  type Http1RequestHead,
  Http1RequestReader,
  type Http1ResponseHead,
  Http1ResponseReader,
} from '../../sidecar/http/http1-reader.ts'

export interface Message {
  /** method and target, or status; and the version */
  start: string
  /** names in lower case and values, in turns */
  fields: string[]
  body: string
  trailers: string[]
  keepAlive: boolean
  /** how many bytes had been read when it was complete, or undefined if it never was */
  end: number | undefined
}

export interface Reading {
  /** the last of them may not be complete */
  messages: Message[]
  /** Were the bytes refused, or did they end in the middle of a message? */
  refused: boolean
}

/** Far more than a fuzzer comes up with: limits are tested elsewhere. */
const HEAD_BYTES_MAX = 1024 * 1024

/** The requests in these bytes, as the sidecar reads them in pieces of so many bytes. */
export function requestsBySidecar(bytes: Buffer, pieceBytes: number): Reading {
  const recorder = new Recorder(() => reader.next())
  const reader = new Http1RequestReader(recorder, { headBytesMax: HEAD_BYTES_MAX })
  return recorder.record(reader, bytes, pieceBytes)
}

/** The response in these bytes, with the interim ones before it. */
export function responseBySidecar(method: string, bytes: Buffer, pieceBytes: number): Reading {
  const recorder = new Recorder(() => reader.stop())
  const reader = new Http1ResponseReader(recorder, { headBytesMax: HEAD_BYTES_MAX })
  reader.next(method)
  return recorder.record(reader, bytes, pieceBytes)
}

/** What node:http has told so far. */
class NodeReading {
  readonly messages: Message[] = []
  at = 0
  refused = false

  begin(start: string, head: IncomingMessage, keepAlive: boolean): Message {
    const message: Message = {
      start: `${start} ${head.httpVersion}`,
      fields: lowerCased(head.rawHeaders),
      body: '',
      trailers: [],
      keepAlive,
      end: undefined,
    }
    this.messages.push(message)
    return message
  }

  /** Takes what the parser pushes at once: as events it would come in later turns of the event loop. */
  follow(message: Message, from: IncomingMessage): void {
    from.push = (piece: Buffer | null) => {
      if (piece !== null) message.body += piece.toString('latin1')
      else {
        message.trailers = fieldsFromRaw(from.rawTrailers)
        message.end = this.at
      }
      return true
    }
  }

  /** Emits the bytes in pieces, then the end, until something is refused. */
  feed(socket: Duplex, bytes: Buffer, cuts: readonly number[]): void {
    let start = 0
    for (const end of [...cuts, bytes.length]) {
      if (end <= start) continue
      this.at = end
      if (!this.refused && !socket.destroyed) socket.emit('data', bytes.subarray(start, end))
      start = end
    }
    if (socket.destroyed) this.refused = true
    if (!this.refused) socket.emit('end')
    socket.destroy()
  }

  /** @returns what was read, once the end has come */
  get read(): Reading {
    const { messages, refused } = this
    return { messages, refused: refused || messages.length === 0 || messages.at(-1)!.end === undefined }
  }
}

/** Of the connection that is fed: a server reads one after the other here. */
let serverReading = new NodeReading()
const server = http.createServer({ maxHeaderSize: 2 * HEAD_BYTES_MAX, keepAliveTimeout: 0 })
for (const event of ['request', 'checkContinue', 'checkExpectation']) {
  server.on(event, (request: IncomingMessage, response: http.ServerResponse) => {
    const message = serverReading.begin(`${request.method} ${request.url}`, request, response.shouldKeepAlive)
    serverReading.follow(message, request)
  })
}
server.on('connect', (request) => {
  serverReading.begin(`${request.method} ${request.url}`, request, false).end = serverReading.at
})
server.on('clientError', () => {
  serverReading.refused = true
})

/**
 * The requests in these bytes, as node:http reads them.
 * @param cuts where the pieces end, in ascending order: it drops what comes in one piece with a request that asks for an
 * upgrade, if there is none, and reads what comes in the next
 */
export function requestsByNode(bytes: Buffer, cuts: readonly number[]): Reading {
  const reading = new NodeReading()
  serverReading = reading
  const socket = new NoSocket()
  server.emit('connection', socket)
  reading.feed(socket, bytes, cuts)
  return reading.read
}

/** The response in these bytes, with the interim ones before it, as node:http reads it. */
export async function responseByNode(
  method: string,
  bytes: Buffer,
  cuts: readonly number[],
): Promise<Reading> {
  const reading = new NodeReading()
  const socket = new NoSocket()
  const request = http.request({
    method,
    headers: { connection: 'keep-alive' },
    createConnection: () => socket,
    maxHeaderSize: 2 * HEAD_BYTES_MAX,
  })
  request.on('information', (information) => {
    reading.begin(`${information.statusCode}`, information as unknown as IncomingMessage, true).end =
      reading.at
  })
  request.on('response', (response) => {
    reading.follow(reading.begin(`${response.statusCode}`, response, request.shouldKeepAlive), response)
  })
  request.on('error', () => {
    reading.refused = true
  })
  request.end()
  // It takes its socket in the next tick.
  await new Promise<void>((resolve) => process.nextTick(resolve))
  reading.feed(socket, bytes, cuts)
  request.destroy()
  return reading.read
}

/** Collects what a reader tells. */
class Recorder {
  readonly #messages: Message[] = []
  readonly #onEnd: () => void
  #at = 0

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd
  }

  record(reader: Http1RequestReader | Http1ResponseReader, bytes: Buffer, pieceBytes: number): Reading {
    let refused = false
    try {
      while (this.#at < bytes.length) {
        const piece = bytes.subarray(this.#at, this.#at + pieceBytes)
        this.#at += piece.length
        reader.push(piece)
      }
      reader.finish()
    } catch (error) {
      if (!(error instanceof Http1Error)) throw error
      refused = true
    }
    return { messages: this.#messages, refused: refused || this.#messages.length === 0 }
  }

  onHead(head: Http1RequestHead | Http1ResponseHead): void {
    const isRequest = 'method' in head
    this.#messages.push({
      start: `${isRequest ? `${head.method} ${head.target}` : head.status} 1.${head.minor}`,
      fields: head.raw,
      body: '',
      trailers: [],
      keepAlive: head.keepAlive,
      end: !isRequest && head.status < 200 ? this.#at : undefined,
    })
  }

  onBody(piece: Buffer): void {
    if (piece.length === 0) throw new Error('A piece of a body is empty.')
    this.#last.body += piece.toString('latin1')
  }

  onEnd(trailers: string[]): void {
    this.#last.trailers = trailers
    this.#last.end = this.#at
    this.#onEnd()
  }

  get #last(): Message {
    const last = this.#messages.at(-1)
    if (!last || last.end !== undefined) throw new Error('Something came that belongs to no message.')
    return last
  }
}

/** A connection on which nothing comes but what is emitted. */
class NoSocket extends Duplex {
  override _read(): void {}

  override _write(_chunk: unknown, _encoding: unknown, done: () => void): void {
    done()
  }

  setTimeout(): void {}
  setKeepAlive(): void {}
  setNoDelay(): void {}
  ref(): void {}
  unref(): void {}
}

function lowerCased(raw: readonly string[]): string[] {
  return raw.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text))
}
