import { randomFillSync } from 'node:crypto'

const POOL_BYTES = 4096

/**
 * A source of random bytes for IVs, which are public: twelve of them cost as much as a pool full.
 *
 * Not for secrets: what a pool gave stays in memory until all of it is given.
 */
export function randomPool(): (length: number) => Buffer {
  let pool = Buffer.alloc(0)
  return (length) => {
    if (pool.length < length) pool = randomFillSync(Buffer.allocUnsafeSlow(Math.max(POOL_BYTES, length)))
    const bytes = pool.subarray(0, length)
    pool = pool.subarray(length)
    return bytes
  }
}
