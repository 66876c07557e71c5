/** Header fields of calls: what passes, how much of it, and what the sidecars add and take away. */
import assert from 'node:assert/strict'
import type { Fields } from '../sidecar/call.ts'
import { fieldsFromRaw } from '../sidecar/http/fields.ts'
import { APP_PROTOCOLS, beginCall, makeCall } from './support/app-client.ts'
import { call } from './support/call.ts'
import { type Recorder, startRecorder } from './support/recorder.ts'
import { type Pair, startPair, startServer } from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('calls: heads')

const HEAD_BYTES_MAX = 65_536

let app: Recorder
/** what the app answers with */
let answered: Fields = []
let pair: Pair
let port: number

test.before(async () => {
  // With text node:http would send the fields in UTF-8.
  app = await startRecorder((_seen, response) =>
    response.writeHead(200, [...answered]).end(Buffer.from('done')),
  )
  const billing = { HEADERS: '{"x-service-name":"billing"}' }
  pair = await startPair(app.port, { billing, orders: { HEADERS: '{"x-service-name":"orders"}' } })
  port = pair.orders.port('outbound')
})

test.after(async () => {
  await pair.close()
  await app.close()
})

/** Names and values of what the app got, in order. */
function got(): Fields {
  return fieldsFromRaw(app.last().rawHeaders)
}

function only(fields: Fields, names: RegExp): Fields {
  return fields.filter((_, i) => names.test(fields[i - (i % 2)]!))
}

/** Fields whose names and values are as many bytes as that. */
function fieldsOf(bytes: number, each = 4000): Fields {
  const fields: Fields = []
  for (let left = bytes; left > 0; left -= each)
    fields.push(`x-${fields.length}`.padEnd(10, '-'), 'v'.repeat(Math.min(left, each) - 10))
  return fields
}

for (const protocol of APP_PROTOCOLS) {
  test(`fields pass as they are over ${protocol}: repeated, in order, with every byte that a value may have`, async () => {
    const fields = [
      ['x-a', '1'],
      ['x-b', ' !"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~'.trim()],
      ['x-a', '2'],
      ['x-c', 'caf\xe9 \x80\xff\ttab'],
      ['x-a', ''],
      ['cookie', 'a=1; b=2'],
      ['authorization', 'Bearer planted'],
      ['content-type', 'text/plain; charset="x"'],
      ["!#$%&'*+-.^_`|~09az", 'a token'],
      ['te', 'trailers'],
    ].flat()
    answered = [
      ...fields.slice(0, -2),
      'set-cookie',
      'a=1; Path=/',
      'x-d',
      '1',
      'set-cookie',
      'b=2',
      'set-cookie',
      'a=1; Path=/',
    ]
    const answer = await makeCall(protocol, port, { fields })
    assert.deepEqual(got().slice(0, fields.length), fields)
    assert.deepEqual(answer.fields.slice(0, answered.length), answered)
  })

  test(`64 KiB of fields are accepted both ways over ${protocol}`, async () => {
    // Method, scheme, authority and path count too in a request.
    const request = fieldsOf(HEAD_BYTES_MAX - 'GEThttpbilling/'.length - 'hostbilling'.length - 2)
    // node:http adds connection, date, keep-alive and framing.
    answered = fieldsOf(HEAD_BYTES_MAX - 400)
    const { status, fields } = await makeCall(protocol, port, { fields: request })
    assert.equal(status, 200)
    assert.deepEqual(only(got(), /^x-\d/), request)
    assert.deepEqual(only(fields, /^x-\d/), answered)
  })

  test(`more than 64 KiB, in one field or in many, get a 431 over ${protocol}, and nothing reaches the app`, async () => {
    const before = app.seen.length
    for (const fields of [
      fieldsOf(HEAD_BYTES_MAX + 1),
      fieldsOf(HEAD_BYTES_MAX + 1, HEAD_BYTES_MAX + 1),
      fieldsOf(80_000, 30),
    ]) {
      const { status, code } = await makeCall(protocol, port, { fields })
      assert.deepEqual([status, code], [431, 'headers-too-large'])
    }
    const path = `/${'p'.repeat(20_000)}`
    const { status } = await makeCall(protocol, port, { path, fields: fieldsOf(HEAD_BYTES_MAX - 20_000) })
    assert.equal(status, 431)
    assert.equal(app.seen.length, before)
  })

  test(`an answer with more than that is not passed on over ${protocol}, and told as the app's fault`, async () => {
    for (const bytes of [HEAD_BYTES_MAX + 1, 200_000]) {
      answered = fieldsOf(bytes)
      const { status, code } = await makeCall(protocol, port)
      assert.equal(status, 502)
      assert.ok(code === 'upstream-unreachable' || code === 'outcome-unknown', String(code))
    }
  })

  test(`an answer never carries an mte-error of the app over ${protocol}`, async () => {
    answered = ['mte-error', 'no-peer', 'MTE-Error', 'draining', 'x-a', '1']
    const { status, code, fields } = await makeCall(protocol, port)
    assert.deepEqual([status, code], [200, undefined])
    assert.ok(fields.includes('x-a'))
  })

  test(`HEADERS of the app's sidecar replace those of their names, in what the app gets and what it answers over ${protocol}`, async () => {
    answered = ['x-service-name', 'of the app', 'x-a', '1']
    const { fields } = await makeCall(protocol, port, { fields: ['x-service-name', 'of the caller'] })
    assert.deepEqual(only(got(), /^x-service-name$/), ['x-service-name', 'billing'])
    assert.deepEqual(only(fields, /^x-service-name$/), ['x-service-name', 'billing'])
  })

  test(`what is between an app and its sidecar stays there over ${protocol}`, async () => {
    answered = ['connection', 'x-hop', 'x-hop', 'gone', 'proxy-connection', 'keep-alive', 'x-a', '1']
    const own = [
      'x-mte-encode-type',
      'MKE',
      'x-mte-outbound-token',
      'unused',
      'proxy-authorization',
      'Basic eA==',
    ]
    const connection =
      protocol === 'h2c'
        ? []
        : ['connection', 'x-hop, close', 'x-hop', 'gone', 'keep-alive', 'timeout=5', 'te', 'gzip']
    const { fields } = await makeCall(protocol, port, { fields: [...own, ...connection, 'x-a', '1'] })
    assert.deepEqual(got().slice(0, 2), ['x-a', '1'])
    assert.ok(!app.last().rawHeaders.some((each) => /^(x-mte-|x-hop|proxy-authorization|te$)/i.test(each)))
    assert.ok(!fields.some((each) => /^(x-hop|gone|proxy-connection)$/i.test(each)))
    assert.ok(fields.includes('x-a'))
  })
}

test('fields that HTTP/1.1 allows and HTTP/2 splits are one again: Cookie', async () => {
  const { status } = await makeCall('h2c', port, { fields: ['cookie', 'a=1', 'x-a', '1', 'cookie', 'b=2'] })
  assert.equal(status, 200)
  assert.deepEqual(only(got(), /^cookie$/), ['cookie', 'a=1; b=2'])
})

test('names are in lower case inside, whatever the caller wrote', async () => {
  await call(port, { headers: ['X-MiXed', 'Value'] })
  assert.deepEqual(only(app.last().rawHeaders, /^x-mixed$/i), ['x-mixed', 'Value'])
})

test('fields keep their bytes where the body comes later, both ways', async () => {
  const streaming = await startServer((request, response) => {
    response.writeHead(200, ['x-a', request.headers['x-a'] as string])
    response.write(Buffer.from('first '))
    request.on('data', (piece: Buffer) => response.write(piece))
    request.on('end', () => response.end())
  })
  const other = await startPair(streaming.port)
  for (const protocol of APP_PROTOCOLS) {
    const sent = beginCall(protocol, other.orders.port('outbound'), {
      method: 'POST',
      fields: ['x-a', 'caf\xe9 \xff'],
    })
    assert.deepEqual(only((await sent.head).fields, /^x-a$/), ['x-a', 'caf\xe9 \xff'])
    assert.equal((await sent.end('last').whole()).text, 'first last')
  }
  await other.close()
  await streaming.close()
})

test('statuses pass as they are', async () => {
  const statuses = [
    200, 201, 202, 203, 205, 206, 226, 300, 301, 307, 400, 401, 404, 409, 418, 421, 425, 429, 431, 451, 500,
    502, 503, 504, 599,
  ]
  const apps = await startRecorder(({ url }, response) => response.writeHead(Number(url.slice(1))).end())
  const other = await startPair(apps.port)
  for (const protocol of APP_PROTOCOLS) {
    for (const status of statuses) {
      const answer = await makeCall(protocol, other.orders.port('outbound'), { path: `/${status}` })
      assert.deepEqual([answer.status, answer.code], [status, undefined])
    }
  }
  // Each ran once: none of them was taken for a failure between the sidecars.
  assert.equal(apps.seen.length, statuses.length * APP_PROTOCOLS.length)
  await other.close()
  await apps.close()
})

test.run()
