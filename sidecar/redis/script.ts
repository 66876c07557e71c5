/**
 * What runs inside Redis, atomically: everything that decides which process may use a block or run a message.
 *
 * All keys of one NAME and secret are in one slot, so that a script sees all that it decides by, on one primary. A
 * record counts only on the primary on which it was made: a replica that is promoted may lack the last writes, and
 * would lease a block twice and forget marks (relay1 section 4). Times are the server's, in ms since 1970, and what has
 * ended is over whether or not Redis has removed it.
 */
export interface Script {
  /** of the command that the client makes of it */
  name: string
  lua: string
}

/** Lifetime of a key that speaks of many pairs: longer than any of them lives, in ms. */
export const INDEX_TTL_MS = 86_400_000

/** Gives scripts `now`. */
export const CLOCK = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`

/** Gives scripts `now`, and `primary`: what replication calls this primary. */
export const PRIMARY = `${CLOCK}
local primary = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if not primary then return redis.error_reply('ERR unknown command: INFO names no master_replid') end`

/** Whether scripts do here what ours need. Gives what replication calls this primary. */
export const PROBE: Script = {
  name: 'mteProbe',
  lua: `${PRIMARY}
return primary`,
}
