import assert from 'node:assert/strict'
import fc from 'fast-check'
import { Reject } from '../../sidecar/pair/reject.ts'
import { TunnelError } from '../../sidecar/pair/tunnel-error.ts'
import { readFrames } from '../../sidecar/pair/tunnel-frames.ts'
import { checkOpening, parseOpening } from '../../sidecar/pair/tunnel-keys.ts'
import { RecordOpener, RecordSealer } from '../../sidecar/pair/tunnel-records.ts'
import { Frames, readBack, written } from '../pair/tunnel-frames.ts'
import { opener as keys, plaintextOf, type Side, tunnel } from '../pair/tunnel-vectors.ts'
import { hex } from '../pair/vectors.ts'
import { bytes, edited, runs } from '../support/fuzz.ts'
import { suite } from '../support/suite.ts'

const test = suite('fuzz/tunnel')

const SECRET = Buffer.alloc(32, 9)
const REKEY = hex('1400000000000000')
const MINUTE_MS = 60_000

/** What a step gives, or undefined when it kills the tunnel as it should: with a TunnelError. */
function attempt<T>(step: () => T): T | undefined {
  try {
    return step()
  } catch (error) {
    if (error instanceof TunnelError) return undefined
    throw error
  }
}

/** Records of the vectors that are short enough to be changed thousands of times, with the frames that they have. */
const short = tunnel.exchange.filter(({ record }) => record.length < 2 * 2048)
const byInitiator = short.filter(({ from }) => from === 'initiator')

test('records that were not sealed kill the tunnel, and nothing comes out but what was sealed', () => {
  const sealer = new RecordSealer(Buffer.from(SECRET), 0)
  const sent: string[] = []
  const sealed = byInitiator.slice(0, 6).map((vector, i) => {
    // The keys change with the fourth.
    const record = sealer.seal(plaintextOf(vector), i < 3 ? 0 : MINUTE_MS)
    sent.push(Buffer.concat([plaintextOf(vector), i === 3 ? REKEY : Buffer.alloc(0)]).toString('hex'))
    return record
  })
  const whole = Buffer.concat(sealed)
  let complete = 0
  fc.assert(
    fc.property(
      fc.oneof(
        bytes(3000),
        edited(whole),
        fc.shuffledSubarray(sealed).map((some) => Buffer.concat(some)),
      ),
      fc.integer({ min: 1, max: 3000 }),
      (changed, pieceBytes) => {
        const opened: string[] = []
        const sink = new Frames('initiator')
        const opener = new RecordOpener(Buffer.from(SECRET), (record) => {
          opened.push(record.toString('hex'))
          return readFrames(record, sink)
        })
        const survived = attempt(() => {
          for (let at = 0; at < changed.length; at += pieceBytes)
            opener.push(changed.subarray(at, at + pieceBytes))
          return true
        })
        assert.deepEqual(opened, sent.slice(0, opened.length))
        if (survived && !opener.midRecord)
          assert.ok(changed.equals(whole.subarray(0, changed.length)), 'what was changed passed')
        if (opened.length > 0) complete++
      },
    ),
    runs(3000),
  )
  assert.ok(complete > 100)
})

/** The frames as they would be sent, but for PAD, for REKEY and for what is in a PONG. */
function asSent({ frames, rekey }: ReturnType<typeof readBack>): Buffer {
  return Buffer.concat([...frames.map(written), rekey ? REKEY : Buffer.alloc(0)])
}

test('frames of someone with the keys are read in one way, or kill the tunnel', () => {
  const plain = short.map((vector) => ({ from: vector.from, plaintext: plaintextOf(vector) }))
  const refused = tunnel.refused.map(({ from, plaintext }) => ({ from, plaintext: hex(plaintext) }))
  const sides = fc.constantFrom<Side>('initiator', 'responder')
  const changed = fc.oneof(
    fc.record({ from: sides, record: bytes(100) }),
    fc
      .constantFrom(...plain, ...refused.filter(({ plaintext }) => plaintext.length < 2048))
      .chain(({ plaintext }) => fc.record({ from: sides, record: edited(plaintext) })),
  )
  let read = 0
  fc.assert(
    fc.property(changed, ({ from, record }) => {
      const frames = attempt(() => readBack(record, from))
      if (!frames) return
      read++
      const again = asSent(frames)
      // Nobody is told what was in them.
      if (hasPadOrPong(record)) assert.ok(again.length <= record.length)
      else assert.equal(again.toString('hex'), record.toString('hex'))
    }),
    runs(20_000),
  )
  assert.ok(read > 1000)
})

function hasPadOrPong(record: Buffer): boolean {
  for (let at = 0; at < record.length; at += 8 + record.readUIntBE(at + 5, 3))
    if (record[at] === 0x1f || record[at] === 0x12) return true
  return false
}

test('an opening that was changed is refused', () => {
  const opening = hex(tunnel.open)
  fc.assert(
    fc.property(fc.oneof(bytes(100), edited(opening)), (changed) => {
      let taken = true
      try {
        parseOpening(changed)
        checkOpening(keys, changed)
      } catch (error) {
        assert.ok(error instanceof Reject)
        taken = false
      }
      assert.equal(taken, changed.equals(opening))
    }),
    runs(5000),
  )
})

test.run()
