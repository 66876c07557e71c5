import { createHmac, createSecretKey, type KeyObject, scrypt, timingSafeEqual } from 'node:crypto'
import { expandLabel, extract } from './hkdf.ts'

export const PAIR_ID_BYTES = 24
export const PAIR_RANDOM_BYTES = 16
const TAG_BYTES = PAIR_ID_BYTES - PAIR_RANDOM_BYTES
const NAME_BYTES_MAX = 255
const IDS_MAX = 10_000
const NOTHING = Buffer.alloc(0)

/** What follows from one CLIENT_ID_SECRET and, where said, from the own NAME (relay1 section 1). */
export interface MeshSecret {
  /** tells in public which secret is meant; 8 bytes */
  pskId: Buffer
  psk: Buffer
  m1Secret: Buffer
  rejectKey: Buffer
  /** tags the ids of the pairs of this NAME; a KeyObject, as it is used for each message */
  pairTagKey: KeyObject
  /** wraps what the store keeps for this NAME */
  stateKey: Buffer
}

/**
 * Derives what follows from a secret: takes about 50 ms, once, at the start.
 * @param secret CLIENT_ID_SECRET
 * @param name NAME: the replicas of a relay share it
 * @throws RangeError when the name has not 1 to 255 bytes of UTF-8
 */
export async function meshSecret(secret: string, name: string): Promise<MeshSecret> {
  const nameBytes = Buffer.from(name)
  if (nameBytes.length === 0 || nameBytes.length > NAME_BYTES_MAX) {
    throw new RangeError(`NAME must have 1 to ${NAME_BYTES_MAX} bytes of UTF-8, not ${nameBytes.length}`)
  }
  const stretched = await stretch(secret)
  const meshKey = extract('relay1 mesh', stretched)
  const fleetKey = extract('relay1 fleet', stretched)
  const tagKey = expandLabel(fleetKey, 'pair tag', nameBytes, 32)
  const derived = {
    pskId: expandLabel(meshKey, 'psk id', NOTHING, 8),
    psk: expandLabel(meshKey, 'psk', NOTHING, 32),
    m1Secret: expandLabel(meshKey, 'm1', NOTHING, 32),
    rejectKey: expandLabel(meshKey, 'reject', NOTHING, 32),
    pairTagKey: createSecretKey(tagKey),
    stateKey: expandLabel(fleetKey, 'state', nameBytes, 32),
  }
  for (const key of [stretched, meshKey, fleetKey, tagKey]) key.fill(0)
  return derived
}

/**
 * The id of a new pair.
 * @param random PAIR_RANDOM_BYTES
 */
export function pairIdOf(secret: MeshSecret, random: Buffer): Buffer {
  return Buffer.concat([random, pairTag(secret, random)])
}

/** The secret under which this relay, or a replica of it, gave out a pair's id; undefined when it is forged. */
export function ownerOf(secrets: readonly MeshSecret[], pairId: Buffer): MeshSecret | undefined {
  if (pairId.length !== PAIR_ID_BYTES) return undefined
  const random = pairId.subarray(0, PAIR_RANDOM_BYTES)
  const tag = pairId.subarray(PAIR_RANDOM_BYTES)
  return secrets.find((secret) => timingSafeEqual(pairTag(secret, random), tag))
}

/** Owners of ids that come again and again: a tag is checked once, as that costs a tenth of a message. */
export class Owners {
  readonly #secrets: readonly MeshSecret[]
  readonly #known = new Map<string, MeshSecret>()

  constructor(secrets: readonly MeshSecret[]) {
    this.#secrets = secrets
  }

  /** As `ownerOf` says. */
  find(pairId: Buffer): MeshSecret | undefined {
    const id = pairId.toString('latin1')
    const known = this.#known.get(id)
    if (known) return known
    const owner = ownerOf(this.#secrets, pairId)
    if (!owner) return undefined
    if (this.#known.size >= IDS_MAX) this.#known.clear()
    this.#known.set(id, owner)
    return owner
  }
}

function pairTag({ pairTagKey }: MeshSecret, random: Buffer): Buffer {
  return createHmac('sha256', pairTagKey).update(random).digest().subarray(0, TAG_BYTES)
}

function stretch(secret: string): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  scrypt(secret, 'relay1 mesh', 32, { N: 16_384, r: 8, p: 1 }, (error, key) =>
    error ? reject(error) : resolve(key),
  )
  return promise
}
