import assert from 'node:assert/strict'
import {
  answer,
  callHttp2,
  closeListeners,
  connectHttp2,
  GET,
  http2Answer,
  listen,
  POST,
} from '../support/listener.ts'
import { FedBody, readAll } from '../support/sending.ts'
import { suite } from '../support/suite.ts'

const test = suite('http/listener answers over HTTP/2')
test.after(closeListeners)

test('writes the fields of an answer in order and apart, and values byte by byte', async () => {
  const fields = [
    'set-cookie',
    'a=1',
    'x',
    'y',
    'set-cookie',
    'b=2',
    'content-type',
    'p',
    'content-type',
    'q',
    'c',
    '\xe4',
  ]
  const { port, faults } = await listen(async () => answer('ok', fields))
  const { raw } = await callHttp2(port, GET)
  assert.deepEqual(raw.slice(0, -2), [':status', '200', ...fields])
  assert.equal(raw.at(-2), 'date')
  assert.deepEqual(faults, [])
})

test('writes the head of an answer whose body is not there yet, and each piece, at once', async () => {
  const fed = new FedBody()
  const { port } = await listen(async () => answer(fed, ['content-type', 'text/event-stream']))
  const stream = connectHttp2(port).request(GET as never)
  await new Promise((resolve) => stream.once('response', resolve))
  for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
    const arrives = new Promise((resolve) => stream.once('data', resolve))
    fed.push(event)
    assert.equal(String(await arrives), event)
  }
})

test('begins to answer before the request has ended, in both directions at once', async () => {
  const { port } = await listen(async ({ request: { body } }) => answer(body))
  const stream = connectHttp2(port).request(POST as never)
  await new Promise((resolve) => stream.once('response', resolve))
  for (const piece of ['one', 'two']) {
    const arrives = new Promise((resolve) => stream.once('data', resolve))
    stream.write(piece)
    assert.equal(String(await arrives), piece)
  }
  const answered = http2Answer(stream)
  stream.end()
  const { ended, code } = await answered
  assert.deepEqual({ ended, code }, { ended: true, code: 0 })
})

test('ends a streamed answer with END_STREAM, with trailers and without', async () => {
  for (const trailers of [[], ['x-sum', '1', 'x-sum', '2']]) {
    for (const fields of [[], ['content-length', '6']]) {
      const { port } = await listen(async () =>
        answer(new FedBody().push('one').push('two').end(trailers), fields),
      )
      const answered = await callHttp2(port, GET)
      assert.deepEqual(
        [answered.body, answered.trailers, answered.ended, answered.code],
        ['onetwo', trailers, true, 0],
      )
    }
  }
})

test('writes trailers after a body that is at hand, and after none', async () => {
  for (const text of ['hello', '']) {
    const { port } = await listen(async () => {
      const body = answer(text).body
      return answer({
        read: () => body.read(),
        whole: (limit) => body.whole(limit),
        trailers: ['x-sum', '1'],
      })
    })
    const answered = await callHttp2(port, GET)
    assert.deepEqual([answered.body, answered.trailers, answered.ended], [text, ['x-sum', '1'], true])
  }
})

test('keeps a Content-Length where an answer has no body', async () => {
  for (const [method, status] of [
    ['HEAD', 200],
    ['GET', 304],
  ] as const) {
    for (const body of ['', new FedBody().end()]) {
      const { port } = await listen(async () => answer(body, ['content-length', '1234'], status))
      const answered = await callHttp2(port, [
        ':method',
        method,
        ':path',
        '/',
        ':authority',
        'a',
        ':scheme',
        'http',
      ])
      assert.equal(answered.status, status)
      assert.ok(answered.raw.join().includes('content-length,1234'))
      assert.deepEqual([answered.body, answered.ended, answered.code], ['', true, 0])
    }
  }
})

test('ends 204, 205 and empty answers', async () => {
  for (const status of [200, 204, 205]) {
    for (const body of ['', new FedBody().end()]) {
      const { port, faults } = await listen(async () => answer(body, [], status))
      const answered = await callHttp2(port, GET)
      assert.deepEqual([answered.status, answered.body, answered.ended], [status, '', true])
      assert.deepEqual(faults, [])
    }
  }
})

test('passes interim responses and Expect on', async () => {
  const { port } = await listen(async ({ request: { head, body }, caller }) => {
    caller.inform({ status: 103, fields: ['link', '</a>', 'link', '</b>'] })
    caller.inform({ status: 100, fields: [] })
    return answer(`${head.fields.join()} ${await readAll(body)}`)
  })
  const answered = await callHttp2(port, [...POST, 'expect', '100-continue'], 'hi')
  assert.deepEqual([answered.interim, answered.body], [[103, 100], 'expect,100-continue hi'])
})

test('passes no more than 16 interim responses on', async () => {
  const { port } = await listen(async ({ caller }) => {
    for (let i = 0; i < 100; i++) caller.inform({ status: 103, fields: ['link', '</a>'] })
    return answer('ok')
  })
  const answered = await callHttp2(port, GET)
  assert.deepEqual([answered.interim.length, answered.body], [16, 'ok'])
})

test('ends a complete answer to an unfinished request with NO_ERROR, and no byte of it is lost', async () => {
  const texts = ['whole'.repeat(10_000), 'streamed'.repeat(300_000)]
  for (const text of texts) {
    for (const initialWindowSize of [1000, 1_000_000]) {
      const { port } = await listen(async ({ request: { body } }) => {
        await body.read()
        return answer(text, [], 413)
      })
      const stream = connectHttp2(port, { settings: { initialWindowSize } }).request(POST as never)
      const answered = http2Answer(stream)
      stream.write(Buffer.alloc(500_000))
      const { status, body, ended, code } = await answered
      assert.deepEqual([status, body.length, ended, code], [413, text.length, true, 0])
      assert.ok(body === text)
    }
  }
})

test.run()
