/** Gives memory back to the system while nobody calls: V8 collects garbage only when it needs room, never at rest. */
import v8 from 'node:v8'
import vm from 'node:vm'

const LOOK_MS = 10_000
/** With less than this in V8's heap there is little to give back, in bytes. */
const HEAP_BYTES_MIN = 32 * 2 ** 20
/** The second one, a while after the first, is what gives the memory back. */
const COLLECTIONS = 2

/**
 * Collects garbage once no call has been open for some seconds, at a few 10 ms each time, until calls come again.
 * @param quietMs for how long no call has been open, in ms
 */
export function collectAtRest(quietMs: () => number): void {
  let left = COLLECTIONS
  const look = () => {
    if (quietMs() < LOOK_MS) left = COLLECTIONS
    else if (left > 0 && process.memoryUsage().heapTotal >= HEAP_BYTES_MIN) {
      left--
      collectGarbage()
    }
  }
  setInterval(look, LOOK_MS).unref()
}

/** `gc` is there only for what is compiled in a context that is made after the flag is set. */
function collectGarbage(): void {
  v8.setFlagsFromString('--expose-gc')
  vm.runInNewContext('gc()')
}
