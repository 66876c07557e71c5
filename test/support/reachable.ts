/** Programs that run as other users, in a checkout that these may not reach, such as one below /root. */
import { statSync } from 'node:fs'
import path from 'node:path'

const root = path.dirname(path.dirname(import.meta.dirname))
/** Puts the checkout, at its own path, into a folder that anybody may pass, and goes on as the command; no other process sees it. */
const SCRIPT = `set -e; checkout=$1 hidden=$2; shift 2
mount --bind "$checkout" /mnt
mount -t tmpfs -o mode=755 tmpfs "$hidden"
mkdir -p "$checkout"
mount --bind /mnt "$checkout"
cd "$checkout"
exec "$@"`

/**
 * The command that runs another one, in the folder of the checkout, such that any user may read that.
 * @param command begins as root, and may leave that for another user
 */
export function reachable(command: readonly string[]): string[] {
  const hidden = ancestors(root).find((folder) => (statSync(folder).mode & 0o001) === 0)
  if (hidden === undefined) return [...command]
  return ['unshare', '--mount', 'sh', '-c', SCRIPT, 'sh', root, hidden, ...command]
}

/** The folders that a folder is in, from the top, and itself. */
function ancestors(folder: string): string[] {
  const above = path.dirname(folder)
  return above === folder ? [folder] : [...ancestors(above), folder]
}
