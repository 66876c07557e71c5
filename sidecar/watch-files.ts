import { statSync } from 'node:fs'

const LOOK_MS = 500

/**
 * Reads some files: before it returns, and again within two seconds of every change, once however many of them changed
 * together.
 *
 * The paths are followed anew at each look, so a file that is replaced, and one behind a symbolic link that is turned
 * (ConfigMaps and Secrets of Kubernetes), are noticed like one that is written to.
 * @param read reads what all of them hold, and gives what is to be done with that; which is not done, but all read
 *   again, when one has changed meanwhile. Nothing is read before that is done.
 */
export function watchFiles(
  paths: readonly string[],
  read: () => () => void | Promise<void>,
): { close(): void } {
  let closed = false
  let timer: NodeJS.Timeout | undefined
  let done: string | undefined
  let seen = stateOf(paths)
  const look = async () => {
    const now = stateOf(paths)
    // Somebody may be in the middle of writing what has changed since the last look.
    const settled = now === seen
    seen = now
    if (!settled || now === done) return
    const put = read()
    if (stateOf(paths) !== now) return
    done = now
    await put()
  }
  const lookOn = async () => {
    await look()
    if (!closed) timer = setTimeout(lookOn, LOOK_MS)
  }
  lookOn()
  return {
    close() {
      closed = true
      clearTimeout(timer)
    },
  }
}

/** A text that differs when one of the files does. */
function stateOf(paths: readonly string[]): string {
  return paths.map(stateOfFile).join('\n')
}

function stateOfFile(path: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true })
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ')
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code)
  }
}
