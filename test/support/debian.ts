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

/** A program that tests need: a variable names it, or it is found by one of its names. */
interface Program {
  title: string
  variable: string
  names: readonly string[]
  /** Debian's package that brings it */
  debian: string
}

const REDIS: Program = {
  title: 'Redis',
  variable: 'REDIS_SERVER_BIN',
  names: ['redis-server', 'valkey-server'],
  debian: 'redis-server',
}
const CHROMIUM: Program = {
  title: 'Chromium',
  variable: 'CHROMIUM_BIN',
  names: ['chromium'],
  debian: 'chromium',
}

/** @returns the path of Redis' server, or Valkey's. @throws Error that says how to install it */
export const redisBinary = (): string => binaryOf(REDIS)

/** @returns the path of Chromium. @throws Error that says how to install it */
export const chromiumBinary = (): string => binaryOf(CHROMIUM)

type Say = (line: string) => void

/** Installs Redis' server if there is none. Where that cannot be done it says so, and leaves it to tests to fail. */
export const installRedis = (say: Say): void => install(REDIS, say)

/** Installs Chromium as `installRedis` does Redis. */
export const installChromium = (say: Say): void => install(CHROMIUM, say)

function install(program: Program, say: Say): void {
  const { title, variable, debian } = program
  try {
    if (!process.env[variable] && !found(program)) installPackages([debian], say)
    binaryOf(program)
  } catch (error) {
    say(`What needs ${title} will fail: ${(error as Error).message}`)
  }
}

function binaryOf(program: Program): string {
  const { variable, names, debian } = program
  const named = process.env[variable]
  if (named && !isExecutable(named)) throw new Error(`${variable} names no program: ${named}`)
  const binary = named || found(program)
  if (!binary)
    throw new Error(`there is no ${names[0]}: run \`apt-get install ${debian}\`, or set ${variable}`)
  return binary
}

function found({ names }: Program): string | undefined {
  return names.map((name) => findProgram(name)).find((path) => path !== undefined)
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}
