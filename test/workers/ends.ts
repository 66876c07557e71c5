import { EventEmitter } from 'node:events'
import v8 from 'node:v8'
import type { End } from '../../sidecar/workers/channel.ts'

/** Two ends of what is between processes: they copy as node:child_process does, and deliver in a later turn. */
export function ends(): { here: End; there: End; sent: unknown[] } {
  const sent: unknown[] = []
  const [here, there] = [new EventEmitter(), new EventEmitter()]
  const join = (from: EventEmitter, to: EventEmitter): End =>
    Object.assign(from, {
      send(message: unknown) {
        const copy = v8.deserialize(v8.serialize(message))
        sent.push(copy)
        setImmediate(() => to.emit('message', copy))
        return true
      },
    })
  return { here: join(here, there), there: join(there, here), sent }
}
