import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

/** A folder as Kubernetes mounts a Secret or ConfigMap: each key is a link into `..data`, a link that is turned. */
export class SecretMount {
  readonly #folder = mkdtempSync(path.join(os.tmpdir(), 'mte-sidecar-mount-'))
  #versions = 0

  constructor(content: Record<string, string>) {
    this.turn(content)
  }

  /** Shows this and nothing else, all of it in one moment. */
  turn(content: Record<string, string>): void {
    const version = `..version-${++this.#versions}`
    mkdirSync(path.join(this.#folder, version))
    for (const [key, text] of Object.entries(content))
      writeFileSync(path.join(this.#folder, version, key), text)
    symlinkSync(version, path.join(this.#folder, '..data_tmp'))
    renameSync(path.join(this.#folder, '..data_tmp'), path.join(this.#folder, '..data'))
  }

  /** The path of a key, which need not be there. */
  file(key: string): string {
    const link = path.join(this.#folder, key)
    rmSync(link, { force: true })
    symlinkSync(`..data/${key}`, link)
    return link
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true })
  }
}
