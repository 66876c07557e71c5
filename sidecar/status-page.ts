/** The status page: one page without anything from elsewhere, complete without its script, which only keeps it fresh. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Fields } from './call.ts'
import { printable } from './printable.ts'
import type { PeerState, PeerStatus, Status } from './status.ts'
import type { Figures } from './telemetry/recent.ts'

const STYLE = readFileSync(new URL('./status-page.css', import.meta.url), 'utf8')
const SCRIPT = readFileSync(new URL('./status-refresh.js', import.meta.url), 'utf8')

/** Names of peers are of others: should one of them ever become markup, it still could do nothing. */
const POLICY = [
  "default-src 'none'",
  `script-src ${hashOf(SCRIPT)}`,
  `style-src ${hashOf(STYLE)}`,
  'img-src data:',
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** More pairs than these are only counted. */
const PAIRS_SHOWN_MAX = 50

/** What its answer says of it. */
export const STATUS_PAGE_FIELDS: Fields = [
  ['content-type', 'text/html; charset=utf-8'],
  ['content-security-policy', POLICY],
  ['x-content-type-options', 'nosniff'],
  ['referrer-policy', 'no-referrer'],
  ['cross-origin-opener-policy', 'same-origin'],
  ['cross-origin-resource-policy', 'same-origin'],
].flat()

/** The page, as it is now. */
export function statusPage(status: Status): string {
  return page(status).text
}

/** Markup; nothing else is ever taken for it. */
class Html {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

type Value = string | number | Html | Html[]

/** Markup with values in it, which are escaped unless they are markup. */
function html(literals: TemplateStringsArray, ...values: Value[]): Html {
  return new Html(String.raw({ raw: literals }, ...values.map(markup)))
}

function markup(value: Value): string {
  if (value instanceof Html) return value.text
  if (Array.isArray(value)) return value.map(({ text }) => text).join('')
  return printable(String(value)).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}

const EMPTY = html``

function page(status: Status): Html {
  const { level, word, reasons } = verdict(status)
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${word} · ${status.name} · mte-sidecar</title>
<link rel="icon" href="data:image/svg+xml,${encodeURIComponent(icon(level))}">
<style>${new Html(STYLE)}</style>
</head>
<body>
<main>
<header>
<h1>${bidi(status.name)}</h1>
<p class="about">mte-sidecar ${status.version}</p>
<p class="about fresh"><span id="live" role="status"></span> as of <time id="as-of" datetime="${iso(status.atMs)}">${clock(status.atMs)}</time></p>
</header>
<div class="banners">
<section class="banner ${level}" id="verdict" role="status">
<h2>${word}</h2>
${reasons.length === 0 ? html`<p>Takes calls.</p>` : html`<ul>${reasons.map((reason) => html`<li>${reason}</li>`)}</ul>`}
</section>
<section class="banner gone"><h2 id="gone" role="alert"></h2><p id="age"></p></section>
</div>
<div id="data">
${facts(status)}
${totals(status)}
${peersTable(status)}
${pairsTable(status)}
<div class="columns">
${rejectsTable(status)}
${storeSection(status)}
${collectorSection(status)}
</div>
</div>
</main>
<script>${new Html(SCRIPT)}</script>
</body>
</html>
`
}

type Level = 'ready' | 'degraded' | 'not-ready'

/** What is to be read first. */
function verdict({ notReady, degraded, peers }: Status): { level: Level; word: string; reasons: string[] } {
  // An app that calls what has no peer here is not in this sidecar's hands.
  const failing = peers.filter(({ state, peer }) => state === 'failing' && peer !== '').map(failure)
  const reasons = [...notReady, ...degraded, ...failing]
  if (notReady.length > 0) return { level: 'not-ready', word: 'Not ready', reasons }
  if (reasons.length > 0) return { level: 'degraded', word: 'Degraded', reasons }
  return { level: 'ready', word: 'Ready', reasons }
}

function failure(one: PeerStatus): string {
  const { direction, failures } = one
  const codes = failures.map(({ code }) => code).join(', ')
  return `Calls ${direction === 'outbound' ? 'to' : 'from'} ${called(one)} fail: ${codes}`
}

/** What a peer is called; calls that no route had a peer for are a row, too. */
function called({ name, peer }: PeerStatus): string {
  return name ?? (peer === '' ? 'no known peer' : peer)
}

function facts({ startedAtMs, atMs, listening }: Status): Html {
  const ports = listening.map(
    ({ role, address, port }) => html`${role} <code>${hostPort(address, port)}</code>`,
  )
  return html`<dl class="facts">
<div><dt>Up</dt><dd>${ago((atMs - startedAtMs) / 1000)}, since <time datetime="${iso(startedAtMs)}">${moment(startedAtMs)}</time></dd></div>
<div><dt>Listens</dt><dd>${ports.map((port, i) => html`${i === 0 ? '' : ', '}${port}`)}</dd></div>
</dl>`
}

function totals({ all }: Status): Html {
  const total = (title: string, { callsPerSecond, p50Seconds, p99Seconds, failures }: Figures) => html`
<section class="total">
<h2>${title} <small>last minute</small></h2>
<dl>
<div><dt>calls/s</dt><dd>${rate(callsPerSecond)}</dd></div>
<div><dt>p50</dt><dd>${latency(p50Seconds)}</dd></div>
<div><dt>p99</dt><dd>${latency(p99Seconds)}</dd></div>
<div><dt>failed</dt><dd class="${failures.length > 0 ? 'bad' : 'none'}">${count(sumOf(failures))}</dd></div>
</dl>
</section>`
  return html`<div class="totals">${[total('Outbound', all.outbound), total('Inbound', all.inbound)]}</div>`
}

const STATES: Record<PeerState, string> = {
  ok: 'OK',
  failures: 'Some fail',
  failing: 'Failing',
  idle: 'Idle',
}

function peersTable({ peers }: Status): Html {
  const linked = peers.some(({ tracesUrl }) => tracesUrl !== undefined)
  const columns = [
    'Peer',
    'Direction',
    'State',
    '#Calls/s',
    '#p50',
    '#p99',
    'Failed',
    'Last failure',
    '#Last OK',
    '#Pairs',
    '#Tunnels',
    ...(linked ? ['Jaeger'] : []),
  ]
  const rows = peers.map((one) => {
    const { direction, name, peer, state, lastFailure, lastSuccessSeconds, pairs, tunnels, tracesUrl } = one
    const place = name === undefined || name === peer ? EMPTY : html`<small>${bidi(peer)}</small>`
    const failed = one.failures.map(
      ({ code, count: times }) => html`<span class="code">${count(times)} × ${code}</span> `,
    )
    const link = tracesUrl === undefined ? [] : [traces(tracesUrl, one)]
    return row(`${direction} ${peer}`, columns, [
      html`${bidi(called(one))}${place}`,
      direction,
      html`<span class="state ${state}">${STATES[state]}</span>`,
      rate(one.callsPerSecond),
      latency(one.p50Seconds),
      latency(one.p99Seconds),
      failed.length === 0 ? NONE : html`${failed}`,
      lastFailure ? `${ago(lastFailure.secondsAgo)} ago: ${lastFailure.code}` : NONE,
      lastSuccessSeconds === undefined ? NONE : `${ago(lastSuccessSeconds)} ago`,
      pairs === undefined ? '?' : count(pairs),
      tunnels === 0 ? NONE : count(tunnels),
      ...link,
    ])
  })
  return table('peers', 'Peers', 'calls of the last minute', columns, rows, 'No calls and no pairs yet.')
}

function traces(url: string, one: PeerStatus): Html {
  return html`<a href="${url}">Traces<span class="unseen"> in Jaeger: ${one.direction}, ${called(one)}</span></a>`
}

function pairsTable({ pairs }: Status): Html {
  const columns = ['Peer', 'Role', 'Secret', '#Age', '#Messages', '#Block']
  const rows = (pairs ?? [])
    .slice(0, PAIRS_SHOWN_MAX)
    .map(({ peer, role, secret, ageMs, messages, block }) =>
      row('', columns, [bidi(peer), role, secret, ago(ageMs / 1000), count(messages), count(block)]),
    )
  const more = (pairs?.length ?? 0) - rows.length
  const note =
    pairs === undefined
      ? ''
      : `${count(pairs.length)}${more > 0 ? `, ${count(rows.length)} of them here` : ''}`
  const none = pairs === undefined ? 'Not known while the store is away.' : 'None.'
  return table('pairs', 'Pairs', note, columns, rows, none)
}

function rejectsTable({ rejects }: Status): Html {
  const columns = ['Code', 'By', '#Last minute', '#Since start']
  const rows = rejects.map(({ code, direction, lastMinute, total }) =>
    row(`${direction} ${code}`, columns, [
      code,
      direction === 'sent' ? 'this sidecar' : 'the peer',
      lastMinute === 0 ? NONE : count(lastMinute),
      count(total),
    ]),
  )
  return table('rejects', 'Rejects', 'messages and pairings refused', columns, rows, 'None.')
}

function storeSection({ store, storeTrouble }: Status): Html {
  const kind = store === 'redis' ? 'Redis' : 'Memory of this process'
  return html`<section>
<h2>Store</h2>
<p><span class="state ${storeTrouble === undefined ? 'ok' : 'failing'}">${storeTrouble === undefined ? 'OK' : 'Away'}</span> ${kind}</p>
${storeTrouble === undefined ? EMPTY : html`<p>${storeTrouble}</p>`}
</section>`
}

function collectorSection({ collector: { host, trouble } }: Status): Html {
  if (host === undefined)
    return html`<section><h2>Collector</h2><p><span class="state idle">Off</span> Nothing is exported.</p></section>`
  return html`<section>
<h2>Collector</h2>
<p><span class="state ${trouble === undefined ? 'ok' : 'failing'}">${trouble === undefined ? 'OK' : 'Failing'}</span> <code>${host}</code></p>
${trouble === undefined ? EMPTY : html`<p>${trouble}</p>`}
</section>`
}

/** @param columns of numbers begin with # */
function table(id: string, title: string, note: string, columns: string[], rows: Html[], none: string): Html {
  const heading = html`<h2>${title}${note === '' ? EMPTY : html` <small>${note}</small>`}</h2>`
  if (rows.length === 0) return html`<section id="${id}">${heading}<p class="none">${none}</p></section>`
  const heads = columns.map(
    (column) => html`<th role="columnheader" scope="col"${kind(column)}>${column.replace('#', '')}</th>`,
  )
  // The roles say what it is where it is laid out as something else: on a phone, rows are blocks.
  return html`<section id="${id}">
<table role="table">
<caption>${heading}</caption>
<thead role="rowgroup"><tr role="row">${heads}</tr></thead>
<tbody role="rowgroup">${rows}</tbody>
</table>
</section>`
}

/** @param key by which it is known again at the next refresh; empty: by its place */
function row(key: string, columns: string[], [first, ...cells]: [Value, ...Value[]]): Html {
  const rest = cells.map((cell, i) => {
    const column = columns[i + 1]!
    return html`<td role="cell" data-column="${column.replace('#', '')}"${kind(column)}>${cell}</td>`
  })
  return html`<tr role="row" data-key="${key}"><th role="rowheader" scope="row">${first}</th>${rest}</tr>
`
}

const NUMBER = html` class="number"`
const NONE = html`<span class="none">–</span>`

function kind(column: string): Html {
  return column.startsWith('#') ? NUMBER : EMPTY
}

/** A text that does not turn around what stands beside it. */
function bidi(text: string): Html {
  return html`<bdi>${text}</bdi>`
}

function sumOf(failures: Figures['failures']): number {
  return failures.reduce((sum, { count }) => sum + count, 0)
}

function count(number: number): string {
  return number.toLocaleString('en')
}

function rate(perSecond: number): string {
  if (perSecond === 0) return '0'
  if (perSecond < 0.1) return '< 0.1'
  return perSecond < 9.95 ? perSecond.toFixed(1) : count(Math.round(perSecond))
}

function latency(seconds: number | undefined): Value {
  if (seconds === undefined) return NONE
  const ms = seconds * 1000
  if (ms < 9.95) return `${ms.toFixed(1)} ms`
  if (ms < 999.5) return `${ms.toFixed(0)} ms`
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : `${seconds.toFixed(0)} s`
}

/** The two largest units of a duration. */
function ago(seconds: number): string {
  const minutes = Math.floor(seconds / 60)
  if (minutes < 1) return `${Math.floor(seconds)} s`
  const hours = Math.floor(minutes / 60)
  if (hours < 1) return `${minutes} min ${Math.floor(seconds) % 60} s`
  const days = Math.floor(hours / 24)
  return days < 1 ? `${hours} h ${minutes % 60} min` : `${days} d ${hours % 24} h`
}

function hostPort(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}

/** 2026-11-25 09:43:01 UTC */
function moment(ms: number): string {
  return `${iso(ms).slice(0, 10)} ${clock(ms)}`
}

function clock(ms: number): string {
  return `${iso(ms).slice(11, 19)} UTC`
}

/** A dot that tells the state in a browser's tab. */
function icon(level: Level): string {
  const colour = { ready: '#2e9e5b', degraded: '#d98e04', 'not-ready': '#d03a3a' }[level]
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${colour}"/></svg>`
}

function hashOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`
}
