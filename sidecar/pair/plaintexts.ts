/** What is inside of the two messages of a pairing, p1 and p2 (relay1 section 2). */
import { BLOCK_LEASE_MS } from './ratchet.ts'
import { Reject } from './reject.ts'
import { PAIR_ID_BYTES } from './secrets.ts'
import { decodeMs, encodeMs } from './times.ts'

export const HELLO_PLAINTEXT_BYTES = 640
export const ANSWER_PLAINTEXT_BYTES = 448
const ED25519_KEY_BYTES = 32
const ED25519_SIGNATURE_BYTES = 64
export const CHUNK_LOG2_MIN = 10
export const CHUNK_LOG2_MAX = 16
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export interface HelloPlaintext {
  timeMs: number
  initiatorName: string
  /** empty: whoever answers */
  responderName: string
}

export interface AnswerPlaintext {
  pairId: Buffer
  responderName: string
  /** log2 of the largest chunk of plaintext, in bytes: 10 to 16 */
  chunkLog2: number
  /** of a block: 1 to BLOCK_LEASE_MS */
  leaseMs: number
  pairTtlS: number
}

/** A signature, and what of the plaintext it is over. */
export interface Auth {
  /** raw, Ed25519 */
  publicKey: Buffer
  signature: Buffer
  /** the plaintext up to auth's first byte inclusive */
  signed: Buffer
}

/** Signs the plaintext up to auth's first byte inclusive. */
export type Sign = (signed: Buffer) => Pick<Auth, 'publicKey' | 'signature'>

/** @param sign undefined: it is not signed */
export function encodeHello(
  { timeMs, initiatorName, responderName }: HelloPlaintext,
  sign: Sign | undefined,
): Buffer {
  return padded([encodeMs(timeMs), name(initiatorName), name(responderName)], sign, HELLO_PLAINTEXT_BYTES)
}

/** @throws Reject malformed, or unsupported for a way of signing that is not known */
export function decodeHello(plaintext: Buffer): HelloPlaintext & { auth: Auth | undefined } {
  const reader = new Reader(plaintext)
  const timeMs = decodeMs(reader.take(8), 0)
  const initiatorName = reader.name()
  const responderName = reader.name()
  if (initiatorName === '') throw new Reject('malformed')
  return { timeMs, initiatorName, responderName, auth: reader.auth() }
}

/** @param sign undefined: it is not signed */
export function encodeAnswer(answer: AnswerPlaintext, sign: Sign | undefined): Buffer {
  const { pairId, responderName, chunkLog2, leaseMs, pairTtlS } = answer
  const parts = [pairId, name(responderName), Buffer.of(chunkLog2), u32(leaseMs), u32(pairTtlS)]
  return padded(parts, sign, ANSWER_PLAINTEXT_BYTES)
}

/** @throws Reject malformed, or unsupported for a way of signing that is not known */
export function decodeAnswer(plaintext: Buffer): AnswerPlaintext & { auth: Auth | undefined } {
  const reader = new Reader(plaintext)
  const pairId = reader.take(PAIR_ID_BYTES)
  const responderName = reader.name()
  const chunkLog2 = reader.take(1)[0]!
  const leaseMs = reader.take(4).readUInt32BE()
  const pairTtlS = reader.take(4).readUInt32BE()
  // A lease or a pair that has ended when it begins would never send a message.
  const usable = leaseMs > 0 && leaseMs <= BLOCK_LEASE_MS && pairTtlS > 0
  if (responderName === '' || chunkLog2 < CHUNK_LOG2_MIN || chunkLog2 > CHUNK_LOG2_MAX || !usable)
    throw new Reject('malformed')
  return { pairId, responderName, chunkLog2, leaseMs, pairTtlS, auth: reader.auth() }
}

function padded(parts: Buffer[], sign: Sign | undefined, length: number): Buffer {
  const signed = Buffer.concat([...parts, Buffer.of(sign ? 1 : 0)])
  const plaintext = Buffer.alloc(length)
  signed.copy(plaintext)
  if (sign) {
    const { publicKey, signature } = sign(signed)
    publicKey.copy(plaintext, signed.length)
    signature.copy(plaintext, signed.length + publicKey.length)
  }
  return plaintext
}

function name(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.of(bytes.length), bytes])
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** Reads a plaintext from its beginning. It cannot pass the end: the longest names and a signature fit. */
class Reader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  take(length: number): Buffer {
    const begin = this.#at
    this.#at += length
    return this.#bytes.subarray(begin, this.#at)
  }

  name(): string {
    const bytes = this.take(this.take(1)[0]!)
    try {
      return UTF8.decode(bytes)
    } catch {
      throw new Reject('malformed')
    }
  }

  /** The signature, and the padding that ends the plaintext. */
  auth(): Auth | undefined {
    const form = this.take(1)[0]!
    if (form > 1) throw new Reject('unsupported')
    const signed = this.#bytes.subarray(0, this.#at)
    const auth =
      form === 0
        ? undefined
        : { publicKey: this.take(ED25519_KEY_BYTES), signature: this.take(ED25519_SIGNATURE_BYTES), signed }
    if (this.#bytes.subarray(this.#at).some((byte) => byte !== 0)) throw new Reject('malformed')
    return auth
  }
}
