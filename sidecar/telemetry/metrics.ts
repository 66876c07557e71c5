/** What the sidecar counts of its work: every metric in one table, and what is told to it. */
import { ERRORS } from '../errors.ts'
import { Counter, type Family, Gauge, Histogram, Names } from './instruments.ts'
import { methodName } from './method-name.ts'
import { prometheusText, watchProcess } from './prometheus.ts'

export type Direction = 'outbound' | 'inbound'
/** How a call goes from sidecar to sidecar: sealed by itself, or with others in one long stream. */
export type Carriage = 'message' | 'tunnel'

/** A call that is over. The peer, method and error may be anything: what is shown of them is bounded. */
export interface CallLabels {
  direction: Direction
  /** empty: not known; the first 100 are told apart, then it is `other` */
  peer: string
  /** beyond the known ones it is `_OTHER` */
  method: string
  /** of the call itself, not of the message that carried it; 0: there was no answer */
  status: number
  /** empty: none; else an ErrorCode, or the status as text */
  error: string
}

/** OpenTelemetry's semantic conventions for HTTP metrics. */
const HTTP_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
const CALL = [
  'http.request.method',
  'http.response.status_code',
  'error.type',
  'mte.direction',
  'mte.peer',
] as const
const CODING = ['operation', 'what'] as const

/** Every metric. In Prometheus, dots are underscores, the unit is appended, and counters end in `_total`. */
function table() {
  return {
    served: new Histogram({
      name: 'http.server.request.duration',
      unit: 's',
      description: 'Duration of the calls that arrived here, from the app or from a peer.',
      attributes: CALL,
      bounds: HTTP_BOUNDS,
    }),
    forwarded: new Histogram({
      name: 'http.client.request.duration',
      unit: 's',
      description: 'Duration of each sending of a call, to a peer or to the app.',
      attributes: CALL,
      bounds: HTTP_BOUNDS,
    }),
    operations: new Histogram({
      name: 'mte.operation.duration',
      unit: 's',
      description:
        'Work of encoding or decoding a message, or a record of a tunnel, and duration of a handshake.',
      attributes: ['operation'],
      bounds: [
        0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
        0.25, 0.5, 1,
      ],
    }),
    messages: new Counter({
      name: 'mte.messages',
      unit: '{message}',
      description: 'Messages encoded or decoded.',
      attributes: CODING,
    }),
    plaintextBytes: new Counter({
      name: 'mte.plaintext.bytes',
      unit: 'By',
      description: 'Bytes that went into messages encoded, or came out of messages decoded.',
      attributes: CODING,
    }),
    messageBytes: new Counter({
      name: 'mte.message.bytes',
      unit: 'By',
      description: 'Bytes of the messages encoded or decoded.',
      attributes: CODING,
    }),
    handshakes: new Counter({
      name: 'mte.handshakes',
      unit: '{handshake}',
      description: 'Handshakes that ended, with a pair or with an error.',
      attributes: ['role', 'error.type'],
    }),
    rejects: new Counter({
      name: 'mte.rejects',
      unit: '{reject}',
      description: 'Messages and handshakes rejected, by this sidecar (sent) or by a peer (received).',
      attributes: ['direction', 'code'],
    }),
    replaysRefused: new Counter({
      name: 'mte.replays.refused',
      unit: '{message}',
      description: 'Messages that this sidecar rejected because it has had them before.',
      attributes: [],
    }),
    resends: new Counter({
      name: 'mte.resends',
      unit: '{resend}',
      description: 'Calls sent again, as the same message or encoded anew.',
      attributes: ['how'],
    }),
    storeOperations: new Histogram({
      name: 'mte.store.operation.duration',
      unit: 's',
      description: 'Duration of the operations of the store of the pairs.',
      attributes: ['operation'],
      bounds: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    }),
    storeErrors: new Counter({
      name: 'mte.store.errors',
      unit: '{error}',
      description: 'Operations of the store of the pairs that failed.',
      attributes: ['operation'],
    }),
    openCalls: new Gauge({
      name: 'mte.calls.open',
      unit: '{call}',
      description: 'Calls under way.',
      attributes: ['direction'],
    }),
    calls: new Counter({
      name: 'mte.calls',
      unit: '{call}',
      description: 'Calls that are over, by how they went from sidecar to sidecar.',
      attributes: ['mte.direction', 'mte.carriage'],
    }),
    records: new Counter({
      name: 'mte.tunnel.records',
      unit: '{record}',
      description: 'Records of tunnels, each with whatever many calls had to say at once.',
      attributes: ['direction'],
    }),
    tunnels: new Gauge({
      name: 'mte.tunnels',
      unit: '{tunnel}',
      description: 'Tunnels that are open.',
      attributes: ['role'],
    }),
    pairs: new Gauge({
      name: 'mte.pairs',
      unit: '{pair}',
      description: 'Pairs in the store that are alive.',
      attributes: ['role'],
    }),
  }
}

type Coded = Record<'messages' | 'plaintextBytes' | 'messageBytes', { value: number }>

/** The metrics of one sidecar: always counted, and bounded whatever peers and apps do. */
export class Metrics {
  readonly #table = table()
  /** the series of messages encoded and decoded, which are added to more often than any other */
  readonly #coded: Record<string, Partial<Record<string, Coded>>> = { encode: {}, decode: {} }
  readonly #peers = new Names('other')
  readonly #errors = new Names('_OTHER', Object.keys(ERRORS))
  readonly #rejectCodes = new Names('_OTHER')
  readonly #storeOperations = new Names('_OTHER')

  constructor() {
    watchProcess()
  }

  /**
   * A call that arrived here is over.
   * @param traceId of a call that is sampled
   */
  served(call: CallLabels, seconds: number, traceId?: string): void {
    this.#call(this.#table.served, call, seconds, traceId)
  }

  /** A call that was sent on is over: one for each copy sent to a peer, or for a call to the app. See `served`. */
  forwarded(call: CallLabels, seconds: number, traceId?: string): void {
    this.#call(this.#table.forwarded, call, seconds, traceId)
  }

  /** A call that was carried from sidecar to sidecar is over. */
  carried(direction: Direction, carriage: Carriage): void {
    this.#table.calls.add(1, direction, carriage)
  }

  /** A record of a tunnel went out or came in. */
  record(direction: 'sent' | 'received', seconds: number): void {
    this.#table.records.add(1, direction)
    this.#table.operations.record(seconds, undefined, direction === 'sent' ? 'encode' : 'decode')
  }

  /**
   * A message is complete, or a request or answer by a tunnel.
   * @param seconds the work alone; undefined for what shares its records with others
   * @param messageBytes with all that is added
   */
  coded(
    operation: 'encode' | 'decode',
    what: 'request' | 'response',
    seconds: number | undefined,
    plaintextBytes: number,
    messageBytes: number,
  ): void {
    if (seconds !== undefined) this.#table.operations.record(seconds, undefined, operation)
    const coded = (this.#coded[operation]![what] ??= this.#codedAs(operation, what))
    coded.messages.value++
    coded.plaintextBytes.value += plaintextBytes
    coded.messageBytes.value += messageBytes
  }

  /** A handshake has ended. @param error empty: there is a pair */
  paired(role: 'initiator' | 'responder', seconds: number, error: string): void {
    this.#table.operations.record(seconds, undefined, 'handshake')
    this.#table.handshakes.add(1, role, this.#errors.of(error))
  }

  /** A message or a handshake was rejected, by this sidecar or by a peer. */
  rejected(direction: 'sent' | 'received', code: string): void {
    this.#table.rejects.add(1, direction, this.#rejectCodes.of(code))
    if (direction === 'sent' && code === 'replayed') this.#table.replaysRefused.add(1)
  }

  /** A call was sent again: as the same message, or encoded anew. */
  resent(how: 'same' | 'anew'): void {
    this.#table.resends.add(1, how)
  }

  /** An operation of the store has ended. */
  stored(operation: string, seconds: number, failed: boolean): void {
    const name = this.#storeOperations.of(operation)
    this.#table.storeOperations.record(seconds, undefined, name)
    if (failed) this.#table.storeErrors.add(1, name)
  }

  /** Says how to find out what goes up and down; where a function fails, its metric has no values that time. */
  watch(gauges: {
    openCalls(): Record<Direction, number>
    tunnels(): Record<'initiator' | 'responder', number>
    pairs(): Promise<Record<'initiator' | 'responder', number>>
  }): void {
    this.#table.openCalls.watch(() => gauges.openCalls())
    this.#table.tunnels.watch(() => gauges.tunnels())
    this.#table.pairs.watch(() => gauges.pairs())
  }

  /**
   * All metrics, and those of the process, for Prometheus.
   * @param accept the Accept header of who asks; the text is Prometheus 0.0.4 unless that prefers OpenMetrics 1.0,
   *   in which sampled calls are told as exemplars
   */
  async text(accept: string): Promise<{ contentType: string; body: string }> {
    return prometheusText(await this.families(), accept)
  }

  /** All metrics for OpenTelemetry, without those of the process, as they stand now. */
  families(): Promise<Family[]> {
    return Promise.all(Object.values(this.#table).map((instrument) => instrument.family()))
  }

  #codedAs(operation: string, what: string): Coded {
    const { messages, plaintextBytes, messageBytes } = this.#table
    return {
      messages: messages.series(operation, what),
      plaintextBytes: plaintextBytes.series(operation, what),
      messageBytes: messageBytes.series(operation, what),
    }
  }

  #call(histogram: Histogram, call: CallLabels, seconds: number, traceId: string | undefined): void {
    const { direction, peer, method, status, error } = call
    histogram.record(
      seconds,
      traceId,
      methodName(method),
      status,
      this.#errors.of(error),
      direction,
      this.#peers.of(peer),
    )
  }
}
