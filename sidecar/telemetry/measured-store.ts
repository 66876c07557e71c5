import type { PairStore } from '../pair/store.ts'
import type { Metrics } from './metrics.ts'

const MEASURED = [
  'addOutbound',
  'lease',
  'dropOutbound',
  'retire',
  'addInbound',
  'findInbound',
  'claim',
  'firstSight',
  'ageMs',
  'list',
  'dropPeer',
] as const satisfies (keyof PairStore)[]

/** The store, with how long it takes to answer told to the metrics, and how often it fails. */
export function measuredStore(store: PairStore, metrics: Pick<Metrics, 'stored'>): PairStore {
  const measured = MEASURED.map((verb) => {
    const call = store[verb].bind(store) as (...args: unknown[]) => Promise<unknown>
    return [verb, (...args: unknown[]) => timed(verb, () => call(...args), metrics)]
  })
  return {
    ...(Object.fromEntries(measured) as Pick<PairStore, (typeof MEASURED)[number]>),
    setSecrets: (secrets) => store.setSecrets(secrets),
    trouble: () => store.trouble(),
    sweep: () => store.sweep(),
    close: () => store.close(),
  }
}

async function timed<T>(verb: string, work: () => Promise<T>, metrics: Pick<Metrics, 'stored'>): Promise<T> {
  const beganMs = performance.now()
  let failed = true
  try {
    const answer = await work()
    failed = false
    return answer
  } finally {
    metrics.stored(verb, (performance.now() - beganMs) / 1000, failed)
  }
}
