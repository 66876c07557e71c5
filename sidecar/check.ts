/** Tries what a configuration names, and says in plain words what works and what to do about the rest. */
import { type Finding, ok } from './check/finding.ts'
import { checkPeers } from './check/peers.ts'
import { checkRedis } from './check/redis.ts'
import { checkCollector, checkRunning, checkSecretFiles, checkUser } from './check/surroundings.ts'
import { checkUpstream } from './check/upstream.ts'
import type { Config } from './config.ts'

/**
 * Changes nothing for a sidecar that runs beside it: it listens nowhere, and its pairs are its own.
 * @param urls peers' sidecars to pair with besides those of the configuration
 * @returns whether all works; what is only warned of does
 */
export async function runCheck(
  config: Config,
  urls: readonly string[],
  print: (line: string) => void = console.log,
): Promise<boolean> {
  const user = { uid: process.getuid?.(), gid: process.getgid?.() }
  const checks: (() => Finding[] | Promise<Finding[]>)[] = [
    () => [ok('The configuration can be read.')],
    () => checkUser(user),
    () => checkSecretFiles(config),
    () => checkRunning(config),
    () => checkUpstream(config),
    () => checkRedis(config),
    () => checkCollector(config),
    () => checkPeers(config, urls),
  ]
  let works = true
  for (const check of checks) {
    for (const { mark, what, advice } of await check()) {
      print(`${mark.padEnd(MARK_WIDTH)}${what}`)
      if (advice !== undefined) print(`${' '.repeat(MARK_WIDTH)}${advice}`)
      works &&= mark !== 'FAIL'
    }
  }
  return works
}

const MARK_WIDTH = 6
