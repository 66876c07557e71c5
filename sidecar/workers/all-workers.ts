import type { Administered, Draining } from '../admin.ts'
import { type PairSummary, StoreUnavailableError } from '../pair/store.ts'
import type { Standing } from '../status.ts'
import { metricsOfProcess, metricsOfProcesses, prometheusText } from '../telemetry/prometheus.ts'
import type { Member } from './member.ts'
import { addCounts, addFamilies } from './sums.ts'
import type { Counted } from './worker.ts'

const NOTHING_COUNTED: Counted = { families: [], ofProcess: [] }

/** What the admin port tells of all workers together, and has all of them do. */
export class AllWorkers implements Administered {
  readonly #wanted: number
  readonly #members = new Set<Member>()
  /** Has any been asked to drain? Then those that are started later are. */
  #drains = false
  /** what those had counted that have ended: a counter that went back would be taken for one that began anew */
  #past = Promise.resolve(NOTHING_COUNTED)

  /** @param wanted how many there should be */
  constructor(wanted: number) {
    this.#wanted = wanted
  }

  /** One more that listens. */
  add(member: Member): void {
    this.#members.add(member)
    if (this.#drains) void member.ask('drain')
    void member.ended.then(() => {
      this.#members.delete(member)
      const { counted } = member
      if (counted) this.#past = this.#past.then((past) => lasting(past, counted))
    })
  }

  async standing(): Promise<Standing> {
    const all = await this.#each((member) => member.ask('standing'))
    const runs = this.#members.size
    const fewer = `${runs} of ${this.#wanted} workers run: what ended is started again, and the log says why it did`
    return {
      // One is enough: it answers at all ports.
      notReady: runs === 0 ? ['no worker runs'] : unique(all.flatMap(({ notReady }) => notReady)),
      degraded: [...(runs < this.#wanted ? [fewer] : []), ...unique(all.flatMap(({ degraded }) => degraded))],
      storeTrouble: all.find(({ storeTrouble }) => storeTrouble !== undefined)?.storeTrouble,
      collector: {
        host: all[0]?.collector.host,
        trouble: all.find(({ collector }) => collector.trouble !== undefined)?.collector.trouble,
      },
      recent: all.flatMap(({ recent }) => recent),
      names: new Map(all.flatMap(({ names }) => [...names])),
      tunnels: {
        initiator: addCounts(all.map(({ tunnels }) => tunnels.initiator)),
        responder: addCounts(all.map(({ tunnels }) => tunnels.responder)),
      },
    }
  }

  /** They all have the same. */
  async pairs(): Promise<PairSummary[]> {
    for (const member of this.#members) {
      const pairs = await member.ask('pairs')
      if (pairs) return pairs
    }
    throw new StoreUnavailableError('no worker runs')
  }

  /** One after the other: each has leases of its own to end, and the first finds the pairs. */
  async dropPairs(peer: string): Promise<number> {
    let dropped = 0
    for (const member of this.#members) dropped += (await member.ask('dropPairs', peer)) ?? 0
    return dropped
  }

  async drain(): Promise<Draining> {
    this.#drains = true
    const all = await this.#each((member) => member.ask('drain'))
    return {
      openCalls: all.reduce((sum, { openCalls }) => sum + openCalls, 0),
      emptyMs: Math.min(...all.map(({ emptyMs }) => emptyMs)),
      leftMs: Math.min(...all.map(({ leftMs }) => leftMs)),
    }
  }

  async metricsText(accept: string): Promise<{ contentType: string; body: string }> {
    await this.#each(async (member) => {
      member.counted = (await member.ask('metrics')) ?? member.counted
    })
    const live = [...this.#members].flatMap(({ counted }) => counted ?? [])
    const all = [...live, await this.#past]
    const own = (await metricsOfProcess()).filter(({ name }) => name.startsWith('process_'))
    const ofProcess = [
      // Of several, there is no one start.
      ...own.filter(({ name }) => name === 'process_start_time_seconds'),
      ...(await metricsOfProcesses([...all.map((counted) => counted.ofProcess), own])),
    ]
    const families = addFamilies(all.map((counted) => counted.families))
    return prometheusText(families, accept, ofProcess)
  }

  async #each<T>(ask: (member: Member) => Promise<T | undefined>): Promise<T[]> {
    const answers = await Promise.all([...this.#members].map(ask))
    return answers.filter((answer) => answer !== undefined)
  }
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)]
}

/** What goes on counting when a process has ended: not what goes up and down. */
async function lasting(past: Counted, counted: Counted): Promise<Counted> {
  const families = addFamilies([past.families, counted.families])
  const ofProcess = await metricsOfProcesses([past.ofProcess, counted.ofProcess])
  return {
    families: families.filter(({ kind }) => kind !== 'gauge'),
    ofProcess: ofProcess.filter(({ type }) => type !== 'gauge'),
  }
}
