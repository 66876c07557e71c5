import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { echoOf, parseReject, REJECTS, type RejectName, rejectRecord } from '../../sidecar/pair/reject.ts'
import { suite } from '../support/suite.ts'
import { flipped, hex, identity, relay1, sameBytes } from './vectors.ts'

const test = suite('pair/reject')

const before = 'the one before: 0123456789 0123456789'
const { secrets } = await identity('payments')
const { secrets: ours } = await identity('orders')
const echo = echoOf(Buffer.from('message'), 'message')
const sample = {
  name: 'state_lost',
  secret: secrets[0]!,
  echo,
  timeMs: relay1.time_ms,
  storeAgeMs: 7,
} as const

test('makes and reads the records of the vectors', () => {
  assert.equal(relay1.rejects.length, 5)
  for (const { name: text, code, echo, time_ms, store_age_ms, record } of relay1.rejects) {
    const name = /^\w+/.exec(text)![0] as RejectName
    assert.equal(REJECTS[name].byte, code)
    const told = { name, timeMs: time_ms, storeAgeMs: store_age_ms }
    assert.equal(rejectRecord({ ...told, secret: secrets[0]!, echo: hex(echo) }).toString('hex'), record)
    assert.deepEqual(parseReject(hex(record), ours, hex(echo)), { ...told, authentic: true })
  }
})

test('echoes the header of a message, or an m1, as far as it came', () => {
  const echoes = relay1.rejects.map(({ echo }) => echo)
  const messages = relay1.messages.map(({ message }) => echoOf(hex(message), 'message').toString('hex'))
  assert.ok(messages.includes(echoes[0]!))
  const cut = relay1.messages.map(({ header }) =>
    echoOf(hex(header).subarray(0, 20), 'message').toString('hex'),
  )
  assert.ok(cut.includes(echoes[3]!))
  const m1 = hex(relay1.pairing.m1)
  assert.equal(echoOf(m1, 'pairing').toString('hex'), echoes[4])
  assert.equal(echoOf(Buffer.concat([m1, m1]), 'pairing').toString('hex'), echoes[4])
  sameBytes(echoOf(Buffer.alloc(0), 'message'), hash('sha256', '', 'buffer'))
})

test('has a row for each code, with its status', () => {
  const rows = Object.values(REJECTS).map(({ byte, status }) => [byte, status])
  const statuses = [421, 421, 421, 409, 400, 400, 400, 401, 403, 400, 429, 503, 413]
  assert.deepEqual(
    rows,
    statuses.map((status, i) => [i + 1, status]),
  )
})

test('tells every reject', () => {
  for (const name of Object.keys(REJECTS) as RejectName[]) {
    const record = rejectRecord({ ...sample, name })
    assert.equal(record.length, 76)
    assert.deepEqual(parseReject(record, ours, echo), {
      name,
      authentic: true,
      timeMs: relay1.time_ms,
      storeAgeMs: 7,
    })
  }
})

test('believes no record that is about something else, or under a secret that it has not', async () => {
  const record = rejectRecord(sample)
  assert.equal(parseReject(record, ours, echoOf(Buffer.from('other'), 'message'))?.authentic, false)
  assert.equal(parseReject(record, [], echo)?.authentic, false)
  const { secrets: older } = await identity('orders', before)
  assert.equal(parseReject(record, older, echo)?.authentic, false)
  const { secrets: both } = await identity('orders', before, relay1.secret)
  assert.equal(parseReject(record, both, echo)?.authentic, true)
})

test('believes no record with any bit turned over, and reads none of another length', () => {
  const record = rejectRecord(sample)
  for (let bit = 0; bit < 8 * record.length; bit++) {
    assert.ok(!parseReject(flipped(record, bit), ours, echo)?.authentic)
  }
  for (let length = 0; length < record.length; length++) {
    assert.equal(parseReject(record.subarray(0, length), ours, echo), undefined)
  }
  assert.equal(parseReject(Buffer.concat([record, Buffer.alloc(1)]), ours, echo), undefined)
})

test('reads nothing that is no record', () => {
  const changed = (at: number, value: number) =>
    parseReject(Buffer.from(rejectRecord(sample)).fill(value, at, at + 1), ours, echo)
  assert.ok(changed(0, 1))
  for (const [at, value] of [
    [0, 2],
    [1, 0x11],
    [2, 0],
    [2, 0x0e],
    [3, 1],
  ] as const)
    assert.equal(changed(at, value), undefined)
})

test('rounds ages down, and keeps to what a number can hold', () => {
  const told = (timeMs: number, storeAgeMs: number) =>
    parseReject(rejectRecord({ ...sample, timeMs, storeAgeMs }), ours, echo)!
  assert.equal(told(1, 1007.9).storeAgeMs, 1007)
  assert.equal(told(-5, 0).timeMs, 0)
  assert.equal(told(2 ** 70, 0).timeMs, Number.MAX_SAFE_INTEGER)
  const record = rejectRecord(sample).fill(0xff, 44, 52)
  assert.equal(parseReject(record, ours, echo)?.timeMs, Number.MAX_SAFE_INTEGER)
})

test.run()
