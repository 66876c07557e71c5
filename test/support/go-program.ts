/** Programs of others, written in Go, that tests need and that no package brings: built once, and kept in a cache. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { cacheFolder } from './cache.ts'
import { findProgram } from './debian.ts'

const run = promisify(execFile)
const BUILD_DEADLINE_MS = 10 * 60_000
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024
const COMPLAINT_LINES = 10

export interface GoProgram {
  /** of its binary */
  name: string
  version: string
  /** the variable that names a binary to use instead */
  variable: string
  /** where people get a binary, for those who have no Go */
  origin: string
  /** `module@version`, or a package of one, with `@version`: what it is made of */
  requires: readonly string[]
  /** what is taken in place of other modules, as `go mod edit -replace` has it: `module=module@version` */
  replaces?: readonly string[]
  /** values of variables in it, as the linker's -X has them: `package.name=value` */
  linked?: readonly string[]
  /** the package to build */
  main: string | { source: string }
  /** Does no other version do, so that one on PATH is not taken? */
  exact?: boolean
}

/**
 * Finds a program, or builds it: the one that its variable names, else one on PATH if any version will do, else the one
 * in the cache. Any number of processes may do so at once.
 * @param say is told, in a line each, that it is being built and how long that took
 * @returns its path
 * @throws Error that says how to get it, where it is not there and cannot be built
 */
export async function goProgram(program: GoProgram, say: (line: string) => void): Promise<string> {
  const named = process.env[program.variable]
  if (named && !existsSync(named)) throw new Error(`${program.variable} names no program: ${named}`)
  const found = named || (program.exact ? undefined : findProgram(program.name))
  if (found) return found
  const recipe = createHash('sha256')
    .update(
      JSON.stringify([
        program.requires,
        program.main,
        ...(program.replaces ?? []),
        ...(program.linked ?? []),
      ]),
    )
    .digest('hex')
  const key = [program.name, program.version, process.platform, process.arch, recipe.slice(0, 8)].join('-')
  const binary = path.join(cacheFolder(), key, program.name)
  if (!existsSync(binary)) await build(program, binary, say)
  return binary
}

async function build(program: GoProgram, binary: string, say: (line: string) => void): Promise<void> {
  const { name, version, requires, replaces = [], linked = [], main } = program
  const go = findProgram('go')
  if (!go)
    throw new Error(
      `there is no ${name} ${version}: install Go (https://go.dev/dl), with which the tests build it, or set ` +
        `${program.variable} to its binary (${program.origin})`,
    )
  say(`Building ${name} ${version}, once: this takes minutes`)
  const startMs = performance.now()
  mkdirSync(path.dirname(binary), { recursive: true })
  // Beside the binary, so that it gets there by a rename: whoever else builds it has a folder of its own.
  const scratch = mkdtempSync(path.join(path.dirname(binary), 'build-'))
  try {
    // Not `go install package@version`: it refuses modules that replace others.
    await goCommand(go, scratch, 'mod', 'init', 'scratch')
    if (replaces.length > 0) {
      await goCommand(go, scratch, 'mod', 'edit', ...replaces.map((one) => `-replace=${one}`))
    }
    await goCommand(go, scratch, 'get', ...requires)
    if (typeof main !== 'string') writeFileSync(path.join(scratch, 'main.go'), main.source)
    const source = typeof main === 'string' ? main : '.'
    const linkerFlags = ['-s', '-w', ...linked.map((one) => `-X=${one}`)].join(' ')
    await goCommand(go, scratch, 'build', '-trimpath', `-ldflags=${linkerFlags}`, '-o', name, source)
    renameSync(path.join(scratch, name), binary)
  } catch (error) {
    throw new Error(`${name} ${version} could not be built: ${complaint(error)}`)
  } finally {
    rmSync(scratch, { recursive: true })
  }
  say(`Built ${name} ${version} in ${Math.round((performance.now() - startMs) / 1000)} s: ${binary}`)
}

function goCommand(go: string, cwd: string, ...args: string[]): Promise<unknown> {
  const env = { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=mod' }
  return run(go, args, { cwd, env, timeout: BUILD_DEADLINE_MS, maxBuffer: OUTPUT_BYTES_MAX })
}

function complaint(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string }
  const lines = (stderr || message).trimEnd().split('\n')
  return lines
    .filter((line) => !line.startsWith('go: downloading'))
    .slice(-COMPLAINT_LINES)
    .join('\n')
}
