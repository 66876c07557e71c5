/** Programs of the system that tests need, and Debian's packages that bring them. */
import { execFileSync } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import path from 'node:path'

/** @returns the path of a program, or undefined when it is not there */
export function findProgram(name: string, ...folders: string[]): string | undefined {
  return [...(process.env.PATH ?? '').split(':'), '/usr/sbin', ...folders]
    .map((folder) => path.join(folder, name))
    .find(isExecutable)
}

/**
 * Installs packages.
 * @param say is told the command
 * @throws Error that says how to install them, where this process may not
 */
export function installPackages(packages: readonly string[], say: (line: string) => void): void {
  const install = ['install', '--yes', '--no-install-recommends', ...packages]
  const command = `apt-get ${install.join(' ')}`
  if (!isExecutable('/usr/bin/apt-get'))
    throw new Error(`there is no apt-get here: install ${packages.join(', ')} in this system's own way`)
  if (process.getuid!() !== 0) throw new Error(`only root may install packages: run \`sudo ${command}\``)
  say(command)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  for (const args of [['update'], install])
    execFileSync('apt-get', args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
}

/** @returns the path of Redis' server, or Valkey's. @throws Error that says how to install it */
export function redisBinary(): string {
  const named = process.env.REDIS_SERVER_BIN
  if (named && !isExecutable(named)) throw new Error(`REDIS_SERVER_BIN names no program: ${named}`)
  const found = named || (findProgram('redis-server') ?? findProgram('valkey-server'))
  if (!found)
    throw new Error('there is no redis-server: run `apt-get install redis-server`, or set REDIS_SERVER_BIN')
  return found
}

/** Installs Redis' server if there is none. Where that cannot be done it says so, and leaves it to tests to fail. */
export function installRedis(say: (line: string) => void): void {
  try {
    if (!process.env.REDIS_SERVER_BIN && !findProgram('redis-server') && !findProgram('valkey-server'))
      installPackages(['redis-server'], say)
    redisBinary()
  } catch (error) {
    say(`What needs Redis will fail: ${(error as Error).message}`)
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}
