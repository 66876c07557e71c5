/** Variable-length integers of QUIC (RFC 9000 section 16). */

/** How many bytes an encoded integer takes, itself included, told by the first of them. */
export function varintLength(firstByte: number): number {
  return 1 << (firstByte >> 6)
}

/**
 * Reads an integer that is all there, minimal or not.
 * @returns at most `Number.MAX_SAFE_INTEGER`, which stands for all that are larger: it is beyond every limit
 * @throws RangeError when it is not all there
 */
export function readVarint(bytes: Buffer, at: number): number {
  const first = bytes.readUInt8(at)
  switch (first >> 6) {
    case 0:
      return first
    case 1:
      return bytes.readUInt16BE(at) & 0x3fff
    case 2:
      return bytes.readUInt32BE(at) & 0x3fff_ffff
    default: {
      const high = bytes.readUInt32BE(at) & 0x3fff_ffff
      return Math.min(high * 2 ** 32 + bytes.readUInt32BE(at + 4), Number.MAX_SAFE_INTEGER)
    }
  }
}

/** How many bytes `writeVarint` writes. */
export function varintSize(value: number): number {
  return value < 1 << 6 ? 1 : value < 1 << 14 ? 2 : 4
}

/**
 * Writes an integer, minimally.
 * @param value below 2^30
 * @returns where it ends
 */
export function writeVarint(bytes: Buffer, at: number, value: number): number {
  if (value < 1 << 6) return bytes.writeUInt8(value, at)
  if (value < 1 << 14) return bytes.writeUInt16BE(0x4000 + value, at)
  return bytes.writeUInt32BE(0x8000_0000 + value, at)
}
