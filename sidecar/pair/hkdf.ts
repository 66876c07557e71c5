import { createHmac, type KeyObject } from 'node:crypto'

const HASH_BYTES = 32
const LABEL_PREFIX = 'relay1 '

/** HKDF-Extract with SHA-256 (RFC 5869 section 2.2). */
export function extract(salt: Buffer | string, ikm: Buffer): Buffer {
  return createHmac('sha256', salt).update(ikm).digest()
}

/**
 * HKDF-Expand with SHA-256 (RFC 5869 section 2.3).
 * @param lengthBytes at most 255 * 32
 * @returns memory of its own, so that it can be erased
 */
export function expand(prk: Buffer | KeyObject, info: Buffer, lengthBytes: number): Buffer {
  const out = Buffer.allocUnsafeSlow(lengthBytes)
  let block = Buffer.alloc(0)
  for (let at = 0, counter = 1; at < lengthBytes; at += HASH_BYTES, counter++) {
    block = createHmac('sha256', prk).update(block).update(info).update(Buffer.of(counter)).digest()
    block.copy(out, at)
  }
  block.fill(0)
  return out
}

/**
 * HKDF-Expand-Label (RFC 8446 section 7.1) with SHA-256 and the prefix "relay1 " in place of "tls13 ".
 * @throws RangeError for a context of more than 255 bytes
 */
export function expandLabel(
  secret: Buffer | KeyObject,
  label: string,
  context: Buffer,
  lengthBytes: number,
): Buffer {
  if (context.length > 255) throw new RangeError('the context of a label has at most 255 bytes')
  const fullLabel = Buffer.from(LABEL_PREFIX + label)
  const length = Buffer.of(lengthBytes >> 8, lengthBytes & 0xff)
  const info = [length, Buffer.of(fullLabel.length), fullLabel, Buffer.of(context.length), context]
  return expand(secret, Buffer.concat(info), lengthBytes)
}
