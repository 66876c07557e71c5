/**
 * Stand-ins for the public images that ours is built on and that the examples use, for an engine that has none of them
 * and may not be able to fetch any: made of Debian's packages, of the Node that runs this, and of what tests build.
 */
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { cacheFolder } from './cache.ts'
import { findProgram } from './debian.ts'
import { jaegerBinary } from './jaeger.ts'

const run = promisify(execFile)
const SUITE = 'bookworm'
/** libatomic1 is for Node; busybox is what Alpine's images have. */
const PACKAGES = ['busybox', 'ca-certificates', 'libatomic1', 'redis-server']
const USELESS = ['usr/share/doc', 'usr/share/locale', 'var/cache/apt', 'var/lib/apt/lists']
/** Those that this machine trusts are trusted there, too: it may reach registries through a proxy of its own. */
const AUTHORITIES = 'etc/ssl/certs/ca-certificates.crt'
const NODE = 'usr/local/bin/node'
const SEARCHED = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** An image as the engine is given it. */
interface Image {
  names: readonly string[]
  /** what `tar --create` is told to put into it */
  content: readonly string[]
  /** instructions of a Dockerfile */
  changes: readonly string[]
}

/**
 * Makes, once, the root of a Debian with Node, npm and Redis, of which they are made.
 * @returns its folder, in the cache
 */
export async function debianRoot(say: (line: string) => void): Promise<string> {
  const npm = path.join(path.dirname(realpathSync(findProgram('npm')!)), '..')
  const trusted = existsSync(`/${AUTHORITIES}`) ? readFileSync(`/${AUTHORITIES}`, 'utf8') : ''
  const recipe = JSON.stringify([PACKAGES, process.version, npm, trusted])
  const key = createHash('sha256').update(recipe).digest('hex').slice(0, 8)
  const root = path.join(cacheFolder(), `debian-${SUITE}-${process.arch}-${key}`)
  if (existsSync(root)) return root
  const debootstrap = findProgram('debootstrap')
  if (!debootstrap) throw new Error('there is no debootstrap: run `apt-get install debootstrap`')
  say(`Making a Debian ${SUITE} for stand-ins of public images, once: this takes half a minute`)
  mkdirSync(cacheFolder(), { recursive: true })
  // Beside its place, so that it gets there by a rename: whoever else makes it has a folder of its own.
  const scratch = mkdtempSync(`${root}-`)
  const inside = (name: string) => path.join(scratch, name)
  try {
    await run(debootstrap, ['--variant=minbase', `--include=${PACKAGES}`, SUITE, scratch])
    for (const name of USELESS) rmSync(inside(name), { recursive: true })
    if (trusted) writeFileSync(inside(AUTHORITIES), trusted)
    appendFileSync(inside('etc/passwd'), 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n')
    copyFileSync(process.execPath, inside(NODE))
    cpSync(npm, inside('usr/local/lib/node_modules/npm'), { recursive: true })
    symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', inside('usr/local/bin/npm'))
    symlinkSync('/bin/busybox', inside('usr/local/bin/wget'))
    chmodSync(scratch, 0o755)
    renameSync(scratch, root)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  return root
}

/**
 * Gives the stand-ins to an engine, under the names of the public images.
 * @param env tells `docker` where the engine is
 */
export async function importStandIns(env: NodeJS.ProcessEnv): Promise<void> {
  const root = await debianRoot(console.error)
  for (const image of [debian(root), await distroless(root), await jaeger()]) await importImage(image, env)
}

function debian(root: string): Image {
  return {
    names: ['debian:trixie-slim', 'node:26-trixie-slim', 'node:24-alpine', 'redis:7.2', 'redis:alpine'],
    content: ['--directory', root, '.'],
    changes: [
      `ENV PATH=${SEARCHED}`,
      `ENV NODE_EXTRA_CA_CERTS=/${AUTHORITIES}`,
      'CMD ["redis-server", "--protected-mode", "no"]',
    ],
  }
}

/** Node with the libraries that it is linked to, and no other program. */
async function distroless(root: string): Promise<Image> {
  const { stdout } = await run('ldd', [process.execPath])
  const libraries = stdout.match(/(?<=\/)lib\S+/g)!
  const files = ['--dereference', `--transform=s,^${NODE},nodejs/bin/node,`, NODE, ...libraries]
  return {
    names: ['gcr.io/distroless/nodejs26-debian13:nonroot'],
    content: ['--directory', root, '--no-recursion', ...files, 'etc/passwd', AUTHORITIES, 'tmp'],
    changes: [`ENV PATH=${SEARCHED}`, 'USER 65532', 'ENTRYPOINT ["/nodejs/bin/node"]'],
  }
}

async function jaeger(): Promise<Image> {
  const { dir, base } = path.parse(await jaegerBinary())
  return {
    names: ['jaegertracing/jaeger:2.13.0'],
    content: ['--directory', dir, `--transform=s,^,cmd/jaeger/,`, base],
    changes: ['USER 10001', `ENTRYPOINT ["/cmd/jaeger/${base}"]`],
  }
}

async function importImage({ names, content, changes }: Image, env: NodeJS.ProcessEnv): Promise<void> {
  const [name, ...others] = names
  const tar = spawn('tar', ['--create', '--file=-', ...content], { stdio: ['ignore', 'pipe', 'inherit'] })
  const options = changes.flatMap((change) => ['--change', change])
  const load = spawn('docker', ['import', ...options, '-', name!], {
    env,
    stdio: [tar.stdout, 'ignore', 'inherit'],
  })
  const [status] = (await once(load, 'exit')) as [number | null]
  if (status !== 0) throw new Error(`docker import ${name} failed`)
  for (const other of others) await run('docker', ['tag', name!, other], { env })
}
