import type { Family, HistogramPoint } from '../telemetry/instruments.ts'

/** All processes see the same of it, as they share the store. */
const SHARED = new Set(['mte.pairs'])

/**
 * The families of several processes as those of one: counters, gauges and buckets are added up by their attributes,
 * and of the exemplars of a bucket the newest is kept.
 */
export function addFamilies(all: readonly Family[][]): Family[] {
  return [...Map.groupBy(all.flat(), ({ name }) => name).values()].map((same) => same.reduce(addFamily))
}

/** What several processes have counted of the same, by its name. */
export function addCounts(all: readonly ReadonlyMap<string, number>[]): Map<string, number> {
  const sums = new Map<string, number>()
  for (const counts of all) for (const [name, count] of counts) sums.set(name, (sums.get(name) ?? 0) + count)
  return sums
}

function addFamily(a: Family, b: Family): Family {
  if (SHARED.has(a.name)) return a.points.length > 0 ? a : b
  if (a.kind === 'histogram' && b.kind === 'histogram')
    return { ...a, points: addPoints(a.points, b.points, addHistograms) }
  if (a.kind !== 'histogram' && b.kind !== 'histogram')
    return { ...a, points: addPoints(a.points, b.points, addNumbers) }
  throw new Error(`the kind of ${a.name} is not the same in all processes`)
}

type Point = Pick<HistogramPoint, 'attributes' | 'startMs'>

function addPoints<P extends Point>(a: readonly P[], b: readonly P[], add: (one: P, other: P) => P): P[] {
  // The attributes of a metric are always told in the same order.
  const byAttributes = Map.groupBy([...a, ...b], ({ attributes }) => JSON.stringify(attributes))
  return [...byAttributes.values()].map((same) => same.reduce(add))
}

function addNumbers<P extends Point & { value: number }>(a: P, b: P): P {
  return { ...a, startMs: Math.min(a.startMs, b.startMs), value: a.value + b.value }
}

function addHistograms(a: HistogramPoint, b: HistogramPoint): HistogramPoint {
  return {
    attributes: a.attributes,
    startMs: Math.min(a.startMs, b.startMs),
    counts: a.counts.map((count, i) => count + b.counts[i]!),
    sum: a.sum + b.sum,
    count: a.count + b.count,
    exemplars: a.exemplars.map((one, i) => {
      const other = b.exemplars[i]
      return !one || (other && other.timeMs > one.timeMs) ? other : one
    }),
  }
}
