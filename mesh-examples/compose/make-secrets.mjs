// Makes the secrets of this example, where there are none yet. They are in volumes, and in no file of this folder.
import { randomBytes } from 'node:crypto'
import { chownSync, existsSync, rmSync, writeFileSync } from 'node:fs'

const SIDECAR = 65532
const REDIS = 999
const FOLDER = '/run/secrets'
const fresh = () => randomBytes(32).toString('base64url')

function put(name, owner, text) {
  const file = `${FOLDER}/${name}`
  rmSync(file, { force: true })
  writeFileSync(file, `${text}\n`, { mode: 0o400 })
  chownSync(file, owner, owner)
}

// The last to be made: where it is, all is.
const secret = 'mte-sidecar/CLIENT_ID_SECRET'
if (!existsSync(`${FOLDER}/${secret}`)) {
  const password = fresh()
  put('redis/auth.conf', REDIS, `requirepass ${password}`)
  put('mte-sidecar/REDIS_URL', SIDECAR, `redis://:${password}@redis:6379/0`)
  put(secret, SIDECAR, fresh())
}
