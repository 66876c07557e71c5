/** What metrics are counted with: for each set of attributes a series, found without building a string. */
import { printable } from '../printable.ts'

/** Values by the attribute names of OpenTelemetry. */
export type MetricAttributes = Record<string, string | number | boolean>

interface Point {
  attributes: MetricAttributes
  /** since when it is counted, in ms since 1970 */
  startMs: number
}

interface NumberPoint extends Point {
  value: number
}

export interface HistogramPoint extends Point {
  /** How many values each bucket has: one bucket for each bound, and one for what is above all; not cumulative. */
  counts: readonly number[]
  sum: number
  count: number
  /** the last sampled call in each bucket that has one, by the bucket's index; for text formats */
  exemplars: readonly (Exemplar | undefined)[]
}

/** A value that a trace explains. */
interface Exemplar {
  traceId: string
  value: number
  /** ms since 1970 */
  timeMs: number
}

/** A metric as it stands: everything is counted from the start and never reset. */
export type Family = {
  /** as OpenTelemetry has it, such as `http.server.request.duration` */
  name: string
  description: string
  /** UCUM: `s`, `By`, or an annotation such as `{message}` */
  unit: string
} & (
  | { kind: 'counter' | 'gauge'; points: NumberPoint[] }
  | {
      kind: 'histogram'
      /** the inclusive upper bounds of the buckets, ascending, without infinity */
      bounds: readonly number[]
      points: HistogramPoint[]
    }
)

/** What is said once of a metric. */
interface Definition {
  name: string
  unit: string
  description: string
  /** names of its attributes, in the order in which their values are given */
  attributes: readonly string[]
}

/** The value of an attribute; `''` and `0` stand for none, and the attribute is left out. */
type Value = string | number

/** Sums what only grows. */
export class Counter {
  readonly #definition: Definition
  readonly #series: SeriesSet<NumberPoint>

  constructor(definition: Definition) {
    this.#definition = definition
    this.#series = new SeriesSet(definition.attributes, (base) => ({ ...base, value: 0 }))
  }

  add(value: number, ...attributes: Value[]): void {
    this.#series.at(attributes).value += value
  }

  /** The series of some attributes, for whoever adds to it often. */
  series(...attributes: Value[]): { value: number } {
    return this.#series.at(attributes)
  }

  family(): Family {
    const { name, unit, description } = this.#definition
    const points = this.#series.all.map((series) => ({ ...series }))
    return { name, unit, description, kind: 'counter', points }
  }
}

/** Counts how large values are. */
export class Histogram {
  readonly #definition: Definition
  readonly #bounds: readonly number[]
  readonly #series: SeriesSet<Distribution>

  /** @param definition with `bounds`, see `Family` */
  constructor(definition: Definition & { bounds: readonly number[] }) {
    this.#definition = definition
    this.#bounds = definition.bounds
    this.#series = new SeriesSet(definition.attributes, (base) => ({
      ...base,
      counts: new Array<number>(definition.bounds.length + 1).fill(0),
      sum: 0,
      count: 0,
      exemplars: new Array<Exemplar | undefined>(definition.bounds.length + 1).fill(undefined),
    }))
  }

  /** @param traceId where a trace explains the value */
  record(value: number, traceId: string | undefined, ...attributes: Value[]): void {
    const series = this.#series.at(attributes)
    const bounds = this.#bounds
    let bucket = 0
    while (bucket < bounds.length && value > bounds[bucket]!) bucket++
    series.counts[bucket]!++
    series.sum += value
    series.count++
    if (traceId) series.exemplars[bucket] = { traceId, value, timeMs: Date.now() }
  }

  family(): Family {
    const { name, unit, description } = this.#definition
    const points = this.#series.all.map((series) => ({
      ...series,
      counts: [...series.counts],
      exemplars: [...series.exemplars],
    }))
    return { name, unit, description, kind: 'histogram', bounds: this.#bounds, points }
  }
}

/** Reads what goes up and down, whenever somebody asks. */
export class Gauge {
  readonly #definition: Definition
  #read: () => Record<string, number> | Promise<Record<string, number>> = () => ({})

  constructor(definition: Definition & { attributes: readonly [string] }) {
    this.#definition = definition
  }

  /** @param read gives the value for each value of the attribute; where it fails, the gauge has no points */
  watch(read: () => Record<string, number> | Promise<Record<string, number>>): void {
    this.#read = read
  }

  async family(): Promise<Family> {
    const { name, unit, description, attributes } = this.#definition
    const startMs = Date.now()
    const values = await this.#values()
    const points = Object.entries(values).map(([key, value]) => ({
      attributes: { [attributes[0]!]: key },
      startMs,
      value,
    }))
    return { name, unit, description, kind: 'gauge', points }
  }

  async #values(): Promise<Record<string, number>> {
    try {
      return await this.#read()
    } catch {
      return {}
    }
  }
}

/** Names that others choose, as attributes may have them: so many, so long and no more, and printable. */
export class Names {
  readonly #names = new Map<string, string>()
  readonly #others: string

  /**
   * @param others stands for every name that comes too late
   * @param known names that have their place already
   */
  constructor(others: string, known: readonly string[] = []) {
    this.#others = others
    for (const name of known) this.#names.set(name, name)
  }

  of(name: string): string {
    const short = name.length > NAME_LENGTH_MAX ? name.slice(0, NAME_LENGTH_MAX) : name
    const own = this.#names.get(short)
    if (own !== undefined || short === '') return own ?? ''
    if (this.#names.size >= NAMES_MAX) return this.#others
    const clean = printable(short)
    this.#names.set(short, clean)
    return clean
  }
}

const NAMES_MAX = 100
const NAME_LENGTH_MAX = 100

interface Distribution extends HistogramPoint {
  counts: number[]
  exemplars: (Exemplar | undefined)[]
}

interface Node<S> {
  series?: S
  readonly next: Map<Value, Node<S>>
}

/** The series of a metric: a tree with a level for each attribute, so that finding one makes nothing. */
class SeriesSet<S> {
  readonly all: S[] = []
  readonly #names: readonly string[]
  readonly #make: (base: Point) => S
  readonly #startMs = Date.now()
  readonly #root: Node<S> = { next: new Map() }
  #overflow: S | undefined

  constructor(names: readonly string[], make: (base: Point) => S) {
    this.#names = names
    this.#make = make
    if (names.length === 0) this.at([])
  }

  at(values: readonly Value[]): S {
    let node: Node<S> | undefined = this.#root
    for (const value of values) {
      node = node.next.get(value)
      if (node === undefined) return this.#add(values)
    }
    return node.series ?? this.#add(values)
  }

  #add(values: readonly Value[]): S {
    if (this.all.length >= SERIES_MAX) return (this.#overflow ??= this.#push(OVERFLOW))
    let node = this.#root
    for (const value of values) {
      let next = node.next.get(value)
      if (!next) node.next.set(value, (next = { next: new Map() }))
      node = next
    }
    const entries = this.#names.map((name, i) => [name, values[i]!] as const)
    return (node.series = this.#push(Object.fromEntries(entries.filter(([, value]) => value))))
  }

  #push(attributes: MetricAttributes): S {
    const series = this.#make({ attributes, startMs: this.#startMs })
    this.all.push(series)
    return series
  }
}

/** OpenTelemetry Metrics SDK, "Cardinality limits": how many series a metric has, and what the one for all others is called. */
const SERIES_MAX = 1999
const OVERFLOW = { 'otel.metric.overflow': true }
