/** What this sidecar tells of its work: makes a record of every call and of every pairing. */
import { CallRecord, type RecordOptions } from './call-record.ts'
import { Handshake } from './handshake.ts'

/** Peers of which the last pairing is known. */
const PEERS_MAX = 1000

export class Telemetry {
  readonly #options: RecordOptions
  /** the last pairing with each peer, by the base URL of its sidecar */
  readonly #handshakes = new Map<string, Handshake>()
  /** what peers call themselves, by the base URL of their sidecars */
  readonly #names = new Map<string, string>()

  constructor(options: RecordOptions) {
    this.#options = options
  }

  /** A call has arrived. */
  call(): CallRecord {
    return new CallRecord(this.#options)
  }

  /**
   * A pairing begins.
   * @param peer base URL of the responder's sidecar; none for a responder
   * @param cause the call that needs it, or the request that brings it
   */
  handshake(cause: CallRecord | undefined, peer?: string): Handshake {
    if (peer === undefined) return new Handshake(this.#options, 'responder', cause)
    const handshake = new Handshake(this.#options, 'initiator', cause)
    this.#handshakes.delete(peer)
    if (this.#handshakes.size >= PEERS_MAX) this.#handshakes.delete(this.#handshakes.keys().next().value!)
    this.#handshakes.set(peer, handshake)
    return handshake
  }

  /** The pairing with a peer that is under way, or was the last one. */
  handshakeWith(peer: string): Handshake | undefined {
    return this.#handshakes.get(peer)
  }

  /** A call goes to a peer, which has a name since it paired. */
  met(url: string, name: string): void {
    if (this.#names.size >= PEERS_MAX && !this.#names.has(url)) this.#names.clear()
    this.#names.set(url, name)
  }

  /** What peers call themselves, as far as that is known: by the base URL of their sidecars. */
  get names(): ReadonlyMap<string, string> {
    return this.#names
  }

  /** A peer's sidecar refused a message or a pairing. */
  refusedBy(code: string): void {
    this.#options.metrics.rejected('received', code)
    this.#options.recent.rejected('received', code)
  }

  /** A call is sent again: the same message, or another one. */
  resent(how: 'same' | 'anew'): void {
    this.#options.metrics.resent(how)
  }
}
