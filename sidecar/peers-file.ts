import { statSync } from 'node:fs'
import { FORMATS, Mistake, type Peer } from './formats.ts'

export interface PeersFileEvents {
  /** May throw a Mistake about them, which is then told. */
  onPeers(peers: readonly Peer[]): void
  /** Told once for each content that is wrong: the rest of a sentence that begins with PEERS_FILE. */
  onMistake(message: string): void
}

const LOOK_MS = 500

/**
 * Tells what PEERS_FILE holds: before it returns, and again within two seconds of every change.
 *
 * The path is followed anew at each look, so a file that is replaced, and one behind a symbolic link that is turned
 * (ConfigMaps of Kubernetes), are noticed like one that is written to.
 */
export function watchPeersFile(path: string, { onPeers, onMistake }: PeersFileEvents): { close(): void } {
  const tell = () => {
    try {
      onPeers(FORMATS.peersFile(path).peers)
    } catch (error) {
      if (!(error instanceof Mistake)) throw error
      onMistake(error.message)
    }
  }
  let told = stateOf(path)
  let seen = told
  tell()
  const timer = setInterval(() => {
    const now = stateOf(path)
    // Somebody may be in the middle of writing what has changed since the last look.
    const settled = now === seen
    seen = now
    if (!settled || now === told) return
    told = now
    tell()
  }, LOOK_MS)
  return { close: () => clearInterval(timer) }
}

/** A text that differs when the file does. */
function stateOf(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true })
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ')
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code)
  }
}
