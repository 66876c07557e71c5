import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { ml_kem768_x25519 } from '@noble/post-quantum/hybrid.js'
import type { Identity } from '../../sidecar/pair/handshake.ts'
import { meshSecret } from '../../sidecar/pair/secrets.ts'
import type { Encapsulate } from '../../sidecar/pair/xwing.ts'

/** One pairing of relay1.json; byte strings in hex. */
export interface PairingVector {
  xwing_seed: string
  xwing_eseed: string
  client_nonce: string
  pair_rand: string
  pkE: string
  p1: string
  m1: string
  enc: string
  shared_secret: string
  hpke_info: string
  hpke_key: string
  hpke_nonce: string
  p2: string
  m2: string
  pair_id: string
  pair_secret: string
}

export interface Relay1 {
  secret: string
  client_name: string
  server_name: string
  time_ms: number
  max_chunk_log2: number
  lease_ms: number
  pair_ttl_s: number
  psk: string
  psk_id: string
  m1_secret: string
  reject_key: string
  pair_tag_key: string
  state_key: string
  pairing: PairingVector
  pairing_signed: PairingVector & {
    client_ed25519_seed: string
    client_ed25519_pub: string
    server_ed25519_seed: string
    server_ed25519_pub: string
  }
  chain_keys: string[]
  block_secrets: string[]
  messages: {
    name: string
    block: number
    index: number
    request_chunks: string[]
    header: string
    req_key: string
    res_key: string
    req_iv: string
    message: string
    response_iv: string
    response_chunks: string[]
    response: string
  }[]
  rejects: {
    name: string
    code: number
    echo: string
    time_ms: number
    store_age_ms: number
    record: string
  }[]
  wrapped: { role: number; block: number; rand: string; record: string }[]
}

/** Reads a file of test/vectors. */
export function vectors<T>(file: string): T {
  return JSON.parse(readFileSync(new URL(`../vectors/${file}`, import.meta.url), 'utf8'))
}

export const relay1 = vectors<Relay1>('relay1.json')

export function hex(text: string): Buffer {
  return Buffer.from(text, 'hex')
}

/** Hands out these bytes, in this order, to whoever asks for as many. */
export function scripted(...parts: string[]): (length: number) => Buffer {
  const left = parts.map(hex)
  return (length) => {
    const next = left.shift()
    if (next?.length !== length)
      throw new Error(`${length} random bytes were asked for, ${next?.length} come next`)
    return next
  }
}

/** X-Wing with its randomness given, which node:crypto does not take. */
export function encapsulateWith(eseed: string): Encapsulate {
  return (publicKey) => {
    const { sharedSecret, cipherText } = ml_kem768_x25519.encapsulate(publicKey, hex(eseed))
    return { sharedSecret: Buffer.from(sharedSecret), enc: Buffer.from(cipherText) }
  }
}

const secrets = new Map<string, ReturnType<typeof meshSecret>>()

/** A relay that accepts these secrets, those of the vectors unless given; they are derived once. */
export async function identity(name: string, ...texts: string[]): Promise<Identity> {
  const derived = (texts.length > 0 ? texts : [relay1.secret]).map((text) => {
    const key = `${name}\n${text}`
    if (!secrets.has(key)) secrets.set(key, meshSecret(text, name))
    return secrets.get(key)!
  })
  return { name, secrets: await Promise.all(derived) }
}

/** The message with one bit turned over. */
export function flipped(bytes: Buffer, bit: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[bit >> 3]! ^= 1 << (bit & 7)
  return copy
}

/** `deepEqual` for bytes, whose failures uvu cannot print: it breaks off the run instead. */
export function sameBytes(actual: Buffer | undefined, expected: Buffer): void {
  assert.equal(actual?.toString('hex'), expected.toString('hex'))
}
