import type { KeyObject } from 'node:crypto'
import type { MessageId, MessageKeys } from './message.ts'
import { type BlockKeys, INDICES_PER_BLOCK } from './ratchet.ts'
import type { MeshSecret } from './secrets.ts'
import type { Lease } from './store.ts'

/** A message, or a tunnel, that may be sent once: an index that no other has, and its keys. */
export class SendingMessage implements MessageId, MessageKeys {
  readonly pairId: Buffer
  /** what its receiver calls itself */
  readonly peer: string
  /** the secret under which the pair was made */
  readonly mesh: MeshSecret
  readonly block: number
  readonly index: number
  readonly requestKey: KeyObject
  readonly responseKey: KeyObject
  readonly chunkBytesMax: number
  readonly #blockKeys: BlockKeys

  /** @param index spent before its keys are used: no failure can use it again */
  constructor({ pairId, name, mesh, block, keys, chunkBytesMax }: Lease, index: number) {
    const { request, response } = keys.keys(index)
    this.pairId = pairId
    this.peer = name
    this.mesh = mesh
    this.block = block
    this.index = index
    this.requestKey = request
    this.responseKey = response
    this.chunkBytesMax = chunkBytesMax
    this.#blockKeys = keys
  }

  /** Erases the keys where they came from: what follows from them alone is of use from here on. */
  forgetKeys(): void {
    this.#blockKeys.forget(this.index)
  }
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
    return new SendingMessage(this.lease, this.messages++)
  }

  /** Gives out no more, and erases the keys: messages that have begun have theirs. */
  end(): void {
    this.#ended = true
    this.lease.keys.erase()
  }
}
