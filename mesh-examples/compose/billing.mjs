// The app that is called: answers POST /charges with what it charged, and where the trace of that call is.
import http from 'node:http'

const server = http.createServer(async (request, response) => {
  if (request.method !== 'POST' || request.url !== '/charges') return response.writeHead(404).end()
  let text = ''
  for await (const piece of request.setEncoding('utf8')) text += piece
  const { order, amount } = JSON.parse(text)
  const trace = request.headers.traceparent?.split('-')[1]
  const answer = { order, charged: amount, trace: `http://localhost:16686/trace/${trace}` }
  response.writeHead(201, { 'content-type': 'application/json' }).end(`${JSON.stringify(answer)}\n`)
})
// For its own sidecar alone: so nobody else can call it undecoded.
server.listen(3000, '127.0.0.1')
process.on('SIGTERM', () => server.close())
