/** CPU profiles of our processes: what each function took by itself, while the load was measured. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type Frame, flameGraph } from './flame.ts'

const FUNCTIONS = 25
/** Of no interest: while it waits, a process takes no CPU. */
const IDLE = '(idle)'
const EXTENSION = '.cpuprofile'

/** A time in which the load was measured, in us of the clock of `nowUs`. */
export interface Span {
  fromUs: number
  toUs: number
}

/** What V8 writes. */
interface Profile {
  nodes: {
    id: number
    callFrame: { functionName: string; url: string; lineNumber: number }
    children?: number[]
  }[]
  /** us of the monotonic clock */
  startTime: number
  /** ids of nodes, and how many us came before each sample */
  samples: number[]
  timeDeltas: number[]
}

/** What makes Node write a CPU profile when it leaves: a process, of those that share a name, a file. */
export function profilerArgs(folder: string, name: string): string[] {
  return ['--cpu-prof', '--cpu-prof-dir', folder, '--cpu-prof-name', `${name}-\${pid}${EXTENSION}`]
}

/** The clock that V8 profiles by. */
export function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n)
}

/**
 * Reads the profiles of a folder, and puts a flame graph as HTML beside each.
 * @param spans to which they are confined
 * @returns the functions that took most by themselves, a list a process
 * @throws Error when no process left a profile
 */
export function tellProfiles(folder: string, spans: Span[]): string {
  const files = readdirSync(folder).filter((file) => file.endsWith(EXTENSION))
  if (files.length === 0) throw new Error(`no process left a CPU profile in ${folder}`)
  const texts = files.map((file) => {
    const root = treeOf(JSON.parse(readFileSync(path.join(folder, file), 'utf8')), spans)
    const title = `${path.basename(folder)}, sidecar ${path.basename(file, EXTENSION)}`
    if (root.totalUs === 0) return `\n${title}: idle`
    const page = path.join(folder, file.replace(EXTENSION, '.html'))
    writeFileSync(page, flameGraph(root, title))
    const lines = mostByThemselves(root).map(
      ({ share, name, place }) => `${(100 * share).toFixed(1).padStart(6)} %  ${name}  ${place}`,
    )
    return [`\n${title}: ${(root.totalUs / 1e6).toFixed(1)} s that were not idle; ${page}`, ...lines].join(
      '\n',
    )
  })
  return texts.join('\n')
}

/** All that was sampled within the spans, from the outermost call inwards. */
function treeOf({ nodes, startTime, samples, timeDeltas }: Profile, spans: Span[]): Frame {
  const selfUs = new Map<number, number>()
  let atUs = startTime
  for (const [i, id] of samples.entries()) {
    const delta = timeDeltas[i]!
    atUs += delta
    if (spans.some(({ fromUs, toUs }) => atUs >= fromUs && atUs <= toUs))
      selfUs.set(id, (selfUs.get(id) ?? 0) + delta)
  }
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const frameOf = (id: number): Frame => {
    const { callFrame, children = [] } = byId.get(id)!
    const name = callFrame.functionName || '(anonymous)'
    const frame = { name, place: placeOf(callFrame), selfUs: selfUs.get(id) ?? 0, totalUs: 0 }
    const inner = children.map(frameOf).filter((child) => child.name !== IDLE && child.totalUs > 0)
    frame.totalUs = inner.reduce((sum, { totalUs }) => sum + totalUs, frame.selfUs)
    return { ...frame, children: inner }
  }
  return frameOf(nodes[0]!.id)
}

/** File and line; empty for what is not JavaScript. */
function placeOf({ url, lineNumber }: Profile['nodes'][number]['callFrame']): string {
  if (url === '') return ''
  const file = url.startsWith('file://') ? path.relative(process.cwd(), new URL(url).pathname) : url
  return `${file}:${lineNumber + 1}`
}

function mostByThemselves(root: Frame): { name: string; place: string; share: number }[] {
  const functions = new Map<string, { name: string; place: string; share: number }>()
  const add = ({ name, place, selfUs, children }: Frame) => {
    const key = `${name} ${place}`
    const one = functions.get(key) ?? { name, place, share: 0 }
    one.share += selfUs / root.totalUs
    functions.set(key, one)
    children.forEach(add)
  }
  add(root)
  return [...functions.values()].toSorted((a, b) => b.share - a.share).slice(0, FUNCTIONS)
}
