/** Certificates of the injector's own making (RFC 5280). */
import { randomBytes, type webcrypto, X509Certificate } from 'node:crypto'
import { BitString, Integer, Utf8String } from 'asn1js'
import {
  AttributeTypeAndValue,
  BasicConstraints,
  Certificate,
  Extension,
  ExtKeyUsage,
  GeneralName,
  GeneralNames,
} from 'pkijs'
import type { KeyPair } from './settings.ts'

/** A certificate, its key, and the authority that vouches for it, which can do so for no other: its key is gone. */
export interface Issued extends KeyPair {
  /** PEM */
  ca: string
}

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const
const SERIAL_BYTES = 16
/** Clocks of the cluster may be apart by so much. */
const CLOCK_SKEW_MS = 60 * 60_000
const COMMON_NAME = '2.5.4.3'
const SUBJECT_ALTERNATIVE_NAME = '2.5.29.17'
const BASIC_CONSTRAINTS = '2.5.29.19'
const KEY_USAGE = '2.5.29.15'
const EXTENDED_KEY_USAGE = '2.5.29.37'
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const DNS_NAME = 2
/** keyCertSign and digitalSignature, as bits of KeyUsage from the left. */
const SIGNS_CERTIFICATES = bits(0b0000_0100, 2)
const SIGNS = bits(0b1000_0000, 7)

/** Makes an authority, and has it issue one certificate for a server with this name. */
export async function issue(dnsName: string, nowMs: number, validMs: number): Promise<Issued> {
  const [authority, server] = await Promise.all([newKeys(), newKeys()])
  const times = { from: new Date(nowMs - CLOCK_SKEW_MS), until: new Date(nowMs + validMs) }
  const issuer = `mte-sidecar injector ${randomBytes(4).toString('hex')}`
  const by = { issuer, signingKey: authority.privateKey, ...times }
  const ca = await certify(issuer, authority.publicKey, by, [
    extension(BASIC_CONSTRAINTS, true, new BasicConstraints({ cA: true, pathLenConstraint: 0 })),
    SIGNS_CERTIFICATES,
  ])
  const names = new GeneralNames({ names: [new GeneralName({ type: DNS_NAME, value: dnsName })] })
  const cert = await certify('mte-sidecar injector', server.publicKey, by, [
    extension(SUBJECT_ALTERNATIVE_NAME, false, names),
    SIGNS,
    extension(EXTENDED_KEY_USAGE, false, new ExtKeyUsage({ keyPurposes: [SERVER_AUTH] })),
  ])
  const key = Buffer.from(await crypto.subtle.exportKey('pkcs8', server.privateKey)).toString('base64')
  return {
    ca,
    cert,
    key: `-----BEGIN PRIVATE KEY-----\n${key.replace(/.{64}/g, '$&\n')}\n-----END PRIVATE KEY-----\n`,
  }
}

interface Issuer {
  issuer: string
  signingKey: webcrypto.CryptoKey
  from: Date
  until: Date
}

async function certify(
  subject: string,
  publicKey: webcrypto.CryptoKey,
  { issuer, signingKey, from, until }: Issuer,
  extensions: Extension[],
): Promise<string> {
  const certificate = new Certificate({ version: 2, extensions })
  const serial = randomBytes(SERIAL_BYTES)
  // A positive number, which does not begin with a zero.
  serial[0] = (serial[0]! & 0x3f) | 0x40
  certificate.serialNumber = new Integer({ valueHex: serial })
  for (const [name, value] of [
    [certificate.subject, subject],
    [certificate.issuer, issuer],
  ] as const) {
    const text = new Utf8String({ value })
    name.typesAndValues.push(new AttributeTypeAndValue({ type: COMMON_NAME, value: text }))
  }
  certificate.notBefore.value = from
  certificate.notAfter.value = until
  await certificate.subjectPublicKeyInfo.importKey(publicKey)
  await certificate.sign(signingKey, 'SHA-256')
  return new X509Certificate(Buffer.from(certificate.toSchema(true).toBER())).toString()
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(KEY, true, ['sign', 'verify'])
}

function extension(
  extnID: string,
  critical: boolean,
  value: { toSchema(): { toBER(): ArrayBuffer } },
): Extension {
  return new Extension({ extnID, critical, extnValue: value.toSchema().toBER() })
}

function bits(byte: number, unusedBits: number): Extension {
  const valueHex = Uint8Array.of(byte)
  return new Extension({
    extnID: KEY_USAGE,
    critical: true,
    extnValue: new BitString({ valueHex, unusedBits }).toBER(),
  })
}
