import assert from 'node:assert/strict'
import { hash, randomBytes } from 'node:crypto'
import { open, seal } from '../../sidecar/pair/aes-gcm.ts'
import {
  type AgreedPair,
  ANSWER_BYTES,
  type Grant,
  HELLO_BYTES,
  type Identity,
  initiate,
  openHello,
} from '../../sidecar/pair/handshake.ts'
import { expandLabel } from '../../sidecar/pair/hkdf.ts'
import { setupSender } from '../../sidecar/pair/hpke.ts'
import { encodeAnswer } from '../../sidecar/pair/plaintexts.ts'
import { privateKey, rawPublicKey } from '../../sidecar/pair/raw-keys.ts'
import { Reject, type RejectName } from '../../sidecar/pair/reject.ts'
import { xwingEncapsulate } from '../../sidecar/pair/xwing.ts'
import { suite } from '../support/suite.ts'
import { encapsulateWith, flipped, hex, identity, relay1, sameBytes, scripted } from './vectors.ts'

const test = suite('pair/handshake')

const NOW = relay1.time_ms
const GRANT: Grant = {
  leaseMs: relay1.lease_ms,
  pairTtlS: relay1.pair_ttl_s,
  chunkLog2: relay1.max_chunk_log2,
}
const NOT_SEEN = { now: NOW, seen: () => false }
const HELLO_HEADER_BYTES = 1260
const ANSWER_HEADER_BYTES = 1124
const PUBLIC_KEY_AT = 44
const X25519_SHARE_BYTES = 32

const orders = await identity('orders')
const payments = await identity('payments')
const mesh = orders.secrets[0]!

const orderKey = privateKey('ed25519', hex(relay1.pairing_signed.client_ed25519_seed))
const paymentKey = privateKey('ed25519', hex(relay1.pairing_signed.server_ed25519_seed))
const signingOrders: Identity = {
  ...orders,
  signingKey: orderKey,
  peerKeys: new Map([['payments', [randomBytes(32), rawPublicKey(paymentKey)]]]),
}
const signingPayments: Identity = {
  ...payments,
  signingKey: paymentKey,
  peerKeys: new Map([['orders', [rawPublicKey(orderKey)]]]),
}

function begin(from: Identity = orders, options: Partial<Parameters<typeof initiate>[1]> = {}) {
  return initiate(from, {
    secret: from.secrets[0]!,
    responderName: '',
    random: randomBytes,
    now: NOW,
    ...options,
  })
}

/** The pairing of the vectors, which may be begun again and again with the same m1. */
function beginVector() {
  const { xwing_seed, client_nonce } = relay1.pairing
  return begin(orders, { responderName: 'payments', random: scripted(xwing_seed, client_nonce) })
}

function accept(hello: Buffer, by: Identity = payments, grant: Partial<Grant> = {}) {
  return openHello(by, hello, NOT_SEEN).accept({ random: randomBytes, ...GRANT, ...grant })
}

/** A pair with its bytes in hex, and without the secret under which it was made. */
function told({ id, secret, mesh: _, ...rest }: AgreedPair) {
  return { id: id.toString('hex'), secret: secret.toString('hex'), ...rest }
}

function rejects(code: RejectName, step: () => unknown): void {
  assert.throws(step, (error) => {
    assert.ok(error instanceof Reject, String(error))
    assert.equal(error.code, code)
    return true
  })
}

function helloKey(header: Buffer): [key: Buffer, iv: Buffer, aad: Buffer] {
  const context = hash('sha256', header, 'buffer')
  const { m1Secret } = mesh
  return [expandLabel(m1Secret, 'm1 key', context, 32), expandLabel(m1Secret, 'm1 iv', context, 12), header]
}

/** An m1 that someone with the secret changed, inside and out. */
function forgedHello(
  hello: Buffer,
  change: { header?(bytes: Buffer): void; plaintext?(bytes: Buffer): void },
): Buffer {
  const header = Buffer.from(hello.subarray(0, HELLO_HEADER_BYTES))
  const plaintext = open(...helloKey(header), hello.subarray(HELLO_HEADER_BYTES))!
  change.header?.(header)
  change.plaintext?.(plaintext)
  return Buffer.concat([header, seal(...helloKey(header), plaintext)])
}

/** An m2 that someone with the secret made up. */
function forgedAnswer(hello: Buffer, plaintext: Buffer): Buffer {
  const info = Buffer.concat([Buffer.from('relay1 pair\0'), hash('sha256', hello, 'buffer')])
  const pkE = hello.subarray(PUBLIC_KEY_AT, HELLO_HEADER_BYTES)
  const { enc, context } = setupSender(pkE, info, mesh, xwingEncapsulate)
  const header = Buffer.concat([hex('01020001'), enc])
  return Buffer.concat([header, context.seal(header, plaintext)])
}

test('makes every byte of the pairings that the vectors say, on both sides', () => {
  for (const [vector, initiator, responder] of [
    [relay1.pairing, orders, payments],
    [relay1.pairing_signed, signingOrders, signingPayments],
  ] as const) {
    const random = scripted(vector.xwing_seed, vector.client_nonce)
    const { hello, finish } = begin(initiator, { responderName: 'payments', random })
    assert.equal(hello.toString('hex'), vector.m1)
    const opened = openHello(responder, hello, NOT_SEEN)
    assert.equal(opened.initiatorName, 'orders')
    sameBytes(opened.hash, hash('sha256', hello, 'buffer'))
    const encapsulate = encapsulateWith(vector.xwing_eseed)
    const { answer, pair } = opened.accept({ random: scripted(vector.pair_rand), ...GRANT, encapsulate })
    assert.equal(answer.toString('hex'), vector.m2)
    const shared = {
      id: vector.pair_id,
      secret: vector.pair_secret,
      chunkBytesMax: 65_536,
      leaseMs: 60_000,
      ttlS: 3600,
    }
    const ours = finish(answer)
    assert.deepEqual(told(pair), { ...shared, peerName: 'orders' })
    assert.deepEqual(told(ours), { ...shared, peerName: 'payments' })
    assert.equal(pair.mesh, responder.secrets[0])
    assert.equal(ours.mesh, initiator.secrets[0])
  }
})

test('agrees upon the same secret on both sides, and upon another one each time', () => {
  const secrets = [1, 2].map(() => {
    const { hello, finish } = begin()
    const { answer, pair } = accept(hello, payments, { chunkLog2: 10, leaseMs: 1, pairTtlS: 2 ** 32 - 1 })
    const ours = finish(answer)
    sameBytes(ours.secret, pair.secret)
    sameBytes(ours.id, pair.id)
    assert.deepEqual([ours.chunkBytesMax, ours.leaseMs, ours.ttlS], [1024, 1, 2 ** 32 - 1])
    return pair.secret.toString('hex')
  })
  assert.notEqual(secrets[0], secrets[1])
})

test('has messages of one length, whatever the names and with or without signatures', async () => {
  const long = 'n'.repeat(255)
  for (const [from, to] of [
    [await identity('a'), await identity('b')],
    [
      { ...(await identity(long)), signingKey: orderKey },
      { ...(await identity(long)), signingKey: paymentKey },
    ],
    [await identity('naïve ☃'), await identity('\ufeffbom')],
  ] as const) {
    const { hello, finish } = begin(from, { responderName: to.name })
    const { answer, pair } = accept(hello, to)
    assert.equal(hello.length, HELLO_BYTES)
    assert.equal(answer.length, ANSWER_BYTES)
    assert.equal(pair.peerName, from.name)
    assert.equal(finish(answer).peerName, to.name)
  }
  assert.equal(HELLO_BYTES, 1916)
  assert.equal(ANSWER_BYTES, 1588)
})

test('refuses an m1 of any other length', () => {
  const { hello } = begin()
  for (let length = 0; length < hello.length; length++) {
    rejects('malformed', () => openHello(payments, hello.subarray(0, length), NOT_SEEN))
  }
  rejects('malformed', () => openHello(payments, Buffer.concat([hello, Buffer.alloc(1)]), NOT_SEEN))
})

test('refuses an m1 with any bit turned over', () => {
  const { hello } = begin()
  for (let bit = 0; bit < 8 * hello.length; bit++) {
    const byte = bit >> 3
    const code =
      byte === 1 ? 'malformed' : byte < 4 ? 'unsupported' : byte < 12 ? 'psk_unknown' : 'decrypt_failed'
    rejects(code, () => openHello(payments, flipped(hello, bit), NOT_SEEN))
  }
})

test('refuses an m2 of any other length', () => {
  const { answer } = accept(beginVector().hello)
  beginVector().finish(answer)
  for (let length = 0; length < answer.length; length += 7) {
    rejects('malformed', () => beginVector().finish(answer.subarray(0, length)))
  }
  rejects('malformed', () => beginVector().finish(answer.subarray(0, answer.length - 1)))
  rejects('malformed', () => beginVector().finish(Buffer.concat([answer, Buffer.alloc(1)])))
})

test('refuses an m2 with a bit turned over in any byte', () => {
  const { answer } = accept(beginVector().hello)
  for (let byte = 0; byte < answer.length; byte++) {
    const code = byte === 1 ? 'malformed' : byte < 4 ? 'unsupported' : 'decrypt_failed'
    rejects(code, () => beginVector().finish(flipped(answer, 8 * byte + ((5 * byte) % 8))))
  }
  // X25519 ignores this one; X-Wing does not.
  rejects('decrypt_failed', () => beginVector().finish(flipped(answer, 8 * (ANSWER_HEADER_BYTES - 1))))
})

test('takes one answer, and that of this pairing alone', () => {
  const one = begin()
  const other = begin()
  const { answer } = accept(one.hello)
  rejects('decrypt_failed', () => other.finish(answer))
  one.finish(answer)
  assert.throws(() => one.finish(answer), /takes one answer/)
})

test('knows the secret by its id, the previous one too', async () => {
  const before = 'the one before: 0123456789 0123456789'
  const rotated = await identity('payments', relay1.secret, before)
  const old = await identity('orders', before)
  const { hello, finish } = begin(old)
  const { answer, pair } = accept(hello, rotated)
  assert.equal(pair.mesh, rotated.secrets[1])
  sameBytes(finish(answer).secret, pair.secret)
  rejects('psk_unknown', () => openHello(payments, hello, NOT_SEEN))
})

test('refuses an m1 of someone who knows the id of the secret but not the secret', async () => {
  const stranger = await identity('orders', 'another secret: 0123456789 0123456789')
  const { hello } = begin(stranger)
  mesh.pskId.copy(hello, 4)
  rejects('decrypt_failed', () => openHello(payments, hello, NOT_SEEN))
})

test('takes clocks that are 300 s apart, either way, and no more', () => {
  for (const sign of [1, -1]) {
    openHello(payments, begin(orders, { now: NOW + sign * 300_000 }).hello, NOT_SEEN)
    rejects('clock_skew', () =>
      openHello(payments, begin(orders, { now: NOW + sign * 300_001 }).hello, NOT_SEEN),
    )
  }
  for (const now of [-1, 2 ** 60])
    rejects('clock_skew', () => openHello(payments, begin(orders, { now }).hello, NOT_SEEN))
})

test('refuses an m1 that was seen', () => {
  const { hello } = begin()
  const asked: Buffer[] = []
  const seen = (hash: Buffer) => {
    asked.push(hash)
    return true
  }
  rejects('replayed', () => openHello(payments, hello, { now: NOW, seen }))
  sameBytes(Buffer.concat(asked), hash('sha256', hello, 'buffer'))
  rejects('decrypt_failed', () => openHello(payments, flipped(hello, 8 * 1900), { now: NOW, seen }))
  rejects('clock_skew', () => openHello(payments, hello, { now: NOW + 400_000, seen }))
  assert.equal(asked.length, 1)
})

test('answers to its own name and to none, and to no other', () => {
  for (const responderName of ['', 'payments'])
    openHello(payments, begin(orders, { responderName }).hello, NOT_SEEN)
  for (const responderName of ['payment', 'paymentss', 'Payments', 'orders']) {
    rejects('auth_failed', () => openHello(payments, begin(orders, { responderName }).hello, NOT_SEEN))
  }
})

test('takes no answer of another than it named', () => {
  const named = begin(orders, { responderName: 'payments' })
  const fields = { pairId: randomBytes(24), responderName: 'billing', ...GRANT }
  rejects('auth_failed', () => named.finish(forgedAnswer(named.hello, encodeAnswer(fields, undefined))))
  const anyone = begin()
  const answer = forgedAnswer(anyone.hello, encodeAnswer(fields, undefined))
  assert.equal(anyone.finish(answer).peerName, 'billing')
})

test('refuses what is malformed inside of an m1', () => {
  const { hello } = begin(orders, { responderName: 'payments' })
  const names = 8
  const auth = names + 1 + 'orders'.length + 1 + 'payments'.length
  const changed = (change: (bytes: Buffer) => void) => () =>
    openHello(payments, forgedHello(hello, { plaintext: change }), NOT_SEEN)
  changed(() => {})()
  for (let at = auth + 1; at < 640; at++)
    rejects(
      'malformed',
      changed((p) => p.writeUInt8(1, at)),
    )
  for (const form of [2, 3, 0x80, 0xff])
    rejects(
      'unsupported',
      changed((p) => p.writeUInt8(form, auth)),
    )
  rejects(
    'malformed',
    changed((p) => p.writeUInt8(0xff, names + 1)),
  )
  rejects(
    'malformed',
    changed((p) => p.fill(0, names)),
  )
})

test('refuses a key of the initiator that cannot be used', () => {
  const { hello } = begin()
  const withKey = (change: (key: Buffer) => void) =>
    openHello(payments, forgedHello(hello, { header: (h) => change(h.subarray(PUBLIC_KEY_AT)) }), NOT_SEEN)
  const take = { random: randomBytes, ...GRANT }
  withKey((key) => key.fill(randomBytes(X25519_SHARE_BYTES), key.length - X25519_SHARE_BYTES)).accept(take)
  const notCanonical = withKey((key) => key.fill(0xff, 0, 3))
  rejects('malformed', () => notCanonical.accept(take))
  for (const lowOrder of ['00', '01', 'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800']) {
    const share = Buffer.alloc(X25519_SHARE_BYTES)
    hex(lowOrder).copy(share)
    const opened = withKey((key) => share.copy(key, key.length - X25519_SHARE_BYTES))
    rejects('malformed', () => opened.accept(take))
  }
})

test('refuses a share of the responder that cannot be used', () => {
  const { answer } = accept(beginVector().hello)
  const lowOrder = Buffer.from(answer).fill(0, ANSWER_HEADER_BYTES - X25519_SHARE_BYTES, ANSWER_HEADER_BYTES)
  rejects('malformed', () => beginVector().finish(lowOrder))
})

test('refuses what is malformed inside of an m2', () => {
  const finish = (
    fields: Partial<Parameters<typeof encodeAnswer>[0]>,
    change: (plaintext: Buffer) => void = () => {},
  ) => {
    const { hello, finish } = begin()
    const plaintext = encodeAnswer(
      { pairId: randomBytes(24), responderName: 'payments', ...GRANT, ...fields },
      undefined,
    )
    change(plaintext)
    return finish(forgedAnswer(hello, plaintext))
  }
  const auth = 24 + 1 + 'payments'.length + 1 + 4 + 4
  finish({})
  for (const chunkLog2 of [0, 9, 17, 255]) rejects('malformed', () => finish({ chunkLog2 }))
  for (const leaseMs of [0, 60_001, 2 ** 32 - 1]) rejects('malformed', () => finish({ leaseMs }))
  rejects('malformed', () => finish({ pairTtlS: 0 }))
  rejects('malformed', () => finish({ responderName: '' }))
  rejects('malformed', () => finish({}, (p) => p.writeUInt8(0xff, 24 + 1)))
  rejects('unsupported', () => finish({}, (p) => p.writeUInt8(2, auth)))
  // Not all zeros: that is a key of small order, under which zeros may pass for a signature.
  rejects('auth_failed', () =>
    finish({}, (p) => {
      p.writeUInt8(1, auth)
      rawPublicKey(paymentKey).copy(p, auth + 1)
    }),
  )
  for (const at of [auth + 1, 400, 447]) rejects('malformed', () => finish({}, (p) => p.writeUInt8(1, at)))
})

test('pairs where each side has the key that the other one expects', () => {
  const { hello, finish } = begin(signingOrders)
  const { answer, pair } = accept(hello, signingPayments)
  sameBytes(finish(answer).secret, pair.secret)
  // Signatures do not disturb those who expect none.
  const unasked = begin({ ...orders, signingKey: orderKey })
  unasked.finish(accept(unasked.hello, { ...payments, signingKey: paymentKey }).answer)
})

test('pairs with nobody whose key is missing, another one, or of another name, where keys are configured', async () => {
  const impostor = privateKey('ed25519', randomBytes(32))
  const billing = await identity('billing')
  for (const initiator of [
    orders,
    { ...orders, signingKey: impostor },
    { ...billing, signingKey: orderKey },
  ]) {
    const { hello } = begin(initiator)
    rejects('auth_failed', () => openHello(signingPayments, hello, NOT_SEEN))
    openHello(payments, hello, NOT_SEEN)
  }
  for (const responder of [
    payments,
    { ...payments, signingKey: impostor },
    { ...billing, signingKey: paymentKey },
  ]) {
    const { hello, finish } = begin(signingOrders)
    rejects('auth_failed', () => finish(accept(hello, responder).answer))
  }
})

test('refuses a signature that does not hold, even where no keys are configured', () => {
  const { hello } = begin({ ...orders, signingKey: orderKey })
  const auth = 8 + 1 + 'orders'.length + 1
  for (const by of [payments, signingPayments]) {
    openHello(by, forgedHello(hello, {}), NOT_SEEN)
    for (const at of [0, auth + 1, auth + 1 + 32, auth + 96]) {
      const changed = forgedHello(hello, { plaintext: (p) => p.writeUInt8(p[at]! ^ 1, at) })
      const code = at === 0 ? 'clock_skew' : 'auth_failed'
      rejects(code, () => openHello(by, changed, NOT_SEEN))
    }
    // It is over the time, and over the ephemeral key.
    const later = forgedHello(hello, { plaintext: (p) => p.writeUInt8(p[7]! ^ 1, 7) })
    rejects('auth_failed', () => openHello(by, later, NOT_SEEN))
    const moved = forgedHello(hello, {
      header: (h) => begin().hello.copy(h, PUBLIC_KEY_AT, PUBLIC_KEY_AT, HELLO_HEADER_BYTES),
    })
    rejects('auth_failed', () => openHello(by, moved, NOT_SEEN))
  }
  const { hello: unsigned, finish } = begin()
  const sign = () => ({ publicKey: rawPublicKey(paymentKey), signature: Buffer.alloc(64, 1) })
  const fields = { pairId: randomBytes(24), responderName: 'payments', ...GRANT }
  rejects('auth_failed', () => finish(forgedAnswer(unsigned, encodeAnswer(fields, sign))))
})

test.run()
