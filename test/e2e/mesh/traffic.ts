/** Makes the calls of all kinds, and compares what came of them. */
import path from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { Container } from '../pods/container.ts'
import type { Replica } from '../pods/replica.ts'
import type { App } from '../pods/world.ts'
import { KINDS, type Kind } from './kinds.ts'

/** What came of the calls of a kind. */
export interface Outcome {
  /** what the app that calls saw */
  saw: unknown
  /** what the app that is called got, by the numbers of the calls: replicas tell in no order */
  got: { number: number }[]
}

/** By the name of the kind. */
export type Outcomes = ReadonlyMap<string, Outcome>

/** How calls get to the app. */
export interface Way {
  /** ports of the caller's pod */
  http1: number
  h2c: number
  /** that is called; billing where it is not told */
  authority?: string
  /** all of them where it is not told */
  kinds?: readonly Kind[]
  /** resolves when no connection has anything to do, and all are closed therefore */
  idle?(): Promise<void>
}

export class Traffic {
  /** to be called; it tells here what it got */
  readonly app: App = {
    file: path.join(import.meta.dirname, 'billing.ts'),
    onLine: (line) => {
      if (line.startsWith('{')) this.#onGot(JSON.parse(line))
    },
  }
  #outcomes = new Map<string, Outcome>()
  #onOutcome: (() => void) | undefined

  /** Makes all of them, one kind after the other. @param replica in whose pod the caller is */
  async make(
    replica: Replica,
    { http1, h2c, authority = 'billing', kinds = KINDS, idle }: Way,
  ): Promise<Outcomes> {
    this.#outcomes = new Map(kinds.map(({ name }) => [name, { saw: undefined, got: [] }]))
    const script = path.join(import.meta.dirname, 'caller.ts')
    const caller = replica.run([script, String(http1), String(h2c), authority], (line) => {
      if (line.startsWith('{')) this.#onSaw(JSON.parse(line))
    })
    for (const kind of kinds) {
      if (kind.afterIdle) await idle?.()
      caller.tell(kind.name)
      await this.#over(kind, caller)
    }
    await caller.kill()
    return this.#outcomes
  }

  /** Resolves when both sides have told all of a kind. @throws Error when the caller has ended before */
  async #over({ name, calls = 1 }: Kind, caller: Container): Promise<void> {
    const { saw, got } = this.#outcomes.get(name)!
    if (saw !== undefined && got.length >= calls) return
    await Promise.race([
      new Promise<void>((resolve) => {
        this.#onOutcome = resolve
      }),
      caller.succeeds(),
    ])
    await this.#over({ name, calls } as Kind, caller)
  }

  #onSaw({ kind, saw }: { kind: string; saw: unknown }): void {
    this.#outcomes.get(kind)!.saw = saw
    this.#onOutcome?.()
  }

  #onGot({ kind, ...one }: { kind: string; number: number }): void {
    const { got } = this.#outcomes.get(kind)!
    got.push(one)
    got.sort((a, b) => a.number - b.number)
    this.#onOutcome?.()
  }
}

/** The places at which two values differ, such as `saw.fields[2]`. */
export function differences(a: unknown, b: unknown, place = ''): string[] {
  if (isDeepStrictEqual(a, b)) return []
  if (typeof a !== 'object' || typeof b !== 'object' || !a || !b) return [place]
  const keys = new Set([...Object.keys(a), ...Object.keys(b)])
  return [...keys].flatMap((key) =>
    differences(a[key as keyof typeof a], b[key as keyof typeof b], place === '' ? key : `${place}.${key}`),
  )
}

/**
 * A line for each kind.
 * @param columns what came of all kinds, by what was between the apps; each is compared with the one before it
 */
export function tableOf(columns: Record<string, Outcomes>): string {
  const titles = Object.keys(columns)
  const outcomes = Object.values(columns)
  const lines = KINDS.map(({ name }) => [
    name,
    ...outcomes.map((column, i) => {
      const { saw, got } = column.get(name)!
      if (i === 0) return `${got.length} ${got.length === 1 ? 'call' : 'calls'}`
      return differences(outcomes[i - 1]!.get(name), { saw, got }).join(' ') || 'equal'
    }),
  ])
  const all = [['kind', ...titles], ...lines]
  const widths = titles.map((_, i) => Math.max(...all.map((line) => line[i]!.length)))
  return all.map((line) => line.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')).join('\n')
}
