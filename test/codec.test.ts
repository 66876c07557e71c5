import assert from 'node:assert/strict'
import { createSecretKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { type Answer, type Fields, NO_BODY, type ResponseHead, WholeBody } from '../sidecar/call.ts'
import { Decoding, encodedInterim, encodedRequest, encodedResponse } from '../sidecar/codec.ts'
import { SidecarError } from '../sidecar/errors.ts'
import { ResponseDecoder } from '../sidecar/http/bhttp.ts'
import { HEADER_BYTES, openResponse, RESPONSE_HEADER_BYTES, sealRequest } from '../sidecar/pair/message.ts'
import { Coding } from '../sidecar/telemetry/coding.ts'
import { runs } from './support/fuzz.ts'
import {
  decoded,
  decodingRequest,
  decodingResponse,
  encodedPieces,
  HEAD_BYTES_MAX,
  MESSAGE,
  messages,
  REQUEST,
  REQUEST_HEADER,
  RESPONSE,
  requestSealer,
  responseSealer,
  sealed,
} from './support/messages.ts'
import { Pieces, readAll } from './support/pieces.ts'
import { suite } from './support/suite.ts'

const CODING = new Coding('encode', 'request')
const test = suite('codec')

test('a request that is at hand is one chunk, and comes out as it went in', async () => {
  for (const [body, trailers] of [
    ['', []],
    ['body', []],
    ['x'.repeat(60_000), []],
    ['body', ['t', '1']],
  ] as [string, Fields][]) {
    const encoded = encodedRequest(
      REQUEST,
      new WholeBody(Buffer.from(body), trailers),
      requestSealer(),
      CODING,
    )
    const pieces = await readAll(encoded)
    assert.equal(pieces.length, 1)
    // The header, the length 0 of a final chunk, and that.
    assert.deepEqual(pieces[0]!.subarray(0, HEADER_BYTES + 1), Buffer.concat([REQUEST_HEADER, Buffer.of(0)]))
    assert.deepEqual(await decoded(decodingRequest(new Pieces(pieces))), { head: REQUEST, body, trailers })
  }
})

test('a response that is at hand is one chunk, and comes out as it went in', async () => {
  const body = new WholeBody(Buffer.from('body'), ['t', '1'])
  const pieces = await readAll(encodedResponse({ head: RESPONSE, body }, responseSealer(), CODING))
  assert.equal(pieces.length, 1)
  assert.equal(pieces[0]![RESPONSE_HEADER_BYTES], 0)
  assert.deepEqual(await decoded(decodingResponse(new Pieces(pieces))), {
    head: RESPONSE,
    body: 'body',
    trailers: ['t', '1'],
  })
})

test('a call without a body is the bytes of relay1, and its response is read', async () => {
  const vectors = JSON.parse(readFileSync(new URL('vectors/relay1.json', import.meta.url), 'utf8'))
  const hex = (text: string) => Buffer.from(text, 'hex')
  for (const vector of vectors.messages.slice(0, 3)) {
    const message = {
      pairId: hex(vectors.pairing.pair_id),
      block: vector.block,
      index: vector.index,
      requestKey: createSecretKey(hex(vector.req_key)),
      responseKey: createSecretKey(hex(vector.res_key)),
      chunkBytesMax: 65536,
    }
    const head = { method: 'GET', scheme: 'https', authority: 'example.com', path: '/', fields: [] }
    const request = encodedRequest(head, NO_BODY, sealRequest(message, hex(vector.req_iv)).sealer, CODING)
    assert.deepEqual(await readAll(request), [hex(vector.message)], vector.name)
    const response = new Decoding(
      new Pieces([hex(vector.response)]),
      new ResponseDecoder(HEAD_BYTES_MAX, 'GET'),
      {
        headerBytes: RESPONSE_HEADER_BYTES,
        open: (header) => openResponse(message, hex(vector.header), header),
        coding: CODING,
      },
    )
    assert.deepEqual(await decoded(response), { head: { status: 200, fields: [] }, body: '', trailers: [] })
  }
})

test('a body of 64 KiB that is at hand takes the chunks that it needs', async () => {
  const body = Buffer.alloc(65536, 'x')
  for (const chunkBytesMax of [65536, 1024]) {
    const encoded = encodedRequest(
      REQUEST,
      new WholeBody(body),
      requestSealer({ ...MESSAGE, chunkBytesMax }),
      CODING,
    )
    const message = await decoded(decodingRequest(encoded))
    assert.equal(message.body, body.toString())
  }
})

test('a stream is a chunk for its head, one for each piece as it comes, and one for its end', async () => {
  const source = new Pieces(['one', 'two'], ['t', '1'])
  const encoded = encodedRequest(REQUEST, source, requestSealer(), CODING)
  const decoding = decodingRequest(encoded)
  assert.deepEqual(await decoding.head(), REQUEST)
  assert.equal(source.reads, 0)
  assert.equal((await decoding.read())?.toString(), 'one')
  assert.equal(source.reads, 1)
  assert.equal((await decoding.read())?.toString(), 'two')
  assert.equal(source.reads, 2)
  assert.deepEqual(decoding.trailers, [])
  assert.equal(await decoding.read(), undefined)
  assert.deepEqual(decoding.trailers, ['t', '1'])
  assert.equal(await decoding.read(), undefined)
  assert.equal(await encoded.read(), undefined)
  assert.equal(source.reads, 3)
})

test('a stream of a response likewise', async () => {
  const source = new Pieces(['one', Buffer.alloc(200_000, 'x')], ['t', '1'])
  const message = await decoded(
    decodingResponse(encodedResponse({ head: RESPONSE, body: source }, responseSealer(), CODING)),
  )
  assert.deepEqual(message, { head: RESPONSE, body: `one${'x'.repeat(200_000)}`, trailers: ['t', '1'] })
})

test('an empty piece does not end a body', async () => {
  const source = new Pieces(['', 'one', '', '', 'two', ''])
  assert.equal(
    (await decoded(decodingRequest(encodedRequest(REQUEST, source, requestSealer(), CODING)))).body,
    'onetwo',
  )
})

test('nothing is read of a body before somebody asks for it', async () => {
  const source = new Pieces(['one', 'two'])
  const encoded = encodedRequest(REQUEST, source, requestSealer(), CODING)
  await encoded.read()
  assert.equal(source.reads, 0)
  await encoded.read()
  assert.equal(source.reads, 1)

  const messages = new Pieces(await encodedPieces(new Pieces(['one', 'two'])))
  const decoding = decodingRequest(messages)
  assert.equal(messages.reads, 0)
  await decoding.head()
  assert.equal(messages.reads, 1)
  await decoding.read()
  assert.equal(messages.reads, 2)
})

test('a body that fails makes a message that fails, and never one that ends', async () => {
  const failure = new SidecarError('caller-gone', 'gone')
  for (const before of [[], ['one'], ['one', 'two']]) {
    const encoded = encodedResponse(
      { head: RESPONSE, body: new Pieces([...before, failure]) },
      responseSealer(),
      CODING,
    )
    const decoding = decodingResponse(encoded)
    await decoding.head()
    for (const piece of before) assert.equal((await decoding.read())?.toString(), piece)
    await assert.rejects(decoding.read(), failure)
  }
})

test('interim responses come out before the answer, and the first before the answer is there', async () => {
  const interim = (status: number): ResponseHead => ({ status, fields: ['link', `</${status}>`] })
  const final = Promise.withResolvers<Answer>()
  const steps: (() => Promise<ResponseHead[] | Answer>)[] = [
    async () => [interim(103)],
    async () => [interim(102), interim(104)],
    () => final.promise,
  ]
  const told: number[] = []
  const decoding = decodingResponse(encodedInterim(() => steps.shift()!(), responseSealer(), CODING))
  const head = decoding.head(({ status }) => {
    told.push(status)
    if (told.length === 3) final.resolve({ head: RESPONSE, body: new Pieces(['body'], ['t', '1']) })
  })
  assert.deepEqual(await head, RESPONSE)
  assert.deepEqual(told, [103, 102, 104])
  assert.equal(Buffer.concat(await readAll(decoding)).toString(), 'body')
  assert.deepEqual(decoding.trailers, ['t', '1'])
})

test('an answer without a body follows interim responses too', async () => {
  const steps: (ResponseHead[] | Answer)[] = [
    [{ status: 103, fields: [] }],
    { head: { status: 204, fields: [] }, body: NO_BODY },
  ]
  const encoded = encodedInterim(async () => steps.shift()!, responseSealer(), CODING)
  assert.deepEqual(await decoded(decodingResponse(encoded)), {
    head: { status: 204, fields: [] },
    body: '',
    trailers: [],
  })
})

test('an answer that fails after an interim response fails the message', async () => {
  const failure = new SidecarError('upstream-timeout', 'too slow')
  let asked = 0
  const next = async () => {
    if (asked++ > 0) throw failure
    return [{ status: 103, fields: [] }]
  }
  await assert.rejects(decodingResponse(encodedInterim(next, responseSealer(), CODING)).head(), failure)
})

test('a message is the same however its bytes are cut', async () => {
  for (const message of Object.values(await messages())) {
    const whole = await decoded(decodingRequest(new Pieces([message])))
    const bytewise = Array.from(message, (byte) => Buffer.of(byte))
    assert.deepEqual(await decoded(decodingRequest(new Pieces(bytewise))), whole)
    for (let cut = 1; cut < message.length; cut++) {
      const pieces = [message.subarray(0, cut), message.subarray(cut)]
      assert.deepEqual(await decoded(decodingRequest(new Pieces(pieces))), whole, `at ${cut}`)
    }
  }
})

test('the final chunk may be empty', async () => {
  const control = Buffer.from('\x02\x03GET\x04http\x01a\x01/\0\x03one\0\0', 'latin1')
  const message = sealed(control, Buffer.alloc(0))
  assert.equal((await decoded(decodingRequest(message))).body, 'one')
})

test('all that is left of a body is given at once if it has come, and only if it fits', async () => {
  const [message] = (await encodedPieces(new WholeBody(Buffer.from('body'), ['t', '1']))) as [Buffer]
  const decoding = decodingRequest(new Pieces([message]))
  assert.equal(decoding.whole(1000), undefined)
  await decoding.head()
  assert.equal(decoding.whole(3), undefined)
  assert.equal(decoding.whole(4)?.toString(), 'body')
  assert.deepEqual(decoding.trailers, ['t', '1'])
  assert.equal(await decoding.read(), undefined)

  const streamed = decodingRequest(new Pieces(await encodedPieces(new Pieces(['one', 'two']))))
  await streamed.head()
  assert.equal(streamed.whole(1000), undefined)
  assert.equal((await streamed.read())?.toString(), 'one')

  const empty = decodingRequest(new Pieces(await encodedPieces(NO_BODY)))
  await empty.head()
  assert.equal(empty.whole(0)?.length, 0)
})

test('an answer to HEAD and a 304 keep the length that they announce', async () => {
  for (const [method, status] of [
    ['HEAD', 200],
    ['GET', 304],
  ] as const) {
    const head = { status, fields: ['content-length', '1000'] }
    const encoded = encodedResponse({ head, body: NO_BODY }, responseSealer(), CODING)
    assert.deepEqual(await decoded(decodingResponse(encoded, method)), { head, body: '', trailers: [] })
  }
})

test('any body comes out as it went in, whatever the chunks and however they are cut on the way', async () => {
  const piece = fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.from(bytes))
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { maxLength: 5 }),
      fc.boolean(),
      fc.constantFrom<Fields>([], ['t', '1', 't', '2']),
      fc.integer({ min: 1, max: 4000 }),
      async (pieces, streamed, trailers, size) => {
        const body = streamed ? new Pieces(pieces, trailers) : new WholeBody(Buffer.concat(pieces), trailers)
        const bytes = Buffer.concat(
          await encodedPieces(body, requestSealer({ ...MESSAGE, chunkBytesMax: 1024 })),
        )
        const onTheWay = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
          bytes.subarray(i * size, (i + 1) * size),
        )
        assert.deepEqual(await decoded(decodingRequest(new Pieces(onTheWay))), {
          head: REQUEST,
          body: Buffer.concat(pieces).toString('latin1'),
          trailers,
        })
      },
    ),
    runs(200),
  )
})

test.run()
