// The app that calls: GET /orders/7 has billing charge that order, and answers what billing does.
import http from 'node:http'

// The sidecar takes the call, and finds out by its Host whom it is for.
const charges = { host: '127.0.0.1', port: 7780, path: '/charges', method: 'POST', headers: { host: 'billing' } }

const server = http.createServer((request, response) => {
  const [, order] = /^\/orders\/(\d+)$/.exec(request.url) ?? []
  if (request.method !== 'GET' || !order) return response.writeHead(404).end()
  http
    .request(charges, (answer) => {
      response.writeHead(answer.statusCode, answer.headers)
      answer.pipe(response)
    })
    .on('error', (error) => response.writeHead(502).end(`${error.message}\n`))
    .end(JSON.stringify({ order: Number(order), amount: 1200 }))
})
server.listen(3000)
process.on('SIGTERM', () => server.close())
