import assert from 'node:assert/strict'
import type { Fields } from '../sidecar/call.ts'
import { type ErrorCode, SidecarError } from '../sidecar/errors.ts'
import { checkResponseHead } from '../sidecar/http/fields.ts'
import { OutboundToken, PROXY_AUTHENTICATE } from '../sidecar/outbound-token.ts'
import { suite } from './support/suite.ts'

const test = suite('outbound-token')
const TOKEN = 'correct:horse+battery/staple=='
const PREVIOUS = 'old-token'

const own = (token: string): Fields => ['x-mte-outbound-token', token]
const proxy = (value: string): Fields => ['proxy-authorization', value]
const basic = (credentials: string) => `Basic ${Buffer.from(credentials).toString('base64')}`

/** The three forms of one token. */
const forms = (token: string): Fields[] => [
  own(token),
  proxy(`Bearer ${token}`),
  proxy(`bearer   ${token}`),
  proxy(basic(`app:${token}`)),
  proxy(basic(`:${token}`)),
  proxy(basic(`app:${token}`).replace('Basic', 'BASIC').replace(/=+$/, '')),
]

function refuses(token: OutboundToken, fields: Fields, code: ErrorCode, why = JSON.stringify(fields)): void {
  for (const [asProxy, status] of [
    [false, 401],
    [true, 407],
  ] as const) {
    assert.throws(
      () => token.check(fields, asProxy),
      (error) => error instanceof SidecarError && error.code === code && error.status === status,
      why,
    )
  }
}

test('the token is taken in each of its forms', () => {
  const token = new OutboundToken([TOKEN])
  for (const fields of forms(TOKEN)) {
    token.check(fields, false)
    token.check(['a', '1', ...fields], true)
  }
})

test('the previous token is taken too', () => {
  const token = new OutboundToken([TOKEN, PREVIOUS])
  for (const one of [TOKEN, PREVIOUS]) for (const fields of forms(one)) token.check(fields, false)
  for (const fields of forms('older-token')) refuses(token, fields, 'token-wrong')
})

test('another token is refused in each of its forms', () => {
  const token = new OutboundToken([TOKEN])
  for (const wrong of ['x', TOKEN.slice(0, -1), `${TOKEN}=`, TOKEN.toUpperCase(), PREVIOUS, 'é']) {
    for (const fields of forms(wrong)) refuses(token, fields, 'token-wrong')
  }
  refuses(token, own(''), 'token-wrong')
  refuses(token, own(` ${TOKEN}`), 'token-wrong')
  refuses(token, proxy(basic('app:')), 'token-wrong')
  refuses(token, proxy(basic(`${TOKEN}:app`)), 'token-wrong')
})

test('a call that shows none is refused, and so is what cannot be read as one', () => {
  const token = new OutboundToken([TOKEN])
  refuses(token, [], 'token-missing')
  refuses(token, ['authorization', `Bearer ${TOKEN}`], 'token-missing')
  for (const value of [
    '',
    TOKEN,
    'Bearer',
    'Bearer ',
    `Bearer ${TOKEN} ${TOKEN}`,
    `Digest ${TOKEN}`,
    'Basic',
    'Basic !!!!',
    'Basic ====',
    basic('no colon'),
    'Basic \x00\xff',
    `Basic ${'A'.repeat(100_000)}`,
  ]) {
    refuses(token, proxy(value), 'token-missing', value)
  }
})

test('the field of its own goes first', () => {
  const token = new OutboundToken([TOKEN])
  token.check([...proxy('Bearer wrong'), ...own(TOKEN)], false)
  refuses(token, [...proxy(`Bearer ${TOKEN}`), ...own('wrong')], 'token-wrong')
})

test('where no token is set none is asked for', () => {
  const token = new OutboundToken([])
  assert.equal(token.required, false)
  assert.equal(new OutboundToken([TOKEN]).required, true)
  for (const fields of [[], own('anything'), proxy('Basic !!!!')]) token.check(fields, true)
})

test('a refusal holds neither the token nor what was shown, and asks for it as a proxy does', () => {
  const token = new OutboundToken([TOKEN])
  assert.throws(
    () => token.check(own('hunter2'), true),
    (error) =>
      error instanceof SidecarError && !/hunter2|horse/.test(`${error.stack}${JSON.stringify(error)}`),
  )
  assert.ok(!JSON.stringify(token).includes('horse'))
  checkResponseHead({ status: 407, fields: PROXY_AUTHENTICATE }, 65536)
  assert.deepEqual(
    PROXY_AUTHENTICATE.filter((_item, i) => i % 2 === 1).map((value) => value.split(' ')[0]),
    ['Basic', 'Bearer'],
  )
})

test.run()
