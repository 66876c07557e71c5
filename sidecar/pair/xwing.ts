/** X-Wing, the KEM of ML-KEM-768 and X25519 (draft-connolly-cfrg-xwing-kem). */
import { createHash, decapsulate, encapsulate, generateKeyPairSync } from 'node:crypto'
import { InvalidKeyError, privateKey, publicKey, rawPublicKey, x25519 } from './raw-keys.ts'

/** The seed that is an X-Wing private key. */
export const SEED_BYTES = 32
export const PUBLIC_KEY_BYTES = 1216
export const ENC_BYTES = 1120
const ML_KEM_PUBLIC_KEY_BYTES = 1184
const ML_KEM_CIPHERTEXT_BYTES = 1088
const ML_KEM_SEED_BYTES = 64
const LABEL = Buffer.from('\\.//^\\')

export interface XWingKeyPair {
  publicKey: Buffer
  /**
   * @param enc ENC_BYTES
   * @returns the shared secret, which is another one when enc was not made for this key
   * @throws InvalidKeyError when enc cannot be used
   */
  decapsulate(enc: Buffer): Buffer
}

export interface Encapsulated {
  /** 32 bytes */
  sharedSecret: Buffer
  enc: Buffer
}

/**
 * Makes a shared secret and sends it to a public key.
 * @throws InvalidKeyError
 */
export type Encapsulate = (publicKey: Buffer) => Encapsulated

/** @param seed SEED_BYTES, the caller's to erase */
export function xwingKeyPair(seed: Buffer): XWingKeyPair {
  const expanded = createHash('shake256', { outputLength: ML_KEM_SEED_BYTES + 32 })
    .update(seed)
    .digest()
  const mlKem = privateKey('ml-kem-768', expanded.subarray(0, ML_KEM_SEED_BYTES))
  const x = privateKey('x25519', expanded.subarray(ML_KEM_SEED_BYTES))
  expanded.fill(0)
  const xPublic = rawPublicKey(x)
  return {
    publicKey: Buffer.concat([rawPublicKey(mlKem), xPublic]),
    decapsulate(enc) {
      if (enc.length !== ENC_BYTES) throw new InvalidKeyError('ml-kem-768')
      const xShare = enc.subarray(ML_KEM_CIPHERTEXT_BYTES)
      const mlKemSecret = decapsulate(mlKem, enc.subarray(0, ML_KEM_CIPHERTEXT_BYTES))
      return combine(mlKemSecret, x25519(x, xShare), xShare, xPublic)
    },
  }
}

/** Encapsulates with randomness of node:crypto, which takes none from outside. */
export const xwingEncapsulate: Encapsulate = (raw) => {
  const xPublic = raw.subarray(ML_KEM_PUBLIC_KEY_BYTES)
  const mlKem = publicKey('ml-kem-768', raw.subarray(0, ML_KEM_PUBLIC_KEY_BYTES))
  const { privateKey: x } = generateKeyPairSync('x25519')
  const xSecret = x25519(x, xPublic)
  const xShare = rawPublicKey(x)
  const { sharedKey, ciphertext } = encapsulate(mlKem)
  return {
    sharedSecret: combine(sharedKey, xSecret, xShare, xPublic),
    enc: Buffer.concat([ciphertext, xShare]),
  }
}

function combine(mlKemSecret: Buffer, xSecret: Buffer, xShare: Buffer, xPublic: Buffer): Buffer {
  const hash = createHash('sha3-256').update(mlKemSecret).update(xSecret).update(xShare).update(xPublic)
  mlKemSecret.fill(0)
  xSecret.fill(0)
  return hash.update(LABEL).digest()
}
