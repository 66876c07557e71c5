/**
 * What may be sent again when a message got no response (relay1 section 5).
 *
 * The same bytes run at most once, thanks to the mark at their receiver. Encoding anew could run a call twice, so
 * it is only for calls that bear it, or where the peer proved that the only copy did not run.
 */
import type { Repeatability } from '../repeatability.ts'
import type { RejectName } from './reject.ts'

/** Before the first, the second, … resend of the same bytes, in ms. There are no more than these. */
const DELAYS_MS = [50, 500]
/** So often a call is encoded anew: each pair with the peer may be gone, of which there are a few. */
const ANEW_MAX = 3
/** From when their first copy left. */
const SAME_BYTES_WITHIN_MS = 5000

/** How one copy of a message failed. */
export interface FailedCopy {
  /** `timed-out`: no answer in time; `broken`: a transport error, or an answer that proves nothing; else a reject */
  what: 'timed-out' | 'broken' | RejectName
  /** is the reject proven to come from a relay with our secret? */
  authentic: boolean
  /** may a byte of this copy have left? */
  sent: boolean
  /** since the first byte of this copy left, in ms */
  elapsedMs: number
  /** of an authentic reject: how long the responder's store has existed, in ms */
  storeAgeMs: number
}

/** `certain`: the call did not run, or that it may have makes no difference. */
export type Verdict =
  | { again: 'same'; delayMs: number }
  | { again: 'anew' }
  | { again: 'no'; outcome: 'certain' | 'unknown' }

/** Follows one call through its copies. */
export class Resend {
  readonly #kind: Repeatability
  /** of the message whose copies are sent now: when its first copy left, and how often its bytes were sent again */
  #firstLeftMs: number | undefined
  #sameBytes = 0
  #unreadable = false
  #anew = 0
  /** copies of which a byte may have left, but for those that can never run */
  #left = 0
  /** of these, the ones that were not proven to be refused unread */
  #perhapsRun = 0

  constructor(kind: Repeatability) {
    this.#kind = kind
  }

  /** Another copy, which is not judged here, may have run. */
  perhapsRan(): void {
    this.#left++
    this.#perhapsRun++
  }

  /**
   * Judges what may be done after a copy failed.
   * @param nowMs monotonic
   * @param kept can the same bytes, and the call itself, still be had?
   */
  judge(copy: FailedCopy, nowMs: number, kept: { same: boolean; anew: boolean }): Verdict {
    this.#firstLeftMs ??= nowMs - copy.elapsedMs
    if (copy.sent) {
      this.#left++
      if (!(copy.authentic && copy.what === 'state_unavailable')) this.#perhapsRun++
    }
    switch (copy.what) {
      case 'unknown_pair':
      case 'block_out_of_reach':
      case 'state_lost':
        return this.#pairGone(copy, kept.anew)
      case 'timed-out':
        return this.#no()
      case 'replayed':
        // It ran, and its answer is lost: only a call that bears it may run once more.
        return this.#kind === 'unsafe' ? this.#no() : this.#encodedAnew(kept.anew)
      case 'state_unavailable':
      case 'broken':
        return this.#sameInTime(nowMs, kept.same)
    }
    // What proves nothing is as good as no answer.
    if (!copy.authentic) return this.#sameInTime(nowMs, kept.same)
    // Somebody on the path earns these with no more than the header, whatever became of the whole: sent again, a
    // message that was marked earns `replayed`.
    if (copy.what === 'decrypt_failed' || copy.what === 'malformed') {
      if (this.#unreadable) return this.#no()
      this.#unreadable = true
      return this.#same(kept.same)
    }
    // A refusal speaks of the copy that it answers alone.
    return this.#perhapsRun <= 1 ? { again: 'no', outcome: 'certain' } : this.#no()
  }

  #pairGone(copy: FailedCopy, kept: boolean): Verdict {
    // The store that could have run this copy never had the pair, and there was no other copy.
    if (
      copy.what === 'state_lost' &&
      copy.authentic &&
      this.#left <= 1 &&
      Math.floor(copy.storeAgeMs) > copy.elapsedMs
    ) {
      this.#left = 0
      this.#perhapsRun = 0
    } else if (this.#kind === 'unsafe') return this.#no()
    return this.#encodedAnew(kept)
  }

  #encodedAnew(kept: boolean): Verdict {
    if (!kept || this.#anew >= ANEW_MAX) return this.#no()
    this.#anew++
    this.#firstLeftMs = undefined
    this.#sameBytes = 0
    this.#unreadable = false
    return { again: 'anew' }
  }

  #sameInTime(nowMs: number, kept: boolean): Verdict {
    return this.#same(kept && nowMs - this.#firstLeftMs! < SAME_BYTES_WITHIN_MS)
  }

  #same(kept: boolean): Verdict {
    if (!kept || this.#sameBytes >= DELAYS_MS.length) return this.#no()
    return { again: 'same', delayMs: DELAYS_MS[this.#sameBytes++]! }
  }

  #no(): Verdict {
    return { again: 'no', outcome: this.#kind === 'safe' || this.#perhapsRun === 0 ? 'certain' : 'unknown' }
  }
}
