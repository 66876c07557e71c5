/** Prometheus' own checker of its rules, taken out of Debian's package: to install that would start a server. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import path from 'node:path'
import { cacheFolder } from './cache.ts'
import { findProgram } from './debian.ts'

const PACKAGE = 'prometheus'

/**
 * Finds promtool on PATH or in the cache, and fetches it where it is in neither.
 * @param say is told that it is fetched
 * @returns its path
 * @throws Error that says how to get it
 */
export function promtool(say: (line: string) => void): string {
  const folder = path.join(cacheFolder(), 'promtool')
  return findProgram('promtool', folder) ?? fetchPromtool(folder, say)
}

function fetchPromtool(folder: string, say: (line: string) => void): string {
  const command = findProgram('apt-get')
  if (!command)
    throw new Error('there is no promtool: it comes with Prometheus, https://prometheus.io/download')
  mkdirSync(folder, { recursive: true })
  // Beside where it goes, so that it gets there by a rename: whoever else fetches it has a folder of its own.
  const scratch = mkdtempSync(path.join(folder, 'fetch-'))
  const run = (program: string, ...args: string[]) =>
    execFileSync(program, args, { cwd: scratch, stdio: ['ignore', 'ignore', 'pipe'] })
  say(`Taking promtool out of Debian's package ${PACKAGE}, once`)
  try {
    if (process.getuid!() === 0) run(command, 'update')
    run(command, 'download', PACKAGE)
    const [file] = readdirSync(scratch)
    run('dpkg-deb', '--extract', file!, '.')
    const program = path.join(folder, 'promtool')
    renameSync(path.join(scratch, 'usr/bin/promtool'), program)
    return program
  } finally {
    rmSync(scratch, { recursive: true })
  }
}
