/** Files of others that come in modules of Go. */
import { execFile } from 'node:child_process'
import os from 'node:os'
import { promisify } from 'node:util'
import { findProgram } from './debian.ts'

const run = promisify(execFile)
const DEADLINE_MS = 5 * 60_000

/**
 * Fetches a module, or finds it in Go's own cache.
 * @param module `path@version`
 * @returns the folder with its files
 * @throws Error that says how to get it, where there is no Go
 */
export async function goModule(module: string): Promise<string> {
  const go = findProgram('go')
  if (!go)
    throw new Error(`there is no ${module}: install Go (https://go.dev/dl), with which the tests fetch it`)
  // Outside of any module of its own.
  const { stdout } = await run(go, ['mod', 'download', '-json', module], {
    cwd: os.tmpdir(),
    timeout: DEADLINE_MS,
  })
  return JSON.parse(stdout).Dir
}
