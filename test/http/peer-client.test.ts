import assert from 'node:assert/strict'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { SidecarError } from '../../sidecar/errors.ts'
import { PeerClient } from '../../sidecar/http/peer-client.ts'
import { certificate } from '../support/certificates.ts'
import {
  FedBody,
  failureOf,
  type Listening,
  listening,
  OPTIONS,
  rawServer,
  readAll,
  requestOf,
  TestCaller,
} from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/peer-client')

async function post(
  client: PeerClient,
  url: string,
  path = '/api',
  body: FedBody | string = 'body',
): Promise<string> {
  const answer = await client.send(url, requestOf({ method: 'POST', path }, body), new TestCaller())
  return readAll(answer.body)
}

/** Answers with the version that was spoken and the path that was asked for. */
const answer: http.RequestListener = (request, response) => {
  request.resume()
  response.end(`${request.httpVersion} ${request.url}`)
}

async function against(
  servers: Promise<Listening>[],
  body: (client: PeerClient, ...urls: string[]) => Promise<void>,
  options = {},
): Promise<void> {
  const open = await Promise.all(servers)
  const client = new PeerClient({ ...OPTIONS, ...options })
  try {
    await body(client, ...open.map(({ url }) => url.origin))
  } finally {
    client.close()
    for (const server of open) await server.close()
  }
}

const speaksHttp1 = () => listening(http.createServer(answer))
const speaksHttp2 = () => listening(http2.createServer(answer as never) as never)

test('speaks HTTP/2 where it can, HTTP/1.1 where it must, and below the path of the base URL', async () => {
  await against([speaksHttp2(), speaksHttp1()], async (client, second, first) => {
    for (let i = 0; i < 3; i++) {
      assert.equal(await post(client, second!), '2.0 /api')
      assert.equal(await post(client, first!), '1.1 /api')
      assert.equal(await post(client, `${second}/base/`), '2.0 /base/api')
      assert.equal(await post(client, `${first}/base`), '1.1 /base/api')
    }
  })
})

test('over TLS it is ALPN that decides', async () => {
  const own = certificate('IP:127.0.0.1')
  const first = listening(https.createServer(own, answer), 'https')
  const second = listening(
    http2.createSecureServer({ ...own, allowHTTP1: true }, answer as never) as never,
    'https',
  )
  await against(
    [first, second],
    async (client, oldUrl, newUrl) => {
      assert.equal(await post(client, oldUrl!), '1.1 /api')
      assert.equal(await post(client, newUrl!), '2.0 /api')
    },
    { ca: [own.cert] },
  )
})

test('tries HTTP/2 once, not for every call, at an end that speaks HTTP/1.1', async () => {
  let prefaces = 0
  const server = http.createServer(answer)
  server.on('clientError', (_error, socket) => {
    prefaces++
    socket.destroy()
  })
  await against([listening(server)], async (client, url) => {
    for (let i = 0; i < 5; i++) await post(client, url!)
    assert.equal(prefaces, 1)
  })
})

test('speaks HTTP/2 again a minute after it could not', async () => {
  const over1 = http.createServer(answer)
  const over2 = http2.createServer(answer as never)
  let speaks: http.Server | http2.Http2Server = over1
  const port = rawServer((socket) => speaks.emit('connection', socket))
  const { now } = performance
  try {
    await against([port], async (client, url) => {
      assert.equal(await post(client, url!), '1.1 /api')
      speaks = over2
      let laterMs = 59_000
      performance.now = () => now.call(performance) + laterMs
      assert.equal(await post(client, url!), '1.1 /api')
      laterMs = 61_000
      assert.equal(await post(client, url!), '2.0 /api')
    })
  } finally {
    performance.now = now
  }
})

test('does not remember what was no HTTP/1.1 either', async () => {
  let down = true
  const over2 = http2.createServer(answer as never)
  const server = rawServer((socket) => {
    if (down) socket.end()
    else over2.emit('connection', socket)
  })
  await against([server], async (client, url) => {
    await assert.rejects(post(client, url!))
    down = false
    assert.equal(await post(client, url!), '2.0 /api')
  })
})

test('tells nobody of interim responses, which nobody vouches for, over either version', async () => {
  const hinting: http.RequestListener = (request, response) => {
    response.writeEarlyHints({ link: '</a>; rel=preload' })
    answer(request, response)
  }
  const first = listening(http.createServer(hinting))
  const second = listening(http2.createServer(hinting as never) as never)
  await against([first, second], async (client, ...urls) => {
    for (const url of urls) {
      for (let i = 0; i < 2; i++) {
        const caller = new TestCaller()
        assert.equal((await client.send(url, requestOf(), caller)).head.status, 200)
        assert.deepEqual(caller.informed, [])
      }
    }
  })
})

test('a peer that never says a word is not tried again over HTTP/1.1: that would cost as much time again', async () => {
  const silent = rawServer(() => {})
  await against(
    [silent],
    async (client, url) => {
      const body = new FedBody().push('body').end()
      assert.deepEqual(await failureOf(post(client, url!, '/', body)), {
        failure: 'connect-timeout',
        sent: false,
      })
      assert.equal((await silent).connections, 1)
    },
    { connectTimeoutMs: 100 },
  )
})

test('carries a body of any kind, and its failure, over either version', async () => {
  let complete = 0
  const count: http.RequestListener = (request, response) => {
    request.on('error', () => {})
    request.on('end', () => request.complete && !request.aborted && complete++)
    request.resume()
    request.on('end', () => response.end())
  }
  const first = listening(http.createServer(count))
  const second = listening(http2.createServer(count as never) as never)
  await against([first, second], async (client, ...urls) => {
    for (const url of urls) {
      await post(client, url, '/', new FedBody().push('in ', 'pieces').end())
      await assert.rejects(post(client, url, '/', new FedBody().push('half').fail()), SidecarError)
      await post(client, url, '/', 'whole')
    }
    assert.equal(complete, 4)
  })
})

test.run()
