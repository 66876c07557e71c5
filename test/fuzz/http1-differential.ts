/** Shows the same bytes to the readers of the sidecar and to node:http, and counts what became of them. */
import { type Comparison, compareRequests, compareResponse } from './http1-differences.ts'
import type { Mutations } from './http1-mutations.ts'
import { REQUEST_SEEDS, RESPONSE_SEEDS } from './http1-seeds.ts'

/** The sidecar takes something that node:http refuses, or for something else. */
export class DifferenceError extends Error {
  constructor(difference: string, input: string, { bySidecar, byNode }: Comparison) {
    const readings = `by the sidecar: ${JSON.stringify(bySidecar)}\nby node:http: ${JSON.stringify(byNode)}`
    super(`${difference}\n${input}\n${readings}`)
    this.name = 'DifferenceError'
  }
}

/** How many inputs were taken or refused by whom. */
export class Counts {
  takenByBoth = 0
  refusedByBoth = 0
  refusedBySidecar = 0

  get inputs(): number {
    return this.takenByBoth + this.refusedByBoth + this.refusedBySidecar
  }

  /** @throws DifferenceError */
  add(input: string, comparison: Comparison): void {
    const { difference, bySidecar, byNode } = comparison
    if (difference) throw new DifferenceError(difference, input, comparison)
    if (!bySidecar.refused) this.takenByBoth++
    else if (byNode.refused) this.refusedByBoth++
    else this.refusedBySidecar++
  }
}

/** Every seed as it is. */
export async function compareSeeds(counts: Counts): Promise<void> {
  for (const text of REQUEST_SEEDS) addRequest(counts, text)
  for (const { method, text } of RESPONSE_SEEDS) await addResponse(counts, method, text)
}

/** So many mutations of seeds, half of them requests. */
export async function compareMutations(counts: Counts, mutations: Mutations, pairs: number): Promise<void> {
  for (let i = 0; i < pairs; i++) {
    addRequest(counts, mutations.request())
    const { method, text } = mutations.response()
    await addResponse(counts, method, text)
    // What was destroyed is let go of in later turns of the event loop.
    if (i % 100 === 99) await new Promise((resolve) => setImmediate(resolve))
  }
}

function addRequest(counts: Counts, text: string): void {
  counts.add(JSON.stringify(text), compareRequests(text))
}

async function addResponse(counts: Counts, method: string, text: string): Promise<void> {
  counts.add(`to ${method}: ${JSON.stringify(text)}`, await compareResponse(method, text))
}
