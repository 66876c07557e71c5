/** Rejects: how a responder says that it did not take a message or a pairing (relay1 section 5). */
import { createHmac, hash, timingSafeEqual } from 'node:crypto'
import type { MeshSecret } from './secrets.ts'
import { decodeMs, encodeMs } from './times.ts'

/** Every reject: its code in a record, and the HTTP status of the answer that carries it. */
export const REJECTS = {
  unknown_pair: { byte: 0x01, status: 421 },
  state_lost: { byte: 0x02, status: 421 },
  block_out_of_reach: { byte: 0x03, status: 421 },
  replayed: { byte: 0x04, status: 409 },
  decrypt_failed: { byte: 0x05, status: 400 },
  malformed: { byte: 0x06, status: 400 },
  unsupported: { byte: 0x07, status: 400 },
  psk_unknown: { byte: 0x08, status: 401 },
  auth_failed: { byte: 0x09, status: 403 },
  clock_skew: { byte: 0x0a, status: 400 },
  rate_limited: { byte: 0x0b, status: 429 },
  state_unavailable: { byte: 0x0c, status: 503 },
  too_large: { byte: 0x0d, status: 413 },
} as const

export type RejectName = keyof typeof REJECTS

const NAMES = new Map(Object.entries(REJECTS).map(([name, { byte }]) => [byte as number, name as RejectName]))

/** A message or a pairing that is not taken. */
export class Reject extends Error {
  readonly code: RejectName

  constructor(code: RejectName) {
    super(`rejected: ${code}`)
    this.name = 'Reject'
    this.code = code
  }
}

const VERSION = 0x01
const KIND = 0x7f
const PSK_ID_AT = 4
const ECHO_AT = 12
const TIME_AT = 44
const STORE_AGE_AT = 52
const MAC_AT = 60
const RECORD_BYTES = 76
/** What an echo is of, at most, in bytes: a message's header, or an m1. */
const ECHOED_BYTES_MAX = { message: 44, pairing: 1916 }

/** What a record tells. */
export interface RejectRecord {
  name: RejectName
  /** SHA-256 of what it answers, see `echoOf` */
  echo: Buffer
  /** the responder's wall clock, in ms since 1970 */
  timeMs: number
  /** how long the responder's store has existed, in ms; rounded down */
  storeAgeMs: number
}

/**
 * Names the bytes that a reject answers.
 * @param bytes what was sent, or as much of it as was read
 */
export function echoOf(bytes: Buffer, kind: 'message' | 'pairing'): Buffer {
  return hash('sha256', bytes.subarray(0, ECHOED_BYTES_MAX[kind]), 'buffer')
}

/** The 76 bytes that tell a reject, authenticated under a secret that the initiator has. */
export function rejectRecord({
  name,
  secret,
  echo,
  timeMs,
  storeAgeMs,
}: RejectRecord & { secret: MeshSecret }): Buffer {
  const start = Buffer.of(VERSION, KIND, REJECTS[name].byte, 0)
  const record = Buffer.concat([start, secret.pskId, echo, encodeMs(timeMs), encodeMs(storeAgeMs)])
  return Buffer.concat([record, mac(secret, record)])
}

/**
 * Reads what answered a message or a pairing.
 * @param secrets those that the initiator has
 * @param echo of what was sent
 * @returns undefined when it is no reject record; `authentic` when a relay that has one of the secrets made it, and
 *   made it of what was sent
 */
export function parseReject(
  body: Buffer,
  secrets: readonly MeshSecret[],
  echo: Buffer,
): (Omit<RejectRecord, 'echo'> & { authentic: boolean }) | undefined {
  if (body.length !== RECORD_BYTES || body[0] !== VERSION || body[1] !== KIND || body[3] !== 0)
    return undefined
  const name = NAMES.get(body[2]!)
  if (!name) return undefined
  const secret = secrets.find(({ pskId }) => pskId.equals(body.subarray(PSK_ID_AT, ECHO_AT)))
  const authentic =
    secret !== undefined &&
    timingSafeEqual(mac(secret, body.subarray(0, MAC_AT)), body.subarray(MAC_AT)) &&
    echo.equals(body.subarray(ECHO_AT, TIME_AT))
  return { name, authentic, timeMs: decodeMs(body, TIME_AT), storeAgeMs: decodeMs(body, STORE_AGE_AT) }
}

function mac({ rejectKey }: MeshSecret, record: Buffer): Buffer {
  return createHmac('sha256', rejectKey)
    .update(record)
    .digest()
    .subarray(0, RECORD_BYTES - MAC_AT)
}
