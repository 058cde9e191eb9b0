-- wrk's requests: `wrk … -s requests.lua URL -- KIND SEED [DEPTH [ACCOUNTS]]`
--
-- KIND: payments (each with an id of its own), even and odd (the home of the id: instance 1 and 2),
-- bookings (payments as a processor takes them), summary (everything), windows (a random minute of the
-- history that `history` makes), transactions (credits; owned and foreign: of accounts that instance 1
-- keeps, or does not), statements, ledger (the mix of the contest of 2024). SEED tells runs apart, in
-- hexadecimal. DEPTH is how many requests are sent at once on a connection. Prints a line of JSON.
--
-- Ids are cheap: of the 12 digits that change, nine are formatted once in 4,096 times and three come
-- from a table, so that wrk spends its time on the sockets.

local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local function post(path, body)
  return "POST " .. path .. " HTTP/1.1\r\nHost: perf\r\nContent-Type: application/json\r\n"
    .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

local function get(path)
  return "GET " .. path .. " HTTP/1.1\r\nHost: perf\r\n\r\n"
end

-- The last digit decides the home: `step` 2 and `first` 0 or 1 keep it even or odd.
local function payments(seed, step, first, more)
  local low = {}
  for last = 0, 4095 do low[last] = string.format("%03x", last) end
  local sample = post("/payments", string.format(
    '{"correlationId":"%s-%04x-4000-8000-%012x","amount":19.90%s}', seed, number, 0, more or ""))
  local at = sample:find("%x%x%x%x%x%x%x%x%x%x%x%x\"")
  local head, tail = sample:sub(1, at - 1), sample:sub(at + 12)
  local next, high = first, 0
  local prefix = head .. string.format("%09x", high)
  return function()
    if next >= 4096 then
      next, high = first, high + 1
      prefix = head .. string.format("%09x", high)
    end
    local request = prefix .. low[next] .. tail
    next = next + step
    return request
  end
end

local function windows()
  local last_ms, minute_ms = 1767225600000, 60000
  local function instant(ms)
    return os.date("!%Y-%m-%dT%H:%M:%S.000Z", math.floor(ms / 1000))
  end
  return function()
    local from = last_ms - math.random(1, 10000) * 1000
    return get("/payments-summary?from=" .. instant(from) .. "&to=" .. instant(from + minute_ms))
  end
end

-- A random account; `home` 1 or 2: one that this instance keeps (1 the even ids, 2 the odd ones).
local function account(accounts, home)
  if not home then return math.random(1, accounts) end
  if home == 1 then return 2 * math.random(1, math.floor(accounts / 2)) end
  return 2 * math.random(1, math.ceil(accounts / 2)) - 1
end

local function statements(accounts)
  return function() return get("/clientes/" .. account(accounts) .. "/extrato") end
end

-- `kind` is c, or d, or nil for the contest's two debits a credit.
local function transactions(accounts, kind, home)
  local turn = 0
  return function()
    turn = turn + 1
    local which = kind or (turn % 3 == 0 and "c" or "d")
    local body = string.format('{"valor":%d,"tipo":"%s","descricao":"0123456789"}',
      math.random(1, 10000), which)
    return post("/clientes/" .. account(accounts, home) .. "/transacoes", body)
  end
end

local function ledger(accounts)
  local transaction, statement, turn = transactions(accounts), statements(accounts), 0
  return function()
    turn = turn + 1
    return turn % 34 == 0 and statement() or transaction()
  end
end

function init(arguments)
  local kind, seed = arguments[1], arguments[2]
  local depth, accounts = tonumber(arguments[3] or 1), tonumber(arguments[4] or 5)
  math.randomseed(tonumber(seed, 16) % 65536 + number)
  local kinds = {
    payments = function() return payments(seed, 1, 0) end,
    even = function() return payments(seed, 2, 0) end,
    odd = function() return payments(seed, 2, 1) end,
    bookings = function()
      return payments(seed, 1, 0, ',"requestedAt":"2026-01-01T00:00:00.000Z"')
    end,
    summary = function() local all = get("/payments-summary"); return function() return all end end,
    windows = windows,
    transactions = function() return transactions(accounts, "c") end,
    owned = function() return transactions(accounts, "c", 1) end,
    foreign = function() return transactions(accounts, "c", 2) end,
    statements = function() return statements(accounts) end,
    ledger = function() return ledger(accounts) end,
  }
  local one = kinds[kind]()
  if depth == 1 then
    request = one
  else
    local several = {}
    request = function()
      for place = 1, depth do several[place] = one() end
      return table.concat(several)
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50":%.1f,"p99":%.1f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
