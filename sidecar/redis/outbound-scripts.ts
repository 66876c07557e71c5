/** Scripts for the pairs that this relay made with its peers: leasing their blocks. */
import { OUTBOUND_PAIRS_PER_PEER_MAX, OUTBOUND_PEERS_MAX, UNUSED_TTL_MS } from '../pair/lives.ts'
import { BLOCKS_PER_WINDOW, BLOCKS_WINDOW_MS, INDICES_PER_BLOCK, MESSAGES_PER_PAIR } from '../pair/ratchet.ts'
import { INDEX_TTL_MS, PRIMARY, type Script } from './script.ts'

/**
 * A peer's pairs are a hash of JSON by id. \`live\` gives those that can still give a lease, the newest first, and
 * drops the rest.
 */
const LIVE = `${PRIMARY}
local function ends(pair)
  return pair.made + (pair.block == 0 and math.min(pair.ttl, ${UNUSED_TTL_MS}) or pair.ttl)
end
local function is_whole(pair)
  for _, field in ipairs({'order', 'chunk', 'lease', 'ttl', 'made', 'block', 'base', 'messages', 'open'}) do
    if type(pair[field]) ~= 'number' then return false end
  end
  return type(pair.key) == 'string' and type(pair.leased) == 'table' and pair.base >= 0 and pair.base <= pair.block
end
local function live(peer)
  local entries = redis.call('HGETALL', peer)
  local alive = {}
  for i = 1, #entries, 2 do
    local ok, pair = pcall(cjson.decode, entries[i + 1])
    local lives
    if ok then
      ok, lives = pcall(function()
        return pair.primary == primary and is_whole(pair) and now < ends(pair)
          and pair.messages + ${INDICES_PER_BLOCK} <= ${MESSAGES_PER_PAIR}
      end)
    end
    if ok and lives then
      pair.id = entries[i]
      table.insert(alive, pair)
    else
      redis.call('HDEL', peer, entries[i])
    end
  end
  table.sort(alive, function(a, b) return a.order > b.order end)
  return alive
end
local function keep(peer, pair)
  local id = pair.id
  pair.id = nil
  redis.call('HSET', peer, id, cjson.encode(pair))
  pair.id = id
  local ttl = ends(pair) - now
  if redis.call('PTTL', peer) < ttl then redis.call('PEXPIRE', peer, ttl) end
end`

/**
 * KEYS: the peer's pairs, peers. ARGV: peer, id, name, bytes of a chunk, lease ms, ttl ms, chain key. Gives peers that
 * are too many.
 */
export const ADD: Script = {
  name: 'mteAddOutbound',
  lua: `${LIVE}
local alive = live(KEYS[1])
for i = ${OUTBOUND_PAIRS_PER_PEER_MAX}, #alive do redis.call('HDEL', KEYS[1], alive[i].id) end
local ttl = tonumber(ARGV[6])
keep(KEYS[1], {id = ARGV[2], primary = primary, order = #alive == 0 and 1 or alive[1].order + 1, name = ARGV[3],
  chunk = tonumber(ARGV[4]), lease = tonumber(ARGV[5]), ttl = ttl, made = now, block = 0, base = 0, key = ARGV[7],
  messages = 0, open = 0, leased = {}})
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ttl, ARGV[1])
redis.call('PEXPIRE', KEYS[2], ${INDEX_TTL_MS})
local over = redis.call('ZCARD', KEYS[2]) - ${OUTBOUND_PEERS_MAX}
return over > 0 and redis.call('ZRANGE', KEYS[2], 0, over - 1) or {}`,
}

/**
 * KEYS: the peer's pairs. ARGV: id of the pair of which messages were spent, how many. Gives nothing, or: id, block,
 * base, chain key, bytes of a chunk, age ms, ttl ms, lease ms, messages, open leases, name.
 */
export const LEASE: Script = {
  name: 'mteLease',
  lua: `${LIVE}
local alive = live(KEYS[1])
for _, pair in ipairs(alive) do
  if pair.id == ARGV[1] then
    pair.messages = pair.messages + tonumber(ARGV[2])
    pair.open = pair.open - 1
    keep(KEYS[1], pair)
  end
end
for _, pair in ipairs(live(KEYS[1])) do
  -- The time of the lease as many blocks ago as a window may have.
  local slot = tostring(pair.block % ${BLOCKS_PER_WINDOW})
  local before = pair.leased[slot]
  local room = pair.messages + (pair.open + 1) * ${INDICES_PER_BLOCK} <= ${MESSAGES_PER_PAIR}
  if room and (not before or before + ${BLOCKS_WINDOW_MS} <= now) then
    local block = pair.block
    pair.block = block + 1
    pair.open = pair.open + 1
    pair.leased[slot] = now
    keep(KEYS[1], pair)
    return {pair.id, block, pair.base, pair.key, pair.chunk, now - pair.made, pair.ttl, pair.lease, pair.messages, pair.open,
      pair.name}
  end
end
return {}`,
}

/** KEYS: the peer's pairs. ARGV: id, block, its chain key. Keeps them, if the blocks below are leased, instead of what was kept. */
export const RAISE: Script = {
  name: 'mteRaiseOutbound',
  lua: `${LIVE}
local block = tonumber(ARGV[2])
for _, pair in ipairs(live(KEYS[1])) do
  if pair.id == ARGV[1] and pair.base < block and block <= pair.block then
    pair.base, pair.key = block, ARGV[3]
    keep(KEYS[1], pair)
  end
end
return 1`,
}

/** KEYS: the peer's pairs. ARGV: id. */
export const DROP: Script = {
  name: 'mteDropOutbound',
  lua: `return redis.call('HDEL', KEYS[1], ARGV[1])`,
}

/** KEYS: the peer's pairs, peers. ARGV: peer. Gives how many pairs there were. */
export const DROP_PEER: Script = {
  name: 'mteDropPeer',
  lua: `${LIVE}
local count = #live(KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return count`,
}

/** KEYS: peers. */
export const PEERS: Script = { name: 'mtePeers', lua: `return redis.call('ZRANGE', KEYS[1], 0, -1)` }

/** KEYS: of some peers, the pairs. Gives of each pair: the peer's place in KEYS, age ms, the next block, messages. */
export const SUMMARIES: Script = {
  name: 'mteOutboundSummaries',
  lua: `${LIVE}
local summaries = {}
for i, peer in ipairs(KEYS) do
  for _, pair in ipairs(live(peer)) do table.insert(summaries, {i, now - pair.made, pair.block, pair.messages}) end
end
return summaries`,
}
