import assert from 'node:assert/strict'
import { FORMATS, Mistake } from '../sidecar/formats.ts'
import { Routes } from '../sidecar/routes.ts'
import { suite } from './support/suite.ts'

const test = suite('routes')

function routes(peers: string, plain = ''): Routes {
  return new Routes(peers === '' ? [] : FORMATS.peers(peers), plain === '' ? [] : FORMATS.authorities(plain))
}

function url(routes: Routes, authority: string, scheme = 'http'): string | undefined {
  const route = routes.find(authority, scheme)
  return route?.kind === 'peer' ? route.url : undefined
}

test('an authority that is listed goes to its peer, any other is refused', () => {
  const table = routes('billing=http://billing-mte:7781,orders=https://o.example/base/')
  assert.deepEqual(table.find('billing', 'http'), { kind: 'peer', url: 'http://billing-mte:7781' })
  assert.equal(url(table, 'orders'), 'https://o.example/base')
  for (const authority of [
    'bill',
    'billing2',
    'a.billing',
    'billing.a',
    'payments',
    'localhost',
    '127.0.0.1',
  ]) {
    assert.equal(table.find(authority, 'http'), undefined, authority)
  }
  assert.equal(routes('').find('billing', 'http'), undefined)
})

test('what is no host[:port] has no route, whatever the patterns', () => {
  const table = routes('*=http://peer', '*.plain')
  assert.equal(url(table, 'anything'), 'http://peer')
  for (const authority of [
    '',
    ':80',
    'a b',
    'a/b',
    'u@a',
    'a:0',
    'a:65536',
    'a:b',
    'a:80:80',
    '[::1',
    '::1',
    '*',
    '.plain',
    'a\r\nb',
    'a?b',
    '$&',
    '{host}',
  ]) {
    assert.equal(table.find(authority, 'http'), undefined, authority)
  }
})

test('a name with a port is that port alone, a name without one is every port', () => {
  const table = routes(
    'billing:9000=http://nine,billing=http://any,secure:443=http://tls,web:80=http://plain',
  )
  assert.equal(url(table, 'billing:9000'), 'http://nine')
  for (const authority of ['billing', 'billing:80', 'billing:9001'])
    assert.equal(url(table, authority), 'http://any')
  assert.equal(url(table, 'secure', 'https'), 'http://tls')
  assert.equal(url(table, 'secure', 'http'), undefined)
  assert.equal(url(table, 'web', 'http'), 'http://plain')
  assert.equal(url(table, 'web', 'https'), undefined)
  assert.equal(url(table, 'web:80', 'https'), 'http://plain')
})

test('a name comes before patterns, and a longer pattern before a shorter one, in whatever order they are listed', () => {
  const entries = [
    '*=http://all',
    '*.shop=http://shop',
    '*.eu.shop=http://eu',
    'a.eu.shop=http://a',
    '*.shop:9000=http://shop-nine',
    'a-very-long-prefix-*=http://prefix',
  ]
  for (const list of [entries, entries.toReversed()]) {
    const table = routes(list.join(','))
    assert.equal(url(table, 'a.eu.shop'), 'http://a')
    assert.equal(url(table, 'a.eu.shop:9000'), 'http://a')
    assert.equal(url(table, 'b.eu.shop'), 'http://eu')
    assert.equal(url(table, 'b.eu.shop:9000'), 'http://eu')
    assert.equal(url(table, 'b.us.shop'), 'http://shop')
    assert.equal(url(table, 'b.us.shop:9000'), 'http://shop-nine')
    assert.equal(url(table, 'a-very-long-prefix-x.eu.shop'), 'http://prefix')
    assert.equal(url(table, 'elsewhere'), 'http://all')
  }
})

test('a star stands for one character or more, dots included', () => {
  const table = routes('*.shop=http://shop,api-*-eu=http://api')
  for (const authority of ['a.shop', 'a.b.shop']) assert.equal(url(table, authority), 'http://shop')
  for (const authority of ['shop', 'ashop', 'a.shops', 'a.shop.b'])
    assert.equal(url(table, authority), undefined)
  assert.equal(url(table, 'api-1-eu'), 'http://api')
  for (const authority of ['api-eu', 'api--eu', 'xapi-1-eu'])
    assert.equal(url(table, authority), undefined, authority)
})

test('case and a dot at the end make no difference', () => {
  const table = routes('Billing.Example=http://one,*.SHOP.=http://two,c.example.:80=http://three')
  for (const authority of ['billing.example', 'BILLING.example.', 'Billing.Example.:8080']) {
    assert.equal(url(table, authority), 'http://one', authority)
  }
  assert.equal(url(table, 'A.Shop.'), 'http://two')
  assert.equal(url(table, 'C.EXAMPLE'), 'http://three')
  assert.equal(url(table, 'billing.example..'), undefined)
})

test('an IPv6 address is the same in every spelling', () => {
  const table = routes('[2001:db8::1]=http://one,[::1]:9000=http://two')
  for (const authority of ['[2001:db8::1]', '[2001:DB8:0:0:0:0:0:1]:80', '[2001:0db8::0001]']) {
    assert.equal(url(table, authority), 'http://one', authority)
  }
  assert.equal(url(table, '[0:0::1]:9000'), 'http://two')
  assert.equal(url(table, '[::1]'), undefined)
  assert.equal(url(table, '2001:db8::1'), undefined)
})

test('{host} and {port} are those that were called', () => {
  const table = routes(
    '*.shop=http://{host}:{port},*.k8s=https://relay.{host}/{port}/x,[::1]=http://{host}:{port}',
  )
  assert.equal(url(table, 'A.Shop:9000'), 'http://a.shop:9000')
  assert.equal(url(table, 'a.shop'), 'http://a.shop:80')
  assert.equal(url(table, 'a.shop', 'https'), 'http://a.shop:443')
  assert.equal(url(table, 'a.k8s:1'), 'https://relay.a.k8s/1/x')
  assert.equal(url(table, '[0::1]:5'), 'http://[::1]:5')
})

test('an authority that is passed through is called itself', () => {
  const table = routes('billing=http://peer', 'metrics,*.amazonaws.com:443')
  assert.deepEqual(table.find('Metrics', 'http'), { kind: 'plain', origin: 'http://metrics:80' })
  assert.deepEqual(table.find('metrics:9090', 'http'), { kind: 'plain', origin: 'http://metrics:9090' })
  assert.deepEqual(table.find('s3.amazonaws.com', 'https'), {
    kind: 'plain',
    origin: 'https://s3.amazonaws.com:443',
  })
  assert.equal(table.find('s3.amazonaws.com', 'http'), undefined)
  assert.equal(table.find('billing', 'http')?.kind, 'peer')
})

test('a pattern of peers is no way around a name that is passed through, nor the other way round', () => {
  const table = routes('*.shop=http://peer,secret.example=http://secret', 'open.shop,*.example')
  assert.equal(table.find('open.shop', 'http')?.kind, 'plain')
  assert.equal(table.find('a.shop', 'http')?.kind, 'peer')
  assert.equal(table.find('secret.example', 'http')?.kind, 'peer')
  assert.equal(table.find('a.example', 'http')?.kind, 'plain')
})

test('peers of a file replace those that came before, and leave the others', () => {
  const table = routes('billing=http://one')
  table.setFilePeers(FORMATS.peers('orders=http://two,users=http://three'))
  assert.deepEqual(
    ['billing', 'orders', 'users'].map((name) => url(table, name)),
    ['http://one', 'http://two', 'http://three'],
  )
  table.setFilePeers(FORMATS.peers('orders=http://four'))
  assert.deepEqual(
    ['billing', 'orders', 'users'].map((name) => url(table, name)),
    ['http://one', 'http://four', undefined],
  )
})

test('an authority that is named twice is a mistake, and the peers stay as they were', () => {
  const table = routes('billing=http://one', 'open')
  table.setFilePeers(FORMATS.peers('orders=http://two'))
  for (const text of ['billing=http://x', 'Billing.=http://x', 'open=http://x', 'a=http://x,a=http://y']) {
    assert.throws(() => table.setFilePeers(FORMATS.peers(text)), Mistake, text)
    assert.deepEqual(
      ['billing', 'orders', 'a'].map((name) => url(table, name)),
      ['http://one', 'http://two', undefined],
    )
    assert.equal(table.find('open', 'http')?.kind, 'plain')
  }
  assert.throws(() => routes('a=http://x,A=http://y'), Mistake)
  assert.throws(() => routes('a=http://x', 'a'), Mistake)
  table.setFilePeers(FORMATS.peers('billing:80=http://x'))
  assert.equal(url(table, 'billing'), 'http://x')
})

test.run()
