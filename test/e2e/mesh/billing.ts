/**
 * The app that is called, in its pod: over HTTP/1.1, and for those of its own pod over h2c, too. It prints the id of
 * each call that is counted, and a line of JSON for each call of some kind that is over.
 */
import { createHash } from 'node:crypto'
import http from 'node:http'
import http2 from 'node:http2'
import { fieldsFromRaw } from '../../../sidecar/http/fields.ts'
import { countingApp } from '../../chaos/app.ts'
import { BILLING_PORT } from '../pods/ports.ts'
import { KINDS } from './kinds.ts'
import { BILLING_H2C_PORT } from './ports.ts'
import { KIND_FIELD, NUMBER_FIELD, withoutHops } from './seen.ts'

const count = countingApp((id) => console.log(id))

const answer: http.RequestListener = (request, response) => {
  const kind = KINDS.find(
    ({ name }) => name === decodeURIComponent((request.headers[KIND_FIELD] as string) ?? ''),
  )
  if (!kind) return count(request, response)
  report(kind.name, request, response)
  kind.answer(request, response)
}

const options = {
  maxHeaderSize: 1024 * 1024,
  maxHeaderListPairs: 5000,
  settings: { maxHeaderListSize: 1024 * 1024 },
}
const server = http.createServer(options, answer)
server.maxHeadersCount = 0
server.on('checkContinue', answer)
const h2c = http2.createServer(options, answer as unknown as (request: http2.Http2ServerRequest) => void)
h2c.listen(BILLING_H2C_PORT, '127.0.0.1')
server.listen(BILLING_PORT, '127.0.0.1', () => console.log('listening'))
process.on('SIGTERM', () => {
  server.close()
  h2c.close()
})

function report(kind: string, request: http.IncomingMessage, response: http.ServerResponse): void {
  const body = createHash('sha256')
  let bytes = 0
  const { push } = request
  // As it comes, and without asking for it: when the app reads it is part of its kind.
  request.push = (piece, encoding) => {
    if (piece !== null) {
      body.update(piece)
      bytes += piece.length
    }
    return push.call(request, piece, encoding)
  }
  request.on('error', () => {})
  response.on('close', () => {
    const { method, url, headers, rawHeaders, rawTrailers, complete } = request
    const whole = complete && { bytes, digest: body.digest('hex'), trailers: fieldsFromRaw(rawTrailers) }
    const fields = withoutHops(fieldsFromRaw(rawHeaders), complete ? bytes : undefined)
    const authority = headers[':authority'] ?? headers.host
    const number = Number(headers[NUMBER_FIELD])
    console.log(
      JSON.stringify({
        kind,
        number,
        method,
        authority,
        url,
        fields,
        whole,
        answered: response.writableFinished,
      }),
    )
  })
}
