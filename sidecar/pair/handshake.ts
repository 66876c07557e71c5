/** Pairing: how an initiator and a responder come to share a secret, in one round trip (relay1 section 2). */
import { hash, type KeyObject, sign, verify } from 'node:crypto'
import { open, seal, TAG_BYTES } from './aes-gcm.ts'
import { expandLabel } from './hkdf.ts'
import { type Context, setupReceiver, setupSender } from './hpke.ts'
import {
  ANSWER_PLAINTEXT_BYTES,
  type Auth,
  decodeAnswer,
  decodeHello,
  encodeAnswer,
  encodeHello,
  HELLO_PLAINTEXT_BYTES,
  type Sign,
} from './plaintexts.ts'
import { InvalidKeyError, publicKey, rawPublicKey } from './raw-keys.ts'
import { Reject } from './reject.ts'
import { type MeshSecret, PAIR_RANDOM_BYTES, pairIdOf } from './secrets.ts'
import {
  ENC_BYTES,
  type Encapsulate,
  PUBLIC_KEY_BYTES,
  SEED_BYTES,
  type XWingKeyPair,
  xwingEncapsulate,
  xwingKeyPair,
} from './xwing.ts'

const VERSION = 0x01
const KIND_HELLO = 0x01
const KIND_ANSWER = 0x02
const SUITE = 0x0001
const PSK_ID_AT = 4
const NONCE_AT = 12
const NONCE_BYTES = 32
const PUBLIC_KEY_AT = NONCE_AT + NONCE_BYTES
const HELLO_HEADER_BYTES = PUBLIC_KEY_AT + PUBLIC_KEY_BYTES
const ANSWER_HEADER_BYTES = 4 + ENC_BYTES
/** of m1, always */
export const HELLO_BYTES = HELLO_HEADER_BYTES + HELLO_PLAINTEXT_BYTES + TAG_BYTES
/** of m2, always */
export const ANSWER_BYTES = ANSWER_HEADER_BYTES + ANSWER_PLAINTEXT_BYTES + TAG_BYTES
/** A hello that was made earlier or later than that, by the responder's clock, is refused. */
export const CLOCK_SKEW_MAX_MS = 300_000
const SIGNED_BY_INITIATOR = Buffer.from('relay1 init\0')
const SIGNED_BY_RESPONDER = Buffer.from('relay1 resp\0')
const PAIR = Buffer.from('relay1 pair\0')

/** Who this relay is, in both roles. */
export interface Identity {
  /** NAME: 1 to 255 bytes of UTF-8 */
  name: string
  /** those that are accepted; the first is the current one */
  secrets: readonly MeshSecret[]
  /** Ed25519 private key that signs pairings; undefined: they are not signed */
  signingKey?: KeyObject
  /** raw Ed25519 public keys by the names of the peers that may pair, who then have to sign; undefined: any with the secret may */
  peerKeys?: ReadonlyMap<string, readonly Buffer[]>
}

/** What both sides of a pairing agreed upon. */
export interface AgreedPair {
  id: Buffer
  /** pair_secret; the receiver's to erase */
  secret: Buffer
  /** what the other side calls itself */
  peerName: string
  /** the secret under which it was made */
  mesh: MeshSecret
  chunkBytesMax: number
  leaseMs: number
  ttlS: number
}

/** What a responder grants to a new pair. */
export interface Grant {
  leaseMs: number
  pairTtlS: number
  /** log2 of the largest chunk of plaintext, in bytes: 10 to 16 */
  chunkLog2: number
}

/** A pairing that this initiator began. */
export interface Initiated {
  /** m1, to be sent once */
  hello: Buffer
  /**
   * Takes m2, once.
   * @throws Reject when it is not the answer of a relay that has the secret, and that is allowed where keys are configured
   */
  finish(answer: Buffer): AgreedPair
}

/**
 * Begins a pairing.
 * @param options `secret` of the identity's; `responderName` empty: whoever answers; `random(length)` fresh bytes;
 *   `now` in ms since 1970
 */
export function initiate(
  identity: Identity,
  options: { secret: MeshSecret; responderName: string; random(length: number): Buffer; now: number },
): Initiated {
  const { secret, responderName, random, now } = options
  const seed = random(SEED_BYTES)
  let ephemeral: XWingKeyPair | undefined = xwingKeyPair(seed)
  seed.fill(0)
  const header = Buffer.concat([start(KIND_HELLO), secret.pskId, random(NONCE_BYTES), ephemeral.publicKey])
  const plaintext = encodeHello(
    { timeMs: now, initiatorName: identity.name, responderName },
    signer(identity, SIGNED_BY_INITIATOR, header),
  )
  const { key, iv } = helloKey(secret, header)
  const hello = Buffer.concat([header, seal(key, iv, header, plaintext)])
  const finish = (answer: Buffer) => {
    const keyPair = ephemeral
    if (!keyPair) throw new Error('a pairing takes one answer')
    ephemeral = undefined
    return finishPairing(identity, { secret, responderName, hello, keyPair, answer })
  }
  return { hello, finish }
}

function finishPairing(
  identity: Identity,
  pairing: {
    secret: MeshSecret
    responderName: string
    hello: Buffer
    keyPair: XWingKeyPair
    answer: Buffer
  },
): AgreedPair {
  const { secret, responderName, hello, keyPair, answer } = pairing
  checkStart(answer, ANSWER_BYTES, KIND_ANSWER)
  const header = answer.subarray(0, ANSWER_HEADER_BYTES)
  const context = usable(() => setupReceiver(header.subarray(4), keyPair, hpkeInfo(hash256(hello)), secret))
  try {
    const plaintext = context.open(header, answer.subarray(ANSWER_HEADER_BYTES))
    if (!plaintext) throw new Reject('decrypt_failed')
    const granted = decodeAnswer(plaintext)
    if (responderName !== '' && granted.responderName !== responderName) throw new Reject('auth_failed')
    checkAuth(identity, granted.responderName, granted.auth, SIGNED_BY_RESPONDER, hello, header)
    const agreed = pairSecret(context, hello, answer)
    return {
      id: granted.pairId,
      secret: agreed,
      peerName: granted.responderName,
      mesh: secret,
      ...terms(granted),
    }
  } finally {
    context.erase()
  }
}

/** A pairing that came in, and that may be accepted. */
export interface OpenedHello {
  /** SHA-256 of m1 */
  hash: Buffer
  initiatorName: string
  /**
   * Makes the pair. The answer may leave once the pair is kept.
   * @param options `random(length)` fresh bytes; `encapsulate` is X-Wing's unless given
   * @throws Reject malformed when the initiator's key cannot be used
   */
  accept(options: Grant & { random(length: number): Buffer; encapsulate?: Encapsulate }): {
    answer: Buffer
    pair: AgreedPair
  }
}

/**
 * Checks an m1, the cheapest first.
 * @param options `now` in ms since 1970; `seen`: has an m1 with this SHA-256 been here before?
 * @throws Reject
 */
export function openHello(
  identity: Identity,
  hello: Buffer,
  { now, seen }: { now: number; seen(hash: Buffer): boolean },
): OpenedHello {
  checkStart(hello, HELLO_BYTES, KIND_HELLO)
  const header = hello.subarray(0, HELLO_HEADER_BYTES)
  // One key alone is tried: GCM does not commit to its key.
  const secret = identity.secrets.find(({ pskId }) => pskId.equals(header.subarray(PSK_ID_AT, NONCE_AT)))
  if (!secret) throw new Reject('psk_unknown')
  const { key, iv } = helloKey(secret, header)
  const plaintext = open(key, iv, header, hello.subarray(HELLO_HEADER_BYTES))
  if (!plaintext) throw new Reject('decrypt_failed')
  const { timeMs, initiatorName, responderName, auth } = decodeHello(plaintext)
  if (Math.abs(now - timeMs) > CLOCK_SKEW_MAX_MS) throw new Reject('clock_skew')
  const helloHash = hash256(hello)
  if (seen(helloHash)) throw new Reject('replayed')
  if (responderName !== '' && responderName !== identity.name) throw new Reject('auth_failed')
  checkAuth(identity, initiatorName, auth, SIGNED_BY_INITIATOR, header)
  return {
    hash: helloHash,
    initiatorName,
    accept({ random, encapsulate = xwingEncapsulate, ...grant }) {
      const info = hpkeInfo(helloHash)
      const { enc, context } = usable(() =>
        setupSender(header.subarray(PUBLIC_KEY_AT), info, secret, encapsulate),
      )
      try {
        const answerHeader = Buffer.concat([start(KIND_ANSWER), enc])
        const pairId = pairIdOf(secret, random(PAIR_RANDOM_BYTES))
        const granted = encodeAnswer(
          { pairId, responderName: identity.name, ...grant },
          signer(identity, SIGNED_BY_RESPONDER, hello, answerHeader),
        )
        const answer = Buffer.concat([answerHeader, context.seal(answerHeader, granted)])
        const agreed = pairSecret(context, hello, answer)
        const pair = { id: pairId, secret: agreed, peerName: initiatorName, mesh: secret, ...terms(grant) }
        return { answer, pair }
      } finally {
        context.erase()
      }
    },
  }
}

function pairSecret(context: Context, hello: Buffer, answer: Buffer): Buffer {
  return context.export(Buffer.concat([PAIR, hash256(hello, answer)]))
}

function terms({
  chunkLog2,
  leaseMs,
  pairTtlS,
}: Grant): Pick<AgreedPair, 'chunkBytesMax' | 'leaseMs' | 'ttlS'> {
  return { chunkBytesMax: 2 ** chunkLog2, leaseMs, ttlS: pairTtlS }
}

function start(kind: number): Buffer {
  return Buffer.of(VERSION, kind, SUITE >> 8, SUITE & 0xff)
}

function checkStart(message: Buffer, length: number, kind: number): void {
  if (message.length !== length) throw new Reject('malformed')
  if (message[0] !== VERSION) throw new Reject('unsupported')
  if (message[1] !== kind) throw new Reject('malformed')
  if (message.readUInt16BE(2) !== SUITE) throw new Reject('unsupported')
}

function helloKey({ m1Secret }: MeshSecret, header: Buffer): { key: Buffer; iv: Buffer } {
  const context = hash256(header)
  return {
    key: expandLabel(m1Secret, 'm1 key', context, 32),
    iv: expandLabel(m1Secret, 'm1 iv', context, 12),
  }
}

function hpkeInfo(helloHash: Buffer): Buffer {
  return Buffer.concat([PAIR, helloHash])
}

/** Signs what comes before a signature, where this relay has a key. */
function signer({ signingKey }: Identity, label: Buffer, ...before: Buffer[]): Sign | undefined {
  if (!signingKey) return undefined
  return (signed) => {
    const publicKey = rawPublicKey(signingKey)
    return {
      publicKey,
      signature: sign(null, Buffer.concat([label, hash256(...before, signed, publicKey)]), signingKey),
    }
  }
}

/** A signature that is there has to hold, and where keys are configured it has to be there and of one of them. */
function checkAuth(
  { peerKeys }: Identity,
  name: string,
  auth: Auth | undefined,
  label: Buffer,
  ...before: Buffer[]
): void {
  const key = auth?.publicKey
  if (peerKeys && !(key && peerKeys.get(name)?.some((allowed) => allowed.equals(key))))
    throw new Reject('auth_failed')
  if (!auth) return
  const signed = Buffer.concat([label, hash256(...before, auth.signed, auth.publicKey)])
  if (!verify(null, signed, publicKey('ed25519', auth.publicKey), auth.signature))
    throw new Reject('auth_failed')
}

/** Runs a step that takes a key of the other side: one that cannot be used is the other side's mistake. */
function usable<T>(step: () => T): T {
  try {
    return step()
  } catch (error) {
    if (error instanceof InvalidKeyError) throw new Reject('malformed')
    throw error
  }
}

function hash256(...parts: Buffer[]): Buffer {
  return hash('sha256', parts.length === 1 ? parts[0]! : Buffer.concat(parts), 'buffer')
}
