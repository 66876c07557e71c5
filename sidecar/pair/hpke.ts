/**
 * HPKE in PSK mode (RFC 9180 section 5.1.2) over X-Wing, with HKDF-SHA256 and AES-256-GCM, for one message.
 */
import { open, seal } from './aes-gcm.ts'
import { expand, extract } from './hkdf.ts'
import type { Encapsulate, XWingKeyPair } from './xwing.ts'

const KEM_X_WING = 0x647a
const KDF_HKDF_SHA256 = 0x0001
const AEAD_AES_256_GCM = 0x0002
const MODE_PSK = 0x01
const KEY_BYTES = 32
const NONCE_BYTES = 12
const SECRET_BYTES = 32

/** A secret that both sides had before, and its name. */
export interface PreShared {
  psk: Buffer
  pskId: Buffer
}

/** What a key schedule is made of. */
export interface ScheduleInput extends PreShared {
  mode: number
  aeadId: number
  sharedSecret: Buffer
  info: Buffer
}

export interface Schedule {
  suiteId: Buffer
  key: Buffer
  baseNonce: Buffer
  exporterSecret: Buffer
}

/** KeySchedule of RFC 9180 section 5.1, for X-Wing, HKDF-SHA256 and any mode and AEAD with keys of 32 and nonces of 12 bytes. */
export function keySchedule({ mode, aeadId, sharedSecret, info, psk, pskId }: ScheduleInput): Schedule {
  const suiteId = Buffer.concat([Buffer.from('HPKE'), u16(KEM_X_WING), u16(KDF_HKDF_SHA256), u16(aeadId)])
  const pskIdHash = labeledExtract(suiteId, '', 'psk_id_hash', pskId)
  const infoHash = labeledExtract(suiteId, '', 'info_hash', info)
  const context = Buffer.concat([Buffer.of(mode), pskIdHash, infoHash])
  const secret = labeledExtract(suiteId, sharedSecret, 'secret', psk)
  const schedule = {
    suiteId,
    key: labeledExpand(suiteId, secret, 'key', context, KEY_BYTES),
    baseNonce: labeledExpand(suiteId, secret, 'base_nonce', context, NONCE_BYTES),
    exporterSecret: labeledExpand(suiteId, secret, 'exp', context, SECRET_BYTES),
  }
  secret.fill(0)
  return schedule
}

/** Context.Export of RFC 9180 section 5.3, of 32 bytes. */
export function exportSecret({ suiteId, exporterSecret }: Schedule, context: Buffer): Buffer {
  return labeledExpand(suiteId, exporterSecret, 'sec', context, SECRET_BYTES)
}

/** What both sides share after the set-up. It seals or opens one message: a second would meet the same nonce. */
export class Context {
  readonly #schedule: Schedule
  #spent = false
  #erased = false

  constructor(schedule: Schedule) {
    this.#schedule = schedule
  }

  /** @returns ciphertext | 16-byte tag */
  seal(aad: Buffer, plaintext: Buffer): Buffer {
    this.#spend()
    return seal(this.#schedule.key, this.#schedule.baseNonce, aad, plaintext)
  }

  /** @returns undefined when it is not authentic */
  open(aad: Buffer, sealed: Buffer): Buffer | undefined {
    this.#spend()
    return open(this.#schedule.key, this.#schedule.baseNonce, aad, sealed)
  }

  /** A secret of 32 bytes for this context. */
  export(context: Buffer): Buffer {
    if (this.#erased) throw new Error('this HPKE context has been erased')
    return exportSecret(this.#schedule, context)
  }

  /** Forgets all keys: to be called when all is done, whatever came of it. */
  erase(): void {
    this.#spent = true
    this.#erased = true
    this.#schedule.key.fill(0)
    this.#schedule.exporterSecret.fill(0)
  }

  #spend(): void {
    if (this.#spent) throw new Error('an HPKE context is for one message')
    this.#spent = true
  }
}

/**
 * SetupPSKS: the side that encapsulates.
 * @throws InvalidKeyError
 */
export function setupSender(
  publicKey: Buffer,
  info: Buffer,
  preShared: PreShared,
  encapsulate: Encapsulate,
): { enc: Buffer; context: Context } {
  const { sharedSecret, enc } = encapsulate(publicKey)
  return { enc, context: pskContext(sharedSecret, info, preShared) }
}

/**
 * SetupPSKR: the side that decapsulates.
 * @throws InvalidKeyError
 */
export function setupReceiver(
  enc: Buffer,
  keyPair: XWingKeyPair,
  info: Buffer,
  preShared: PreShared,
): Context {
  return pskContext(keyPair.decapsulate(enc), info, preShared)
}

function pskContext(sharedSecret: Buffer, info: Buffer, { psk, pskId }: PreShared): Context {
  const schedule = keySchedule({ mode: MODE_PSK, aeadId: AEAD_AES_256_GCM, sharedSecret, info, psk, pskId })
  sharedSecret.fill(0)
  return new Context(schedule)
}

function labeledExtract(suiteId: Buffer, salt: Buffer | string, label: string, ikm: Buffer): Buffer {
  const labeled = Buffer.concat([Buffer.from('HPKE-v1'), suiteId, Buffer.from(label), ikm])
  return extract(salt, labeled)
}

function labeledExpand(
  suiteId: Buffer,
  prk: Buffer,
  label: string,
  info: Buffer,
  lengthBytes: number,
): Buffer {
  const labeled = Buffer.concat([u16(lengthBytes), Buffer.from('HPKE-v1'), suiteId, Buffer.from(label), info])
  return expand(prk, labeled, lengthBytes)
}

function u16(value: number): Buffer {
  return Buffer.of(value >> 8, value & 0xff)
}
