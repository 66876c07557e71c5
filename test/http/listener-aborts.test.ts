import assert from 'node:assert/strict'
import http2 from 'node:http2'
import type { Body, Caller } from '../../sidecar/call.ts'
import { SidecarError } from '../../sidecar/errors.ts'
import type { Handler } from '../../sidecar/http/listener.ts'
import {
  answer,
  callHttp2,
  closeListeners,
  connectHttp2,
  exchange,
  GET,
  listen,
  POST,
  RawClient,
} from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener when calls are aborted')
test.after(closeListeners)

const truncated = () => new SidecarError('message-truncated', 'The other side stopped in the middle.')

/** A listener whose handler is in the hands of the test. */
async function caught(make: (body: Body) => ReturnType<Handler>) {
  const arrived = Promise.withResolvers<{ caller: Caller; body: Body; gone: Promise<SidecarError> }>()
  const { port, faults, listener } = await listen(({ request: { body }, caller }) => {
    const gone = new Promise<SidecarError>((resolve) => caller.onGone(resolve))
    arrived.resolve({ caller, body, gone })
    return make(body)
  })
  return { port, faults, listener, arrived: arrived.promise }
}

/** Ways to begin a POST whose body goes on, and to go away in the middle of it. */
const GOING: [string, (port: number) => () => void][] = [
  [
    'HTTP/1.1 and a reset',
    (port) => {
      const client = new RawClient(port).write(
        'POST / HTTP/1.1',
        'Host: a',
        'Content-Length: 10',
        '',
        'begun',
      )
      return () => client.socket.resetAndDestroy()
    },
  ],
  [
    'HTTP/1.1 and an end',
    (port) => {
      const client = new RawClient(port).write(
        'POST / HTTP/1.1',
        'Host: a',
        'Transfer-Encoding: chunked',
        '',
        '5',
        'begun',
        '',
      )
      return () => client.socket.end()
    },
  ],
  [
    'HTTP/2 and a reset',
    (port) => {
      const stream = connectHttp2(port).request(POST as never)
      stream.write('begun')
      // close(code) would end the body first.
      return () => stream.destroy(new Error('gone'))
    },
  ],
  [
    'HTTP/2 and the end of its connection',
    (port) => {
      const session = connectHttp2(port)
      session.request(POST as never).write('begun')
      return () => session.destroy()
    },
  ],
]

for (const [how, begin] of GOING) {
  test(`cuts off the body of a caller that went away in the middle of it: ${how}`, async () => {
    let reading: Promise<string> | undefined
    const { port, faults, listener, arrived } = await caught(async (body) => {
      reading = readAll(body)
      return answer(await reading)
    })
    const go = begin(port)
    const { gone, caller } = await arrived
    go()
    await assert.rejects(reading!, (error) => error instanceof SidecarError && error.status === 0)
    assert.equal((await gone).code, 'caller-gone')
    await listener.drain(0)
    await new Promise((resolve) => caller.onGone(resolve))
    assert.deepEqual(faults, [])
  })

  test(`tells the handler that its caller went away while it waits for the answer: ${how}`, async () => {
    const { port, listener, arrived } = await caught(() => new Promise(() => {}))
    const go = begin(port)
    const { gone } = await arrived
    go()
    assert.equal((await gone).code, 'caller-gone')
    await listener.drain(0)
  })

  test(`tells the handler that its caller went away in the middle of the answer: ${how}`, async () => {
    const fed = new FedBody().push('answer')
    const { port, listener, arrived } = await caught(async () => answer(fed))
    const go = begin(port)
    const { gone } = await arrived
    await fed.awaited
    go()
    assert.equal((await gone).code, 'caller-gone')
    await listener.drain(0)
    fed.fail()
  })
}

test('takes a HEAD over HTTP/2 for waiting like any other call', async () => {
  const { port, arrived } = await caught(() => new Promise(() => {}))
  const stream = connectHttp2(port).request([':method', 'HEAD', ...GET.slice(2)] as never)
  const { gone } = await arrived
  stream.close(http2.constants.NGHTTP2_CANCEL)
  assert.equal((await gone).code, 'caller-gone')
})

test('does not tell of a caller that has its whole answer', async () => {
  let told = 0
  const { port, listener } = await listen(async ({ caller }) => {
    caller.onGone(() => told++)
    return answer('ok')
  })
  await exchange(port, 'GET / HTTP/1.1', 'Host: a', 'Connection: close', '', '')
  await callHttp2(port, GET)
  await listener.drain(0)
  assert.equal(told, 0)
})

test('resets a call where there is nothing to answer with', async () => {
  const { port, faults } = await listen(async () => {
    throw truncated()
  })
  const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', '', '')
  assert.equal(await client.ended, 'ECONNRESET')
  assert.equal(client.received, '')
  const answered = await callHttp2(port, GET)
  assert.deepEqual([answered.status, answered.ended], [0, false])
  assert.notEqual(answered.code, 0)
  assert.deepEqual(faults, [])
})

/** Answers that stop in the middle; over HTTP/1.1 what may have been written of their bodies. */
const STOPPING: [string, () => ReturnType<typeof answer>, RegExp][] = [
  ['in chunks', () => answer(new FedBody().push('begun').fail(truncated())), /^(?:5\r\nbegun\r\n)?$/],
  [
    'with a length',
    () => answer(new FedBody().push('begun').fail(truncated()), ['content-length', '9']),
    /^(?:begun)?$/,
  ],
  [
    'with a length that was reached',
    () => answer(new FedBody().push('beg').push('un').fail(truncated()), ['content-length', '5']),
    /^(?:beg)?$/,
  ],
  [
    'with a length that was reached at once',
    () => answer(new FedBody().push('begun').fail(truncated()), ['content-length', '5']),
    /^$/,
  ],
  [
    'with a body longer than its length',
    () => answer(new FedBody().push('begun'), ['content-length', '4']),
    /^$/,
  ],
  [
    'with a body shorter than its length',
    () => answer(new FedBody().push('begun').end(), ['content-length', '6']),
    /^(?:begun)?$/,
  ],
]

for (const [what, make, body] of STOPPING) {
  test(`resets an answer that stops in the middle, ${what}, and never ends it`, async () => {
    const { port } = await listen(async () => make())
    const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', '', '')
    assert.equal(await client.ended, 'ECONNRESET')
    if (client.received !== '')
      assert.match(client.received.slice(client.received.indexOf('\r\n\r\n') + 4), body)
    const answered = await callHttp2(port, GET)
    assert.equal(answered.ended, false)
    assert.notEqual(answered.code, 0)
  })
}

test('holds back the piece that reaches the announced length until the body came to a clean end', async () => {
  const fed = new FedBody().push('hel', 'lo')
  const { port } = await listen(async ({ request: { head } }) =>
    head.path === '/' ? answer(fed, ['content-length', '5']) : answer('ok'),
  )
  const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', '', '')
  await fed.awaited
  await client.until(/hel/)
  // What was written before this one was answered has come.
  await exchange(port, 'GET /other HTTP/1.1', 'Host: a', 'Connection: close', '', '')
  fed.fail(truncated())
  assert.equal(await client.ended, 'ECONNRESET')
  assert.match(client.received, /\r\n\r\nhel$/)
})

test('resets an HTTP/1.0 client whose answer stops: for it the end of the connection is the end', async () => {
  const fed = new FedBody().push('begun')
  const { port } = await listen(async () => answer(fed))
  const client = new RawClient(port).write('GET / HTTP/1.0', '', '')
  await client.until(/begun$/)
  fed.fail(truncated())
  assert.equal(await client.ended, 'ECONNRESET')
})

test('does not end an answer to a caller that closed its side, but resets it', async () => {
  for (const version of ['HTTP/1.0', 'HTTP/1.1']) {
    const fed = new FedBody().push('begun')
    const { port, arrived } = await caught(async () => answer(fed))
    const client = new RawClient(port).write(`GET / ${version}`, 'Host: a', '', '')
    await client.until(/begun/)
    client.socket.end()
    assert.equal((await (await arrived).gone).code, 'caller-gone')
    assert.equal(await client.ended, 'ECONNRESET')
    fed.fail()
  }
})

test('writes nothing of an answer that is at hand and not as long as its Content-Length', async () => {
  for (const length of ['4', '6']) {
    const { port } = await listen(async () => answer('begun', ['content-length', length]))
    const client = new RawClient(port).write('GET / HTTP/1.1', 'Host: a', 'Connection: close', '', '')
    assert.equal(await client.ended, 'ECONNRESET')
    assert.equal(client.received, '')
    const answered = await callHttp2(port, GET)
    assert.deepEqual([answered.status, answered.ended], [0, false])
  }
})

test('writes nothing of an answer without a body before its end is known', async () => {
  for (const [method, fields, status] of [
    ['GET', ['content-length', '0'], 200],
    ['HEAD', ['content-length', '7'], 200],
    ['GET', [], 204],
    ['GET', [], 304],
  ] as const) {
    const { port } = await listen(async () => answer(new FedBody().fail(truncated()), [...fields], status))
    const client = new RawClient(port).write(`${method} / HTTP/1.1`, 'Host: a', '', '')
    assert.equal(await client.ended, 'ECONNRESET')
    assert.equal(client.received, '')
    const answered = await callHttp2(port, [':method', method, ...GET.slice(2)])
    assert.deepEqual([answered.status, answered.ended], [0, false])
  }
})

test('answers a failure as its problem, and one that was not foreseen as internal-error', async () => {
  for (const [error, status, code] of [
    [new SidecarError('no-peer', 'There is none.'), 502, 'no-peer'],
    [new SidecarError('peer-unreachable', 'Too slow.', { status: 504 }), 504, 'peer-unreachable'],
    [new TypeError('secret'), 500, 'internal-error'],
  ] as const) {
    const { port, faults } = await listen(async () => {
      throw error
    })
    const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', 'Connection: close', '', '')
    assert.match(
      text,
      new RegExp(`^HTTP/1.1 ${status} [\\s\\S]*\\r\\nmte-error: ${code}\\r\\n[\\s\\S]*"code":"${code}"}\\n$`),
    )
    const answered = await callHttp2(port, GET)
    assert.equal(answered.status, status)
    assert.ok(!`${text}${answered.body}`.includes('secret'))
    assert.deepEqual(faults, code === 'internal-error' ? [error, error] : [])
  }
})

test('answers internal-error where an answer cannot be written, and goes on', async () => {
  for (const made of [answer('ok', ['x', 'a\r\nb: c']), answer('ok', ['a b', 'c']), answer('ok', [], 1000)]) {
    const { port, faults } = await listen(async () => made)
    const text = await exchange(port, 'GET / HTTP/1.1', 'Host: a', 'Connection: close', '', '')
    assert.match(text, /^HTTP\/1\.1 500 [\s\S]*\r\nmte-error: internal-error\r\n/)
    assert.equal(faults.length, 1)
  }
})

test.run()
