/** Heads and fields that have to pass the checks, or to be refused. */
import assert from 'node:assert/strict'
import type { Fields, RequestHead } from '../../sidecar/call.ts'
import { checkRequestHead, checkResponseHead, checkTrailers, HeadError } from '../../sidecar/http/fields.ts'

/** For the heads of tests. */
export const BYTES_MAX = 65536

/** A head that passes all checks, with some changes. */
export const request = (changes: Partial<RequestHead> = {}): RequestHead => ({
  method: 'GET',
  scheme: 'https',
  authority: 'example.com',
  path: '/',
  fields: [],
  ...changes,
})

/** Asserts that a request with these changes is refused. */
export function refusesRequest(changes: Partial<RequestHead>, kind: HeadError['kind'] = 'malformed'): void {
  refuses(() => checkRequestHead(request(changes), BYTES_MAX), kind, JSON.stringify(changes))
}

/** Asserts that a head with these fields is refused, and so are trailers. */
export function refusesFields(fields: Fields, kind: HeadError['kind'] = 'malformed'): void {
  refusesRequest({ fields }, kind)
  refuses(() => checkResponseHead({ status: 200, fields }, BYTES_MAX), kind)
  refuses(() => checkTrailers(fields, BYTES_MAX), kind)
}

/** Asserts that a head with these fields passes as it is, and so do trailers. */
export function passesFields(fields: Fields): void {
  assert.deepEqual(checkRequestHead(request({ fields }), BYTES_MAX), request({ fields }))
  checkResponseHead({ status: 200, fields }, BYTES_MAX)
  checkTrailers(fields, BYTES_MAX)
}

/** Asserts that a check refuses what it is given. */
export function refuses(check: () => unknown, kind: HeadError['kind'], what?: string): void {
  assert.throws(check, (error) => error instanceof HeadError && error.kind === kind, what)
}
