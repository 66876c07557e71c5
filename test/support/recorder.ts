import type http from 'node:http'
import { type Server, startServer } from './sidecars.ts'

/** A request as an app got it. */
export interface Seen {
  method: string
  url: string
  headers: http.IncomingHttpHeaders
  rawHeaders: string[]
  body: string
  trailers: NodeJS.Dict<string>
}

export interface Recorder extends Server {
  /** what it got so far */
  seen: Seen[]
  /** the newest of it */
  last(): Seen
}

/**
 * Starts an app that keeps what it gets.
 * @param answer what it answers once a request is there in full; 200 with its own name unless said otherwise
 */
export async function startRecorder(
  answer: string | ((seen: Seen, response: http.ServerResponse) => void),
): Promise<Recorder> {
  const seen: Seen[] = []
  const server = await startServer(async (request, response) => {
    const pieces: Buffer[] = []
    try {
      for await (const piece of request) pieces.push(piece)
    } catch {
      return // cut off: it does not count
    }
    const { method = '', url = '', headers, rawHeaders, trailers } = request
    const one = { method, url, headers, rawHeaders, body: Buffer.concat(pieces).toString('latin1'), trailers }
    seen.push(one)
    if (typeof answer === 'string') response.end(answer)
    else answer(one, response)
  })
  return { ...server, seen, last: () => seen.at(-1)! }
}
