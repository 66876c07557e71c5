/** Public and private keys as their raw bytes, which Node 24 takes only inside of DER. */
import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto'

interface Form {
  publicBytes: number
  /** what precedes a public key in its SubjectPublicKeyInfo */
  spki: Buffer
  privateBytes: number
  /** what precedes a private key, or the seed of one, in its PKCS #8 */
  pkcs8: Buffer
}

/** RFC 8410 and, for ML-KEM, RFC 9935. */
const FORMS = {
  'ml-kem-768': {
    publicBytes: 1184,
    spki: Buffer.from('308204b2300b0609608648016503040402038204a100', 'hex'),
    privateBytes: 64,
    pkcs8: Buffer.from('3054020100300b060960864801650304040204428040', 'hex'),
  },
  x25519: {
    publicBytes: 32,
    spki: Buffer.from('302a300506032b656e032100', 'hex'),
    privateBytes: 32,
    pkcs8: Buffer.from('302e020100300506032b656e04220420', 'hex'),
  },
  ed25519: {
    publicBytes: 32,
    spki: Buffer.from('302a300506032b6570032100', 'hex'),
    privateBytes: 32,
    pkcs8: Buffer.from('302e020100300506032b657004220420', 'hex'),
  },
} satisfies Record<string, Form>

export type KeyType = keyof typeof FORMS

/** A key that cannot be used. */
export class InvalidKeyError extends Error {
  constructor(type: KeyType, options?: { cause?: unknown }) {
    super(`this is no valid key of ${type}`, options)
    this.name = 'InvalidKeyError'
  }
}

/** @throws InvalidKeyError, also for a key of ML-KEM that is not canonical (FIPS 203 section 7.2) */
export function publicKey(type: KeyType, raw: Buffer): KeyObject {
  const { publicBytes, spki } = FORMS[type]
  // What follows a key in DER would be ignored.
  if (raw.length !== publicBytes) throw new InvalidKeyError(type)
  try {
    return createPublicKey({ key: Buffer.concat([spki, raw]), format: 'der', type: 'spki' })
  } catch (cause) {
    throw new InvalidKeyError(type, { cause })
  }
}

/**
 * @param raw 32 bytes, or the 64 of a seed (d | z) of ML-KEM
 * @throws InvalidKeyError
 */
export function privateKey(type: KeyType, raw: Buffer): KeyObject {
  const { privateBytes, pkcs8 } = FORMS[type]
  if (raw.length !== privateBytes) throw new InvalidKeyError(type)
  const key = Buffer.allocUnsafeSlow(pkcs8.length + raw.length)
  pkcs8.copy(key)
  raw.copy(key, pkcs8.length)
  try {
    return createPrivateKey({ key, format: 'der', type: 'pkcs8' })
  } catch (cause) {
    throw new InvalidKeyError(type, { cause })
  } finally {
    key.fill(0)
  }
}

/** The raw bytes of the public key that belongs to a private key. */
export function rawPublicKey(privateKey: KeyObject): Buffer {
  const { spki } = FORMS[privateKey.asymmetricKeyType as KeyType]
  return createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(spki.length)
}

/**
 * X25519 (RFC 7748 section 6.1).
 * @throws InvalidKeyError for a public key of low order
 */
export function x25519(privateKey: KeyObject, rawPublic: Buffer): Buffer {
  const key = publicKey('x25519', rawPublic)
  try {
    return diffieHellman({ privateKey, publicKey: key })
  } catch (cause) {
    throw new InvalidKeyError('x25519', { cause })
  }
}
