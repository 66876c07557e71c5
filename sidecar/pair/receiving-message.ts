import type { KeyObject } from 'node:crypto'
import type { MessageHeader, MessageKeys } from './message.ts'
import type { ReceivingPair } from './receiving.ts'
import { Reject } from './reject.ts'
import type { MeshSecret } from './secrets.ts'
import { available, type PairStore } from './store.ts'

/** The keys of a message, or of a tunnel, that came in, and the right to run it. */
export class ReceivingMessage implements MessageKeys {
  /** what its sender calls itself */
  readonly peer: string
  /** the secret under which the pair was made */
  readonly mesh: MeshSecret
  readonly requestKey: KeyObject
  readonly responseKey: KeyObject
  readonly chunkBytesMax: number
  readonly #store: PairStore
  readonly #pair: ReceivingPair
  readonly #block: number
  readonly #index: number

  constructor(store: PairStore, pair: ReceivingPair, { block, index }: MessageHeader, nowMs: number) {
    const { request, response } = pair.keys(block, index, nowMs)
    this.peer = pair.peer
    this.mesh = pair.mesh
    this.requestKey = request
    this.responseKey = response
    this.chunkBytesMax = pair.chunkBytesMax
    this.#store = store
    this.#pair = pair
    this.#block = block
    this.#index = index
  }

  /**
   * Marks the message as run. Only after its first chunk, or its MAC, has authenticated, and before anything of it is
   * acted upon.
   * @throws Reject unless it is the first to do so
   */
  async claim(): Promise<void> {
    const claimed = await available(this.#store.claim(this.#pair, this.#block, this.#index))
    if (claimed === 'gone') throw new Reject('state_lost')
    if (claimed === 'out-of-reach') throw new Reject('block_out_of_reach')
    if (claimed !== 'new') throw new Reject('replayed')
  }

  /** Erases the keys where they came from: what follows from them alone is of use from here on. */
  forgetKeys(): void {
    this.#pair.forgetKeys(this.#block, this.#index)
  }
}
