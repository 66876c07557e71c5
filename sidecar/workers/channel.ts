import { StoreUnavailableError } from '../pair/store.ts'

/** One end of what carries messages between a process and its child: the child, or in the child `process`. */
export interface End {
  send?(message: unknown, onSent: (error: Error | null) => void): boolean
  on(event: 'message', listener: (message: Turn) => void): unknown
}

/** What can be asked of a process, by name. What it takes and gives must be fit for a structured clone. */
// biome-ignore lint/suspicious/noExplicitAny: the parameters of each verb are its own
export type Verbs = Record<string, (...args: any[]) => unknown>

/** All that one end has to say in a turn of its event loop. */
interface Turn {
  calls: Call[]
  answers: Answer[]
}
type Call = [id: number, verb: string, args: unknown[]]
type Answer = [id: number, value: unknown, failure?: { name: string; message: string }]

interface Waiting {
  resolve(value: never): void
  reject(error: unknown): void
}

/**
 * Asks another process, and answers what it asks. What is said in one turn of the event loop goes as one message: for
 * many calls at once that is a third of what a message each would take.
 */
export class Channel<Theirs extends Verbs> {
  readonly #end: End
  #verbs: Verbs
  #lastId = 0
  readonly #waiting = new Map<number, Waiting>()
  #turn: Turn | undefined

  /** @param verbs what the other process may ask; more may be served later */
  constructor(end: End, verbs: Verbs = {}) {
    this.#end = end
    this.#verbs = verbs
    end.on('message', (turn) => this.#hear(turn))
  }

  serve(verbs: Verbs): void {
    this.#verbs = verbs
  }

  /** @throws StoreUnavailableError, ChannelClosedError, or an Error with the message of any other */
  ask<V extends keyof Theirs & string>(
    verb: V,
    ...args: Parameters<Theirs[V]>
  ): Promise<Awaited<ReturnType<Theirs[V]>>> {
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId
      this.#waiting.set(id, { resolve, reject })
      this.#next().calls.push([id, verb, args])
    })
  }

  /** The other process is gone: nothing that was asked will be answered. */
  close(): void {
    for (const { reject } of this.#waiting.values()) reject(new ChannelClosedError())
    this.#waiting.clear()
  }

  #next(): Turn {
    if (!this.#turn) {
      this.#turn = { calls: [], answers: [] }
      setImmediate(() => this.#flush())
    }
    return this.#turn
  }

  #flush(): void {
    const turn = this.#turn
    this.#turn = undefined
    // That the other process is gone is told in another way.
    this.#end.send!(turn, () => {})
  }

  #hear({ calls, answers }: Turn): void {
    for (const [id, value, failure] of answers) {
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (failure) waiting?.reject(revived(failure))
      else waiting?.resolve(value as never)
    }
    for (const call of calls) void this.#answer(call)
  }

  async #answer([id, verb, args]: Call): Promise<void> {
    try {
      const value = await this.#verbs[verb]!(...args)
      this.#next().answers.push([id, value])
    } catch (error) {
      const { name, message } = error instanceof Error ? error : new Error(`a thrown ${typeof error}`)
      this.#next().answers.push([id, undefined, { name, message }])
    }
  }
}

/** The process that was asked has ended. */
export class ChannelClosedError extends Error {
  constructor() {
    super('the process that was asked has ended')
    this.name = 'ChannelClosedError'
  }
}

function revived({ name, message }: { name: string; message: string }): Error {
  return name === 'StoreUnavailableError' ? new StoreUnavailableError(message) : new Error(message)
}
