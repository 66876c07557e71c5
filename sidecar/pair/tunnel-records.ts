/**
 * The records that carry the frames of a tunnel (relay1 tunnels, section 2):
 *
 *     record n = u32 length | AES-256-GCM(frames)         one key for each direction and generation, nonce = iv XOR n
 */
import { createSecretKey, type KeyObject } from 'node:crypto'
import { open, sealInto, TAG_BYTES } from './aes-gcm.ts'
import { Held } from './held.ts'
import { expandLabel } from './hkdf.ts'
import { TunnelError } from './tunnel-error.ts'

const LENGTH_BYTES = 4
const SEALED_BYTES_MAX = 262_160
/** of the frames in a record */
export const PLAINTEXT_BYTES_MAX = SEALED_BYTES_MAX - TAG_BYTES
/** The frame after which the next record is of the next generation. */
const REKEY = Buffer.from('1400000000000000', 'hex')
/** What a sender seals with the keys of one generation, at most. */
const GENERATION_MS = 60_000
const GENERATION_RECORDS = 2 ** 16
const GENERATION_BYTES = 2 ** 32
const IV_BYTES = 12
const NOTHING = Buffer.alloc(0)

/** The keys of one direction of a tunnel, for a while. */
class Generation {
  readonly key: KeyObject
  /** of the records so far */
  count = 0
  readonly #secret: Buffer
  readonly #nonce: Buffer
  readonly #ivHigh: number
  readonly #ivLow: number

  /** @param secret owned, and erased, by this object */
  constructor(secret: Buffer) {
    this.#secret = secret
    const key = expandLabel(secret, 'key', NOTHING, secret.length)
    this.key = createSecretKey(key)
    key.fill(0)
    this.#nonce = expandLabel(secret, 'iv', NOTHING, IV_BYTES)
    this.#ivHigh = this.#nonce.readUInt32BE(IV_BYTES - 8)
    this.#ivLow = this.#nonce.readUInt32BE(IV_BYTES - 4)
  }

  /** The nonce of the next record; it keeps its place in memory. */
  nextNonce(): Buffer {
    const n = this.count++
    this.#nonce.writeUInt32BE((this.#ivHigh ^ (n / 2 ** 32)) >>> 0, IV_BYTES - 8)
    this.#nonce.writeUInt32BE((this.#ivLow ^ n) >>> 0, IV_BYTES - 4)
    return this.#nonce
  }

  /** The generation after this one, whose secret is erased. */
  next(): Generation {
    const next = new Generation(expandLabel(this.#secret, 'rekey', NOTHING, this.#secret.length))
    this.erase()
    return next
  }

  erase(): void {
    this.#secret.fill(0)
  }
}

/** Seals one direction of a tunnel. */
export class RecordSealer {
  #keys: Generation | undefined
  #bytes = 0
  #endsAtMs: number

  /**
   * @param secret of `tunnelSecrets`; owned, and erased, by this object
   * @param nowMs monotonic
   */
  constructor(secret: Buffer, nowMs: number) {
    this.#keys = new Generation(secret)
    this.#endsAtMs = nowMs + GENERATION_MS
  }

  /**
   * Seals a record. After 60 s, 2^16 records or 2^32 bytes of a generation it ends with REKEY, for which frames leave 8
   * bytes of PLAINTEXT_BYTES_MAX: those that leave less put it off to the next record.
   * @param frames whole ones, 1 to PLAINTEXT_BYTES_MAX bytes
   * @param nowMs monotonic
   * @returns memory of its own
   */
  seal(frames: Buffer, nowMs: number): Buffer {
    const keys = this.#keys
    if (!keys) throw new Error('the keys of this tunnel have been erased')
    if (frames.length === 0 || frames.length > PLAINTEXT_BYTES_MAX)
      throw new RangeError(`a record holds 1 to ${PLAINTEXT_BYTES_MAX} bytes, not ${frames.length}`)
    this.#bytes += frames.length
    const isOver =
      nowMs >= this.#endsAtMs || keys.count + 1 >= GENERATION_RECORDS || this.#bytes >= GENERATION_BYTES
    if (!isOver || frames.length > PLAINTEXT_BYTES_MAX - REKEY.length) return sealed(keys, frames)
    const record = sealed(keys, Buffer.concat([frames, REKEY]))
    this.#keys = keys.next()
    this.#bytes = 0
    this.#endsAtMs = nowMs + GENERATION_MS
    return record
  }

  /** Forgets the keys; nothing can be sealed any more. */
  erase(): void {
    this.#keys?.erase()
    this.#keys = undefined
  }
}

function sealed(keys: Generation, frames: Buffer): Buffer {
  const sealedBytes = frames.length + TAG_BYTES
  const record = Buffer.allocUnsafe(LENGTH_BYTES + sealedBytes)
  record.writeUInt32BE(sealedBytes)
  sealInto(record, LENGTH_BYTES, keys.key, keys.nextNonce(), NOTHING, [frames])
  return record
}

/** Opens one direction of a tunnel, however its bytes are cut. */
export class RecordOpener {
  #keys: Generation | undefined
  readonly #onRecord: (frames: Buffer) => boolean
  /** of the record that is coming, sealed; 0: it is not known yet */
  #length = 0
  readonly #held = new Held()

  /**
   * @param secret of `tunnelSecrets`; owned, and erased, by this object
   * @param onRecord takes the frames of a record, called from within `push` and in order; says whether they ended with
   *   REKEY. It may call `erase`.
   */
  constructor(secret: Buffer, onRecord: (frames: Buffer) => boolean) {
    this.#keys = new Generation(secret)
    this.#onRecord = onRecord
  }

  /** Has a part of a record come? */
  get midRecord(): boolean {
    return this.#length > 0 || this.#held.bytes > 0
  }

  /**
   * Takes the next bytes; after `erase` they are dropped. At most one record is held: as much of it as has come.
   * @throws TunnelError for a length out of its range and for what does not open, or what `onRecord` throws; the keys
   *   have been erased then
   */
  push(bytes: Buffer): void {
    try {
      for (let at = 0; at < bytes.length && this.#keys; ) at = this.#take(bytes, at, this.#keys)
    } catch (error) {
      this.erase()
      throw error
    }
  }

  /** Forgets the keys, and what is held. */
  erase(): void {
    this.#keys?.erase()
    this.#keys = undefined
    this.#held.take()
    this.#length = 0
  }

  /** Takes the bytes that belong together, a length or a record; returns where they end. */
  #take(bytes: Buffer, at: number, keys: Generation): number {
    const held = this.#held
    const wanted = this.#length || LENGTH_BYTES
    const end = Math.min(at + wanted - held.bytes, bytes.length)
    held.add(bytes.subarray(at, end), wanted)
    if (held.bytes < wanted) return end
    if (this.#length === 0) {
      this.#length = checkedLength(held.take().readUInt32BE())
      return end
    }
    this.#length = 0
    const frames = open(keys.key, keys.nextNonce(), NOTHING, held.take())
    if (!frames) throw new TunnelError('a record does not open')
    if (this.#onRecord(frames) && this.#keys) this.#keys = keys.next()
    return end
  }
}

function checkedLength(length: number): number {
  if (length <= TAG_BYTES || length > SEALED_BYTES_MAX)
    throw new TunnelError(
      `a record has a length of ${length} bytes, not ${TAG_BYTES + 1} to ${SEALED_BYTES_MAX}`,
    )
  return length
}
