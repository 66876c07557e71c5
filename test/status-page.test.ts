/** The status page, in a real browser. */
import assert from 'node:assert/strict'
import http from 'node:http'
import type { Browser, Page } from 'playwright-core'
import { type About, type Moment, statusOf } from '../sidecar/status.ts'
import { STATUS_PAGE_FIELDS, statusPage } from '../sidecar/status-page.ts'
import { Recent, type RecentSnapshot, snapshotOf } from '../sidecar/telemetry/recent.ts'
import { call } from './support/call.ts'
import { contrasts, open, startChromium } from './support/chromium.ts'
import {
  type Pair,
  type Server,
  type Sidecar,
  startPair,
  startServer,
  startSidecar,
  unusedPort,
} from './support/sidecars.ts'
import { suite } from './support/suite.ts'

const test = suite('status page')

const JAEGER = 'http://jaeger.example'

let browser: Browser
let pair: Pair

test.before(async () => {
  browser = await startChromium()
  pair = await startPair(
    (request, response) => {
      response.statusCode = request.url === '/fails' ? 500 : 200
      response.end('done')
    },
    { orders: { JAEGER_UI_URL: JAEGER } },
  )
})

test.after(async () => {
  await pair.close()
  await browser.close()
})

function urlOf(sidecar: Sidecar): string {
  return `http://127.0.0.1:${sidecar.port('admin')}/`
}

/** Waits for the page to say so. */
async function says(page: Page, selector: string, text: string | RegExp): Promise<void> {
  await page.locator(selector).filter({ hasText: text }).first().waitFor()
}

/** Lets the page refresh itself now, as it does when it comes into sight. */
function refresh(page: Page): Promise<void> {
  return page.locator(':root').dispatchEvent('visibilitychange', { bubbles: true })
}

/** Waits until the page has been refreshed. */
async function refreshed(page: Page): Promise<void> {
  const before = await page.locator('#as-of').getAttribute('datetime')
  await refresh(page)
  await page.locator(`#as-of:not([datetime="${before}"])`).waitFor()
}

/** Serves the page of whatever status is set, with what is worst for its looks. */
async function serve(): Promise<Server & { url: string; set(change: Partial<Moment>): void }> {
  let change: Partial<Moment> = {}
  const about: About = {
    name: 'orders',
    version: '1.2.3',
    startedAtMs: 0,
    store: 'redis',
    jaeger: { url: JAEGER, service: 'orders-mte' },
  }
  const recent = recentOf({
    web: [''],
    ['w'.repeat(255)]: ['', '', 'upstream-unreachable'],
    reports: ['message-truncated', '503', 'upstream-timeout'],
  })
  recent.rejects.push({ direction: 'sent', code: 'block_out_of_reach', lastMinute: 1, total: 12 })
  const server = await startServer((_request, response) => {
    const moment: Moment = {
      atMs: Date.now(),
      listening: [{ role: 'inbound', address: '::', port: 8080 }],
      notReady: [],
      degraded: [],
      storeTrouble: undefined,
      collector: { host: `${'collector.'.repeat(20)}example:4318`, trouble: undefined },
      recent,
      pairs: ['audit', 'w'.repeat(255)].map((peer) => ({
        role: 'responder',
        peer,
        secret: 'current',
        ageMs: 1_234_567_890,
        block: 1000,
        messages: 1_048_576,
      })),
      tunnels: { initiator: new Map(), responder: new Map([['web', 16]]) },
      peerName: () => undefined,
      ...change,
    }
    response.writeHead(200, STATUS_PAGE_FIELDS)
    response.end(statusPage(statusOf(about, moment)))
  })
  return { ...server, url: `http://127.0.0.1:${server.port}/`, set: (to) => (change = to) }
}

test('it shows who the sidecar is, since when, that it is ready, and where it listens', async () => {
  const { page } = await open(browser, urlOf(pair.orders))
  assert.equal(await page.title(), 'Ready · orders · mte-sidecar')
  await says(page, 'h1', 'orders')
  await says(page, '#verdict', 'Ready')
  await says(page, '.facts', /Up\s*\d+ s, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/)
  for (const role of ['inbound', 'outbound', 'admin'] as const)
    await says(page, '.facts', new RegExp(`${role} \\S+:${pair.orders.port(role)}`))
  await says(page, '#live', 'Live')
  await page.context().close()
})

test('it follows the calls of both sides, without being loaded again', async () => {
  const orders = await open(browser, urlOf(pair.orders))
  const billing = await open(browser, urlOf(pair.billing))
  const loads = [0, 0]
  for (const [i, { page }] of [orders, billing].entries()) page.on('load', () => loads[i]!++)
  await call(pair.orders.port('outbound'))
  await says(orders.page, '#peers tr', new RegExp(`billing.*${pair.billing.url}.*outbound.*OK.*ms.*s ago`))
  await says(orders.page, '#pairs tr', `${pair.billing.url}initiatorcurrent`)
  await says(billing.page, '#peers tr', /orders.*inbound.*OK.*ms.*s ago/)
  await says(billing.page, '#pairs tr', 'ordersrespondercurrent')
  await call(pair.orders.port('outbound'), { path: '/fails' })
  await says(billing.page, '#peers tr', /orders.*inbound.*Failing.*1 × 500/)
  await says(billing.page, '#verdict', /Degraded\s*Calls from orders fail: 500/)
  assert.deepEqual(loads, [0, 0])
  for (const { page } of [orders, billing]) await page.context().close()
})

test('it tells how many tunnels there are with each peer, until they have ended', async () => {
  const tunnelling = await startPair((_request, response) => response.end('done'), {
    orders: { CARRIAGE: 'tunnel' },
  })
  await call(tunnelling.orders.port('outbound'))
  for (const [sidecar, pair] of [
    [tunnelling.orders, tunnelling.billing.url],
    [tunnelling.billing, 'orders'],
  ] as const) {
    const { page } = await open(browser, urlOf(sidecar))
    const cell = '#peers td[data-column=Tunnels]'
    await says(page, cell, /^1$/)
    const path = `/pairs?peer=${encodeURIComponent(pair)}`
    await call(sidecar.port('admin'), { method: 'DELETE', path, headers: ['host', 'localhost'] })
    await says(page, cell, /^–$/)
    await page.context().close()
    await call(tunnelling.orders.port('outbound'))
  }
  await tunnelling.close()
})

test('it asks for nothing from elsewhere, and keeps to its Content-Security-Policy', async () => {
  const { page, requests, complaints } = await open(browser, urlOf(pair.orders))
  await refreshed(page)
  assert.ok(requests.length >= 2)
  assert.deepEqual(
    [...new Set(requests.map((url) => new URL(url).origin))],
    [new URL(urlOf(pair.orders)).origin],
  )
  assert.deepEqual(complaints, [])
  await page.context().close()
})

test('its Content-Security-Policy lets no other script run, and no other request out', async () => {
  const { page, complaints } = await open(browser, urlOf(pair.orders))
  const ran = await page.locator('body').evaluate(async (body) => {
    const window = body.ownerDocument.defaultView
    const script = body.ownerDocument.createElement('script')
    script.textContent = 'window.ran = true'
    body.append(script)
    const sent = await window.fetch('http://127.0.0.1:1/').then(() => 'sent', String)
    return [window.ran, sent]
  })
  assert.deepEqual(ran, [undefined, 'TypeError: Failed to fetch'])
  assert.match(complaints.join('\n'), /inline script.*Content Security Policy/s)
  assert.match(complaints.join('\n'), /Connecting to 'http:\/\/127\.0\.0\.1:1\/' violates/)
  await page.context().close()
})

test('names of peers are text, whatever they are', async () => {
  const name = `<img src=x onerror="document.title='owned'">&amp;</table>'"`
  const hostile = await startPair((_request, response) => response.end(), { orders: { NAME: name } })
  await call(hostile.orders.port('outbound'))
  for (const javaScriptEnabled of [true, false]) {
    const { page, complaints } = await open(browser, urlOf(hostile.billing), { javaScriptEnabled })
    assert.equal(await page.locator('#peers tbody th bdi').textContent(), name)
    if (javaScriptEnabled) await refreshed(page)
    assert.equal(await page.locator('#peers tbody th bdi').textContent(), name)
    assert.equal(await page.locator('img').count(), 0)
    assert.equal(await page.title(), 'Ready · billing · mte-sidecar')
    assert.deepEqual(complaints, [])
    await page.context().close()
  }
  const own = await open(browser, urlOf(hostile.orders))
  assert.equal(await own.page.locator('h1').textContent(), name)
  await own.page.context().close()
  await hostile.close()
})

test('without JavaScript it shows what was so when it was loaded', async () => {
  await call(pair.orders.port('outbound'))
  const { page } = await open(browser, urlOf(pair.orders), { javaScriptEnabled: false })
  await says(page, '#verdict', 'Ready')
  await says(page, '#peers tr', 'billing')
  assert.equal((await page.locator('.fresh').textContent())!.trim().startsWith('as of '), true)
  await page.context().close()
})

test('the keyboard reaches each link, visibly, and a refresh takes nothing from it', async () => {
  const server = await serve()
  const { page } = await open(browser, server.url)
  const names: string[] = []
  for (let i = 0; i < 4; i++) {
    await page.keyboard.press('Tab')
    const focused = page.locator('a:focus-visible')
    names.push((await focused.textContent())!)
    const outline = await focused.evaluate(
      (link) => link.ownerDocument.defaultView.getComputedStyle(link).outline,
    )
    assert.match(outline, /solid 2px/)
  }
  const peers = ['reports', 'w'.repeat(255), 'web', 'audit']
  assert.deepEqual(
    names,
    peers.map((peer) => `Traces in Jaeger: inbound, ${peer}`),
  )
  await page.locator('#peers a', { hasText: /web$/ }).focus()
  // It moves to the top, and the others away from there.
  server.set({ recent: recentOf({ reports: [''], web: ['503'] }) })
  await says(page, '#peers tbody tr:first-child', 'web')
  assert.match((await page.locator('a:focus').textContent())!, /web$/)
  await page.context().close()
  await server.close()
})

/** @param calls errors of the calls of each peer: empty where it succeeded */
function recentOf(calls: Record<string, string[]>): RecentSnapshot {
  const recent = new Recent(() => 0)
  for (const [peer, errors] of Object.entries(calls))
    for (const error of errors)
      recent.served({ direction: 'inbound', peer, method: 'GET', status: 200, error }, 0.0123)
  return snapshotOf([recent.tally()])
}

test('what is selected stays selected, and a state that is the same is not announced again', async () => {
  const server = await serve()
  server.set({ recent: recentOf({ web: Array(50).fill('') }) })
  const { page } = await open(browser, server.url)
  const selected = () =>
    page.locator('body').evaluate((body): string => body.ownerDocument.getSelection().toString())
  await page.locator('body').evaluate((body) => {
    const [peer, , , rate] = body.querySelector('#peers tbody tr').cells
    body.ownerDocument.getSelection().setBaseAndExtent(peer.firstChild.firstChild, 0, rate.firstChild, 2)
    body.dataset.changes = 0
    const watcher = new body.ownerDocument.defaultView.MutationObserver(() => body.dataset.changes++)
    const all = { subtree: true, childList: true, characterData: true, attributes: true }
    for (const region of body.querySelectorAll('[role=status], [role=alert]')) watcher.observe(region, all)
  })
  assert.match(await selected(), /^web\s*inbound\s*OK\s*50$/)
  server.set({ recent: recentOf({ web: Array(123).fill('') }) })
  await refreshed(page)
  assert.match(await selected(), /^web\s*inbound\s*OK\s*12$/)
  assert.equal(await page.locator('body').getAttribute('data-changes'), '0')
  await page.context().close()
  await server.close()
})

test('it says when the sidecar does not answer any more, and goes on when it does', async () => {
  const port = await unusedPort()
  const leaving = await startSidecar({ NAME: 'leaving', ADMIN_PORT: port })
  const { page } = await open(browser, urlOf(leaving))
  assert.equal(await page.locator('#gone').isVisible(), false)
  const top = await topOf(page)
  await leaving.close()
  await refresh(page)
  await says(page, '#gone', 'No answer')
  assert.equal(await page.locator('#gone').isVisible(), true)
  assert.equal(await page.locator('#verdict').isVisible(), false)
  assert.match(await page.title(), /^No answer · leaving/)
  await says(page, '#age', /last answered \d+ s ago. Last known: Ready/)
  assert.equal(await topOf(page), top)

  // Whoever has its port now is not taken for it.
  const stranger = http.createServer((_request, response) => response.end('<h1>hello</h1>'))
  await new Promise<void>((resolve) => stranger.listen(port, '127.0.0.1', resolve))
  const age = await page.locator('#age').textContent()
  const answered = page.waitForResponse(() => true)
  await refresh(page)
  await answered
  await page.locator('#age').filter({ hasNotText: age! }).waitFor()
  assert.equal(await page.locator('#gone').isVisible(), true)
  stranger.closeAllConnections()
  await new Promise((resolve) => stranger.close(resolve))

  const back = await startSidecar({ NAME: 'leaving', ADMIN_PORT: port })
  await refresh(page)
  await says(page, '#live', 'Live')
  assert.equal(await page.locator('#gone').isVisible(), false)
  assert.equal(await page.locator('#verdict').isVisible(), true)
  assert.match(await page.title(), /^Ready/)
  await page.context().close()
  await back.close()
})

/** Where what is told begins, in pixels. */
function topOf(page: Page): Promise<number> {
  return page.locator('#data').evaluate((data): number => data.getBoundingClientRect().top)
}

test('it says what is degraded, and why it is not ready', async () => {
  const redisUrl = `redis://127.0.0.1:${await unusedPort()}`
  const away = await startSidecar({ NAME: 'away', REDIS_URL: redisUrl })
  const { page } = await open(browser, urlOf(away))
  await says(page, '#verdict.degraded', `Redis at ${redisUrl}`)
  await says(page, '#pairs', 'Not known while the store is away.')
  await away.app.drain()
  await says(page, '#verdict.not-ready', /Not ready\s*draining/)
  assert.match(await page.title(), /^Not ready/)
  await page.context().close()
  await away.close()
})

/** From here on peers are rows of a table, in pixels. */
const TABLE_WIDTH = 1152

test('it fits a phone of 320 pixels, and a wide screen', async () => {
  const server = await serve()
  const trouble = `Redis at rediss://${'redis.'.repeat(40)}example:6379: no answer`
  for (const change of [{}, { degraded: [trouble], storeTrouble: trouble, pairs: undefined }]) {
    server.set(change)
    const { page } = await open(browser, server.url)
    for (const width of [320, 360, 768, 960, TABLE_WIDTH, 1280, 1920]) {
      await page.setViewportSize({ width, height: 640 })
      const { scrollWidth, clientWidth } = await page
        .locator(':root')
        .evaluate(({ scrollWidth, clientWidth }) => ({ scrollWidth, clientWidth }))
      assert.ok(scrollWidth <= clientWidth, `${scrollWidth} px at ${width}`)
    }
    await page.context().close()
  }
  await server.close()
})

test('where peers are a table, the heads of all columns and the links are one line each', async () => {
  const server = await serve()
  const { page } = await open(browser, server.url, { viewport: { width: TABLE_WIDTH, height: 640 } })
  const broken = (): Promise<string[]> =>
    page.locator('body').evaluate((body) =>
      [...body.querySelectorAll('#peers thead th, #peers a')]
        .filter((element) => {
          const range = body.ownerDocument.createRange()
          range.selectNodeContents(element.firstChild)
          return range.getClientRects().length > 1
        })
        .map(({ textContent }) => textContent),
    )
  assert.equal(await page.locator('#peers thead th').count(), 12)
  assert.deepEqual(await broken(), [])
  await page.locator('#peers').evaluate((peers) => peers.style.setProperty('width', '50%'))
  assert.notDeepEqual(await broken(), [])
  await page.context().close()
  await server.close()
})

for (const colorScheme of ['light', 'dark'] as const) {
  test(`every text can be read in ${colorScheme} colours`, async () => {
    const server = await serve()
    const backgrounds = new Set<string>()
    const read = async (page: Page) => {
      const texts = await contrasts(page)
      assert.ok(texts.length > 30)
      assert.deepEqual(
        texts.filter(({ contrast }) => contrast < CONTRAST_MIN),
        [],
      )
      backgrounds.add(
        await page
          .locator('body')
          .evaluate((body) => body.ownerDocument.defaultView.getComputedStyle(body).backgroundColor),
      )
    }
    const { page } = await open(browser, server.url, { colorScheme })
    const changes: [Partial<Moment>, string][] = [
      [{}, 'Degraded'],
      [{ notReady: ['draining'], storeTrouble: 'away', collector: { host: 'a', trouble: 'b' } }, 'Not ready'],
      [{ recent: recentOf({}), pairs: [] }, 'Ready'],
    ]
    for (const [change, word] of changes) {
      server.set(change)
      await refreshed(page)
      await says(page, '#verdict', word)
      await read(page)
    }
    server.set({})
    await refreshed(page)
    await server.close()
    await refresh(page)
    await says(page, '#gone', 'No answer')
    await read(page)
    assert.equal(backgrounds.size, 1)
    const [lightness] = /\d+/.exec([...backgrounds][0]!)!
    assert.equal(Number(lightness) > 128, colorScheme === 'light')
    await page.context().close()
  })
}

/** WCAG 2.2 success criterion 1.4.3, level AA. */
const CONTRAST_MIN = 4.5

test.run()
