/** One end of a tunnel by itself: its other end is a test's, time too, and there are no sockets. */
import assert from 'node:assert/strict'
import type { Answer, Body, Fields, Request } from '../../sidecar/call.ts'
import { NO_BODY, WholeBody } from '../../sidecar/call.ts'
import { OpenCalls } from '../../sidecar/http/exchange.ts'
import { Coding } from '../../sidecar/telemetry/coding.ts'
import { Budget } from '../../sidecar/tunnel/budget.ts'
import { InitiatorTunnel, type TunnelAnswer } from '../../sidecar/tunnel/initiator.ts'
import { type AcceptedCall, ResponderTunnel } from '../../sidecar/tunnel/responder.ts'
import type { Tunnel } from '../../sidecar/tunnel/tunnel.ts'
import { requestOf, TestCaller } from '../support/sending.ts'
import { suite } from '../support/suite.ts'
import { READY, TunnelEnd } from '../support/tunnel-end.ts'

export const BUDGET_BYTES = 256 * 1024 * 1024
export const RESPONSE_TIMEOUT_MS = 5_000
const HEAD_BYTES_MAX = 65_536

/** What goes from the initiator, and what comes back to it. */
export interface Secrets {
  out: Buffer
  in: Buffer
}

const SECRETS: Secrets = { out: Buffer.alloc(32, 1), in: Buffer.alloc(32, 2) }

/** A call that reached the handler of a responder. */
export interface Handled {
  request: Request
  call: AcceptedCall
  /** Lets the handler answer. */
  answer(more?: { status?: number; fields?: Fields; body?: Body | string }): void
  fail(error: Error): void
  /** why its caller went away, if it did */
  gone: Error | undefined
}

/** A tunnel of which the test plays the other end. */
export interface Side<T extends Tunnel> {
  tunnel: T
  end: TunnelEnd
  /** Takes no record until it is told to go on. */
  stop(): void
  go(): void
  /** what it told, in order */
  events: string[]
}

export interface ResponderSide extends Side<ResponderTunnel> {
  /** all calls that reached the handler */
  handled: Handled[]
  open: OpenCalls
  faults: unknown[]
  wanted: boolean
}

export interface InitiatorSide extends Side<InitiatorTunnel> {
  wanted: boolean
  /** Begins a call. */
  call(request?: Request, caller?: TestCaller): Call
}

/** A call that an initiator began. */
export interface Call {
  caller: TestCaller
  answer: Promise<TunnelAnswer>
  /** undefined: there was an answer */
  failure: Promise<Error | undefined>
}

export class World {
  nowMs = 1_000_000
  readonly budget: Budget
  readonly records = { sent: 0, received: 0 }
  readonly #tunnels: Tunnel[] = []
  readonly #open: OpenCalls[] = []
  readonly #budgetBytes: number

  constructor(budgetBytes = BUDGET_BYTES) {
    this.#budgetBytes = budgetBytes
    this.budget = new Budget(budgetBytes)
  }

  /** A responder, which has heard READY unless the test wants to say that itself. */
  responder({ ready = true, secrets = SECRETS } = {}): ResponderSide {
    const handled: Handled[] = []
    const events: string[] = []
    const faults: unknown[] = []
    const open = new OpenCalls(3_600_000)
    this.#open.push(open)
    const tunnel = new ResponderTunnel({
      ...this.#options(),
      secrets: { out: Buffer.from(secrets.in), in: Buffer.from(secrets.out) },
      open,
      onFault: (error) => faults.push(error),
      isWanted: () => side.wanted,
      onClosed: () => events.push('closed'),
      handler: (request, call) =>
        new Promise<Answer>((resolve, reject) => {
          const one: Handled = {
            request,
            call,
            gone: undefined,
            answer: ({ status = 200, fields = [], body = NO_BODY } = {}) =>
              resolve({
                head: { status, fields },
                body: typeof body === 'string' ? new WholeBody(Buffer.from(body, 'latin1')) : body,
              }),
            fail: reject,
          }
          call.onGone((why) => {
            one.gone = why
          })
          handled.push(one)
        }),
    })
    const end = new TunnelEnd('initiator', secrets, (record) => tunnel.take(record))
    const side: ResponderSide = {
      tunnel,
      end,
      handled,
      events,
      faults,
      open,
      wanted: true,
      ...this.#follow(tunnel, end),
    }
    if (ready) end.send(READY)
    return side
  }

  /** An initiator, which has heard READY unless the test wants to say that itself. */
  initiator({ ready = true, secrets = SECRETS } = {}): InitiatorSide {
    const events: string[] = []
    const tunnel = new InitiatorTunnel({
      ...this.#options(),
      secrets: { out: Buffer.from(secrets.out), in: Buffer.from(secrets.in) },
      peer: 'billing',
      socket: undefined,
      responseTimeoutMs: RESPONSE_TIMEOUT_MS,
      isWanted: () => side.wanted,
      onReady: () => events.push('ready'),
      onRetired: () => events.push('retired'),
      onClosed: (broke) => events.push(broke ? 'broke' : 'closed'),
    })
    const end = new TunnelEnd('responder', { out: secrets.in, in: secrets.out }, (record) =>
      tunnel.take(record),
    )
    const call = (request = requestOf(), caller = new TestCaller()) => {
      const answer = tunnel.send(request, caller, new Coding('encode', 'request'))
      const failure = answer.then(
        () => undefined,
        (error) => error,
      )
      return { caller, answer, failure }
    }
    const side: InitiatorSide = { tunnel, end, events, wanted: true, call, ...this.#follow(tunnel, end) }
    if (ready) end.send(READY)
    return side
  }

  /** Time goes by, and every tunnel looks. */
  later(ms: number): void {
    this.nowMs += ms
    for (const tunnel of this.#tunnels) tunnel.tick()
  }

  /** Ends what is open: then there is no call any more, and all of the budget is there again. */
  close(): void {
    for (const tunnel of this.#tunnels) tunnel.die(undefined)
    for (const { size } of this.#open) assert.equal(size, 0, 'no call is open')
    assert.equal(this.budget.leftBytes, this.#budgetBytes, 'the budget is whole again')
  }

  #options() {
    return {
      headBytesMax: HEAD_BYTES_MAX,
      budget: this.budget,
      clockMs: () => this.nowMs,
      onRecord: (direction: 'sent' | 'received') => {
        this.records[direction]++
      },
    }
  }

  /** Takes its records, as a stream does. */
  #follow(tunnel: Tunnel, end: TunnelEnd): { stop(): void; go(): void } {
    this.#tunnels.push(tunnel)
    let gate = Promise.resolve()
    let open = () => {}
    const follow = async () => {
      try {
        for (;;) {
          await gate
          const record = await tunnel.records.read()
          if (!record) return end.over('end')
          end.take(record)
        }
      } catch (error) {
        end.over(error)
      }
    }
    follow()
    return {
      stop() {
        const { promise, resolve } = Promise.withResolvers<void>()
        gate = promise
        open = resolve
      },
      go: () => open(),
    }
  }
}

/** A suite of tests, each in a world of its own, in which nothing is left over at the end. */
export function worldSuite(name: string) {
  const test = suite(name)
  const inWorld = (sentence: string, body: (world: World) => unknown, budgetBytes?: number) =>
    test(sentence, async () => {
      const world = new World(budgetBytes)
      await body(world)
      world.close()
    })
  return Object.assign(inWorld, { run: test.run })
}

/** The test of an assertion: is the tunnel dead, and was this why? */
export function isDead({ tunnel }: { tunnel: Tunnel }, end: unknown, why: RegExp): void {
  assert.equal(tunnel.isOver, true)
  assert.match(String((end as Error).message), why)
}
