import assert from 'node:assert/strict'
import type { Fields, RequestHead } from '../sidecar/call.ts'
import { Cors, type CorsOptions } from '../sidecar/cors.ts'
import { checkResponseHead } from '../sidecar/http/fields.ts'
import { suite } from './support/suite.ts'

const test = suite('cors')
const OPTIONS: CorsOptions = {
  origins: ['https://app.example', 'http://localhost:3000'],
  methods: ['GET', 'POST'],
  allowedHeaders: undefined,
}
const ALLOW_ORIGIN = 'access-control-allow-origin'

function preflight(fields: Fields, method = 'OPTIONS'): RequestHead {
  return { method, scheme: 'http', authority: 'billing', path: '/a', fields }
}

const asked = (origin: string) => preflight(['origin', origin, 'access-control-request-method', 'PUT'])

/** The fields of an answer by name; those that come more than once are joined. */
function byName(fields: Fields | undefined): Record<string, string> {
  assert.ok(fields)
  const found: Record<string, string> = {}
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!
    found[name] = name in found ? `${found[name]}, ${fields[i + 1]}` : fields[i + 1]!
  }
  return found
}

test('a preflight of an allowed origin is told what it may do', () => {
  const cors = new Cors(OPTIONS)
  for (const origin of OPTIONS.origins) {
    const head = preflight([...asked(origin).fields, 'access-control-request-headers', 'x-a, content-type'])
    const answer = cors.preflight(head)
    assert.equal(answer?.head.status, 200)
    assert.deepEqual(byName(answer?.head.fields), {
      vary: 'Origin, Access-Control-Request-Method, Access-Control-Request-Headers',
      'content-length': '0',
      [ALLOW_ORIGIN]: origin,
      'access-control-allow-methods': 'GET, POST',
      'access-control-allow-headers': 'x-a, content-type',
      'access-control-max-age': '600',
    })
    checkResponseHead(answer!.head, 65536)
    assert.equal(answer?.body.whole(0)?.length, 0)
  }
  assert.ok(
    !('access-control-allow-headers' in byName(cors.preflight(asked('https://app.example'))?.head.fields)),
  )
})

test('a preflight of any other origin is answered and allows nothing', () => {
  const cors = new Cors(OPTIONS)
  for (const origin of [
    'https://evil.example',
    'https://app.example.evil',
    'https://APP.example',
    'http://app.example',
    'https://app.example:443',
    'http://localhost',
    'null',
    '*',
    '',
  ]) {
    const answer = cors.preflight(asked(origin))
    assert.deepEqual(Object.keys(byName(answer?.head.fields)), ['vary', 'content-length'], origin)
  }
})

test('the headers that are configured are allowed, whatever is asked for', () => {
  const cors = new Cors({ ...OPTIONS, allowedHeaders: ['x-a', 'authorization'] })
  for (const more of [[], ['access-control-request-headers', 'x-evil']]) {
    const answer = cors.preflight(preflight([...asked('https://app.example').fields, ...more]))
    assert.equal(byName(answer?.head.fields)['access-control-allow-headers'], 'x-a, authorization')
  }
})

test('what is no preflight is not answered', () => {
  const cors = new Cors(OPTIONS)
  const { fields } = asked('https://app.example')
  assert.equal(cors.preflight(preflight(fields, 'GET')), undefined)
  assert.equal(cors.preflight(preflight(fields.slice(0, 2))), undefined)
  assert.equal(cors.preflight(preflight(fields.slice(2))), undefined)
  assert.equal(cors.preflight(preflight([])), undefined)
})

test('without origins nothing is answered and nothing is added', () => {
  const cors = new Cors({ ...OPTIONS, origins: [] })
  const head = { status: 200, fields: ['a', '1'] }
  assert.equal(cors.preflight(asked('https://app.example')), undefined)
  assert.equal(cors.decorate(head, 'https://app.example'), head)
  assert.deepEqual(cors.fields('https://app.example'), [])
})

test('an answer says that its origin may read it, and that another may not have it from a cache', () => {
  const cors = new Cors(OPTIONS)
  const head = { status: 404, fields: ['a', '1'] }
  assert.deepEqual(cors.decorate(head, 'https://app.example'), {
    status: 404,
    fields: ['a', '1', ALLOW_ORIGIN, 'https://app.example', 'vary', 'Origin'],
  })
  for (const origin of ['https://evil.example', undefined]) {
    assert.deepEqual(cors.decorate(head, origin).fields, ['a', '1', 'vary', 'Origin'])
  }
  assert.deepEqual(head, { status: 404, fields: ['a', '1'] })
})

test("an app's own word on who may read its answer is replaced", () => {
  const cors = new Cors(OPTIONS)
  const head = { status: 200, fields: [ALLOW_ORIGIN, '*', 'a', '1', ALLOW_ORIGIN, 'https://evil.example'] }
  assert.equal(byName(cors.decorate(head, 'https://app.example').fields)[ALLOW_ORIGIN], 'https://app.example')
  assert.ok(!(ALLOW_ORIGIN in byName(cors.decorate(head, 'https://evil.example').fields)))
})

test('what an answer varies by stays', () => {
  const cors = new Cors(OPTIONS)
  const head = { status: 200, fields: ['vary', 'Accept-Encoding', 'vary', 'Cookie, Accept'] }
  for (const origin of ['https://app.example', undefined]) {
    assert.equal(byName(cors.decorate(head, origin).fields).vary, 'Accept-Encoding, Cookie, Accept, Origin')
  }
})

test('with * every origin may read, and the answer is the same for all', () => {
  const cors = new Cors({ ...OPTIONS, origins: ['*'] })
  for (const origin of ['https://evil.example', 'null', undefined]) {
    assert.deepEqual(cors.fields(origin), [ALLOW_ORIGIN, '*'])
  }
  assert.equal(byName(cors.preflight(asked('https://any.example'))?.head.fields)[ALLOW_ORIGIN], '*')
})

test.run()
