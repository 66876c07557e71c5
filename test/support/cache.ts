import os from 'node:os'
import path from 'node:path'

/** The folder of programs that are fetched or built once, for all checkouts. */
export function cacheFolder(): string {
  return path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'mte-sidecar')
}
