import type { MessageId, MessageKeys } from './message.ts'
import { INDICES_PER_BLOCK } from './ratchet.ts'
import type { Lease } from './store.ts'

/** A message that may be sent once: an index that no other message has, and its keys. */
export interface SendingMessage extends MessageId, MessageKeys {
  /** what its receiver calls itself */
  peer: string
}

/** The indices of a lease, each given out once. */
export class Sending {
  readonly lease: Lease
  messages = 0
  #ended = false

  constructor(lease: Lease) {
    this.lease = lease
  }

  next(nowMs: number): SendingMessage | undefined {
    if (this.#ended || this.messages >= INDICES_PER_BLOCK || nowMs >= this.lease.endsAtMs) return undefined
    // Spent before its key is used: no failure can use it again.
    const index = this.messages++
    const { pairId, name: peer, block, keys, chunkBytesMax } = this.lease
    const { request, response } = keys.keys(index)
    return { pairId, peer, block, index, requestKey: request, responseKey: response, chunkBytesMax }
  }

  /** Gives out no more, and erases the keys: messages that have begun have theirs. */
  end(): void {
    this.#ended = true
    this.lease.keys.erase()
  }
}
