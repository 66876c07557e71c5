import { createHash } from 'node:crypto'
import { Reject, type RejectName } from '../../sidecar/pair/reject.ts'

/** A clock that moves when it is told to. */
export class FakeClock {
  ms = 1_000_000

  readonly now = (): number => this.ms

  advance(ms: number): void {
    this.ms += ms
  }
}

/** A stream of bytes that is the same for the same seed. */
export function seeded(seed: string): (length: number) => Buffer {
  let counter = 0
  return (length) => {
    const parts: Buffer[] = []
    for (let bytes = 0; bytes < length; bytes += 32)
      parts.push(createHash('sha256').update(`${seed} ${counter++}`).digest())
    return Buffer.concat(parts, length)
  }
}

/** The code with which something is rejected; fails for whatever else comes of it. */
export async function rejection(step: () => unknown): Promise<RejectName> {
  try {
    await step()
  } catch (error) {
    if (error instanceof Reject) return error.code
    throw error
  }
  throw new Error('it was not rejected')
}
