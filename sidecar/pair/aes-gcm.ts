import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto'

export const TAG_BYTES = 16
const OPTIONS = { authTagLength: TAG_BYTES }

/**
 * Seals with AES-256-GCM (NIST SP 800-38D).
 * @param iv 12 bytes
 * @returns ciphertext | 16-byte tag
 */
export function seal(key: Buffer | KeyObject, iv: Buffer, aad: Buffer, plaintext: Buffer): Buffer {
  const sealed = Buffer.allocUnsafe(plaintext.length + TAG_BYTES)
  sealInto(sealed, 0, key, iv, aad, [plaintext])
  return sealed
}

/**
 * As `seal`, into memory that is there.
 * @param pieces are sealed as if they were one
 * @returns where ciphertext and tag end
 */
export function sealInto(
  out: Buffer,
  at: number,
  key: Buffer | KeyObject,
  iv: Buffer,
  aad: Buffer,
  pieces: readonly Buffer[],
): number {
  const cipher = createCipheriv('aes-256-gcm', key, iv, OPTIONS)
  // Of no data at all it is the same, for a tenth more.
  if (aad.length > 0) cipher.setAAD(aad)
  for (const piece of pieces) {
    out.set(cipher.update(piece), at)
    at += piece.length
  }
  cipher.final()
  out.set(cipher.getAuthTag(), at)
  return at + TAG_BYTES
}

/**
 * Opens what `seal` sealed.
 * @param sealed ciphertext | 16-byte tag
 * @returns undefined when it is not authentic
 */
export function open(key: Buffer | KeyObject, iv: Buffer, aad: Buffer, sealed: Buffer): Buffer | undefined {
  const end = sealed.length - TAG_BYTES
  if (end < 0) return undefined
  const decipher = createDecipheriv('aes-256-gcm', key, iv, OPTIONS).setAuthTag(sealed.subarray(end))
  if (aad.length > 0) decipher.setAAD(aad)
  const plaintext = decipher.update(sealed.subarray(0, end))
  try {
    decipher.final()
  } catch {
    return undefined
  }
  return plaintext
}
