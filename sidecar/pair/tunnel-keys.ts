/** The opening of a tunnel, its answer, and the secrets that follow from both (relay1 tunnels, section 1). */
import { hash, timingSafeEqual } from 'node:crypto'
import { expandLabel } from './hkdf.ts'
import {
  checkHeader,
  HEADER_BYTES,
  headerOf,
  type MessageHeader,
  type MessageId,
  type MessageKeys,
  readHeader,
} from './message.ts'
import { Reject } from './reject.ts'

const VERSION = 0x01
const KIND_OPENING = 0x21
const KIND_ANSWER = 0xa1
const MAC_BYTES = 16
const SALT_BYTES = 32
const SECRET_BYTES = 32
/** of what opens a tunnel */
export const OPENING_BYTES = HEADER_BYTES + MAC_BYTES
/** of what answers it */
export const ANSWER_BYTES = 2 + SALT_BYTES

/**
 * Asks for a tunnel: a header like that of a message, whose index it spends, and a MAC of it.
 * @param random 12 fresh bytes
 * @returns OPENING_BYTES
 */
export function sealOpening(message: MessageId & MessageKeys, random: Buffer): Buffer {
  const header = headerOf(KIND_OPENING, message, random)
  return Buffer.concat([header, mac(message, header)])
}

/** @throws Reject unsupported for another version, malformed for what does not open a tunnel */
export function parseOpening(bytes: Buffer): MessageHeader {
  checkHeader(bytes, OPENING_BYTES, KIND_OPENING)
  return readHeader(bytes)
}

/**
 * Did somebody who has the keys ask for this tunnel?
 * @param opening that `parseOpening` took
 * @throws Reject decrypt_failed if not
 */
export function checkOpening(keys: MessageKeys, opening: Buffer): void {
  const expected = mac(keys, opening.subarray(0, HEADER_BYTES))
  if (!timingSafeEqual(expected, opening.subarray(HEADER_BYTES))) throw new Reject('decrypt_failed')
}

/**
 * Grants a tunnel.
 * @param salt 32 fresh random bytes: they keep what was recorded from being sent into another tunnel
 * @returns ANSWER_BYTES
 */
export function tunnelAnswer(salt: Buffer): Buffer {
  return Buffer.concat([Buffer.of(VERSION, KIND_ANSWER), salt])
}

/** Does this grant a tunnel? It proves nothing: the first record does. */
export function isTunnelAnswer(bytes: Buffer): boolean {
  return bytes.length === ANSWER_BYTES && bytes[0] === VERSION && bytes[1] === KIND_ANSWER
}

/** What the records of each direction are sealed with at first, of 32 bytes each. */
export interface TunnelSecrets {
  /** initiator to responder (out_0) */
  outbound: Buffer
  /** responder to initiator (in_0) */
  inbound: Buffer
}

/**
 * The secrets of a tunnel. The caller has the keys of its index forgotten after it.
 * @param opening OPENING_BYTES
 * @param answer ANSWER_BYTES
 */
export function tunnelSecrets(keys: MessageKeys, opening: Buffer, answer: Buffer): TunnelSecrets {
  const transcript = hash('sha256', Buffer.concat([opening, answer]), 'buffer')
  return {
    outbound: expandLabel(keys.requestKey, 'tunnel out', transcript, SECRET_BYTES),
    inbound: expandLabel(keys.responseKey, 'tunnel in', transcript, SECRET_BYTES),
  }
}

function mac({ requestKey }: MessageKeys, header: Buffer): Buffer {
  return expandLabel(requestKey, 'tunnel open', header, MAC_BYTES)
}
