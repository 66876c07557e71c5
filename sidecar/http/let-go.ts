import type { EventEmitter } from 'node:events'

/**
 * Takes off all listeners of a stream that has closed.
 *
 * Node keeps the stream itself until the next full garbage collection; all that its listeners hold, a call with
 * everything of it, is free at once then.
 */
export function letGo(closed: EventEmitter): void {
  closed.removeAllListeners()
  closed.on('error', ignore)
}

function ignore(): void {}
