import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto'

export const TAG_BYTES = 16
const OPTIONS = { authTagLength: TAG_BYTES }

/**
 * Seals with AES-256-GCM (NIST SP 800-38D).
 * @param iv 12 bytes
 * @returns ciphertext | 16-byte tag
 */
export function seal(key: Buffer | KeyObject, iv: Buffer, aad: Buffer, plaintext: Buffer): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, iv, OPTIONS).setAAD(aad)
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
}

/**
 * Opens what `seal` sealed.
 * @param sealed ciphertext | 16-byte tag
 * @returns undefined when it is not authentic
 */
export function open(key: Buffer | KeyObject, iv: Buffer, aad: Buffer, sealed: Buffer): Buffer | undefined {
  const end = sealed.length - TAG_BYTES
  if (end < 0) return undefined
  const decipher = createDecipheriv('aes-256-gcm', key, iv, OPTIONS)
    .setAAD(aad)
    .setAuthTag(sealed.subarray(end))
  const plaintext = decipher.update(sealed.subarray(0, end))
  try {
    decipher.final()
  } catch {
    return undefined
  }
  return plaintext
}
