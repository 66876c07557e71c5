/** Calls to peers, by whichever carriage, and again where that is allowed. */
import type { Answer, Body, Caller, Request } from './call.ts'
import { asSidecarError, SidecarError } from './errors.ts'
import { withChanged } from './http/fields.ts'
import { problemCode } from './http/problem.ts'
import { SendError } from './http/send-error.ts'
import {
  forwardOf,
  KEPT_BYTES_MAX,
  kindOf,
  MessageCarriage,
  type MessageOptions,
  type PeerCall,
} from './message-carriage.ts'
import { Resend } from './pair/resend.ts'
import { tunnelProblem } from './pairing.ts'
import { Rewindable } from './rewind.ts'
import type { CallRecord } from './telemetry/call-record.ts'
import type { Forward } from './telemetry/forward.ts'
import { CallLostError, type InitiatorTunnel, type TunnelAnswer } from './tunnel/initiator.ts'
import type { Tunnels } from './tunnel/tunnels.ts'

export interface PeersOptions extends MessageOptions {
  /** to peers that get many calls */
  tunnels: Tunnels
}

/** So often a call that not a byte of went to its app is sent again by a tunnel. */
const REFUSALS_MAX = 3

export class Peers {
  readonly #options: PeersOptions
  readonly #messages: MessageCarriage

  constructor(options: PeersOptions) {
    this.#options = options
    this.#messages = new MessageCarriage(options)
  }

  /**
   * Sends a call to a peer, by a tunnel or as a message, as often as it takes.
   * @param url base URL of the peer's sidecar
   * @throws SidecarError
   */
  async send(url: string, { head, body }: Request, caller: Caller, record: CallRecord): Promise<Answer> {
    const { tunnels, telemetry } = this.#options
    record.towards(url)
    const kept = new Rewindable(body, KEPT_BYTES_MAX)
    const call: PeerCall = { url, head, body: kept, caller, record, resends: 0, losses: 0 }
    let start = call.body.reader()!
    for (;;) {
      const found = tunnels.find(url, call.losses > 0)
      if (!found) {
        const outcome = await this.#messages.send(call, start)
        if ('head' in outcome) return outcome
        start = outcome
        continue
      }
      const tunnel = found instanceof Promise ? await opened(url, found) : found
      record.by('tunnel')
      const encoding = record.coding('encode', 'request')
      const forward = forwardOf(call, tunnel, telemetry)
      const fields = record.fieldsInside(head.fields, forward)
      const request = { head: withChanged(head, head.authority, fields), body: start }
      try {
        return this.#answered(call, tunnel, forward, await tunnel.send(request, caller, encoding))
      } catch (error) {
        start = this.#lost(call, forward, error)
      }
    }
  }

  #answered(call: PeerCall, { socket }: InitiatorTunnel, forward: Forward, answer: TunnelAnswer): Answer {
    call.body.forget()
    const decoding = call.record.coding('decode', 'response')
    answer.decodedBy(decoding)
    forward.answered(answer.head.status, socket, problemCode(answer.head.fields))
    forward.endWith(decoding)
    return answer
  }

  /**
   * A tunnel did not bring an answer for the call.
   * @returns the body from its start, as the call may be sent again
   * @throws SidecarError if it may not
   */
  #lost(call: PeerCall, forward: Forward, error: unknown): Body {
    const failure = lostCall(call, error)
    forward.end(failure.code)
    if (!(error instanceof CallLostError) || !maySendAgain(call, error)) throw failure
    call.resend = new Resend(kindOf(call))
    if (!error.refused) call.resend.perhapsRan()
    call.record.by('message')
    call.losses++
    call.resends++
    this.#options.telemetry.resent('anew')
    return call.body.reader()!
  }
}

async function opened(url: string, opening: Promise<InitiatorTunnel>): Promise<InitiatorTunnel> {
  try {
    return await opening
  } catch (error) {
    throw tunnelProblem(error, url)
  }
}

/** May a call be sent again that a tunnel lost? What was refused may, and what may run twice. */
function maySendAgain(call: PeerCall, { refused }: CallLostError): boolean {
  if (call.losses >= (refused ? REFUSALS_MAX : 1) || !call.body.isKept) return false
  return refused || kindOf(call) !== 'unsafe'
}

/** What the app is told of a call that a tunnel did not bring an answer for. */
function lostCall(call: PeerCall, error: unknown): SidecarError {
  const timedOut = error instanceof SendError
  if (!timedOut && !(error instanceof CallLostError)) return asSidecarError(error)
  const detail = `${call.url}: ${error.message}.`
  if (kindOf(call) === 'safe' || (error instanceof CallLostError && error.refused))
    return new SidecarError('peer-unreachable', detail, {
      cause: error,
      ...(timedOut ? { status: 504 } : {}),
    })
  return new SidecarError('outcome-unknown', `${detail} The call may or may not have been executed.`, {
    cause: error,
  })
}
