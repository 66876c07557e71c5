/** What is between the two sidecars: proxies that speak HTTP/1.1 alone, TLS, and connections that break. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type http from 'node:http'
import https from 'node:https'
import os from 'node:os'
import path from 'node:path'
import { field } from '../sidecar/http/fields.ts'
import { type AppCallHead, beginCall, makeCall } from './support/app-client.ts'
import { type AppServer, abandoned, startAppServer } from './support/app-server.ts'
import { once } from './support/call.ts'
import { type Certificate, certificate } from './support/certificates.ts'
import { type Http1Proxy, startHttp1Proxy } from './support/http1-proxy.ts'
import { listen, type Sidecar, startSidecar, startTap, type Tap } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('calls: between sidecars')

const folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-between-'))
const caFile = path.join(folder, 'ca.pem')

let own: Certificate
let app: AppServer
/** ids of the calls that reached the app */
const runs: string[] = []
let billing: Sidecar
let proxy: Http1Proxy
/** calls billing through the proxy */
let behindProxy: Sidecar
let port: number

test.before(async () => {
  own = certificate('DNS:localhost', 'IP:127.0.0.1')
  writeFileSync(caFile, own.cert)
  app = await startAppServer()
  app.server.on('request', ({ headers }) => runs.push(headers['x-id'] as string))
  billing = await startSidecar({ NAME: 'billing', UPSTREAM: `http://127.0.0.1:${app.port}` })
  proxy = await startHttp1Proxy(billing.port('inbound'))
  behindProxy = await startSidecar({
    NAME: 'orders',
    PEERS: `billing=http://127.0.0.1:${proxy.port}`,
    CARRIAGE: 'message',
  })
  port = behindProxy.port('outbound')
})

test.after(async () => {
  for (const part of [behindProxy, proxy, billing, app]) await part.close()
  rmSync(folder, { recursive: true })
})

/** Answers with what it gets, as it comes. */
const echo: http.RequestListener = (request, response) => {
  response.flushHeaders()
  request.pipe(response)
}

const done: http.RequestListener = (request, response) => {
  request.resume()
  request.on('end', () => response.end('done'))
}

function begin(at: number, head: AppCallHead = {}) {
  const call = beginCall('HTTP/1.1', at, head)
  call.request.on('error', () => {})
  return call
}

test('over HTTP/1.1 a response that begins before the request has ended goes on with it', async () => {
  app.handler = echo
  const before = proxy.requests
  const duplex = begin(port, { method: 'POST' })
  assert.equal((await duplex.head).status, 200)
  for (let i = 0; i < 10; i++) {
    duplex.request.write(`tick ${i}`)
    assert.equal(String(await duplex.read()), `tick ${i}`)
  }
  assert.equal((await duplex.end('last').whole()).text, 'last')
  assert.ok(proxy.requests > before)
})

test('over HTTP/1.1 large bodies arrive whole', async () => {
  app.handler = echo
  const body = randomBytes(5_000_000)
  const answer = await makeCall('HTTP/1.1', port, { method: 'PUT', body })
  assert.ok(answer.body.equals(body))
})

test('over HTTP/1.1 trailers are inside, both ways', async () => {
  app.handler = (request, response) => {
    request.resume()
    request.on('end', () => {
      response.setHeader('trailer', 'x-sum')
      response.write('body')
      response.addTrailers({ 'x-sum': request.trailers['x-a'] ?? 'none' })
      response.end()
    })
  }
  const fields = ['transfer-encoding', 'chunked', 'trailer', 'x-a']
  const answer = await makeCall('HTTP/1.1', port, {
    method: 'POST',
    fields,
    body: 'x',
    trailers: ['x-a', 'abc'],
  })
  assert.deepEqual([answer.text, answer.trailers], ['body', ['x-sum', 'abc']])
})

test('over HTTP/1.1 early hints and 100 come before the answer, and events tick through', async () => {
  const reached = app.next()
  const sent = begin(port, { method: 'POST' })
  const [request, response] = await reached
  response.writeContinue()
  assert.equal((await sent.informed(1))[0]!.status, 100)
  response.writeEarlyHints({ link: '</a.css>; rel=preload' })
  assert.equal(field((await sent.informed(2))[1]!.fields, 'link'), '</a.css>; rel=preload')
  sent.end('x')
  assert.equal(String(await once(request, 'data')), 'x')
  for (let i = 0; i < 10; i++) {
    response.write(`data: ${i}\n\n`)
    assert.equal(String(await sent.read()), `data: ${i}\n\n`)
  }
  response.end()
  assert.equal(await sent.read(), undefined)
})

test('over HTTP/1.1 a caller that goes away is seen by the app, whenever that is', async () => {
  const asking = app.next()
  const inRequest = begin(port, { method: 'POST', fields: ['content-length', '10'] })
  inRequest.request.write('hello')
  const [request, response] = await asking
  inRequest.abort()
  await abandoned(response)
  assert.equal(request.complete, false)

  const waiting = app.next()
  const whileWaiting = begin(port).end()
  const [, second] = await waiting
  whileWaiting.abort()
  await abandoned(second)

  const answering = app.next()
  const inAnswer = begin(port).end()
  const [, third] = await answering
  third.write('first')
  assert.equal(String(await inAnswer.read()), 'first')
  inAnswer.abort()
  await abandoned(third)
})

test('over HTTP/1.1 an app that breaks off resets the answer', async () => {
  const reached = app.next()
  const sent = begin(port).end()
  const [, response] = await reached
  response.write('first')
  assert.equal(String(await sent.read()), 'first')
  response.socket!.destroy()
  await assert.rejects(sent.read())
})

test('over HTTP/1.1 hundreds of calls at the same time are never mixed up', async () => {
  app.handler = (request, response) => request.pipe(response)
  const one = async (nth: number) => {
    const body = `${randomUUID()} ${'x'.repeat(nth * 100)}`
    assert.equal((await makeCall('HTTP/1.1', port, { method: 'POST', body })).text, body)
  }
  await Promise.all(Array.from({ length: 200 }, (_, nth) => one(nth)))
})

test('TLS between sidecars: HTTP/2 where the other end offers it, and HTTP/1.1 where not', async () => {
  for (const [protocol, start] of [
    ['h2', /^PRI \* HTTP\/2\.0\r\n/],
    ['http/1.1', /^POST \/api\/mte-pair HTTP\/1\.1\r\n/],
  ] as const) {
    const tap = await startTap(billing.port('inbound'), { ...own, ALPNProtocols: [protocol] })
    for (const host of ['127.0.0.1', 'localhost']) {
      const orders = await startSidecar({
        NAME: 'orders',
        PEERS: `billing=https://${host}:${tap.port}`,
        CA_FILE: caFile,
        ...(protocol === 'http/1.1' && { CARRIAGE: 'message' }),
      })
      app.handler = echo
      const duplex = begin(orders.port('outbound'), { method: 'POST' })
      assert.equal((await duplex.head).status, 200)
      duplex.request.write('tick')
      assert.equal(String(await duplex.read()), 'tick')
      const body = randomBytes(1_000_000)
      assert.ok((await duplex.end(body).whole()).body.equals(body))
      const reached = app.next()
      const broken = begin(orders.port('outbound')).end()
      const [, response] = await reached
      response.write('first')
      assert.equal(String(await broken.read()), 'first')
      response.socket!.resetAndDestroy()
      await assert.rejects(broken.read())
      await orders.close()
    }
    assert.match(tap.sent().toString('latin1'), start)
    await tap.close()
  }
})

test('a certificate that nobody vouches for, or that is of another host, is not spoken with', async () => {
  app.handler = done
  const other = certificate('DNS:other.example')
  const otherCa = path.join(folder, 'other.pem')
  writeFileSync(otherCa, other.cert)
  for (const [secure, env] of [
    [own, {}],
    [own, { CA_FILE: otherCa }],
    [other, { CA_FILE: otherCa }],
  ] as const) {
    const tap = await startTap(billing.port('inbound'), secure)
    const orders = await startSidecar({
      NAME: 'orders',
      PEERS: `billing=https://127.0.0.1:${tap.port}`,
      ...env,
    })
    const before = runs.length
    const answer = await makeCall('HTTP/1.1', orders.port('outbound'))
    assert.deepEqual([answer.status, answer.code], [502, 'peer-unreachable'])
    assert.deepEqual([tap.sent().length, runs.length], [0, before])
    await orders.close()
    await tap.close()
  }
})

test('an UPSTREAM with https is verified too', async () => {
  const secure = https.createServer({ ...own }, (request, response) =>
    response.end(`${request.method} ${request.url}`),
  )
  const upstream = `https://localhost:${await listen(secure)}/base`
  const trusting = await startSidecar({ NAME: 'billing', UPSTREAM: upstream, CA_FILE: caFile })
  const wary = await startSidecar({ NAME: 'wary', UPSTREAM: upstream })
  const orders = await startSidecar({ NAME: 'orders', PEERS: `billing=${trusting.url},wary=${wary.url}` })
  const outbound = orders.port('outbound')
  assert.equal((await makeCall('HTTP/1.1', outbound, { path: '/a?b' })).text, 'GET /base/a?b')
  const answer = await makeCall('HTTP/1.1', outbound, { authority: 'wary' })
  assert.deepEqual([answer.status, answer.code], [502, 'upstream-unreachable'])
  for (const part of [orders, trusting, wary]) await part.close()
  secure.closeAllConnections()
  secure.close()
})

for (const version of ['HTTP/2', 'HTTP/1.1']) {
  /** Runs a body with a tap in front of billing, through which the sidecars speak this version. */
  const throughTap = async (body: (tap: Tap, outbound: number) => Promise<void>) => {
    const tap = await startTap(version === 'HTTP/2' ? billing.port('inbound') : proxy.port)
    const orders = await startSidecar({
      NAME: 'orders',
      PEERS: `billing=http://127.0.0.1:${tap.port}`,
      ...(version === 'HTTP/1.1' && { CARRIAGE: 'message' }),
    })
    try {
      app.handler = done
      assert.equal((await makeCall('HTTP/1.1', orders.port('outbound'))).text, 'done')
      await body(tap, orders.port('outbound'))
    } finally {
      await orders.close()
      await tap.close()
    }
  }

  test(`connections that broke while nothing was under way cost no call (${version})`, async () => {
    await throughTap(async (tap, outbound) => {
      for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'POST']) {
        tap.cut()
        const id = randomUUID()
        assert.equal(
          (await makeCall('HTTP/1.1', outbound, { method, fields: ['x-id', id], body: '' })).text,
          'done',
        )
        assert.equal(runs.filter((run) => run === id).length, 1)
      }
    })
  })

  test(`of many calls whose connection breaks none runs twice, and those that ran say so (${version})`, async () => {
    await throughTap(async (tap, outbound) => {
      const arrived = Promise.withResolvers<void>()
      let waiting = 0
      app.handler = () => {
        if (++waiting === 20) arrived.resolve()
      }
      const ids = Array.from({ length: 20 }, () => randomUUID())
      const calls = ids.map((id) =>
        makeCall('HTTP/1.1', outbound, {
          method: 'POST',
          fields: ['x-id', id, 'content-length', '5'],
          body: 'hello',
        }),
      )
      await arrived.promise
      app.handler = done
      tap.cut()
      for (const { status, code } of await Promise.all(calls))
        assert.deepEqual([status, code], [502, 'outcome-unknown'])
      for (const id of ids) assert.equal(runs.filter((run) => run === id).length, 1)
      assert.equal((await makeCall('HTTP/1.1', outbound, { method: 'POST', body: 'x' })).text, 'done')
    })
  })

  test(`a call that may run twice is answered although its connection breaks while it waits (${version})`, async () => {
    await throughTap(async (tap, outbound) => {
      for (const [method, key] of [['GET'], ['PUT'], ['DELETE'], ['POST', 'idempotency-key']] as const) {
        const reached = app.next()
        const answer = makeCall('HTTP/1.1', outbound, { method, fields: key ? [key, 'k'] : [], body: '' })
        await reached
        app.handler = done
        tap.cut()
        assert.equal((await answer).text, 'done', method)
      }
    })
  })

  test(`a connection that breaks in the middle resets the answer for the caller, and the request for the app (${version})`, async () => {
    await throughTap(async (tap, outbound) => {
      const answering = app.next()
      const inAnswer = begin(outbound).end()
      const [, response] = await answering
      response.write('first')
      assert.equal(String(await inAnswer.read()), 'first')
      tap.cut()
      await assert.rejects(inAnswer.read())
      await abandoned(response)

      const asking = app.next()
      const inRequest = begin(outbound, { method: 'POST', fields: ['content-length', '400000'] })
      inRequest.request.write(randomBytes(300_000))
      const [request, second] = await asking
      request.resume()
      tap.cut()
      await abandoned(second)
      assert.equal(request.complete, false)
      assert.equal((await inRequest.head).status, 502)
      inRequest.abort()
    })
  })
}

test.run()
