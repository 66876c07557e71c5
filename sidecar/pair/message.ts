/** Messages: the headers of request and response, and the sealed chunks that follow them (relay1 section 4). */
import type { KeyObject } from 'node:crypto'
import { readVarint, varintLength, varintSize, writeVarint } from '../varint.ts'
import { open, sealInto, TAG_BYTES } from './aes-gcm.ts'
import { Held } from './held.ts'
import { Reject } from './reject.ts'
import { PAIR_ID_BYTES } from './secrets.ts'

const VERSION = 0x01
const KIND_REQUEST = 0x11
const KIND_RESPONSE = 0x91
const IV_BYTES = 12
const BLOCK_AT = 2 + PAIR_ID_BYTES
const INDEX_AT = BLOCK_AT + 4
const IV_AT = INDEX_AT + 2
/** of a request */
export const HEADER_BYTES = IV_AT + IV_BYTES
export const RESPONSE_HEADER_BYTES = 2 + IV_BYTES
const CHUNKS_MAX = 2 ** 24
const NOT_FINAL = Buffer.of(0)
const FINAL = Buffer.of(1)
const NOTHING = Buffer.alloc(0)

/** Which message of which pair it is: what its receiver finds the keys by. */
export interface MessageId {
  pairId: Buffer
  block: number
  index: number
}

export interface MessageHeader extends MessageId {
  iv: Buffer
}

/** The keys of a message, and the largest chunk of its pair, of plaintext. */
export interface MessageKeys {
  requestKey: KeyObject
  responseKey: KeyObject
  chunkBytesMax: number
}

/**
 * Begins a request.
 * @param iv 12 random bytes
 */
export function sealRequest(
  message: MessageId & MessageKeys,
  iv: Buffer,
): { header: Buffer; sealer: Sealer } {
  const header = headerOf(KIND_REQUEST, message, iv)
  const { requestKey: key, chunkBytesMax } = message
  return { header, sealer: new Sealer({ key, iv, aad: header, prefix: header, chunkBytesMax }) }
}

/** @param header of the request, HEADER_BYTES that `parseHeader` took */
export function openRequest({ requestKey: key, chunkBytesMax }: MessageKeys, header: Buffer): Opener {
  const options = { key, iv: header.subarray(IV_AT), aad: header, chunkBytesMax }
  return new Opener({ ...options, headerBytes: HEADER_BYTES })
}

/**
 * Begins the response to a request.
 * @param header of the request
 * @param iv 12 random bytes
 */
export function sealResponse(
  { responseKey: key, chunkBytesMax }: MessageKeys,
  header: Buffer,
  iv: Buffer,
): Sealer {
  const prefix = responseHeader(iv)
  return new Sealer({ key, iv, aad: Buffer.concat([header, prefix]), prefix, chunkBytesMax })
}

/**
 * @param header of the request that was sent
 * @param responseHeader the first RESPONSE_HEADER_BYTES of what answered it
 * @throws Reject unsupported or malformed when it is no header
 */
export function openResponse(
  { responseKey: key, chunkBytesMax }: MessageKeys,
  header: Buffer,
  responseHeader: Buffer,
): Opener {
  const iv = parseResponseHeader(responseHeader)
  const options = { key, iv, aad: Buffer.concat([header, responseHeader]), chunkBytesMax }
  return new Opener({ ...options, headerBytes: RESPONSE_HEADER_BYTES })
}

/**
 * The HEADER_BYTES that name a message, or what is like one: version, kind, id, IV.
 * @param iv 12 random bytes
 */
export function headerOf(kind: number, { pairId, block, index }: MessageId, iv: Buffer): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES)
  header[0] = VERSION
  header[1] = kind
  header.set(pairId, 2)
  header.writeUInt32BE(block, BLOCK_AT)
  header.writeUInt16BE(index, INDEX_AT)
  header.set(iv, IV_AT)
  return header
}

/** @throws Reject unsupported for another version, malformed for what is no header of a request */
export function parseHeader(bytes: Buffer): MessageHeader {
  checkHeader(bytes, HEADER_BYTES, KIND_REQUEST)
  return readHeader(bytes)
}

/** What `headerOf` wrote, of bytes that begin with it. */
export function readHeader(bytes: Buffer): MessageHeader {
  return {
    pairId: bytes.subarray(2, BLOCK_AT),
    block: bytes.readUInt32BE(BLOCK_AT),
    index: bytes.readUInt16BE(INDEX_AT),
    iv: bytes.subarray(IV_AT, HEADER_BYTES),
  }
}

function responseHeader(iv: Buffer): Buffer {
  return Buffer.concat([Buffer.of(VERSION, KIND_RESPONSE), iv])
}

/**
 * @returns the IV
 * @throws Reject unsupported for another version, malformed for what is no header of a response
 */
function parseResponseHeader(bytes: Buffer): Buffer {
  checkHeader(bytes, RESPONSE_HEADER_BYTES, KIND_RESPONSE)
  return bytes.subarray(2)
}

/** @throws Reject unsupported for another version, malformed for another length or kind */
export function checkHeader(bytes: Buffer, length: number, kind: number): void {
  if (bytes.length !== length) throw new Reject('malformed')
  if (bytes[0] !== VERSION) throw new Reject('unsupported')
  if (bytes[1] !== kind) throw new Reject('malformed')
}

/** What one direction of a message is sealed or opened with. */
export interface ChunksOptions {
  key: KeyObject
  /** 12 bytes */
  iv: Buffer
  /** the headers that the first chunk authenticates (H) */
  aad: Buffer
  /** of plaintext in a chunk */
  chunkBytesMax: number
}

/** Nonce and additional data of one chunk after the other. */
class ChunkSequence {
  readonly nonce: Buffer
  readonly #ivEnd: number
  readonly #aad: Buffer
  /** of chunks so far */
  count = 0

  constructor(iv: Buffer, aad: Buffer) {
    this.nonce = Buffer.from(iv)
    this.#ivEnd = iv.readUInt32BE(IV_BYTES - 4)
    this.#aad = aad
  }

  /**
   * Goes on to the next chunk: sets the nonce, which keeps its place in memory, and returns the additional data.
   * @throws Reject too_large beyond 2^24 chunks
   */
  next(final: boolean): Buffer {
    if (this.count >= CHUNKS_MAX) throw new Reject('too_large')
    const chunk = this.count++
    const flag = final ? FINAL : NOT_FINAL
    if (chunk === 0) return Buffer.concat([this.#aad, flag])
    // 2^24 chunks: only the last four bytes of iv XOR chunk ever change.
    this.nonce.writeUInt32BE((this.#ivEnd ^ chunk) >>> 0, IV_BYTES - 4)
    return flag
  }
}

/** Seals the plaintext of a message, chunk by chunk. */
export class Sealer {
  /** sealed so far */
  plaintextBytes = 0
  /** made so far, with the header */
  messageBytes = 0
  readonly #key: KeyObject
  readonly #sequence: ChunkSequence
  readonly #chunkBytesMax: number
  #prefix: Buffer
  #ended = false

  /** @param options `prefix`: the header, sent in front of the first chunk */
  constructor({ key, iv, aad, prefix, chunkBytesMax }: ChunksOptions & { prefix: Buffer }) {
    this.#key = key
    this.#sequence = new ChunkSequence(iv, aad)
    this.#prefix = prefix
    this.#chunkBytesMax = chunkBytesMax
  }

  /** made so far */
  get chunks(): number {
    return this.#sequence.count
  }

  /**
   * Seals a piece as one chunk, or as many as it takes; more will follow.
   * @param pieces are sealed as if they were one
   * @throws Reject too_large beyond 2^24 chunks
   */
  seal(...pieces: Buffer[]): Buffer {
    return this.#sealed(pieces, false)
  }

  /**
   * Seals the last piece, which may be none, and so ends the message.
   * @throws Reject too_large beyond 2^24 chunks
   */
  end(...pieces: Buffer[]): Buffer {
    return this.#sealed(pieces, true)
  }

  #sealed(pieces: Buffer[], ends: boolean): Buffer {
    if (this.#ended) throw new Error('the message has been sealed to its end')
    this.#ended = ends
    const max = this.#chunkBytesMax
    let bytes = 0
    for (const piece of pieces) bytes += piece.length
    const chunks = bytes === 0 && ends ? 1 : Math.ceil(bytes / max)
    const full = Math.max(chunks - 1, 0)
    const lastBytes = bytes - full * max
    const lastPrefix = ends ? 1 : varintSize(lastBytes + TAG_BYTES)
    const size =
      full * (varintSize(max + TAG_BYTES) + max + TAG_BYTES) + (chunks && lastPrefix + lastBytes + TAG_BYTES)
    const out = Buffer.allocUnsafe(this.#prefix.length + size)
    out.set(this.#prefix)
    let at = this.#prefix.length
    this.#prefix = NOTHING
    let left = pieces
    for (let chunk = 0; chunk < full; chunk++) {
      const [now, later] = split(left, max)
      at = this.#chunk(out, writeVarint(out, at, max + TAG_BYTES), now, false)
      left = later
    }
    if (chunks > 0) this.#chunk(out, writeVarint(out, at, ends ? 0 : lastBytes + TAG_BYTES), left, ends)
    this.plaintextBytes += bytes
    this.messageBytes += out.length
    return out
  }

  #chunk(out: Buffer, at: number, pieces: Buffer[], final: boolean): number {
    const aad = this.#sequence.next(final)
    return sealInto(out, at, this.#key, this.#sequence.nonce, aad, pieces)
  }
}

/** Cuts pieces in two after so many bytes; copies nothing. */
function split(pieces: Buffer[], bytes: number): [Buffer[], Buffer[]] {
  let i = 0
  for (; pieces[i]!.length <= bytes; i++) bytes -= pieces[i]!.length
  const cut = pieces[i]!
  return [
    [...pieces.slice(0, i), cut.subarray(0, bytes)],
    [cut.subarray(bytes), ...pieces.slice(i + 1)],
  ]
}

/** Opens the chunks of a message, in the order in which they were sealed, however the bytes are cut. */
export class Opener {
  /** opened so far */
  plaintextBytes = 0
  /** taken so far, with the header */
  messageBytes: number
  readonly #key: KeyObject
  readonly #sequence: ChunkSequence
  readonly #sealedBytesMax: number
  /** of the chunk that is coming, sealed; 0: the final one; undefined: it is not known yet */
  #length: number | undefined
  readonly #held = new Held()
  #over = false
  #ended = false

  /** @param options `headerBytes`: of the header, which is not pushed */
  constructor({ key, iv, aad, chunkBytesMax, headerBytes }: ChunksOptions & { headerBytes: number }) {
    this.messageBytes = headerBytes
    this.#key = key
    this.#sequence = new ChunkSequence(iv, aad)
    this.#sealedBytesMax = chunkBytesMax + TAG_BYTES
  }

  /** opened so far */
  get chunks(): number {
    return this.#sequence.count
  }

  /** Has the final chunk been opened? */
  get ended(): boolean {
    return this.#ended
  }

  /**
   * Takes the next bytes of the message.
   * @returns the plaintext of each chunk that is complete now, verified
   * @throws Reject; nothing can be opened after it
   */
  push(bytes: Buffer): Buffer[] {
    if (this.#over) this.#refuse('malformed')
    this.messageBytes += bytes.length
    const opened: Buffer[] = []
    let at = 0
    while (at < bytes.length) {
      if (this.#length === undefined) at = this.#readLength(bytes, at)
      else if (this.#length === 0) {
        const rest = bytes.subarray(at)
        if (this.#held.bytes + rest.length > this.#sealedBytesMax) this.#refuse('malformed')
        this.#held.add(rest, this.#sealedBytesMax)
        break
      } else {
        const end = Math.min(at + this.#length - this.#held.bytes, bytes.length)
        this.#held.add(bytes.subarray(at, end), this.#length)
        at = end
        if (this.#held.bytes < this.#length) break
        opened.push(this.#open(false))
        this.#length = undefined
      }
    }
    return opened
  }

  /**
   * Opens the final chunk, now that no more bytes come.
   * @returns its plaintext, verified
   * @throws Reject malformed when the message was cut off, decrypt_failed when it is not authentic
   */
  end(): Buffer {
    if (this.#over || this.#length !== 0 || this.#held.bytes < TAG_BYTES) this.#refuse('malformed')
    const plaintext = this.#open(true)
    this.#over = true
    this.#ended = true
    return plaintext
  }

  /** Reads the length of the next chunk as far as it has come; returns where it ends. */
  #readLength(bytes: Buffer, at: number): number {
    const size = varintLength(this.#held.bytes > 0 ? this.#held.firstByte : bytes[at]!)
    const end = at + size - this.#held.bytes
    this.#held.add(bytes.subarray(at, end), size)
    if (this.#held.bytes < size) return bytes.length
    const length = readVarint(this.#held.take(), 0)
    if (length !== 0 && (length <= TAG_BYTES || length > this.#sealedBytesMax)) this.#refuse('malformed')
    this.#length = length
    return end
  }

  #open(final: boolean): Buffer {
    const aad = this.#sequence.next(final)
    const plaintext = open(this.#key, this.#sequence.nonce, aad, this.#held.take())
    if (!plaintext) return this.#refuse('decrypt_failed')
    this.plaintextBytes += plaintext.length
    return plaintext
  }

  #refuse(code: 'malformed' | 'decrypt_failed'): never {
    this.#over = true
    throw new Reject(code)
  }
}
