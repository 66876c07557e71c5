/** Scripts for the pairs that peers made with this relay: finding them, and claiming their messages. */
import { HELLO_REMEMBERED_MS } from '../pair/limits.ts'
import { INBOUND_PAIRS_MAX, UNCONFIRMED_TTL_MS } from '../pair/lives.ts'
import { CHUNK_LOG2_MAX, CHUNK_LOG2_MIN } from '../pair/plaintexts.ts'
import { BLOCKS_SKIP_MAX } from '../pair/ratchet.ts'
import { BLOCK_LIFE_MS, BLOCKS_SPAN_MAX } from '../pair/receiving.ts'
import { CLOCK, INDEX_TTL_MS, PRIMARY, type Script } from './script.ts'

/**
 * The set \`used\` holds each pair of which a message ran, with the time at which it ends, and when the store was born
 * on this primary. The latest of these times that has come is since when nothing has been forgotten.
 */
const LOSSLESS = `${PRIMARY}
local function ends_at(used, id, ends)
  redis.call('ZADD', used, ends, id)
  redis.call('PEXPIRE', used, ${INDEX_TTL_MS})
end

local function lossless_since(used)
  local birth = 'born:' .. primary
  local since = now
  if redis.call('ZSCORE', used, birth) then
    local past = redis.call('ZREVRANGEBYSCORE', used, now, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
    since = tonumber(past[2] or now)
    redis.call('ZREMRANGEBYSCORE', used, '-inf', now)
  else
    redis.call('DEL', used)
  end
  ends_at(used, birth, since)
  return since
end

local function forget(pair, used, fresh, id)
  redis.call('DEL', pair)
  if redis.call('ZREM', fresh, id) == 1 then return end
  local ends = redis.call('ZSCORE', used, id)
  if not ends or tonumber(ends) > now then ends_at(used, id, now) end
end

-- Whether something else than a record of ours is there; or else why the script cannot go on.
local function is_damaged(failure)
  local reason = type(failure) == 'table' and failure.err or tostring(failure)
  return string.sub(reason, 1, 9) == 'WRONGTYPE' or string.find(reason, 'attempt to', 1, true), reason
end`

/** KEYS: pair, used, fresh. ARGV: id, ttl ms, initiator's name, bytes of a chunk, chain key. Gives ids that are too many. */
export const ADD: Script = {
  name: 'mteAddInbound',
  lua: `${LOSSLESS}
local pair, used, fresh = KEYS[1], KEYS[2], KEYS[3]
local ttl = tonumber(ARGV[2])
local life = math.min(ttl, ${UNCONFIRMED_TTL_MS})
lossless_since(used)
redis.call('HSET', pair, 'primary', primary, 'made', now, 'ends', now + life, 'ttl', ttl, 'peer', ARGV[3],
  'chunk', ARGV[4], 'base', 0, 'key', ARGV[5], 'floor', 0, 'dies', 1e15, 'top', 0, 'messages', 0)
redis.call('PEXPIRE', pair, life)
redis.call('ZREMRANGEBYSCORE', fresh, '-inf', now)
redis.call('ZADD', fresh, now + life, ARGV[1])
redis.call('PEXPIRE', fresh, ${INDEX_TTL_MS})
local over = redis.call('ZCARD', fresh) + redis.call('ZCARD', used) - 1 - ${INBOUND_PAIRS_MAX}
if over <= 0 then return {} end
-- Those that nobody used, the oldest first; then those that end the soonest.
local ids = {}
for _, id in ipairs(redis.call('ZRANGE', fresh, 0, over - 1)) do
  if id ~= ARGV[1] then table.insert(ids, id) end
end
if #ids < over then
  for _, id in ipairs(redis.call('ZRANGE', used, 1, over - #ids)) do table.insert(ids, id) end
end
return ids`,
}

/** KEYS: used, fresh, pairs. ARGV: their ids. */
export const FORGET: Script = {
  name: 'mteForget',
  lua: `${LOSSLESS}
for i, id in ipairs(ARGV) do forget(KEYS[i + 2], KEYS[1], KEYS[2], id) end
return #ARGV`,
}

/** Raises the floor to what the blocks' deaths make it, and gives it with the time of the next death. */
const BURY = `
local function bury(pair, floor)
  local fields = redis.call('HGETALL', pair)
  local dies = 1e15
  for i = 1, #fields, 2 do
    local block = tonumber(string.match(fields[i], '^s(%d+)$'))
    if block and tonumber(fields[i + 1]) + ${BLOCK_LIFE_MS} <= now and block >= floor then floor = block + 1 end
  end
  for i = 1, #fields, 2 do
    local block = tonumber(string.match(fields[i], '^s(%d+)$'))
    if block and block < floor then
      redis.call('HDEL', pair, fields[i])
    elseif block then
      dies = math.min(dies, tonumber(fields[i + 1]) + ${BLOCK_LIFE_MS})
    end
  end
  redis.call('HSET', pair, 'floor', floor, 'dies', dies)
  return floor, dies
end`

/**
 * KEYS: pair, used, fresh. ARGV: id. Gives nothing when it is gone, one word when it held anything else; else: name,
 * bytes of a chunk, ms to its end, base, chain key, floor, and of each block that was seen: its number, how many ms ago.
 */
export const FIND: Script = {
  name: 'mteFind',
  lua: `${LOSSLESS}${BURY}
local pair, used, fresh = KEYS[1], KEYS[2], KEYS[3]
local ok, found = pcall(function()
  local record = redis.call('HMGET', pair, 'primary', 'ends', 'floor', 'dies', 'peer', 'chunk', 'base', 'key')
  if not record[1] then return {} end
  if record[1] ~= primary or tonumber(record[2]) <= now then
    forget(pair, used, fresh, ARGV[1])
    return {}
  end
  local floor, chunk, base = tonumber(record[3]), tonumber(record[6]), tonumber(record[7])
  if chunk < ${2 ** CHUNK_LOG2_MIN} or chunk > ${2 ** CHUNK_LOG2_MAX} or base < 0 or base > floor then
    error('attempt to read what is no record')
  end
  if tonumber(record[4]) <= now then floor = bury(pair, floor) end
  local found = {record[5], chunk, tonumber(record[2]) - now, base, record[8], floor}
  local fields = redis.call('HGETALL', pair)
  for i = 1, #fields, 2 do
    local block = string.match(fields[i], '^s(%d+)$')
    if block then
      table.insert(found, block)
      table.insert(found, now - tonumber(fields[i + 1]))
    end
  end
  return found
end)
if ok then return found end
local damaged, reason = is_damaged(found)
if not damaged then return redis.error_reply(reason) end
forget(pair, used, fresh, ARGV[1])
return {'damaged'}`,
}

/** What a claim's answer begins with. */
export const CLAIMED = { gone: 0, outOfReach: 1, replayed: 2, fresh: 3, damaged: 4 } as const

/**
 * KEYS: used, fresh, and of each message: pair, marks of its block. ARGV of each: id, block, index. Gives of each: one
 * of CLAIMED, how many ms ago the block was first seen, the lowest block that is not dead, ms to the pair's end.
 */
export const CLAIM: Script = {
  name: 'mteClaim',
  lua: `${LOSSLESS}${BURY}
local used, fresh = KEYS[1], KEYS[2]
local function claim(pair, marks, id, block, index)
  local record = redis.call('HMGET', pair, 'primary', 'ends', 'floor', 'dies', 'top', 's' .. block, 'ttl')
  if not record[1] then return ${CLAIMED.gone} end
  local ends = tonumber(record[2])
  if record[1] ~= primary or ends <= now then
    forget(pair, used, fresh, id)
    return ${CLAIMED.gone}
  end
  local floor, dies, top, seen = tonumber(record[3]), tonumber(record[4]), tonumber(record[5]), tonumber(record[6])
  if dies <= now then floor, dies = bury(pair, floor) end
  if block < floor or block > math.min(top + ${BLOCKS_SKIP_MAX}, floor + ${BLOCKS_SPAN_MAX}) then
    return ${CLAIMED.outOfReach}, 0, floor, ends - now
  end
  -- Marks that Redis has evicted are as good as all set.
  if seen and redis.call('EXISTS', marks) == 0 then return ${CLAIMED.outOfReach}, 0, floor, ends - now end
  if redis.call('SETBIT', marks, index, 1) == 1 then return ${CLAIMED.replayed}, 0, floor, ends - now end
  if not seen then
    seen = now
    redis.call('PEXPIRE', marks, ${BLOCK_LIFE_MS})
    redis.call('HSET', pair, 's' .. block, now, 'dies', math.min(dies, now + ${BLOCK_LIFE_MS}), 'top', math.max(top, block))
  end
  if redis.call('HINCRBY', pair, 'messages', 1) == 1 then
    ends = now + tonumber(record[7])
    redis.call('HSET', pair, 'ends', ends)
    redis.call('PEXPIRE', pair, record[7])
    redis.call('ZREM', fresh, id)
  end
  -- Each time, as the set may have been removed: the store must not vouch for a message that ran since.
  if redis.call('ZADD', used, 'NX', ends, id) == 1 then redis.call('PEXPIRE', used, ${INDEX_TTL_MS}) end
  return ${CLAIMED.fresh}, now - seen, floor, ends - now
end
local answers = {}
for i = 0, #ARGV / 3 - 1 do
  local pair, id = KEYS[3 + 2 * i], ARGV[1 + 3 * i]
  local answer = {pcall(claim, pair, KEYS[4 + 2 * i], id, tonumber(ARGV[2 + 3 * i]), tonumber(ARGV[3 + 3 * i]))}
  if not answer[1] then
    local damaged, reason = is_damaged(answer[2])
    if not damaged then return redis.error_reply(reason) end
    forget(pair, used, fresh, id)
    answer = {true, ${CLAIMED.damaged}}
  end
  for j = 2, 5 do answers[4 * i + j - 1] = answer[j] or 0 end
end
return answers`,
}

/** KEYS: pair. ARGV: block, its chain key. Keeps them, if all blocks below are dead, instead of what was kept. */
export const RAISE: Script = {
  name: 'mteRaiseInbound',
  lua: `${PRIMARY}${BURY}
local record = redis.call('HMGET', KEYS[1], 'primary', 'base', 'floor')
if record[1] ~= primary then return 0 end
local block = tonumber(ARGV[1])
if tonumber(record[2]) >= block or bury(KEYS[1], tonumber(record[3])) < block then return 0 end
redis.call('HSET', KEYS[1], 'base', block, 'key', ARGV[2])
return 1`,
}

/** KEYS: pair, used. ARGV: id. Gives how long ago something was last forgotten. */
export const AGE: Script = {
  name: 'mteAge',
  lua: `${LOSSLESS}
local ends = redis.call('ZSCORE', KEYS[2], ARGV[1])
-- It should be there, and is not: somebody else has removed it, or Redis has to make room.
if ends and tonumber(ends) > now and redis.call('EXISTS', KEYS[1]) == 0 then ends_at(KEYS[2], ARGV[1], now) end
return now - lossless_since(KEYS[2])`,
}

/** KEYS: the message's hash. Gives 1 when it is new. */
export const FIRST_SIGHT: Script = {
  name: 'mteFirstSight',
  lua: `${CLOCK}
local ends = redis.call('GET', KEYS[1])
if ends and tonumber(ends) > now then return 0 end
redis.call('SET', KEYS[1], now + ${HELLO_REMEMBERED_MS}, 'PX', ${HELLO_REMEMBERED_MS})
return 1`,
}

/** KEYS: used, fresh. Gives the ids of the pairs that have not ended. */
export const IDS: Script = {
  name: 'mteIds',
  lua: `${CLOCK}
local ids = {}
for _, key in ipairs(KEYS) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf')) do
    if string.sub(id, 1, 5) ~= 'born:' then table.insert(ids, id) end
  end
end
return ids`,
}

/** KEYS: pairs. Gives of each that is there: its place in KEYS, name, age in ms, top, messages. */
export const SUMMARIES: Script = {
  name: 'mteInboundSummaries',
  lua: `${PRIMARY}
local summaries = {}
for i, pair in ipairs(KEYS) do
  local ok, record = pcall(redis.call, 'HMGET', pair, 'primary', 'peer', 'made', 'top', 'messages')
  if ok and record[1] == primary then
    table.insert(summaries, {i, record[2], now - tonumber(record[3]), tonumber(record[4]), tonumber(record[5])})
  end
end
return summaries`,
}
