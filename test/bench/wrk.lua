-- wrk -s wrk.lua URL -- [BYTES [PEER...]]: GET, or POST with a body of BYTES if that is more than 0, by each of the PEERs
-- in turn; the last line is the outcome as JSON.

-- First so many calls go to each PEER in a row: enough for its tunnels to be opened.
local ROW = 110

function init(args)
  local bytes = tonumber(args[1] or 0)
  if bytes > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", bytes)
  end
  if args[2] then
    local requests = {}
    for i = 2, #args do
      wrk.headers["x-mte-upstream"] = args[i]
      requests[#requests + 1] = wrk.format()
    end
    local calls = 0
    function request()
      calls = calls + 1
      return requests[math.ceil(calls / ROW)] or requests[calls % #requests + 1]
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"calls":%d,"bytes":%d,"seconds":%.6f,"p50Ms":%.3f,"p99Ms":%.3f,"refused":%d,"broken":%d}\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
