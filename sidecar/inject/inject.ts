/** The command `inject`: a manifest in, the same with sidecars out. */
import { readFile } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { isDeepStrictEqual } from 'node:util'
import { type Document, LineCounter } from 'yaml'
import { applyEdits, type Edit, EditError, Editor, offsetOf, parseDocuments } from './edit.ts'
import { applyPatch, type Operation, pointer } from './json-patch.ts'
import { type InjectedPod, makerOf, podOf, type Resource, resourcesOf, serviceChanges } from './manifest.ts'
import { ANNOTATION_PREFIX, type Options } from './options.ts'
import { patchFor } from './patch.ts'
import { isFields } from './pod.ts'

export interface InjectOptions {
  /** of what the pods' annotations do not set */
  defaults: Partial<Options>
  /** have Services that lead to an app lead to its sidecar? */
  services: boolean
}

/** What has become of a manifest. */
interface Injection {
  /** undefined: something of it is refused, and so there is no half of it */
  manifest: string | undefined
  /** why it is refused, or what else there is to say: a line each, with file, line and column */
  messages: string[]
}

/** A file that cannot be read: a sentence without its full stop. */
export class UnreadableError extends Error {}

/** A document, and what is to be done to it. */
interface Planned {
  document: Document.Parsed
  value: unknown
  operations: Operation[]
}

/** Gathers what there is to say about a text. */
class Report {
  readonly messages: string[] = []
  readonly lineCounter = new LineCounter()
  isRefused = false
  readonly #file: string

  constructor(file: string) {
    this.#file = file
  }

  refuse(offset: number, what: string): void {
    this.isRefused = true
    this.note(offset, what)
  }

  warn(offset: number, what: string): void {
    this.note(offset, `warning: ${what}`)
  }

  note(offset: number, what: string): void {
    const { line, col } = this.lineCounter.linePos(offset)
    const message = `${this.#file}:${line}:${col}: ${what}`
    if (!this.messages.includes(message)) this.messages.push(message)
  }
}

/**
 * Puts sidecars into the manifest in a file.
 * @param file its path, or `-` for standard input
 * @returns what to print: the manifest, or what differs in it as a unified diff; undefined where it is refused
 * @throws UnreadableError
 */
export async function injectFile(
  file: string,
  { diff, ...options }: InjectOptions & { diff: boolean },
): Promise<{ output: string | undefined; messages: string[] }> {
  const source = await read(file)
  const { manifest, messages } = inject(source, file, options)
  if (manifest === undefined || !diff) return { output: manifest, messages }
  if (manifest === source) return { output: '', messages }
  const { createTwoFilesPatch, FILE_HEADERS_ONLY } = await import('diff')
  const headerOptions = FILE_HEADERS_ONLY
  const output = createTwoFilesPatch(file, file, source, manifest, undefined, undefined, { headerOptions })
  return { output, messages }
}

/**
 * Puts sidecars into the pods and workloads of a manifest: documents of YAML or JSON, with Lists among them. All else
 * stays as it is, byte for byte, and what has a sidecar is left alone.
 * @param file how messages name it
 */
export function inject(source: string, file: string, options: InjectOptions): Injection {
  const report = new Report(file)
  const planned = plan(source, options, report)
  const edits = report.isRefused ? [] : planned.flatMap((one) => editsOf(source, one, report))
  const manifest = applyEdits(source, edits)
  if (!report.isRefused) checkEdited(manifest, planned, report)
  return { manifest: report.isRefused ? undefined : manifest, messages: report.messages }
}

/** What is to be done to each document that has anything in it. */
function plan(source: string, options: InjectOptions, report: Report): Planned[] {
  const planned: Planned[] = []
  for (const document of parseDocuments(source, report.lineCounter)) {
    for (const { pos, message } of document.errors) report.refuse(pos[0], message)
    if (document.errors.length > 0) continue
    try {
      planned.push({ document, value: document.toJS(), operations: [] })
    } catch (error) {
      // An alias of nothing, or more of them than any honest manifest holds.
      report.refuse(document.range[0], (error as Error).message)
    }
  }
  const injected = planned.flatMap((one) => planPods(one, options, report))
  for (const one of planned) planServices(one, injected, options, report)
  if (!report.isRefused && !planned.some(({ value }) => [...resourcesOf(value)].some(podOf))) {
    report.warn(0, 'there is no pod here, and no workload that makes any')
  }
  return planned
}

/** @returns those that get a sidecar */
function planPods(
  { document, value, operations }: Planned,
  options: InjectOptions,
  report: Report,
): InjectedPod[] {
  return [...resourcesOf(value)].flatMap((resource) => {
    const found = podOf(resource)
    if (!found) return []
    const { title, podPath, pod } = found
    const at = (path: string) => offsetOf(document, podPath + path)
    const maker = makerOf(resource)
    if (maker !== undefined) {
      report.note(at(''), `${title}: it is made by ${maker}, and is left to that`)
      return []
    }
    if (podPath !== resource.path) refuseMisplaced(resource, document, report)
    const patch = patchFor(pod, options.defaults)
    if (patch.outcome === 'refused') {
      for (const { path, text } of patch.refusals) report.refuse(at(path), `${title}: ${text}`)
    } else if (patch.outcome === 'has-it') {
      report.note(at(''), `${title}: it has a sidecar, and is left as it is`)
    } else if (patch.outcome === 'injected') {
      for (const { path, text } of patch.warnings) report.warn(at(path), `${title}: ${text}`)
      operations.push(...below(podPath, patch.operations))
      return [{ ...found, upstreamPort: patch.upstreamPort }]
    }
    return []
  })
}

/** Options on a workload would say nothing, not even that there should be no sidecar. */
function refuseMisplaced({ value, title, path }: Resource, document: Document.Parsed, report: Report): void {
  const { annotations } = isFields(value.metadata) ? value.metadata : {}
  for (const annotation of Object.keys(isFields(annotations) ? annotations : {})) {
    if (!annotation.startsWith(ANNOTATION_PREFIX)) continue
    const at = offsetOf(document, path + pointer('metadata', 'annotations', annotation))
    report.refuse(at, `${title}: ${annotation} must be an annotation of the pod template, beside its labels`)
  }
}

function planServices(
  { document, value, operations }: Planned,
  injected: readonly InjectedPod[],
  { services }: InjectOptions,
  report: Report,
): void {
  for (const resource of resourcesOf(value)) {
    for (const { path, text, operation } of serviceChanges(resource, injected)) {
      if (services && operation) operations.push(...below(resource.path, [operation]))
      else report.warn(offsetOf(document, resource.path + path), `${resource.title}: ${text}`)
    }
  }
}

function editsOf(source: string, { document, operations }: Planned, report: Report): Edit[] {
  if (operations.length === 0) return []
  const editor = new Editor(source, document)
  return operations.flatMap((operation) => {
    try {
      return [editor.edit(operation)]
    } catch (error) {
      if (!(error instanceof EditError)) throw error
      report.refuse(error.offset, error.message)
      return []
    }
  })
}

/** Refuses what would become another manifest than was planned, as with an anchor that is used elsewhere too. */
function checkEdited(manifest: string, planned: readonly Planned[], report: Report): void {
  const edited = parseDocuments(manifest).filter(({ errors }) => errors.length === 0)
  for (const [i, { document, value, operations }] of planned.entries()) {
    if (isDeepStrictEqual(edited[i]?.toJS(), applyPatch(value, operations))) continue
    const at = offsetOf(document, operations[0]?.path ?? '')
    report.refuse(
      at,
      'this cannot be edited in place: write it without anchors, with each member on a line of its own',
    )
  }
}

function below(path: string, operations: readonly Operation[]): Operation[] {
  return operations.map((operation) => ({ ...operation, path: path + operation.path }))
}

async function read(file: string): Promise<string> {
  try {
    const bytes = file === '-' ? await buffer(process.stdin) : await readFile(file)
    // ignoreBOM: a byte order mark is kept.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? 'unknown'
    throw new UnreadableError(`${file} must be a file of UTF-8 text that can be read (${why})`, {
      cause: error,
    })
  }
}
