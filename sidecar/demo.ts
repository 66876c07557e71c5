/** Shows the product doing its job, on this machine alone: one call as each side sees it, then ten thousand of them. */
import { randomBytes } from 'node:crypto'
import http, { type IncomingMessage } from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { type App, startApp } from './app.ts'
import { loadConfig } from './config.ts'
import type { DemoTraces } from './demo-traces.ts'
import { createLogger } from './log.ts'
import { MESSAGE_PATH } from './outer.ts'
import { Metrics } from './telemetry/metrics.ts'
import type { Tracing } from './telemetry/tracing.ts'

/** so many to see how many a second there can be, the rest to see how long one takes */
const CALLS_AT_ONCE = 9_000
const CALLS_IN_TURN = 1_000
const CONCURRENT = 32
/** of each of three columns; a terminal that is too narrow for them gets one below the other */
const COLUMN_WIDTH = 38
const COLUMN_GAP = ' │ '
const WIDE = 3 * COLUMN_WIDTH + 2 * COLUMN_GAP.length

const DUMP_LINES_MAX = 12

/** What one side saw of the call. */
interface Seen {
  line: string
  headers: Record<string, string>
  body: string
}

const SENT = {
  line: 'POST /v1/charges?account=4711',
  headers: {
    'content-type': 'application/json',
    'x-order': 'order-2041',
    authorization: 'Bearer for-billing-only',
  },
  body: '{"amount":4200,"card":"Ada Lovelace"}',
} as const satisfies Seen
const ANSWERED = {
  status: 201,
  headers: { 'content-type': 'application/json', 'x-receipt': 'receipt-77' },
  body: '{"paid":true,"balance":1300}',
} as const
/** None of this may be found on the wire. */
const PLANTED = [
  '/v1/charges',
  '4711',
  'x-order',
  'order-2041',
  'for-billing-only',
  'Ada Lovelace',
  '4200',
  'x-receipt',
  'receipt-77',
  'balance',
]

type Print = (line: string) => void

export interface DemoOptions {
  /** Is the call to be shown as a trace too? */
  traces: boolean
  print?: Print
  /** width of the terminal */
  columns?: number
}

/**
 * Runs the demonstration, and prints it.
 * @returns whether everything was as it should be
 */
export async function runDemo({
  traces: traced,
  print = console.log,
  columns = process.stdout.columns ?? WIDE,
}: DemoOptions): Promise<boolean> {
  const parts: { close(): unknown }[] = []
  const keep = <T extends { close(): unknown }>(part: T): T => {
    parts.unshift(part)
    return part
  }
  try {
    const traces = traced ? keep(await startTraces()) : undefined
    const billing = keep(await startBilling(traces))
    const secret = { CLIENT_ID_SECRET: randomBytes(32).toString('base64url') }
    const b = keep(
      await start(
        { ...secret, NAME: 'billing', UPSTREAM: url(billing.port), OUTBOUND_PORT: 'off' },
        traces?.sidecar('billing'),
      ),
    )
    const tap = keep(await startTap(portOf(b, 'inbound')))
    const a = keep(
      await start(
        { ...secret, NAME: 'orders', OUTBOUND_PORT: '0', PEERS: `billing=${url(tap.port)}` },
        traces?.sidecar('orders'),
      ),
    )
    const outbound = portOf(a, 'outbound')
    const agent = new http.Agent({ keepAlive: true, maxSockets: CONCURRENT })
    keep({ close: () => agent.destroy() })

    print('Two apps, orders and billing, each with a mte-sidecar beside it. Between the two')
    print('sidecars is the network, where a tap records every byte.\n')
    print('    orders ──▶ mte-sidecar ══════ tap ══════▶ mte-sidecar ──▶ billing\n')
    print(`orders calls http://billing through its own sidecar at 127.0.0.1:${outbound}.\n`)
    const span = traces?.calls('POST', 'billing')
    const answer = await call(agent, outbound, SENT, span?.headers)
    span?.end(Number(answer.line))
    const wire = tap.stop()
    const rowBytes = columns < WIDE ? 16 : 9
    printViews(print, columns, [
      ['What orders sent', describe(SENT)],
      ['What the network saw', dump(wire.sent, `POST ${MESSAGE_PATH}`, rowBytes)],
      ['What billing got', describe(billing.first)],
    ])
    printViews(print, columns, [
      ['What billing answered', describe({ ...ANSWERED, line: String(ANSWERED.status) })],
      ['What the network saw', dump(wire.received, '200', rowBytes)],
      ['What orders got', describe(answer)],
    ])
    const ok = [
      check(print, same(billing.first, SENT), 'billing got the call as orders sent it'),
      check(print, same(answer, { ...ANSWERED, line: '201' }), 'orders got the answer as billing gave it'),
      check(
        print,
        wire.all.length > 0 && PLANTED.every((word) => !wire.all.includes(word)),
        `none of ${PLANTED.length} words from path, headers and bodies was on the wire`,
        `(${count(wire.all.length)} bytes were, both ways, with the pairing before the call)`,
      ),
    ]
    if (traces) {
      print('')
      const spans = await traces.show(print, columns)
      ok.push(
        check(print, spans > 0, `the call is one trace through both apps and both sidecars: ${spans} spans`),
      )
      await traces.handOn(print)
    }
    ok.push(await timed(print, () => call(agent, outbound, SENT), billing))
    const allWell = ok.every(Boolean)
    print(allWell ? '\nAll of it was so.' : '\nNot all of it was so: see above.')
    if (allWell) {
      print('To put sidecars beside your own apps: the README has an example with curl,')
      print('"mte-sidecar keygen" makes the secret, "mte-sidecar run --help" lists the variables.')
    }
    await traces?.wait(print, process.stdin.isTTY)
    return allWell
  } finally {
    for (const part of parts) await part.close()
  }
}

/** OpenTelemetry's SDK, which is not even loaded where nothing is traced. */
async function startTraces(): Promise<DemoTraces> {
  const { DemoTraces } = await import('./demo-traces.ts')
  return new DemoTraces()
}

async function start(env: Record<string, string>, tracing: Tracing | undefined): Promise<App> {
  const { config } = loadConfig({ PORT: '0', ADMIN_PORT: '0', ...env })
  const exporting = { tracing, host: undefined, trouble: () => undefined }
  return startApp(config, createLogger('error'), new Metrics(), exporting)
}

interface Billing {
  port: number
  /** the first call that it got */
  first: Seen | undefined
  calls: number
  close(): void
}

/** The app that is called. */
async function startBilling(traces: DemoTraces | undefined): Promise<Billing> {
  const server = http.createServer(async (request, response) => {
    const span = billing.first ? undefined : traces?.serves('POST', '/v1/charges', request.headers)
    const body = await text(request)
    billing.calls++
    billing.first ??= { line: `${request.method} ${request.url}`, headers: pick(request), body }
    const { status, headers } = ANSWERED
    response.writeHead(status, { ...headers, 'content-length': ANSWERED.body.length }).end(ANSWERED.body)
    span?.end(status)
  })
  const port = await listening(server)
  const billing: Billing = { port, first: undefined, calls: 0, close: () => void server.close() }
  return billing
}

/** Listens to what goes by between two sidecars, until it is stopped. */
async function startTap(to: number) {
  const sent: Buffer[] = []
  const received: Buffer[] = []
  let listens = true
  const sockets = new Set<net.Socket>()
  const server = net.createServer({ noDelay: true }, (from) => {
    const onward = net.connect({ host: '127.0.0.1', port: to, noDelay: true })
    for (const [source, target, record] of [
      [from, onward, sent],
      [onward, from, received],
    ] as const) {
      sockets.add(source)
      source.on('data', (bytes: Buffer) => listens && record.push(bytes))
      source.on('error', () => target.destroy())
      source.pipe(target)
    }
  })
  const port = await listening(server)
  return {
    port,
    stop() {
      listens = false
      const [there, back] = [Buffer.concat(sent), Buffer.concat(received)]
      return {
        sent: lastMessage(there, CLIENT_PREFACE_BYTES),
        received: lastMessage(back, 0),
        all: Buffer.concat([there, back]),
      }
    },
    close() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

const CLIENT_PREFACE_BYTES = 24
const FRAME_HEADER_BYTES = 9
const DATA_FRAME = 0

/** The content of the newest stream in a recording of HTTP/2 (RFC 9113 section 4.1). */
function lastMessage(recording: Buffer, start: number): Buffer {
  let newest = 0
  let pieces: Buffer[] = []
  for (let at = start; at + FRAME_HEADER_BYTES <= recording.length; ) {
    const length = recording.readUIntBE(at, 3)
    const stream = recording.readUInt32BE(at + 5)
    const payload = recording.subarray(at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + length)
    if (recording[at + 3] === DATA_FRAME) {
      if (stream !== newest) pieces = []
      newest = stream
      pieces.push(payload)
    }
    at += FRAME_HEADER_BYTES + length
  }
  return Buffer.concat(pieces)
}

async function call(
  agent: http.Agent,
  port: number,
  { line, headers, body }: Seen,
  more: Record<string, string> = {},
): Promise<Seen> {
  const [method, path] = line.split(' ')
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    http
      .request(
        { agent, host: '127.0.0.1', port, method, path, headers: { host: 'billing', ...headers, ...more } },
        resolve,
      )
      .on('error', reject)
      .end(body)
  })
  return { line: String(response.statusCode), headers: pick(response), body: await text(response) }
}

/** Makes many calls, and tells how fast that went. */
async function timed(print: Print, callOnce: () => Promise<Seen>, billing: Billing): Promise<boolean> {
  let right = 0
  const callsBefore = billing.calls
  const one = async () => {
    const { line, body } = await callOnce()
    if (line === '201' && body === ANSWERED.body) right++
  }
  let left = CALLS_AT_ONCE
  const worker = async () => {
    while (left-- > 0) await one()
  }
  const beganMs = performance.now()
  await Promise.all(Array.from({ length: CONCURRENT }, worker))
  const perSecond = (1000 * CALLS_AT_ONCE) / (performance.now() - beganMs)
  const latenciesMs: number[] = []
  for (let i = 0; i < CALLS_IN_TURN; i++) {
    const sentMs = performance.now()
    await one()
    latenciesMs.push(performance.now() - sentMs)
  }
  latenciesMs.sort((x, y) => x - y)
  const at = (share: number) => `${latenciesMs[Math.floor(share * (CALLS_IN_TURN - 1))]!.toFixed(2)} ms`
  const calls = CALLS_AT_ONCE + CALLS_IN_TURN
  return check(
    print,
    right === calls && billing.calls - callsBefore === calls,
    `${count(right)} of ${count(calls)} more calls got their answer, and each ran once`,
    `${count(CALLS_AT_ONCE)} of them ${CONCURRENT} at a time: ${count(Math.round(perSecond))} a second`,
    `${count(CALLS_IN_TURN)} one after the other: p50 ${at(0.5)}, p99 ${at(0.99)}`,
    '(no benchmark: caller, apps, tap and both sidecars share one process)',
  )
}

/** @param notes lines below */
function check(print: Print, ok: boolean, what: string, ...notes: string[]): boolean {
  print(`${ok ? 'yes' : 'NO '}  ${what}`)
  for (const note of notes) print(`     ${note}`)
  return ok
}

function count(number: number): string {
  return number.toLocaleString('en')
}

function same(got: Seen | undefined, expected: Seen): boolean {
  return (
    got !== undefined &&
    got.line === expected.line &&
    got.body === expected.body &&
    Object.entries(expected.headers).every(([name, value]) => got.headers[name] === value)
  )
}

function pick({ headers }: IncomingMessage): Record<string, string> {
  const names = [...Object.keys(SENT.headers), ...Object.keys(ANSWERED.headers)]
  return Object.fromEntries(Object.entries(headers).filter(([name]) => names.includes(name))) as Record<
    string,
    string
  >
}

function describe(seen: Seen | undefined): string[] {
  if (!seen) return ['nothing']
  return [
    seen.line,
    ...Object.entries(seen.headers).map(([name, value]) => `${name}: ${value}`),
    '',
    seen.body,
  ]
}

function dump(bytes: Buffer, outer: string, rowBytes: number): string[] {
  const lines = [outer, `${bytes.length} bytes:`, '']
  for (let at = 0; at < bytes.length; at += rowBytes) {
    if (lines.length === DUMP_LINES_MAX) return [...lines, '…']
    const row = bytes.subarray(at, at + rowBytes)
    const hex = row.toString('hex').replace(/../g, '$& ')
    lines.push(hex.padEnd(3 * rowBytes) + row.toString('latin1').replace(/[^\x20-\x7e]/g, '.'))
  }
  return lines
}

/** Side by side, or one below the other in a terminal that is too narrow for that. */
function printViews(print: Print, columns: number, views: [title: string, lines: string[]][]): void {
  if (columns < WIDE) {
    for (const [title, lines] of views) print([title, '─'.repeat(title.length), ...lines, ''].join('\n'))
    return
  }
  const row = (cells: string[]) =>
    print(
      cells
        .map((cell) => cell.padEnd(COLUMN_WIDTH))
        .join(COLUMN_GAP)
        .trimEnd(),
    )
  row(views.map(([title]) => title))
  print(views.map(() => '─'.repeat(COLUMN_WIDTH)).join('─┼─'))
  const rows = Math.max(...views.map(([, lines]) => lines.length))
  for (let i = 0; i < rows; i++) row(views.map(([, lines]) => lines[i] ?? ''))
  print('')
}

async function text(message: IncomingMessage): Promise<string> {
  let body = ''
  for await (const piece of message.setEncoding('utf8')) body += piece
  return body
}

async function listening(server: net.Server): Promise<number> {
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

function portOf(app: App, role: 'inbound' | 'outbound'): number {
  return app.ports.get(role)!.port
}

function url(port: number): string {
  return `http://127.0.0.1:${port}`
}
