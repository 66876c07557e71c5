/** Times and ages on the wire: u64, in ms. */

const MAX_MS = Number.MAX_SAFE_INTEGER

/** Eight bytes; a time that they, or a number, cannot hold comes out as the nearest that they can. */
export function encodeMs(ms: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(Math.max(0, Math.min(Math.floor(ms), MAX_MS))))
  return bytes
}

/** Reads what `encodeMs` wrote; at most `Number.MAX_SAFE_INTEGER`. */
export function decodeMs(bytes: Buffer, at: number): number {
  return Math.min(Number(bytes.readBigUInt64BE(at)), MAX_MS)
}
