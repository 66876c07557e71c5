import assert from 'node:assert/strict'
import { createSecretKey } from 'node:crypto'
import { NO_BODY, type RequestHead, WholeBody } from '../sidecar/call.ts'
import { Decoding, encodedRequest } from '../sidecar/codec.ts'
import { RequestDecoder } from '../sidecar/http/bhttp.ts'
import { HEADER_BYTES, openRequest } from '../sidecar/pair/message.ts'
import { Reject } from '../sidecar/pair/reject.ts'
import { Coding } from '../sidecar/telemetry/coding.ts'
import {
  decoded,
  decodingRequest,
  encodedPieces,
  HEAD_BYTES_MAX,
  isReject,
  isTruncated,
  MESSAGE,
  messages,
  REQUEST,
  REQUEST_HEADER,
  requestSealer,
  sealed,
} from './support/messages.ts'
import { Pieces, readAll } from './support/pieces.ts'
import { suite } from './support/suite.ts'

const CODING = new Coding('encode', 'request')
const test = suite('codec refusals')
const TAG_BYTES = 16

test('a message that is cut off anywhere is refused or truncated, and never ends', async () => {
  for (const [name, message] of Object.entries(await messages())) {
    for (let length = 0; length < message.length; length++) {
      for (const pieces of [
        [message.subarray(0, length)],
        Array.from(message.subarray(0, length), (byte) => Buffer.of(byte)),
      ]) {
        const decoding = decodingRequest(new Pieces(length === 0 ? [] : pieces))
        const why = `${name} at ${length}`
        try {
          await decoding.head()
        } catch (error) {
          assert.ok(isReject('malformed')(error) || isReject('decrypt_failed')(error), why)
          continue
        }
        await assert.rejects(readAll(decoding), isTruncated, why)
        await assert.rejects(decoding.read(), why)
        assert.equal(decoding.whole(1000), undefined, why)
      }
    }
  }
})

test('a message with any bit flipped is refused, and nothing that is not authentic comes out', async () => {
  for (const [name, message] of Object.entries(await messages())) {
    for (let bit = 0; bit < message.length * 8; bit++) {
      const flipped = Buffer.from(message)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      const decoding = decodingRequest(new Pieces([flipped]))
      const got: Buffer[] = []
      const reading = async () => {
        assert.deepEqual(await decoding.head(), REQUEST)
        for (let piece = await decoding.read(); piece; piece = await decoding.read()) got.push(piece)
      }
      const why = `${name}, bit ${bit}`
      await assert.rejects(reading(), (error) => error instanceof Reject || isTruncated(error), why)
      assert.ok(`onetwo${'x'.repeat(100)}`.startsWith(Buffer.concat(got).toString()), why)
    }
  }
})

test('bytes after the final chunk are refused', async () => {
  for (const message of Object.values(await messages())) {
    const decoding = decodingRequest(new Pieces([message, Buffer.of(0)]))
    await assert.rejects(decoded(decoding), (error) => error instanceof Reject || isTruncated(error))
  }
})

test('chunks in another order, or again, or of another message, are refused', async () => {
  const [head, one, two, end] = await encodedPieces(new Pieces(['one', 'two']))
  const otherKey = createSecretKey(Buffer.alloc(32, 8))
  const other = await encodedPieces(
    new Pieces(['one', 'two']),
    requestSealer({ ...MESSAGE, requestKey: otherKey }),
  )
  for (const chunks of [
    [head, two, one, end],
    [head, one, one, two, end],
    [head, two, end],
    [head, one, two, two, end],
    [head, one, other[2], end],
    [head, one, two, other[3]],
  ]) {
    await assert.rejects(decoded(decodingRequest(new Pieces(chunks as Buffer[]))), isTruncated)
  }
  assert.equal((await decoded(decodingRequest(new Pieces([head!, one!, two!, end!])))).body, 'onetwo')
})

test('a message authenticates once, with its first chunk and before anything is made of it', async () => {
  for (const body of [NO_BODY, new WholeBody(Buffer.from('body')), new Pieces(['one', 'two'])]) {
    const events: string[] = []
    const decoder = new RequestDecoder(HEAD_BYTES_MAX)
    const source = new Pieces(await encodedPieces(body))
    const decoding = new Decoding<RequestHead>(
      source,
      {
        body: decoder.body,
        get head() {
          return decoder.head
        },
        push(piece) {
          events.push('decoded')
          decoder.push(piece)
        },
        end: () => decoder.end(),
      },
      {
        headerBytes: HEADER_BYTES,
        coding: CODING,
        open: (header) => openRequest(MESSAGE, header),
        async authenticated() {
          events.push('authenticated')
          await Promise.resolve()
          assert.equal(decoder.head, undefined)
          assert.equal(events.length, 1)
        },
      },
    )
    await decoded(decoding)
    assert.deepEqual(new Set(events.slice(1)), new Set(['decoded']))
    assert.equal(events[0], 'authenticated')
  }
})

test('a message of which the first chunk is not authentic is never told to have been', async () => {
  for (const message of Object.values(await messages())) {
    const flipped = Buffer.from(message)
    flipped[HEADER_BYTES + 3]! ^= 1
    let told = false
    const decoding = decodingRequest(new Pieces([flipped]), async () => {
      told = true
    })
    await assert.rejects(decoding.head(), isReject('decrypt_failed'))
    assert.equal(told, false)
  }
})

test('a message that may not be run gives nothing, however often it is asked', async () => {
  for (const message of Object.values(await messages())) {
    let asked = 0
    const decoding = decodingRequest(new Pieces([message]), async () => {
      asked++
      throw new Reject('replayed')
    })
    await assert.rejects(decoding.head(), isReject('replayed'))
    await assert.rejects(decoding.head(), isReject('replayed'))
    await assert.rejects(decoding.read(), isTruncated)
    assert.equal(decoding.whole(1000), undefined)
    assert.equal(asked, 1)
  }
})

test('after a failure no piece comes out that came before it', async () => {
  const [head, one, two, end] = (await encodedPieces(new Pieces(['one', 'two']))) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ]
  two[two.length - 1]! ^= 1
  const decoding = decodingRequest(new Pieces([head, Buffer.concat([one, two]), end]))
  await decoding.head()
  await assert.rejects(decoding.read(), isTruncated)
  await assert.rejects(decoding.read(), isTruncated)
})

test('the header is told as far as it has come', async () => {
  const [message] = (await encodedPieces(NO_BODY)) as [Buffer]
  for (const length of [0, 1, HEADER_BYTES - 1]) {
    const decoding = decodingRequest(new Pieces(length === 0 ? [] : [message.subarray(0, length)]))
    await assert.rejects(decoding.head(), isReject('malformed'))
    assert.deepEqual(decoding.header, message.subarray(0, length))
  }
  const decoding = decodingRequest(new Pieces([message.subarray(0, 10), message.subarray(10)]))
  await decoding.head()
  assert.deepEqual(decoding.header, REQUEST_HEADER)
})

test('what opening the message throws is thrown', async () => {
  const [message] = (await encodedPieces(NO_BODY)) as [Buffer]
  const decoding = new Decoding(new Pieces([message]), new RequestDecoder(HEAD_BYTES_MAX), {
    headerBytes: HEADER_BYTES,
    coding: CODING,
    open: async () => {
      throw new Reject('unknown_pair')
    },
  })
  await assert.rejects(decoding.head(), isReject('unknown_pair'))
})

test('what is inside is checked, and refused by what is wrong with it', async () => {
  const text = (plaintext: string) => Buffer.from(plaintext, 'latin1')
  const control = '\x02\x03GET\x04http\x01a\x01/'
  await assert.rejects(decodingRequest(sealed(text('\x07'))).head(), isReject('malformed'))
  await assert.rejects(decodingRequest(sealed(text(''))).head(), isReject('malformed'))
  await assert.rejects(decodingRequest(sealed(text(`${control}\x01A\x011\0`))).head(), isReject('malformed'))
  await assert.rejects(
    decodingRequest(sealed(text(`${control}\x01a\xbf\xff\xff\xff`))).head(),
    isReject('too_large'),
  )
  const late = decodingRequest(sealed(text(`${control}\0`), text('\x03one\0'), text('\x01A\x011\0')))
  await late.head()
  assert.equal((await late.read())?.toString(), 'one')
  await assert.rejects(
    late.read(),
    (error) => isTruncated(error) && isReject('malformed')((error as Error).cause),
  )
})

test('a chunk that is empty and not the final one is refused', async () => {
  const pieces = await encodedPieces(new Pieces(['one']))
  const empty = Buffer.concat([Buffer.of(TAG_BYTES), Buffer.alloc(TAG_BYTES)])
  const decoding = decodingRequest(new Pieces([pieces[0]!, empty, ...pieces.slice(1)]))
  await decoding.head()
  await assert.rejects(decoding.read(), isTruncated)
})

test('a body that is not as long as it was announced is refused', async () => {
  const head = { ...REQUEST, fields: ['content-length', '4'] }
  for (const body of ['one', 'three']) {
    const whole = decodingRequest(
      encodedRequest(head, new WholeBody(Buffer.from(body)), requestSealer(), CODING),
    )
    await assert.rejects(whole.head(), isReject('malformed'))
    const streamed = decodingRequest(encodedRequest(head, new Pieces([body]), requestSealer(), CODING))
    await streamed.head()
    await assert.rejects(readAll(streamed), isTruncated)
  }
})

test.run()
