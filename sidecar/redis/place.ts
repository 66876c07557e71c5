import { randomBytes } from 'node:crypto'
import type { Logger } from '../log.ts'
import { expandLabel } from '../pair/hkdf.ts'
import { unwrapChainKey, type WrappedFor, wrapChainKey } from '../pair/ratchet.ts'
import type { MeshSecret } from '../pair/secrets.ts'

const NOTHING = Buffer.alloc(0)
const TAG_BYTES = 8
const WRAP_RANDOM_BYTES = 16

/**
 * Where the pairs of one NAME and secret are in Redis: the names of their keys, all of which are in one slot of a
 * cluster; and how chain keys are wrapped that are kept there.
 */
export class Place {
  readonly mesh: MeshSecret
  /** base URLs of peers with which there are pairs, by the time at which the last ends */
  readonly peers: string
  /** pairs that peers made, of which a message ran */
  readonly used: string
  /** those of which none did yet */
  readonly fresh: string
  readonly #tag: string
  readonly #log: Logger

  constructor(mesh: MeshSecret, log: Logger) {
    this.mesh = mesh
    this.#log = log
    this.#tag = `{${expandLabel(mesh.stateKey, 'tag', NOTHING, TAG_BYTES).toString('hex')}}`
    this.peers = `mte:i:${this.#tag}:peers`
    this.used = `mte:r:${this.#tag}:used`
    this.fresh = `mte:r:${this.#tag}:fresh`
  }

  /** the pairs that this relay made with a peer */
  peer(url: string): string {
    return `mte:i:${this.#tag}:peer:${url}`
  }

  /** a pair that a peer made */
  pair(id: string): string {
    return `mte:r:${this.#tag}:pair:${id}`
  }

  /** the indices of its block that have run */
  marks(id: string, block: number): string {
    return `mte:r:${this.#tag}:marks:${id}:${block}`
  }

  /** a pairing message that was seen */
  hello(hash: string): string {
    return `mte:r:${this.#tag}:hello:${hash}`
  }

  /** @param chainKey is not erased */
  wrap(chainKey: Buffer, wrappedFor: WrappedFor): string {
    const random = randomBytes(WRAP_RANDOM_BYTES)
    return wrapChainKey(this.mesh.stateKey, chainKey, wrappedFor, random).toString('base64')
  }

  /** @returns undefined, and says so, when this relay did not wrap it for this */
  unwrap(wrapped: string, wrappedFor: WrappedFor): Buffer | undefined {
    const chainKey = unwrapChainKey(this.mesh.stateKey, Buffer.from(wrapped, 'base64'), wrappedFor)
    if (!chainKey) this.complain(wrappedFor.role)
    return chainKey
  }

  /** Says that a pair was not as this relay had left it. */
  complain(role: WrappedFor['role']): void {
    this.#log.error(
      { role },
      'a pair in Redis has been changed by somebody else, and is dropped: nothing but sidecars may write to keys that begin with mte:',
    )
  }
}
